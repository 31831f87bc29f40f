"""Costs of refimpl.ops.rearrange."""

from ..cost import N, P, Q, R, load, register, store

moved = N * P * Q * R * (load + store)

register("rearrange", forward=moved, grad_x=moved)
