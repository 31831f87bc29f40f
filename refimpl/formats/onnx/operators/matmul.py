"""MatMul with weights: a linear layer, with the bias that a following Add brings."""

from ..layers import linear
from ..value import Unsupported, Value
from ..walk import Step

OPERATORS = ("MatMul",)


def convert(step: Step) -> None:
    """A linear layer."""
    if isinstance(step.value(1), Value) or not isinstance(step.value(0), Value):
        raise Unsupported("it multiplies two tensors that depend on the input, or weights from the left")
    add = step.only_consumer("Add")
    for bias in add.input if add else ():
        found = step.walk.file.constants.get(bias)
        if found is not None and found.shape == step.constant(1, "weights").shape[-1:]:
            linear(step, 1, False, bias)
            step.taken_with(add)
            return
    linear(step, 1, False, None)
