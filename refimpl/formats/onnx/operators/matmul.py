"""MatMul: of a tensor with weights a linear layer, of tokens a convolution of 1×1, with the bias that a following Add
brings; with a stack of weights, or from the left of it, such a convolution in groups; of two tensors a matmul.
"""

import math

import numpy as np

from ..arithmetic import joint, widened
from ..layers import linear, of_rows, of_stack
from ..layout import SAMPLES, packed, row_major
from ..value import Unsupported, Value
from ..walk import OnnxNode

OPERATORS = ("MatMul",)


def convert(here: OnnxNode) -> None:
    """A linear layer, a conv2d or a matmul."""
    constant = next((i for i in (0, 1) if not isinstance(here.value(i), Value)), None)
    if constant is None:
        products(here)
        return
    if constant == 0 or here.constant(1, "weights").ndim != 2:
        of_stack(here, constant)
        return
    add, layer = here.only_consumer("Add"), linear if here.walk.features(here.tensor(0)) else of_rows
    for place, name in enumerate(add.input if add else ()):
        bias = here.walk.values.get(name)
        if isinstance(bias, np.ndarray) and bias.shape == here.constant(1, "weights").shape[-1:]:
            layer(here, 1, False, (add, place))
            here.taken_with(add)
            return
    layer(here, 1, False, None)


def products(here: OnnxNode) -> None:
    """A matmul for each of what is before the last two axes."""
    a, b = here.tensor(0), here.tensor(1)
    if min(len(a.shape), len(b.shape)) < 2 or len(a.shape) < 3 or a.shape[-1] != b.shape[-2]:
        raise Unsupported(f"it multiplies {a.shape} and {b.shape}")
    before = joint((a.shape[:-2], b.shape[:-2]))
    a, b = (widened(here, v, (*before, *v.shape[-2:])) for v in (a, b))
    groups, (rows, depth), columns = math.prod(a.shape[:-2]), a.shape[-2:], b.shape[-1]
    order = tuple(range(1, len(a.shape)))
    turned = (*order[:-2], order[-1], order[-2])
    straight, crossed = (len(packed(d for i in (0, *o) for d in b.layout[i] if d != SAMPLES)) for o in (order, turned))
    transposed = crossed < straight
    one, other = here.walk.laid(a, order, (groups, rows, depth)), (depth, columns)
    if transposed:
        order, other = turned, (columns, depth)
    two = here.walk.laid(b, order, (groups, *other))
    y = here.graph.matmul(here.name, one, two, transposed)
    layout = here.walk.in_order(a.layout, row_major((*a.shape[:-1], columns)))
    here.give_value(Value(y, (groups, rows, columns), layout))
