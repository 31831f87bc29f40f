"""How the elements of an ONNX tensor lie in one of ours: reshapes and transposes as a change of words.

Of our tensor a sample is one row of elements. Each axis of ONNX is a tuple of digits (length, step), the first counting
slowest: the element at index i along an axis of one digit lies i·step further on. So (N, C, H, W) of a map (N, H, W, C)
is ((SAMPLES,), ((C, 1),), ((H, W·C),), ((W, C),)), and, flattened by ONNX, ((SAMPLES,), ((C, 1), (H, W·C), (W, C))).

SAMPLES stands for the batch, which is 1 in all shapes here, as exports have it. It comes before the elements of a
sample wherever something runs; in between it may stand in any axis.
"""

import math
from collections.abc import Iterable, Sequence

import numpy as np

Digit = tuple[int, int]
Axis = tuple[Digit, ...]
Layout = tuple[Axis, ...]
SAMPLES: Digit = (1, 0)


class Unshaped(ValueError):
    """No layout has this shape: why."""


def packed(digits: Iterable[Digit]) -> Axis:
    """The same elements in the same order in as few digits as there can be; those of length 1 are left out."""
    found: list[Digit] = []
    for length, step in digits:
        if (length, step) != SAMPLES and length == 1:
            continue
        if found and SAMPLES not in (found[-1], (length, step)) and found[-1][1] == length * step:
            found[-1] = (found[-1][0] * length, step)
        else:
            found.append((length, step))
    return tuple(found)


def row_major(shape: Sequence[int]) -> Axis:
    """A digit for each axis of a tensor of ours, without the batch."""
    return tuple((n, math.prod(shape[i + 1 :])) for i, n in enumerate(shape))


def of_axes(axes: Sequence[int | Axis | None], own: Sequence[int]) -> Layout:
    """The layout where each axis is one of our tensor, 0 the batch, or None, of length 1.

    own: our tensor's shape without the batch.
    """
    each = row_major(own)
    return tuple(
        () if a is None else a if isinstance(a, tuple) else (SAMPLES,) if a == 0 else packed((each[a - 1],))
        for a in axes
    )  # fmt: skip


def axes_of(layout: Layout, own: Sequence[int]) -> tuple[int | Axis | None, ...]:
    """What `of_axes` makes this layout of: a number where an axis is a whole one of our tensor; else its digits."""
    numbers = {packed((d,)): i for i, d in enumerate(row_major(own), start=1)}
    numbers[(SAMPLES,)] = 0
    return tuple(None if not axis else numbers.get(axis, axis) for axis in layout)


def shape_of(layout: Layout) -> tuple[int, ...]:
    """The shape in ONNX's order, at a batch of one."""
    return tuple(math.prod(length for length, _ in axis) for axis in layout)


def places(layout: Layout) -> np.ndarray:
    """Of each element in ONNX's shape, its number among the elements of a sample of ours."""
    found = np.zeros((), int)
    for axis in layout:
        along = np.zeros(1, int)
        for length, step in axis:
            along = np.add.outer(along, step * np.arange(length)).reshape(-1)
        found = np.add.outer(found, along)
    return found


def reshaped(layout: Layout, shape: Sequence[int]) -> Layout:
    """The layout of the same elements in the same order under another shape; Unshaped where no digit can be cut so."""
    if math.prod(shape) != math.prod(shape_of(layout)):
        raise Unshaped(f"it makes {tuple(shape)} of {shape_of(layout)}, which has not as many elements")
    if not shape:
        raise Unshaped("it makes a number without axes")
    rest = [digit for axis in layout for digit in axis]
    found: list[list[Digit]] = []
    for place, n in enumerate(shape):
        axis, left = list[Digit](), n
        while rest and (left > 1 or rest[0] == SAMPLES and not (axis and follow(rest, shape[place + 1 :]))):
            length, step = rest.pop(0)
            if length > left:  # the slow part of it
                length, fast = left, length // left if length % left == 0 else 0
                rest.insert(0, (fast, step))
                step *= fast
            if not step and (length, step) != SAMPLES or left % length:
                raise Unshaped(f"it makes {tuple(shape)} of {shape_of(layout)}, which cuts across its axes")
            axis.append((length, step))
            left //= length
        found.append(axis)
    found[-1] += rest[:1] if rest[:1] == [SAMPLES] else []
    return tuple(map(packed, found))


def follow(rest: Sequence[Digit], shape: Sequence[int]) -> bool:
    """Do the samples, the first of `rest`, begin the next axis of `shape`, in place of ending the one before?

    At a batch of one no shape says it. They are an axis that is 1; and where the next digit is cut into several axes,
    as features are into heads, samples go with the first: (T, N, H·D) becomes (T, N·H, D).
    """
    return bool(shape) and (shape[0] == 1 or len(rest) > 1 and 1 < shape[0] < rest[1][0])


def paired(mine: Sequence[Digit], theirs: Sequence[Digit]) -> list[tuple[int, int, int]]:
    """The digits of one axis in two layouts, cut so that both have the same: (length, my step, their step)."""
    own, found = [*mine], list[tuple[int, int, int]]()
    for length, step in theirs:
        parts = list(reshaped((tuple(own),), (length, math.prod(n for n, _ in own) // length)))
        own = [*parts[1]]
        for n, mine_step in parts[0]:
            length //= n
            found.append((n, mine_step, step * length))
    return found


def shrunk(layout: Iterable[Axis], own: Sequence[int], gone: Sequence[int]) -> list[Axis]:
    """The layout in a tensor of which some axes are 1 now. gone: 1 for those, which no digit is of, else 0."""
    left = row_major([1 if one else n for n, one in zip(own, gone, strict=True)])

    def moved(digit: Digit) -> Digit:
        if digit == SAMPLES:
            return digit
        length, step = digit
        at = next(i for i, (_, each) in enumerate(row_major(own)) if each <= step and own[i] > 1)
        return length, step // row_major(own)[at][1] * left[at][1]

    return [tuple(map(moved, axis)) for axis in layout]
