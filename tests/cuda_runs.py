"""Run by test_cuda in a process of its own, without a GPU: what a person runs on one, and what goes wrong there.

`commands FOLDER`: on the simulated GPU; with `emulated` behind it on a stand-in for the driver. `faults FOLDER` and
`too_old FOLDER`: on the stand-in. Prints one line for each part; the last line is `done`.
"""

import errno
import gc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cuda_steps import CLASSES, DRIVERS, run_mode

import refimpl as ri
from costmodel import predict
from costmodel.device import calibration, gpu_calibration
from gradledger import adapt, finish
from gradledger.errors import Malformed
from gradledger.settings import AdaptSettings
from refimpl.compiler.lower import BACKENDS
from refimpl.graph import INPUT, Graph
from refimpl.kernels import cuda
from validation.bench.gpu import GpuFiltered


def commands(folder):
    """`calibrate`, `cost` and `adapt` on the simulated GPU: as predicted to the byte and the operation, as on the CPU.

    And the filtered convolution of the bench is the method's.
    """
    folder = Path(folder)
    gpu_calibration.QUEUED, gpu_calibration.ROUNDS = 2, 1
    layers = [
        (calibration.LayerCase("pool", 1, 4, 2, 0, 2, 2), (None,)),
        (calibration.LayerCase("linear", 1, 1, 2, 3), (None,)),
    ]
    measured, steadiness = gpu_calibration.measure(predict.call_counts, lambda *_: None, 100, layers, 1)
    assert steadiness["cases"] == 2 and measured.by_kernel["any"]["call"] > 0
    print("calibrated", flush=True)
    tiny(folder)
    found = {}
    for backend in ("cuda", "fast"):
        found[backend] = adapt.run(of_tiny(folder, backend), folder / backend, False, lambda event: None)
    ours, theirs = found["cuda"], found["fast"]
    assert ours["accuracy_after"] == theirs["accuracy_after"] and ours["recall"] == theirs["recall"]
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-4)
    assert ours["measured"]["macs"] == ours["predicted"]["macs"]
    assert ours["measured"]["executed_macs"] == ours["predicted"]["executed_macs"]
    assert ours["measured"]["peak_bytes"] == ours["predicted"]["peak_bytes"]
    print("adapted", flush=True)
    assert GpuFiltered(8, 5, 4, 2, batch=2).error() < 1e-6
    print("filtered", flush=True)


def too_old(folder):
    """A driver of an older CUDA than the package compiles for: one sentence, before anything is done."""
    tiny(Path(folder))
    with pytest.raises(Malformed, match="the driver is of CUDA 11.4, and the package compiles for CUDA 12: install a"):
        adapt.run(of_tiny(Path(folder), "cuda"), Path(folder) / "cuda", False, lambda event: None)
    assert not (Path(folder) / "cuda").exists() and cuda.problem().startswith("the driver is of CUDA 11.4")


def captured_beside_garbage():
    """A graph of all that is queued, while Python collects arrays of the GPU: a driver gives no memory back then."""
    backend = BACKENDS["cuda"]
    made, add = cuda.to_device(np.zeros(3, np.float32)), cuda.jit(add_one)

    def queue():
        for _ in range(3):
            add[1, 1, backend.stream](made)
        [[] for _ in range(2000)]  # so many that garbage is collected

    queue()
    gc.collect()
    for _ in range(40):  # more than the package leaves to be given back later
        cycle = [cuda.empty((5,), np.float32)]
        cycle.append(cycle)
    del cycle
    graph = cuda.captured(backend.stream, queue)
    for _ in range(2):
        graph.launch(backend.stream)
    np.testing.assert_array_equal(backend.read(made), 3 * 3)


def add_one(y):
    for t in range(y.shape[0]):
        y[t] += 1


def tiny(folder):
    """A small net and data for it."""
    g = Graph("tiny", (4, 4), 2)
    x = g.relu("relu", g.batch_norm("bn", g.conv2d("conv", INPUT, 3, 3, pad=1)))
    g.linear("fc", g.global_avg_pool("mean", x), CLASSES)
    ri.Trainer(ri.compile(g, ri.Plan(), 4, threads=1), seed=1).save(folder / "tiny.safetensors")
    rng, y = np.random.default_rng(0), np.arange(24) % CLASSES
    x = rng.normal(size=(24, 4, 4, 2)).astype(np.float32) + np.array([1, -0.5], np.float32) * y[:, None, None, None]
    np.savez(folder / "data.npz", x=x, y=y)


def of_tiny(folder, backend, epochs=1):
    return AdaptSettings(
        model=str(folder / "tiny.safetensors"), data=str(folder / "data.npz"), epochs=epochs, batch=8, recipe="plain",
        lr=0.1, backend=backend, threads=1, train_last="all",
    )  # fmt: skip


def faults(folder):
    """A GPU that vanishes, one without memory left: one sentence, nothing lost. And sections are captured as graphs."""
    folder = Path(folder)
    tiny(folder)
    settings, driver = of_tiny(folder, "cuda", 4), DRIVERS[0]

    def made(name, resume=False):
        adapt.run(settings, folder / name, resume, lambda event: None)
        return (folder / name / "adapted.safetensors").read_bytes()

    held = cuda.zeros(cuda.free_bytes() - 4096)
    with pytest.raises(Malformed, match="the GPU has [0-9,]+ of its 67,108,864 bytes free, and [0-9,]+ are needed"):
        made("without memory")
    print("without memory", flush=True)
    del held
    undisturbed = made("undisturbed")
    assert driver.graphs and all(driver.graphs.values())
    launches = len(driver.launched)
    for part in (0.3, 0.6):
        name = f"vanishes after {part}"
        driver.left = len(driver.launched) + int(part * launches)
        with pytest.raises(Malformed, match="the GPU stopped working .*go on with: gradledger adapt --resume"):
            made(name)
        driver.left = None
        driver.library.stand_in_fails(0)
        assert made(name, resume=True) == undisturbed
        print(name, flush=True)
    captured_beside_garbage()


def no_process(*args, **more):
    raise OSError(errno.ENOMEM, "no process is started")


if __name__ == "__main__":
    finish.subprocess = SimpleNamespace(run=no_process)  # another process would find no stand-in
    run_mode({"commands": commands, "faults": faults, "too_old": too_old})
