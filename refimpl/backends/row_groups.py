"""Calls on the rows of layer norms and softmaxes that one launch does, on every backend: each gives its kernels."""

from collections.abc import Callable, Mapping

from ..compiler.ir import Call, Launch
from ..compiler.lower import Lowering
from ..kernels.passes import Pass
from ..ops import layer_norm, softmax
from .common import named, seen

GRADIENTS = {layer_norm.projections: layer_norm.grad_x, softmax.projection: softmax.grad_x}  # sums → what needs them


def partner(lowering: Lowering, call: Call, passed: Pass) -> Call | None:
    """The call of `passed` in its section that reads what a call writes; None where there is none to go with it."""
    found = [lowering.find(b, passed) for b in call.writes]
    return next((c for c in found if c and c.section == call.section), None)


def alone(lowering: Lowering, call: Call, reader: Call) -> bool:
    """Does nobody but `reader` read what a call writes?"""
    return all(lowering.readers(b) == [reader] for b in call.writes)


def normalised(lowering: Lowering, call: Call, kernel: Callable) -> list[Launch] | None:
    """Mean and deviation of each row with what is made of them: `kernel(y, mean, inv_std, x, gamma, beta, eps)`."""
    output = partner(lowering, call, layer_norm.forward)
    if output is None:
        return None
    y, x, gamma, beta, mean, inv_std = seen(output)
    eps = y.dtype.type(call.attrs["eps"])
    args, covers = (y, mean, inv_std, x, gamma, beta, eps), (call, output)
    return [Launch(named(covers), kernel, args, (x, gamma, beta), (y, mean, inv_std), covers)]


def row_gradient(lowering: Lowering, call: Call, kernels: Mapping[Pass, Callable]) -> list[Launch] | None:
    """The gradient of the rows of a layer norm or a softmax, with the sums over each row that it needs.

    kernels: pass of the sums → `kernel(dx, *read)`, which takes all that the gradient reads but these.
    """
    gradient = partner(lowering, call, GRADIENTS[call.passed])
    if gradient is None or not alone(lowering, call, gradient):
        return None
    summed = {b.root for b in call.writes}
    dx, *read = (b for b in seen(gradient) if b.root not in summed)
    covers = (call, gradient)
    return [Launch(named(covers), kernels[call.passed], (dx, *read), tuple(read), (dx,), covers)]


def shares(lowering: Lowering, call: Call, kernel: Callable) -> list[Launch] | None:
    """A softmax, where nobody else needs the sums of its rows: `kernel(y, x)`."""
    output = partner(lowering, call, softmax.forward)
    if output is None or not alone(lowering, call, output):
        return None
    y, x = seen(output)[:2]
    covers = (call, output)
    return [Launch(named(covers), kernel, (y, x), (x,), (y,), covers)]
