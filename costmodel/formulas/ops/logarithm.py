"""Costs of refimpl.ops.logarithm."""

from ..cost import E, N, div, load, log, register, store

register("logarithm", forward=N * E * (load + log + store), grad_x=N * E * (2 * load + div + store))
