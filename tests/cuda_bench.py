"""Run by test_cuda in a process of its own, without a GPU: what `bench --backend cuda` and `calibrate` time on one.

`benched emulated`: on a stand-in for the driver. Prints one line for each part; the last line is `done`.
"""

import numpy as np
from cuda_steps import run_mode

from costmodel.device import gpu_calibration
from gradledger import show_bench
from validation.bench import queued
from validation.bench.gpu import FACTORS, GpuProduct, GpuStep
from validation.bench.queued import CALLS

STEP = GpuStep("watch", (1, 8), 2)


def waits_of(trainer):
    """The waits of a trainer's backend from now on, in a list that grows."""
    waits, wait = [], trainer.backend.synchronise
    trainer.backend.synchronise = lambda: (waits.append(1), wait())
    return waits


def steps():
    """Steps that are timed wait for nothing between two events, and train as `train_step` does, to the bit."""
    trainer, x, y = STEP.on("cuda")
    work, waits = queued.steps_of(trainer, x, y), waits_of(trainer)
    within, timed = [], queued.cuda.timed

    def between(stream, queue):
        before = len(waits)
        found = timed(stream, queue)
        within.append(len(waits) - before)
        return found

    queued.cuda.timed = between
    np.testing.assert_allclose(work.milliseconds(1), [1 / CALLS])  # events of the stand-in lie a millisecond apart
    queued.cuda.timed = timed
    del trainer.backend.synchronise
    assert len(within) == 3 and within[-1] == 0 and within[1] <= 1 and trainer.under_way == 0, within
    other, *_ = STEP.on("cuda")
    losses = [other.train_step(x, y, 1) for _ in range(3 * CALLS)]
    assert trainer.losses == losses and trainer.step == 3 * CALLS
    kept = other.resume_arrays()
    assert all(np.array_equal(a, kept[name]) for name, a in trainer.resume_arrays().items() if name in other.parameters)
    print("steps", flush=True)


def around():
    """What a calibration takes for a step beside its sections is that of a run, which waits once in several steps."""
    gpu_calibration.QUEUED = gpu_calibration.ROUNDS = 1
    trainer, *_ = STEP.on("cuda")
    timed = gpu_calibration.TimedProgram(trainer.program)
    timed.of_a_step()
    waits, made = waits_of(timed.trainer), timed.trainer.step
    assert timed.of_a_step() > 0
    assert len(waits) == 1 and timed.trainer.step - made == timed.backend.ahead, waits
    del timed.backend.synchronise
    (found,) = timed.around(3)
    assert found.seconds > 0 and found.case == 3 and found.terms == {"call": 1.0}
    print("around", flush=True)


def told():
    """Each kernel's share of the roofline, who waits for whom, and whether sections are replayed."""
    found = STEP.predicted()
    assert found["launch_share"] > 0 and sum(k["launches"] for k in found["kernels"]) == found["launches"]
    assert all(k["ms"] == k["launches"] and 0 < k["share"] < 1 for k in found["kernels"])
    assert found["captured"] and found["why_not"] is None
    show_bench.on_gpu({"name": "gpu-step", "ours_ms": 1.0, "peer_eager_ms": 2.0, "peer_ms": 2.0} | found)
    trainer, x, y = STEP.on("cuda")
    queued.cuda.captured, captured = refused, queued.cuda.captured
    for _ in range(2):
        trainer.train_step(x, y, 1)
    queued.cuda.captured = captured
    found |= queued.replayed(trainer)
    assert (found["captured"], found["why_not"]) == (False, "ValueError: no graphs here")
    show_bench.on_gpu({"name": "gpu-step"} | found)
    assert STEP.error() < STEP.tolerance


def refused(*_):
    raise ValueError("no graphs here")


def products():
    """All three products of a linear layer."""
    for made in FACTORS:
        product = GpuProduct(70, 9, 20, made)
        work = product.ours()
        assert [call.passed.writes for call in work.calls] == [[made]] and len(work.milliseconds(2)) == 2
        assert product.error() < 1e-6
        print(f"product {made}", flush=True)


def benched():
    """All of it."""
    steps()
    around()
    told()
    products()


if __name__ == "__main__":
    run_mode({"benched": benched})
