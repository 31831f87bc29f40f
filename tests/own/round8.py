"""Real numbers as whole ones of 8 bits: y = clamp(round(x / scale) + zero). An operator of the tests' own, no gradient.

Dimensions: N samples, E elements a sample.
"""

import numpy as np

from costmodel.formulas.cost import E, N, cmp, convert, div, iadd, load, register, store
from refimpl.kernels.passes import declare

SHAPES = {"x": "N E*", "scale": "1", "zero": "int32: 1", "y": "int8: N E*"}


@declare(SHAPES, items="N E", writes="y")
def forward(t, y, x, scale, zero):
    """Output y, (N, E), from x, (N, E), scale and zero, (1,); a half to the even one."""
    n, e = divmod(t, y.shape[1])
    y[n, e] = np.int8(min(max(np.int32(np.rint(x[n, e] / scale[0])) + zero[0], -128), 127))


register("round8", forward=N * E * (3 * load + div + iadd + 2 * cmp + 3 * convert + store))
