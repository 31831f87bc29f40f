"""How near each kernel of a step on a GPU comes to its roofline: the time that its work takes at the peak rates."""

from collections import defaultdict

import refimpl as ri
from costmodel.device import gpu_calibration
from costmodel.predict import call_counts
from refimpl.kernels import cuda


def kernels(program: ri.Program) -> list[dict]:
    """By kernel, the most time first: kernel, launches, ms of all of them, and share, the roofline's of that time.

    A launch's roofline is the longer of its multiply-adds at the peak of the float32 units and of its bytes, each array
    once, at the peak of the memory, both of which the driver tells. Timed again and again, it finds in the caches what
    fits into them: such a share may be above 1.
    """
    gpu = cuda.described()
    macs_a_second = gpu.lanes * gpu.clock_hz
    found = defaultdict[str, list](list)
    for launch in gpu_calibration.TimedProgram(program).launches(call_counts, 0):
        moves = launch.terms["far"] / gpu.bandwidth if launch.terms["far"] else 0.0
        found[launch.kernel].append((launch.seconds, max(launch.terms["mac"] / macs_a_second, moves)))
    sums = {name: [sum(column) for column in zip(*each, strict=True)] for name, each in found.items()}
    return [
        {"kernel": name, "launches": len(found[name]), "ms": 1e3 * seconds, "share": least / seconds if least else 0.0}
        for name, (seconds, least) in sorted(sums.items(), key=lambda item: -item[1][0])
    ]
