"""Costs of refimpl.ops.sub. A difference and a minus sign are additions."""

from ..cost import E, N, add, load, register, store

register("sub", forward=N * E * (2 * load + add + store), grad_b=N * E * (load + add + store))
