"""The real numbers of an int8 tensor: y = scale·(x − zero). An operator of the tests' own, without a gradient.

Dimensions: N samples, E elements a sample.
"""

import numpy as np

from costmodel.formulas.cost import E, N, convert, iadd, load, mul, register, store
from refimpl.kernels.passes import declare

SHAPES = {"x": "int8: N E*", "scale": "1", "zero": "int32: 1", "y": "N E*"}


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x, scale, zero):
    """Output y, (N, E), of the program's floats, from x, (N, E), scale and zero, (1,)."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = scale[0] * y.dtype.type(np.int32(x[n, e]) - zero[0])


register("widen8", forward=N * E * (3 * load + iadd + convert + mul + store))
