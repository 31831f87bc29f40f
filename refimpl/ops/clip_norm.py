"""Clip the gradient by its norm over all parameters: clip = min(1, max_norm / (‖g‖ + 10⁻⁶)).

As torch.nn.utils.clip_grad_norm_, but the factor is applied by the optimizer's own pass. `partial_squares` runs for
each parameter and writes one sum for every SLICE elements; the partial sums of all parameters lie side by side in one
array, which `factor` adds in index order: the same bits for any number of threads. The sums are float64: the square of
a float32 gradient of 2·10¹⁹ is infinite, and clipping by an infinite norm would leave nothing of the step.
Dimensions: E elements of a parameter of any shape, L = ⌈E / SLICE⌉ slices of it, J slices of all parameters.
"""

import math

from ..kernels.geometry import SLICE, slice_derive, slice_lengths
from ..kernels.passes import ShapeError, declare

SHAPES = {"dw": "E*", "partials": "float64: L", "all_partials": "float64: J", "norm": "1", "clip": "1"}


def derive(sizes, attrs):
    """L of a parameter; ShapeError where max_norm is negative."""
    if attrs.get("max_norm", 1.0) < 0:
        raise ShapeError(f"max_norm must be at least 0, got {attrs['max_norm']}")
    return slice_derive(sizes, attrs)


@declare(
    SHAPES,
    items="L",
    writes="partials",
    derive=derive,
    alike={"L": slice_lengths},
)
def partial_squares(t, partials, dw):
    """Sum of squares of each slice of dw, (E,): partials, (L,)."""
    end = (t + 1) * SLICE if (t + 1) * SLICE < dw.shape[0] else dw.shape[0]
    total = partials.dtype.type(0)
    for e in range(t * SLICE, end):
        value = partials.dtype.type(dw[e])
        total += value * value
    partials[t] = total


@declare(SHAPES, items="L", writes="partials", derive=derive)
def nothing(t, partials):
    """The sums of a gradient that a step does not have: zeros, (L,)."""
    partials[t] = 0


@declare(SHAPES, items="1", writes="norm clip", derive=derive, sums="J")
def factor(t, norm, clip, all_partials, max_norm=1.0):
    """Norm of the whole gradient and clip, the factor that it is to be multiplied by, (1,), from all_partials, (J,)."""
    total = all_partials.dtype.type(0)
    for j in range(all_partials.shape[0]):
        total += all_partials[j]
    root = math.sqrt(total)
    norm[0] = root
    scale = max_norm / (root + all_partials.dtype.type(1e-6))
    clip[0] = clip.dtype.type(1) if scale > 1 else scale
