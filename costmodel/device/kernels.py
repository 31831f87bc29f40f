"""What each launch of a program makes the machine do, in terms whose seconds a device's rates give.

The seconds of a launch are a sum over terms, `Σ amount · rate[kernel][term]`. Amounts follow from the program alone;
rates are measured (`costmodel.device.calibration`). Terms are what a reader of the kernel would count:

    call       one launch; `cold`: one whose code and arguments have left the fast cache
    near       bytes read or written that the fast cache (level two of all threads) still holds
    middle     bytes that the last-level cache holds; `far`: bytes from memory; `far_weights`: of those, the weights
               that a product reads, a piece of each row at a time
    mac        multiply-adds of a product, empty vector lanes at the border of a panel included
    gather     elements copied side by side before a product; `scatter`: added back after one
    left right elements of the two factors that a product reads; `sums`: of results that it writes, once per pass
    tile       products of a tile; `partial`: elements of partial sums
    element    elements touched by what has no product; `lane`: with the empty lanes of vectors over few channels
    weight row elements of a small kernel, rows of a map or of a table; `pair`: pairs of channels that are compared

Work on tiles counts as much as the busiest thread has to do, times the number of threads.
"""

import math
from dataclasses import dataclass

import numpy as np

from refimpl.compiler.ir import Buffer, Launch
from refimpl.compiler.program import Program

from .stated import in_lanes, stated_of

PAGE = 4096  # bytes
LEVELS = ("near", "middle", "far", "far_weights")  # bytes by where they are found
HOST = "host.step"  # stands for a kernel: see `around`
# What a term's rate depends on, for devices whose rates are not measured but scaled.
GROUPS = {
    "compute": ("mac", "pair"),
    "cache": ("near", "gather", "scatter", "left", "right", "sums", "partial", "element", "lane", "weight", "row"),
    "memory": ("middle", "far", "far_weights"),
    "call": ("call", "cold", "tile"),
}  # fmt: skip
GROUP = {term: group for group, terms in GROUPS.items() for term in terms}


@dataclass(frozen=True)
class Caches:
    """Bytes of the fast caches (level two, of all threads together) and of the last level; 0 where there is none."""

    fast: float = 2 * 2**20
    last: float = 16 * 2**20


def function_of(launch: Launch) -> str:
    """Name of the function that a launch calls: `room.function`."""
    function = getattr(launch.function, "compiled", launch.function)
    function = getattr(function, "py_func", function)
    return f"{function.__module__.rsplit('.', 1)[-1]}.{function.__name__.removesuffix('_loop')}"


def kernel(launch: Launch) -> str:
    """Name of a launch's kernel: that of its function, and the way it goes about its work where it has several."""
    name = function_of(launch)
    stated = stated_of(name)
    return f"{name} {stated.way(launch)}" if stated and stated.way else name


def work(program: Program, caches: Caches, emptied: float = 0.0) -> list[dict[str, float]]:
    """The terms of every launch of a step, in order; emptied: bytes of something else touched before each launch."""
    found = []
    for launch, (*moved, is_cold) in zip(program.order, _levels(program, caches, emptied), strict=True):
        terms = {"call": 1.0, "cold": float(is_cold), **dict(zip(LEVELS, moved, strict=True))}
        own = amounts(launch, program.threads)
        again, passes = own.pop("again", (0, 1))
        if again > caches.fast:  # too large to stay in the fast cache from one tile to the next
            terms["middle"] += again * (passes - 1)
        found.append({t: float(v) for t, v in (terms | own).items() if v})
    return found


def around(program: Program) -> dict[str, float]:
    """The terms of what Python does around a step's launches: fill in samples."""
    inputs = (program.step.host_writes[name] for name in program.graph.inputs)
    return {"call": 1.0, "element": float(sum(math.prod(b.shape) for b in inputs))}


def amounts(launch: Launch, threads: int) -> dict:
    """The terms of one launch that do not depend on caches; `again`: (bytes, how often) of what each tile goes over."""
    stated = stated_of(function_of(launch))
    if stated and stated.alone:
        return stated.work(launch, threads)
    arrays = (*launch.reads, *launch.writes)
    terms = {
        "element": sum(math.prod(b.shape) for b in arrays),
        "lane": sum(math.prod(b.shape[:-1]) * in_lanes(b.shape[-1]) for b in arrays if b.shape),
        "row": sum(math.prod(b.shape[:-1]) for b in arrays if b.shape),
    }
    return terms | stated.work(launch, threads) if stated else terms


def _levels(program: Program, caches: Caches, emptied: float):
    """(near, middle, far, far weights, is the call cold?) bytes of each launch, by what was touched since they were.

    What counts is how many bytes a cache had to take in between, each once, and those of the launch itself. Two steps
    are followed page by page; the second tells what a step finds where the one before it left things.
    """
    pages, spans = _spans(program)
    arena, names = -(-program.peak_bytes // PAGE), [kernel(launch) for launch in program.order]
    streaming = [stated is not None and stated.streams for stated in map(stated_of, map(function_of, program.order))]
    exact = [sum(b.nbytes for b in launch.buffers) for launch in program.order]  # pages count too much of small arrays
    sizes, firsts, runs = _runs(pages, spans)
    last, seen, now = np.zeros(len(sizes), np.int64), {}, 0  # numbers of the launches that touched each run and kernel
    fast, beyond = ((size - emptied) // PAGE for size in (caches.fast, max(caches.fast, caches.last)))
    for turn in (0, 1):
        for name, streams, touched, nbytes in zip(names, streaming, runs, exact, strict=True):
            now += 1
            since = pages - np.bincount(last, sizes, now).cumsum()  # number of a launch → pages touched after it
            own = sizes[touched]
            total = own.sum()
            between = since[last[touched]] + total
            near, middle = own @ (between <= fast), own @ (between <= beyond)
            far, weights = total - middle, 0.0
            if streams:
                weights = own @ ((between > beyond) & (firsts[touched] >= arena))
            last[touched] = now
            is_cold = since[seen.get(name, 0)] > fast
            seen[name] = now
            if turn:
                found = PAGE * np.array([near, middle - near, far - weights, weights])
                yield (*(found * nbytes / max(found.sum(), 1)), is_cold)


def _runs(pages: int, spans: list[list[tuple[int, int]]]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Pages that are always touched together, as runs: their numbers of pages, first pages, and those of each launch.

    A run that two spans of a launch hold is there twice.
    """
    edges = np.unique([0, pages, *(edge for touched in spans for span in touched for edge in span)])
    place = {edge: i for i, edge in enumerate(edges.tolist())}
    of = [[np.arange(place[first], place[end]) for first, end in touched] for touched in spans]
    return np.diff(edges).astype(float), edges[:-1], [np.concatenate(runs or [np.arange(0)]) for runs in of]


def _spans(program: Program) -> tuple[int, list[list[tuple[int, int]]]]:
    """Number of pages of all arrays of a step, and (first, end) of the pages of each array of each launch."""
    start, end = {}, -(-program.peak_bytes // PAGE)

    def place(b: Buffer) -> int:
        nonlocal end
        if b.root.region == "arena":
            return program.offsets[b.root]
        if b.root not in start:
            start[b.root] = end * PAGE
            end += -(-b.root.nbytes // PAGE)
        return start[b.root]

    spans, known = [], {}
    for launch in program.order:
        for b in launch.buffers:
            if b not in known:
                at = place(b) + b.start * b.dtype.itemsize
                known[b] = at // PAGE, max(at // PAGE + 1, -(-(at + b.nbytes) // PAGE))
        spans.append(sorted({known[b] for b in launch.buffers}))
    return end, spans
