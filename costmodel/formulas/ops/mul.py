"""Costs of refimpl.ops.mul."""

from ..cost import E, N, load, mul, register, store

product = N * E * (2 * load + mul + store)

register("mul", forward=product, grad_a=product, grad_b=product)
