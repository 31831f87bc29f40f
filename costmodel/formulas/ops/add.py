"""Costs of refimpl.ops.add."""

from ..cost import C, H, N, W, add, load, register, store

register("add", forward=N * H * W * C * (2 * load + add + store))
