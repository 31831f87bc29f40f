"""What the rules of every backend have in common: arguments that are not given, activations, names of launches."""

from collections.abc import Iterable

import numpy as np

from ..compiler.grouping import RECTIFIERS, Arrival, AsConvolution, as_map
from ..compiler.ir import Buffer, Call
from ..ops import quantized_conv2d
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


def quantized_convolution(call: Call) -> AsConvolution:
    """A call in whole numbers in the terms of a convolution; a linear layer is a 1×1 one of its rows."""
    if call.passed is quantized_conv2d.forward:
        return AsConvolution(dict(call.sizes), dict(call.attrs), dict(call.arrays))
    ones = dict.fromkeys("HRSPG", 1)
    arrays = {"y" if name == "sums" else name: b for name, b in call.arrays.items()}
    pixels = arrays["x"].batched * call.sizes["N"] // arrays["x"].shape[0]
    sizes = {**call.sizes, "C": call.sizes["D"], **ones, **dict.fromkeys("WQ", pixels)}
    sizes["N"] //= pixels
    arrays["w"] = arrays["w"].reshape((1, 1, *arrays["w"].shape))
    for name in ("x", "y"):
        arrays[name] = as_map(arrays[name])
    attrs = {"stride": (1, 1), "dilation": (1, 1), "pad": ((0, 0), (0, 0))}
    return AsConvolution(sizes, attrs, arrays)
