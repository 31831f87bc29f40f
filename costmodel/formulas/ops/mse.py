"""Costs of refimpl.ops.mse."""

from ..cost import E, N, add, div, load, mac, register, store

register(
    "mse",
    sample_losses=N * E * (2 * load + add + mac) + N * (div + store),
    mean_loss=N * (load + add) + div + store,
    grad_x=N * E * (2 * load + 2 * add + div + store),
    tangent_losses=N * E * (3 * load + 2 * add + mac) + N * (div + store),
)
