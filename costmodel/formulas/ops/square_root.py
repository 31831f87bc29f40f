"""Costs of refimpl.ops.square_root."""

from ..cost import E, N, div, load, mul, register, sqrt, store

register("square_root", forward=N * E * (load + sqrt + store), grad_x=N * E * (2 * load + mul + div + store))
