"""A product of two tensors of one shape, or of a map and a factor for each of its channels."""

from ..value import Unsupported
from ..walk import OnnxNode

OPERATORS = ("Mul",)


def convert(here: OnnxNode) -> None:
    """A mul, or a scale_channels."""
    a, b = here.tensor(0), here.tensor(1)
    if a.shape == b.shape:
        one, two, x = here.pair()
        here.like(here.graph.mul(here.name, one, two), x)
        return
    place = 0
    if set(a.shape[2:]) == {1}:
        a, b, place = b, a, 1
    scale = here.walk.features(b)
    if a.shape[:2] != b.shape[:2] or set(b.shape[2:]) != {1} or scale is None:
        raise Unsupported(f"it multiplies shapes {a.shape} and {b.shape}")
    here.give_map(here.graph.scale_channels(here.name, here.map(place), scale.tensor), len(a.shape))
