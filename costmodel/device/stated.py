"""Kernels that state their terms of work themselves, in the files of `device.methods`.

No formulas are needed for it: a training prices its step without loading what works with symbols.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from functools import cache

from refimpl.backends.cpu.simd import LANES

Work = Callable[[Mapping[str, int]], Mapping[str, int]]
WORK: dict[str, Work] = {}
ROOM = "costmodel.device.methods"


def in_lanes(n: int) -> int:
    """n channels as whole vectors of the tuned kernels, empty lanes included."""
    return -(-n // LANES) * LANES


def states_work(*kernels: str) -> Callable[[Work], Work]:
    """Record the terms of kernels (`device.kernels.kernel`) that do more than touch elements.

    The function gets the letter sizes of the first call that a launch covers, and gives terms of `device.kernels` with
    their amounts.
    """

    def record(function: Work) -> Work:
        WORK.update(dict.fromkeys(kernels, function))
        return function

    return record


def work_of(kernel: str) -> Work | None:
    """What a kernel states (`states_work`), None where it states nothing."""
    _load(kernel.split(".")[0])
    return WORK.get(kernel)


@cache
def _load(method: str) -> None:
    if importlib.util.find_spec(f"{ROOM}.{method}"):
        importlib.import_module(f"{ROOM}.{method}")
