"""Costs of refimpl.ops.staircase."""

from ..cost import E, N, convert, load, register, store

register("staircase", forward=N * E * (load + convert + store))
