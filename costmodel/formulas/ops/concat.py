"""Costs of refimpl.ops.concat: each call copies the channels of one input."""

from ..cost import A, K, N, load, register, store

copied = N * A * (load + store)

register("concat", forward=copied, grad_x=copied, tangent=N * (A * load + K * store))
