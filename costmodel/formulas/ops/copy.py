"""Costs of refimpl.ops.copy."""

from ..cost import E, N, load, register, store

register("copy", forward=N * E * (load + store), clear=N * E * store)
