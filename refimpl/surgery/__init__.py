"""Change a net: prune channels, cut layers off, make whole numbers of it."""

from . import cut, prune
from .quantize import quantize
from .share_exponents import share_exponents

__all__ = ["cut", "prune", "quantize", "share_exponents"]
