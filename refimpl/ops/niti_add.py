"""Sum of two tensors of whole numbers, each with its exponent: y·2^y_e ≈ a·2^a_e + b·2^b_e; da = db = dy.

Aligned and narrowed by `shared_exponent`, y rounded to the nearest. Our reading: NITI's own nets have no sums.
Dimensions: N samples, E elements a sample.
"""

from ..kernels.passes import Bound
from .shared_exponent import align, common, most, narrow, settle

SHAPES = {
    "a": "int8: N E*", "a_exponent": "int32: 1", "b": "int8: N E*", "b_exponent": "int32: 1", "base": "int32: 1",
    "sums": "int32: N E*", "sums_most": "int32: N", "y_shift": "int32: 1", "y": "int8: N E*", "y_exponent": "int32: 1",
    "dy": "int8: N E*", "da": "int8: N E*", "db": "int8: N E*", "dy_exponent": "int32: 1", "da_exponent": "int32: 1",
    "db_exponent": "int32: 1",
}  # fmt: skip
INPUTS = ("a", "a_exponent", "b", "b_exponent")
OUTPUTS = ("y", "y_exponent")
ALIASES = {"da": "dy", "db": "dy", "da_exponent": "dy_exponent", "db_exponent": "dy_exponent"}
CHANNELS = "kept"
BOUND = (
    Bound(common),
    Bound(align, {"v": "sums"}),
    Bound(most, {"v": "sums", "most": "sums_most"}),
    Bound(
        settle,
        {"most": "sums_most", "shift": "y_shift", "exponent": "y_exponent", "first": "base", "second": ""},
    ),
    Bound(
        narrow,
        {"v": "sums", "q": "y", "shift": "y_shift", "step": "", "seed": ""},
        attrs={"stochastic": False, "pseudo": False},
    ),
)
