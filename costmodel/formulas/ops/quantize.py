"""Costs of refimpl.ops.quantize."""

from ..cost import E, N, cmp, convert, div, iadd, load, register, store

register("quantize", forward=N * E * (2 * load + div + 2 * cmp + 3 * convert + iadd + store))
