"""Products of two tensors on the fast kernels: what is transposed is read where it lies."""

from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import matmul
from . import grouped


def of_groups(lowering: Lowering, call: Call) -> list[Launch]:
    """A product of two tensors, or its gradient."""
    z, arrays, transposed = call.sizes, call.arrays, call.attrs["transposed"]
    rows, depth, columns = z["P"], z["D"], z["K"]
    if call.passed is matmul.forward:
        c, a, b = "y", "a", "b"
        sizes = rows, columns, depth
        strides = (depth, 1, *((1, depth) if transposed else (columns, 1)))
    elif call.passed is matmul.grad_a:
        c, a, b = "da", "dy", "b"
        sizes = rows, depth, columns
        strides = (columns, 1, *((depth, 1) if transposed else (1, columns)))
    elif transposed:
        c, a, b = "db", "dy", "a"
        sizes, strides = (columns, depth, rows), (1, columns, depth, 1)
    else:
        c, a, b = "db", "a", "dy"
        sizes, strides = (depth, columns, rows), (1, depth, columns, 1)
    args = (arrays[c], arrays[a], arrays[b], sizes, strides)
    return [Launch(call.name, grouped.products, args, (arrays[a], arrays[b]), (arrays[c],), (call,))]


RULES = {of_groups: (matmul.forward, matmul.grad_a, matmul.grad_b)}  # rule → the passes of the calls that it begins at
