"""Layer norm, softmax and softmax cross-entropy by rows: what is told of a row and what is made of it in one launch."""

from dataclasses import replace

from ...compiler.ir import Call, Launch
from ...compiler.lower import Lowering, on_gpu, reference
from ...ops import layer_norm, softmax, softmax_cross_entropy
from .. import row_groups
from ..common import named, seen
from . import layer_norm as layer_norm_kernels
from . import softmax as softmax_kernels
from . import softmax_cross_entropy as loss_kernels

KERNELS = {layer_norm.projections: layer_norm_kernels.GRAD_X, softmax.projection: softmax_kernels.GRAD_X}
ALONE = {softmax_cross_entropy.mean_loss: loss_kernels.MEAN_LOSS, softmax_cross_entropy.grad_x: loss_kernels.GRAD_X}


def normalised(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A layer norm with the statistics of its rows."""
    return row_groups.normalised(lowering, call, layer_norm_kernels.FORWARD)


def shares(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A softmax with the sums of its rows."""
    return row_groups.shares(lowering, call, softmax_kernels.FORWARD)


def row_gradient(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The gradient of either with the sums over each row that it needs, or the tangent of a softmax."""
    return row_groups.row_gradient(lowering, call, KERNELS)


def losses(lowering: Lowering, call: Call) -> list[Launch] | None:
    """The losses of rows with the logarithms of their sums, or the tangents of both. Others may need either."""
    output = row_groups.partner(lowering, call, softmax_cross_entropy.sample_losses)
    if output is None:
        return None
    _, *args = reference(output, on_gpu).args  # its own, of which it now writes what it reads of a row's sum
    reads = [b for b in output.reads if b.root is not call.writes[0].root]
    kernel, given = loss_kernels.SAMPLE_LOSSES, ()
    if call.passed is softmax_cross_entropy.tangent_lse:
        kernel, given = loss_kernels.TANGENT_LOSSES, tuple(seen(call)[2:])
    covers, writes = (call, output), (*output.writes, *call.writes)
    return [Launch(named(covers), kernel, (*args, *given), (*reads, *given), writes, covers)]


def by_rows(lowering: Lowering, call: Call) -> list[Launch]:
    """A call on rows that stays one."""
    own = reference(call, on_gpu)
    return [replace(own, function=ALONE[call.passed], args=own.args[1:])]


RULES = {  # rule → the passes of the calls that it begins at
    normalised: (layer_norm.statistics,),
    shares: (softmax.scales,),
    row_gradient: KERNELS,
    losses: (softmax_cross_entropy.log_sum_exp, softmax_cross_entropy.tangent_lse),
    by_rows: ALONE,
}
