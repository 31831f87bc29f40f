"""Costs of refimpl.ops.finite."""

from ..cost import E, L, cmp, load, register, store

register("finite", check=E * (load + 2 * cmp) + L * store)
