"""Costs of refimpl.ops.dropout. Drawing random numbers is integer work, which is not counted."""

from ..cost import E, N, load, mul, register, store

register("dropout", forward=N * E * (3 * load + mul + store), grad_x=N * E * (3 * load + mul + store))
