"""Kernels that state their terms of work themselves, in the files of `device.ops` and `device.methods`.

No formulas are needed for it: a training prices its step without loading what works with symbols.
"""

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from refimpl.backends.cpu.simd import LANES
from refimpl.compiler.grouping import FORWARD, GRAD_W, GRAD_X
from refimpl.compiler.ir import Call, Launch

Work = Callable[[Launch, int], dict]
ROOMS = ("costmodel.device.ops", "costmodel.device.methods")


@dataclass(frozen=True)
class Stated:
    """What a kernel states (`states_work`)."""

    work: Work
    way: Callable[[Launch], str] | None
    alone: bool
    streams: bool


STATED: dict[str, Stated] = {}  # function of a launch (`device.kernels.function_of`) → what it states


def in_lanes(n: int) -> int:
    """n channels as whole vectors of the tuned kernels, empty lanes included."""
    return -(-n // LANES) * LANES


def product(launch: Launch) -> Call:
    """The call of a launch that is a product."""
    return next(c for c in launch.covers if c.passed in (*FORWARD, *GRAD_W, *GRAD_X))


def states_work(
    *functions: str, way: Callable[[Launch], str] | None = None, alone: bool = False, streams: bool = False
) -> Callable[[Work], Work]:
    """Record the terms of kernels (`device.kernels.function_of`) that do more than touch elements.

    `work(launch, threads)` gives terms of `device.kernels` with their amounts. way: how a launch goes about it, where
    rates differ by that. alone: its terms take the place of the elements that are touched. streams: it reads its
    weights a piece of each row at a time.
    """

    def record(work: Work) -> Work:
        STATED.update(dict.fromkeys(functions, Stated(work, way, alone, streams)))
        return work

    return record


def stated_of(function: str) -> Stated | None:
    """What a kernel states, None where it states nothing."""
    _load(function.split(".")[0])
    return STATED.get(function)


@cache
def _load(name: str) -> None:
    for room in ROOMS:
        if importlib.util.find_spec(f"{room}.{name}"):
            importlib.import_module(f"{room}.{name}")
