"""What a device can do: a compute rate, a memory bandwidth and a launch overhead, and the roofline they give."""

import time
from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Device:
    """Rates of a device. flops: multiplications and additions a second; bandwidth: bytes a second; launch: seconds."""

    name: str
    flops: float
    bandwidth: float
    launch: float = 5e-6


def nominal() -> Device:
    """A two-core machine of no particular make: 50 GFLOP/s, 10 GB/s."""
    return Device("nominal", 50e9, 10e9)


@cache
def this_machine() -> Device:
    """Rates of this machine, measured in about a tenth of a second: a matrix product and a copy."""
    a = np.ones((512, 512), np.float32)
    product = _best(lambda: a @ a)
    source = np.ones(1 << 23, np.uint8)
    target = np.empty_like(source)
    copy = _best(lambda: np.copyto(target, source))
    return Device("this-machine", 2 * 512**3 / product, 2 * source.nbytes / copy)


DEVICES = {"this-machine": this_machine, "nominal": nominal}


def find(name: str) -> Device:
    """The device called `name`; KeyError with the known names where there is none."""
    if name not in DEVICES:
        raise KeyError(f"there is no device {name!r}; known: {', '.join(DEVICES)}")
    return DEVICES[name]()


def _best(work, times: int = 7) -> float:
    work()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


# Share of the matrix-product rate that a training step reaches: small nets and element-wise work stay far below it.
EFFICIENCY = {"low": 1.0, "mid": 0.4, "high": 0.1}


def roofline(estimate) -> dict[str, float]:
    """Seconds of one step: for each launch the longer of computing and moving its arrays once, plus the launch."""
    from .predict import arithmetic

    d = estimate.device
    share = estimate.n / estimate.program.batch
    seconds = dict.fromkeys(EFFICIENCY, 0.0)
    occurs = 1.0  # probability of a launch, where chance decides
    for launch in estimate.program.order:
        if launch.covers:  # one that covers no call follows another one that does
            occurs = max(estimate.occurs.get(c, 1.0) for c in launch.covers)
        flops = sum(arithmetic(estimate.calls[c]) for c in launch.covers if c in estimate.calls)
        moved = sum(b.nbytes * (share if b.batched else 1) for b in launch.buffers) * occurs
        for kind, efficiency in EFFICIENCY.items():
            seconds[kind] += max(flops / (d.flops * efficiency), moved / (d.bandwidth * efficiency)) + d.launch * occurs
    return seconds
