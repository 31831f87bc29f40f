"""A tensor of whole numbers that two nodes read: its gradient is the sum of theirs, each with an exponent of its own.

    a = b = x,    dx·2^dx_e ≈ da·2^da_e + db·2^db_e

Aligned and narrowed by `shared_exponent`, rounded as the step says.
Dimensions: N samples, E elements a sample.
"""

from ..kernels.passes import Bound
from ..kernels.random import ROUNDING
from .shared_exponent import align, common, most, narrow, settle

SHAPES = {
    "x": "int8: N E*", "x_exponent": "int32: 1", "a": "int8: N E*", "a_exponent": "int32: 1", "b": "int8: N E*",
    "b_exponent": "int32: 1", "da": "int8: N E*", "da_exponent": "int32: 1", "db": "int8: N E*",
    "db_exponent": "int32: 1", "base": "int32: 1", "dx_sums": "int32: N E*", "dx_most": "int32: N",
    "dx_shift": "int32: 1", "dx": "int8: N E*", "dx_exponent": "int32: 1", "step": "int64: 1", "seed": "int64: 1",
}  # fmt: skip
INPUTS = ("x", "x_exponent")
OUTPUTS = ("a", "a_exponent", "b", "b_exponent")
ALIASES = {"a": "x", "b": "x", "a_exponent": "x_exponent", "b_exponent": "x_exponent"}
CHANNELS = "kept"
HOST = {"step": "update", "seed": "seed"}
STREAM = ROUNDING
BOUND = (
    Bound(common, {"a_exponent": "da_exponent", "b_exponent": "db_exponent"}),
    Bound(
        align,
        {"v": "dx_sums", "a": "da", "b": "db", "a_exponent": "da_exponent", "b_exponent": "db_exponent"},
    ),
    Bound(most, {"v": "dx_sums", "most": "dx_most"}),
    Bound(
        settle, {"most": "dx_most", "shift": "dx_shift", "exponent": "dx_exponent", "first": "base", "second": ""}
    ),
    Bound(narrow, {"v": "dx_sums", "q": "dx", "shift": "dx_shift"}),
)  # fmt: skip
