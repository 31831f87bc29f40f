"""Costs of refimpl.ops.max_over: every element is compared twice, and its place with that which is kept."""

from ..cost import C, D, H, N, U, V, W, cmp, load, register, store

elements, maxima = N * H * W * C, N * U * V * D
largest = elements * (load + 2 * cmp) + maxima * (load + store)

register(
    "max_over",
    forward=largest,
    find=largest,
    grad_x=elements * (2 * load + cmp + store),
    tangent=elements * (load + cmp) + maxima * (load + store),
)
