"""Change a net: prune channels, cut layers off, make whole numbers of it."""

from . import cut, prune
from .quantize import quantize

__all__ = ["cut", "prune", "quantize"]
