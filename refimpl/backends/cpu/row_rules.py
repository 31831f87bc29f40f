"""Layer norm and softmax on the fast kernels: what is told of a row and what is made of it in one sweep."""

from ...compiler.grouping import given
from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import layer_norm, softmax
from ..common import absent, named
from . import layer_norm as fast_layer_norm
from . import softmax as fast_softmax
from .move_rules import seen


def partner(lowering: Lowering, call: Call, passed) -> Call | None:
    """The call of `passed` that reads all that a call writes; None where there is none to go with it."""
    return next((c for c in [lowering.find(b, passed) for b in call.writes] if c), None)


def alone(lowering: Lowering, call: Call, reader: Call) -> bool:
    """Does nobody but `reader` read what a call writes?"""
    return all(lowering.readers(b) == [reader] for b in call.writes)


def normalised(lowering: Lowering, call: Call) -> list[Launch] | None:
    """Mean and deviation of each row with what is made of them."""
    output = partner(lowering, call, layer_norm.forward)
    if output is None:
        return None
    y, x, gamma, beta, mean, inv_std = seen(output)
    eps = y.dtype.type(call.attrs["eps"])
    args, covers = (y, mean, inv_std, x, gamma, beta, eps), (call, output)
    return [Launch(named(covers), fast_layer_norm.forward, args, (x, gamma, beta), (y, mean, inv_std), covers)]


def row_gradient(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradient of the rows of a layer norm or a softmax, with the sums over each row that it needs."""
    passed, kernel = GRADIENTS[call.passed]
    gradient = partner(lowering, call, passed)
    if gradient is None or not alone(lowering, call, gradient):
        return None
    summed = {b.root for b in call.writes}
    dx, *read = (b for b in seen(gradient) if b.root not in summed)
    covers = (call, gradient)
    return [Launch(named(covers), kernel, (dx, *read), tuple(read), (dx,), covers)]


def shares(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A softmax, where nobody else needs the sums of its rows."""
    output = partner(lowering, call, softmax.forward)
    if output is None or not alone(lowering, call, output):
        return None
    y, x = seen(output)[:2]
    covers = (call, output)
    return [Launch(named(covers), fast_softmax.forward, (y, x), (x,), (y,), covers)]


def affine_gradients(lowering: Lowering, call: Call) -> list[Launch]:
    """The gradients of gamma and beta, both in one sweep where both are wanted of one dy."""
    passes = (layer_norm.grad_gamma, layer_norm.grad_beta)
    dy = call.arrays["dy"]
    own = [c for c in lowering.of_node(call.node) if c.passed in passes and c.arrays["dy"].root is dy.root]
    gamma, beta = (next((c for c in own if c.passed is p and lowering.free(c)), None) for p in passes)
    covers = tuple(c for c in given(gamma, beta) if c.when == call.when and c.section == call.section)
    gamma, beta = (c if c in covers else None for c in (gamma, beta))
    none, dy = absent(1, dy.dtype), call.passed.seen("dy", dy)
    x, mean, inv_std = absent(2, dy.dtype), none, none
    if gamma:
        _, _, x, mean, inv_std = seen(gamma)
    out = [c.writes[0] if c else none for c in (gamma, beta)]
    parts = fast_layer_norm.slices(dy.shape[0])
    partials = lowering.scratch(call, "partials", (parts, 2, dy.shape[1]), dy.dtype)
    args, reads = (*out, partials, dy, x, mean, inv_std), (dy, x, mean, inv_std) if gamma else (dy,)
    writes = tuple(c.writes[0] for c in covers)
    return [Launch(named(covers), fast_layer_norm.grad_affine, args, reads, writes, covers, (partials,))]


GRADIENTS = {
    layer_norm.projections: (layer_norm.grad_x, fast_layer_norm.grad_x),
    softmax.projection: (softmax.grad_x, fast_softmax.grad_x),
}
RULES = {  # rule → the passes of the calls that it begins at
    normalised: (layer_norm.statistics,),
    shares: (softmax.scales,),
    row_gradient: GRADIENTS,
    affine_gradients: (layer_norm.grad_gamma, layer_norm.grad_beta),
}
