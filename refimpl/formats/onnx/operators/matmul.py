"""MatMul with weights: a linear layer, with the bias that a following Add brings."""

import numpy as np

from ..layers import linear
from ..value import Unsupported, Value
from ..walk import OnnxNode

OPERATORS = ("MatMul",)


def convert(here: OnnxNode) -> None:
    """A linear layer."""
    if isinstance(here.value(1), Value) or not isinstance(here.value(0), Value):
        raise Unsupported("it multiplies two tensors that depend on the input, or weights from the left")
    add = here.only_consumer("Add")
    for place, name in enumerate(add.input if add else ()):
        bias = here.walk.values.get(name)
        if isinstance(bias, np.ndarray) and bias.shape == here.constant(1, "weights").shape[-1:]:
            linear(here, 1, False, (add, place))
            here.taken_with(add)
            return
    linear(here, 1, False, None)
