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

from refimpl.backends.cpu import tiles
from refimpl.backends.cpu.simd import LANES
from refimpl.compiler.grouping import FORWARD, GRAD_W, GRAD_X, convolution
from refimpl.compiler.ir import Buffer, Call, Launch
from refimpl.compiler.program import Program

from .stated import in_lanes, work_of

PAGE = 4096  # bytes
LEVELS = ("near", "middle", "far", "far_weights")  # bytes by where they are found
HOST = "host.step"  # stands for a kernel: see `around`
PRODUCTS = ("conv2d.forward", "conv2d.grad_w", "conv2d.grad_x")  # of the fast backend, dense
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


def kernel(launch: Launch) -> str:
    """Name of a launch's kernel: `room.function`, and the way it goes about its work where it has several."""
    function = getattr(launch.function, "compiled", launch.function)
    function = getattr(function, "py_func", function)
    name = f"{function.__module__.rsplit('.', 1)[-1]}.{function.__name__.removesuffix('_loop')}"
    return name if name not in PRODUCTS else f"{name} {_way(_product(launch))}"


def _product(launch: Launch) -> Call:
    """The call of a launch that is a product."""
    return next(c for c in launch.covers if c.passed in (*FORWARD, *GRAD_W, *GRAD_X))


def _way(call: Call) -> str:
    """How a dense product's kernel goes about it: what its rates differ by."""
    z, attrs, _ = convolution(call)
    if tiles.in_place(z, attrs):
        return "in place"
    if z["G"] > 1:
        return "in groups"
    if call.passed in GRAD_X:
        return "turned" if tiles.turns(z, attrs) else "scattered"
    return "of one channel" if z["C"] == 1 else "gathered"


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
    name = kernel(launch)
    if name.startswith(("depthwise.", "pointwise.")):
        return _separable(_product(launch))
    for start, of in (("conv2d.forward ", _forward), ("conv2d.grad_w ", _grad_w), ("conv2d.grad_x ", _grad_x)):
        if name.startswith(start):
            return of(_product(launch), threads)
    arrays = (*launch.reads, *launch.writes)
    terms = {
        "element": sum(math.prod(b.shape) for b in arrays),
        "lane": sum(math.prod(b.shape[:-1]) * in_lanes(b.shape[-1]) for b in arrays if b.shape),
        "row": sum(math.prod(b.shape[:-1]) for b in arrays if b.shape),
    }
    if stated := work_of(name):
        terms |= stated(launch.covers[0].sizes)
    return terms


def _share(items: int, threads: int) -> float:
    """How much longer the busiest thread takes than an even share."""
    return tiles.ceil_div(items, threads) * threads / items


def _forward(call: Call, threads: int) -> dict:
    z, attrs, _ = convolution(call)
    cut = tiles.forward_tiles(z, attrs)
    return _gathered(z, attrs, cut, threads, z["P"] * z["Q"], z["K"], z["C"] // z["G"], _itemsize(call, "w"))


def _itemsize(call: Call, array: str) -> int:
    """Bytes of an element of one of a call's arrays."""
    return np.dtype(call.arrays[array].dtype).itemsize


def _gathered(z, attrs, cut, threads: int, pixels: int, width: int, depth: int, itemsize: int) -> dict:
    """A product of gathered rows with the kernel: maps of `pixels` and `width` channels from `depth` a group.

    itemsize: bytes of an element of the kernel.
    """
    together, part, channels, r, s = cut
    items = tiles.ceil_div(z["N"], together) * tiles.ceil_div(pixels, part)
    blocks = tiles.ceil_div(width, channels)
    passes = tiles.ceil_div(z["R"], r) * tiles.ceil_div(z["S"], s)
    share = _share(items * blocks, threads)
    rows, span = z["N"] * pixels, z["R"] * z["S"] * depth * z["G"]
    per_group = width // z["G"] if z["G"] > 1 else channels
    in_place = tiles.in_place(z, attrs)
    return {
        "mac": rows * span * in_lanes(per_group) * (blocks if z["G"] == 1 else 1) * share,
        "gather": 0 if in_place else rows * span * blocks * share,
        "left": rows * span * blocks * tiles.ceil_div(per_group, 3 * LANES) * share,
        "right": items * blocks * span * per_group * share,
        "sums": rows * width * passes * share,
        "tile": items * blocks * passes * z["G"] * share,
        "again": (span * width // z["G"] * itemsize, items),
    }


def _grad_w(call: Call, threads: int) -> dict:
    z, attrs, _ = convolution(call)
    per_slice, part, r, s, channels = tiles.grad_w_tiles(z, attrs)
    pixels, depth = z["N"] * z["P"] * z["Q"], z["C"] // z["G"]
    span = z["R"] * z["S"] * depth
    cuts = tiles.ceil_div(z["R"], r) * tiles.ceil_div(z["S"], s) * tiles.ceil_div(depth, channels)
    slices, parts = tiles.ceil_div(pixels, per_slice), tiles.ceil_div(pixels, part)
    share = _share(slices * cuts, threads)
    return {
        "mac": pixels * span * in_lanes(z["K"] // z["G"]) * z["G"] * share,
        "gather": 0 if tiles.in_place(z, attrs) else pixels * span * z["G"] * share,
        "left": pixels * span * z["G"] * share,
        "right": pixels * z["K"] * cuts * share,
        "sums": parts * span * z["K"] * share,
        "tile": parts * cuts * z["G"] * share,
        "partial": slices * span * z["K"] if slices > 1 else 0,
        "again": (2 * span * z["K"] * _itemsize(call, "dw"), parts // slices),
    }


def _grad_x(call: Call, threads: int) -> dict:
    z, attrs, _ = convolution(call)
    samples, part, channels, pixels, r, s = tiles.grad_x_tiles(z, attrs)
    if tiles.turns(z, attrs) or tiles.in_place(z, attrs):
        cut = (samples, part, channels, r, s)
        terms = _gathered(z, attrs, cut, threads, z["H"] * z["W"], z["C"], z["K"] // z["G"], _itemsize(call, "w"))
        turned = z["R"] * z["S"] * z["C"] // z["G"] * z["K"] if tiles.turns(z, attrs) else 0
        return terms | {"weight": turned}
    depth = z["C"] // z["G"]
    items = tiles.ceil_div(z["N"], samples) * tiles.ceil_div(z["H"], part) * tiles.ceil_div(z["C"], channels)
    share, rows, span = _share(items, threads), z["N"] * z["P"] * z["Q"], z["R"] * z["S"] * depth
    inner = max(items, tiles.ceil_div(rows, pixels)) * tiles.ceil_div(z["R"], r) * tiles.ceil_div(z["S"], s)
    return {
        "mac": rows * z["K"] * in_lanes(span) * share,
        "scatter": rows * span * z["G"] * share,
        "left": rows * z["K"] * share,
        "right": inner * span * z["K"] * share,
        "tile": inner * z["G"] * share,
        "again": (span * z["K"] * _itemsize(call, "w"), inner),
    }


def _separable(call: Call) -> dict[str, float]:
    """Depthwise and pointwise kernels, which go over whole rows of channels."""
    z, _, _ = convolution(call)
    out, back = z["N"] * z["P"] * z["Q"], z["N"] * z["H"] * z["W"]
    if z["G"] > 1:
        channels = in_lanes(z["C"])
        return {
            "mac": out * z["R"] * z["S"] * channels, "sums": out * channels, "left": back * channels,
            "weight": z["R"] * z["S"] * z["C"], "row": z["N"] * z["P"],
        }  # fmt: skip
    return {
        "mac": out * z["C"] * in_lanes(z["K"]), "left": out * z["C"], "sums": out * z["K"], "weight": z["C"] * z["K"],
    }  # fmt: skip


def _levels(program: Program, caches: Caches, emptied: float):
    """(near, middle, far, far weights, is the call cold?) bytes of each launch, by what was touched since they were.

    What counts is how many bytes a cache had to take in between, each once, and those of the launch itself. Two steps
    are followed page by page; the second tells what a step finds where the one before it left things.
    """
    pages, spans = _spans(program)
    arena, names = tiles.ceil_div(program.peak_bytes, PAGE), [kernel(launch) for launch in program.order]
    exact = [sum(b.nbytes for b in launch.buffers) for launch in program.order]  # pages count too much of small arrays
    sizes, firsts, runs = _runs(pages, spans)
    last, seen, now = np.zeros(len(sizes), np.int64), {}, 0  # numbers of the launches that touched each run and kernel
    fast, beyond = ((size - emptied) // PAGE for size in (caches.fast, max(caches.fast, caches.last)))
    for turn in (0, 1):
        for name, touched, nbytes in zip(names, runs, exact, strict=True):
            now += 1
            since = pages - np.bincount(last, sizes, now).cumsum()  # number of a launch → pages touched after it
            own = sizes[touched]
            total = own.sum()
            between = since[last[touched]] + total
            near, middle = own @ (between <= fast), own @ (between <= beyond)
            far, weights = total - middle, 0.0
            if name.split()[0] in PRODUCTS:
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
