"""Costs of refimpl.ops.one_hot: an index is compared from the beginning and from the end."""

from ..cost import D, H, N, W, cmp, load, register, store

register("one_hot", forward=N * H * W * D * (load + 2 * cmp + store))
