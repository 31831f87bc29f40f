"""Costs of refimpl.ops.finiteness."""

from ..cost import E, L, cmp, load, register, store

register("finiteness", check=E * (load + 2 * cmp) + L * store)
