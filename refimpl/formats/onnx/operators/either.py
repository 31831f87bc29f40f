"""Where: of two tensors or constants one, element by element; Max and Min: the largest or smallest of several.

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
    """A one_of_two: by the condition, or for each further tensor by the sign of the difference."""
    inputs = [here.value(i) for i in range(len(here))]
    wide = joint(v.shape for v in inputs)
    given = [v for v in inputs if isinstance(v, Value)]
    like = next((v for v in given if v.shape == wide), None) or widened(here, given[0], wide)
    each = [full(here, v, i, like) for i, v in enumerate(inputs)]
    if here.op == "Where":
        here.like(here.graph.one_of_two(here.free, *each), like)
        return
    best, part = each[0], here.walk.unique
    above, below = (1.0, 0.0) if here.op == "Max" else (0.0, 1.0)
    for other in each[1:]:
        gap = here.graph.sub(part(f"{here.name}.difference"), best, other)
        first = here.graph.by_sign(part(f"{here.name}.first"), gap, below, 0.0, above)
        best = here.graph.one_of_two(here.free, first, best, other)
    here.like(best, like)


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
