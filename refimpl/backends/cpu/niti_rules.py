"""How the fast kernels do products of whole numbers that share exponents: layers of one group."""

import numpy as np

from ...compiler.ir import Buffer, Call, Launch
from ...compiler.lower import Lowering
from ...ops import niti_conv2d, niti_linear
from ..common import absent, present
from . import niti

PLAIN = {"stride": (1, 1), "dilation": (1, 1), "pad": ((0, 0), (0, 0))}  # of a linear layer


def _map(buffer: Buffer) -> Buffer:
    """Rows (N, D) as maps (N, 1, 1, D), weights (D, K) as (1, 1, D, K) where `buffer` is no batch; maps as they are."""
    if len(buffer.shape) == 4:
        return buffer
    first, last = buffer.shape
    return buffer.reshape((first, 1, 1, last) if buffer.batched else (1, 1, first, last))


def product(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The sums of a layer, or those of one of its gradients."""
    if call.sizes.get("G", 1) > 1:
        return None
    (out,), numbers = call.writes, niti.geometry({**PLAIN, **call.attrs})
    names = {"accumulate": ("x", "w"), "grad_x": ("dy", "w"), "grad_w": ("dy", "x")}[call.passed.name]
    operands = tuple(_map(call.arrays[name]) for name in names)
    reads = present(*operands)
    if call.passed.name == "accumulate":
        given = (call.arrays.get("b", absent(1, np.int16)), call.arrays["x_exponent"])
        args, reads = (_map(out), *operands, *given, numbers), present(*operands, *given)
        return [Launch(call.name, niti.sums, args, reads, (out,), (call,))]
    function = niti.grad_x if call.passed.name == "grad_x" else niti.grad_w
    return [Launch(call.name, function, (_map(out), *operands, numbers), reads, (out,), (call,))]


RULES = {  # rule → the passes of the calls that it begins at
    product: tuple(
        getattr(op, name) for op in (niti_conv2d, niti_linear) for name in ("accumulate", "grad_x", "grad_w")
    )
}
