"""How the fast kernels do products of whole numbers that share exponents: layers of one group."""

import numpy as np

from ...compiler import whole_products
from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import niti_conv2d, niti_linear
from ..common import absent, present
from . import niti


def product(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The sums of a layer, or those of one of its gradients."""
    sizes, attrs, a = whole_products.convolution(call)
    if sizes.get("G", 1) > 1:
        return None
    numbers = niti.geometry(attrs)
    if call.passed.name == "accumulate":
        given = (a["x"], a["w"], a.get("b", absent(1, np.int16)), a["x_exponent"])
        return [Launch(call.name, niti.sums, (a["y"], *given, numbers), present(*given), (a["y"],), (call,))]
    if call.passed.name == "grad_x":
        kernel, out, operands = niti.grad_x, a["dx"], (a["dy"], a["w"])
    else:
        kernel, out, operands = niti.grad_w, a["dw"], (a["dy"], a["x"])
    return [Launch(call.name, kernel, (out, *operands, numbers), operands, (out,), (call,))]


RULES = {  # rule → the passes of the calls that it begins at
    product: tuple(
        getattr(op, name) for op in (niti_conv2d, niti_linear) for name in ("accumulate", "grad_x", "grad_w")
    )
}
