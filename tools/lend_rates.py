"""Give the reference profile rates of kernels that it lacks, measured on another machine and scaled to it.

    python tools/lend_rates.py            some two minutes, on one thread
    python tools/lend_rates.py check      what the rates predict of whole nets on that machine, beside what they took

Times, in turns, the layers in whole numbers of `calibration.LAYERS`, steps that use such kernels, and layers that the
profile has rates for (`PROBED`). The latter tell how many times the profile's seconds this machine takes, group by
group of `kernels.GROUPS`; the rates that are new are divided by it. More threads share them as `Device.at` assumes it.
What the profile was measured to have is left alone: the kernels that came so, the machine and the factors are written
into its `lent`.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

import refimpl as ri
from costmodel.device import calibration, rates
from costmodel.device import device as devices
from costmodel.device.kernels import GROUP
from gradledger.calibrate import rounded
from refimpl.formats.int8_nets import from_int8
from refimpl.formats.int8_whole import whole_from_int8
from refimpl.kernels.running import threads as running
from refimpl.surgery.for_step import made_for
from validation.instruments import int8_files
from validation.instruments.provenance import provenance

FILE = Path(devices.__file__).parent / "devices" / "reference.json"
ROUNDS = 6


def lent(seconds: float = 120.0) -> tuple[dict, dict]:
    """(rates of the kernels that the profile lacks, what they were divided by and how steady the machine was)."""
    known = devices.find(devices.REFERENCE).rates[1]
    steps = [(layer, plans) for layer, plans in calibration.LAYERS if plans is calibration.STEPS]
    layers = [(layer, plans) for layer, plans in calibration.LAYERS if layer.bits] + steps + calibration.PROBED
    with running(1):
        timer = calibration.LayerTimer(1, devices.caches_of(1), lambda *_: None, layers)
        began = time.perf_counter()
        while timer.rounds < ROUNDS or time.perf_counter() - began < seconds:
            timer.turn(timer.rounds + 1, lambda *_: None)
    samples, steadiness = timer.timed_launches()
    factors = rates.scales([s for s in samples if s.kernel in known.by_kernel], known)
    found = rates.fit([s for s in samples if s.kernel not in known.by_kernel])
    found.pop(rates.ANY)
    own = rates.Rates(found, 1.0).scaled({group: 1 / factor for group, factor in factors.items()}, 1.0)
    return dict(own.by_kernel), {"factors": {g: rounded(f) for g, f in factors.items()}, "steadiness": steadiness}


def main() -> None:
    """Add them to the file."""
    profile, (new, told) = json.loads(FILE.read_text(encoding="utf-8")), lent()
    for count, own in profile["threads"].items():
        share = {"compute": 1 / int(count), "cache": 1 / int(count), "memory": 1.0, "call": 1.0}
        shared = {k: {t: rounded(s * share[GROUP[t]]) for t, s in of.items() if s} for k, of in new.items()}
        own["rates"] = dict(sorted((own["rates"] | shared).items()))
    profile["lent"] = {"kernels": sorted(new), **told, **provenance(), "command": "python tools/lend_rates.py"}
    FILE.write_text(json.dumps(profile, indent=1) + "\n", encoding="utf-8")


def check() -> None:
    """Print predicted and measured milliseconds of nets of `int8_files` that no rate was fitted to.

    Measured is the processor's time of the thread, the median of 20 runs: what others do on the machine counts little.
    """
    lent = json.loads(FILE.read_text(encoding="utf-8"))["lent"]
    known = devices.find(devices.REFERENCE).rates[1].scaled(lent["factors"], 1.0)
    rng, caches = np.random.default_rng(0), devices.caches_of(1)
    step = ri.ForwardGradient(m=3, bits="16w8a", optimizer=ri.SGD(lr=0.01))
    for net in int8_files.BLOCKS:
        arrays = int8_files.whole_size(net)
        whole, floats = (read(arrays, 10, (128, 128)) for read in (whole_from_int8, from_int8))
        x = rng.standard_normal((8, 128, 128, 3)).astype(np.float32)
        cases = [("inference", whole, None, n) for n in (1, 8)]
        cases.append((step.method, made_for(step, floats, x), ri.Plan(3, step=step), 8))
        for name, graph, plan, n in cases:
            program = ri.compile(graph, plan, n, threads=1)
            launches = rates.steps(program, known, caches)
            sections = [section for section in program.sections for _ in program.launches[section]]
            times = Counter()
            for turn in program.schedule(n):
                times[turn.section] += turn.times
            predicted = sum(s * times[section] for s, section in zip(launches, sections, strict=True))
            trainer = ri.Trainer(program)
            measured = np.median([seconds(trainer, x[:n]) for _ in range(20)])
            print(f"{net} {name} batch {n}: predicted {predicted * 1e3:.2f} ms, measured {measured * 1e3:.2f} ms")


def seconds(trainer: ri.Trainer, x: np.ndarray) -> float:
    """Processor time of the second step, or of the second inference."""
    with running(1):
        for _ in range(2):
            began = time.thread_time()
            if trainer.program.training:
                trainer.train_step(x, np.arange(len(x)), 100)
            else:
                trainer.runner.run("forward", len(x))
            found = time.thread_time() - began
    return found


if __name__ == "__main__":
    check() if sys.argv[1:] == ["check"] else main()
