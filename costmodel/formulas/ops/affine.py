"""Costs of refimpl.ops.affine."""

from ..cost import E, N, load, mac, mul, register, store

register("affine", forward=N * E * (load + mac + store), grad_x=N * E * (load + mul + store))
