"""Costs of refimpl.ops.dequantize."""

from ..cost import K, N, convert, iadd, load, mul, register, store

register(
    "dequantize", forward=N * K * (2 * load + iadd + convert + mul + store), grad_x=N * K * (2 * load + mul + store)
)
