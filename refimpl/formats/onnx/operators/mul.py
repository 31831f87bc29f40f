"""A product: of two tensors, one of which may be spread along axes of length 1; of a tensor and a constant.

A map and a factor for each of its channels are a scale_channels. By √½ at the beginning of a gelu: the gelu.
"""

from ..arithmetic import beside, line, spread, weights
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
    if set(a.shape[2:]) == {1}:
        a, b = b, a
    scale = here.walk.features(b) if len(b.shape) in (3, 4) and a.shape != b.shape else None
    if scale and a.shape[:2] == b.shape[:2] and set(b.shape[2:]) == {1} and a.axes in (MAP, ROW):
        here.like(here.graph.scale_channels(here.name, a.tensor, scale.tensor), a)
    elif wide := spread(here):
        x, own, other, _ = wide
        here.like(here.graph.mul_spread(here.name, own, other), x)
    else:
        one, two, x = here.pair()
        here.like(here.graph.mul(here.name, one, two), x)
