"""MatMul with weights: a linear layer, with the bias that a following Add brings."""

import numpy as np

from ..layers import linear
from ..value import Unsupported, Value
from ..walk import Step

OPERATORS = ("MatMul",)


def convert(step: Step) -> None:
    """A linear layer."""
    if isinstance(step.value(1), Value) or not isinstance(step.value(0), Value):
        raise Unsupported("it multiplies two tensors that depend on the input, or weights from the left")
    add = step.only_consumer("Add")
    for place, name in enumerate(add.input if add else ()):
        bias = step.walk.values.get(name)
        if isinstance(bias, np.ndarray) and bias.shape == step.constant(1, "weights").shape[-1:]:
            linear(step, 1, False, (add, place))
            step.taken_with(add)
            return
    linear(step, 1, False, None)
