"""Costs of refimpl.ops.niti_relu."""

from ..cost import E, N, cmp, load, register, store

register("niti_relu", forward=N * E * (load + cmp + store), grad_x=N * E * (2 * load + cmp + store))
