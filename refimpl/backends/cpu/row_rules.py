"""Layer norm and softmax on the fast kernels: what is told of a row and what is made of it in one sweep."""

from ...compiler.grouping import given
from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering
from ...ops import layer_norm, softmax
from .. import row_groups
from ..common import absent, named, seen
from . import layer_norm as fast_layer_norm
from . import softmax as fast_softmax

KERNELS = {layer_norm.projections: fast_layer_norm.grad_x, softmax.projection: fast_softmax.grad_x}


def normalised(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A layer norm with the statistics of its rows."""
    return row_groups.normalised(lowering, call, fast_layer_norm.forward)


def shares(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A softmax with the sums of its rows."""
    return row_groups.shares(lowering, call, fast_softmax.forward)


def row_gradient(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradient of either with the sums over each row that it needs."""
    return row_groups.row_gradient(lowering, call, KERNELS)


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


RULES = {  # rule → the passes of the calls that it begins at
    normalised: (layer_norm.statistics,),
    shares: (softmax.scales,),
    row_gradient: KERNELS,
    affine_gradients: (layer_norm.grad_gamma, layer_norm.grad_beta),
}
