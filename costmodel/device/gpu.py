"""GPUs: the work of a launch there, and profiles of GPUs that nobody timed kernels on.

The seconds of a launch are those of a call, of the multiply-adds that it executes, and of the bytes that it reads and
writes, each array once, added up: `call`, `mac` and `far` of the terms of `device.kernels`. They are rates of every
kernel alike, until `gradledger calibrate --backend cuda` has timed each on the GPU itself.

A GPU from a data sheet gets its peak arithmetic and bandwidth times the shares that kernels like ours reach. Those
are our assumptions, as is what a launch costs where sections are replayed as CUDA graphs.
"""

from collections.abc import Iterable

from refimpl.compiler.executed import Ops
from refimpl.compiler.program import Program

from .kernels import HOST
from .rates import ANY, Rates

BACKEND = "cuda"
THERE = "this-gpu"  # the one that the process finds
ARITHMETIC, MEMORY = 0.25, 0.6  # our assumption: the share of a GPU's peak that kernels reach
LAUNCH = 5e-6  # our assumption: seconds of a launch, replayed
STEP = 1e-4  # our assumption: seconds of Python, copies and waiting around a step
UNMEASURED = 3.0  # our assumption: the factor within which a step lies


def work(program: Program, done: Iterable[Ops]) -> list[dict[str, float]]:
    """The terms of every launch of a step, in order. done: what each executes on a full batch."""
    return [
        {"call": 1.0, "mac": max(ops.mul + ops.imul, ops.add + ops.iadd), "far": float(launch.moved_bytes)}
        for launch, ops in zip(program.order, done, strict=True)
    ]


def rates(flops: float, bandwidth: float, launch: float = LAUNCH) -> Rates:
    """Those of a GPU of so many operations and bytes a second at its peak, and seconds of a launch."""
    every = {"call": launch, "mac": 2 / (ARITHMETIC * flops), "far": 1 / (MEMORY * bandwidth)}
    return Rates({ANY: every, HOST: {"call": STEP}}, UNMEASURED)
