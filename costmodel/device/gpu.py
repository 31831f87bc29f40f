"""GPUs: the work of a launch there, and profiles of GPUs that nobody timed kernels on.

The seconds of a launch are those of a call, of the multiply-adds that it executes, and of the bytes that it reads and
writes, each array once, added up: `call`, `mac` and `far` of the terms of `device.kernels`. They are rates of every
kernel alike, until `gradledger calibrate --backend cuda` has timed each on the GPU itself.

A GPU from a data sheet gets its peak arithmetic and bandwidth times the shares that kernels like ours reach. Those
are our assumptions, as is what a launch costs where sections are replayed as CUDA graphs.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from refimpl.compiler.executed import Ops
from refimpl.compiler.program import Program

from .kernels import HOST, Caches
from .rates import ANY, Rates

if TYPE_CHECKING:
    from .device import Device

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


def from_data_sheet(profile: Mapping[str, Any]) -> "Device":
    """The device of a profile with a section `gpu`, each figure with its source."""
    from .device import Device

    def figure(section: str, name: str) -> Any:
        found = profile[section].get(name)
        return found and found["value"]

    own = rates(figure("gpu", "peak_flops"), figure("gpu", "memory_bytes_per_second"))
    idle, load = figure("power", "idle_watts"), figure("power", "load_watts")
    node = profile["process_nanometres"]
    return Device(
        profile["name"], profile["title"], {1: own}, {1: Caches(0, 0)}, 1, False, figure("memory", "ram_bytes"),
        watts=(idle, load) if idle and load else None, nanometres=node and node["value"],
        names=tuple(profile["names"]), backend=BACKEND,
    )  # fmt: skip


def found_here() -> "Device":
    """The GPU of this process by what its driver tells of clocks, cores and bus; CudaError where there is none."""
    from refimpl.kernels import cuda

    from .device import Device

    told = cuda.described()
    own = rates(2 * told.lanes * told.clock_hz, told.bandwidth)
    return Device(THERE, f"{told.name}, not calibrated", {1: own}, {1: Caches(0, 0)}, 1, False, told.memory,
                  backend=BACKEND)  # fmt: skip
