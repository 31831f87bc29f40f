"""Costs of refimpl.ops.arg_max: every element is compared twice."""

from ..cost import C, D, H, N, U, V, W, cmp, load, register, store

register("arg_max", forward=N * H * W * C * (load + 2 * cmp) + N * U * V * D * (load + store))
