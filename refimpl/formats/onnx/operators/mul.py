"""A product: of two tensors, one of which may be spread along axes of length 1; of a tensor and a constant.

A map and a factor for each of its channels are a scale_channels. By √½ at the beginning of a gelu: the gelu.
"""

from ..arithmetic import beside, line, pair, spread, weights
from ..gelu import gelu
from ..value import MAP, ROW
from ..walk import OnnxNode

OPERATORS = ("Mul",)


def convert(here: OnnxNode) -> None:
    """A gelu, a mul, a scale_channels, a mul_spread, a mul_weight, or an affine."""
    if found := beside(here):
        if found.number is not None:
            if not (found.number and gelu(here, 1 / found.number)):
                line(here, found.x, found.number, 0.0)
        else:
            weights(here, found, found.x, here.graph.mul_weight)
        return
    a, b = here.tensor(0), here.tensor(1)
    if set(here.shape(a)[2:]) == {1}:
        a, b = b, a
    channels = here.shape(a)[:2] == here.shape(b)[:2] and set(here.shape(b)[2:]) == {1} and a.axes in (MAP, ROW)
    if channels and here.shape(a) != here.shape(b):
        here.give(here.graph.scale_channels(here.name, a.tensor, here.walk.features(b).tensor), a.axes)
    elif wide := spread(here):
        x, own, other = wide
        here.give(here.graph.mul_spread(here.name, own, other), x.axes)
    else:
        x, first, second = pair(here)
        here.give(here.graph.mul(here.name, first, second), x.axes, x.mixed)
