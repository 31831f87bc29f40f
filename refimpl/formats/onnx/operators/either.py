"""Where: of two tensors or constants one, element by element; Max and Min: the larger or smaller one.

A constant of one number, or of one number again and again, does not train, another one does as weights. At a condition
gradients stop.
"""

from dataclasses import replace

import numpy as np

from ..arithmetic import WithConstant, joint, weights, widened
from ..value import Unsupported, Value
from ..walk import OnnxNode

OPERATORS = ("Where", "Max", "Min")


def convert(here: OnnxNode) -> None:
    """A one_of_two: by the condition, or by the sign of the difference."""
    if here.op == "Where":
        c, a, b = (here.value(i) for i in range(3))
    elif len(here) == 2:
        a, b = here.value(0), here.value(1)
        c = a
    else:
        raise Unsupported(f"it takes {len(here)} tensors, two are read")
    given = [v for v in (a, b, c) if isinstance(v, Value)]
    wide = joint(np.shape(v) if isinstance(v, np.ndarray) else v.shape for v in (c, a, b))
    like = next((v for v in given if v.shape == wide), None) or widened(here, given[0], wide)
    one, other = (full(here, v, i, like) for i, v in ((len(here) - 2, a), (len(here) - 1, b)))
    if here.op == "Where":
        chosen = full(here, c, 0, like)
    else:
        gap = here.graph.sub(here.walk.unique(f"{here.name}.difference"), one, other)
        above, below = (1.0, 0.0) if here.op == "Max" else (0.0, 1.0)
        chosen = here.graph.by_sign(here.walk.unique(f"{here.name}.first"), gap, below, 0.0, above)
    here.like(here.graph.one_of_two(here.walk.unique(here.name), chosen, one, other), like)


def full(here: OnnxNode, value: Value | np.ndarray, place: int, like: Value) -> str:
    """Our tensor of input number `place`, with the elements where those of `like` are, and as many."""
    if isinstance(value, Value):
        return here.walk.laid_as(widened(here, here.tensor(place), like.shape), like)
    array = np.asarray(value, np.float32)
    if array.size == 0:
        raise Unsupported("its constant is empty")
    name, first = here.walk.unique(f"{here.name}.constant"), float(array.reshape(-1)[0])
    if (array == first).all():
        most = float(np.finfo(np.float32).max)  # a file says no number that is not finite
        return here.graph.constant_like(name, like.tensor, max(-most, min(most, first)))
    nothing = replace(like, tensor=here.graph.constant_like(name, like.tensor))
    before, here.name = here.name, here.walk.unique(f"{here.name}.array")
    weights(here, WithConstant(nothing, array, place), nothing, here.graph.add_weight)
    here.name = before
    return here.walk.laid_as(here.given_value(), like)
