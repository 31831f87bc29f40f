"""Costs of refimpl.ops.border: elements are copied, those of the border are set."""

from ..cost import C, H, K, N, P, Q, W, load, register, store

register("border", forward=N * (H * W * C * load + P * Q * K * store), grad_x=N * H * W * C * (load + store))
