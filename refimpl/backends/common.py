"""What the rules of every backend have in common: arguments that are not given, activations, names of launches."""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from ..compiler.grouping import RECTIFIERS, Arrival
from ..compiler.ir import Buffer, Call
from .activation import NONE, RELU, RELU6

ACTIVATIONS = dict(zip(RECTIFIERS, (RELU, RELU6), strict=True))  # pass → number


def activation(rectifier: Call | None) -> int:
    """The number by which kernels are told an activation."""
    return ACTIVATIONS[rectifier.passed] if rectifier else NONE


def absent(dims: int, dtype) -> np.ndarray:
    """The empty array that stands for an argument that is not given."""
    return np.empty((0,) * dims, dtype)


def flat(buffer: Buffer) -> Buffer:
    """A buffer as (N, elements of a sample)."""
    return buffer.reshape((buffer.shape[0], int(np.prod(buffer.shape[1:]))))


def elements(buffer: Buffer) -> Buffer:
    """The elements of a buffer, one after the other."""
    return buffer.reshape((math.prod(buffer.shape),))


def counted_margin(attrs: Mapping) -> tuple[int, ...]:
    """Rows above and below, columns left and right of a map whose taps count in an average pooling's means too."""
    if not attrs["count_include_pad"]:
        return (0, 0, 0, 0)
    (top, bottom), (left, right) = attrs["pad"]
    return (top, bottom - attrs["overhang"][0], left, right - attrs["overhang"][1])


def present(*values) -> tuple[Buffer, ...]:
    """The buffers among a launch's arguments."""
    return tuple(v for v in values if isinstance(v, Buffer))


def named(calls: Iterable[Call]) -> str:
    """A launch's name from the calls that it covers: `conv1 conv2d.forward + bn1 frozen_batch_norm.forward`."""
    return " + ".join(c.name for c in calls)


def through(arrival: Arrival) -> tuple[Buffer | np.ndarray, Buffer | np.ndarray]:
    """Mask and scale of what a gradient passes on its way, as arguments."""
    mask, scale = arrival.mask, arrival.scale
    return (
        absent(2, np.uint8) if mask is None else mask,
        absent(1, arrival.dy.dtype) if scale is None else scale,
    )


def seen(call: Call) -> list[Buffer]:
    """The arrays of a call as its kernel sees them, what is written first."""
    return [call.passed.seen(a, call.arrays[a]) for a in call.passed.arrays]
