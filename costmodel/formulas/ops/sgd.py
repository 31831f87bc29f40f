"""Costs of refimpl.ops.sgd."""

from ..cost import E, has, load, mac, mul, nonzero, register, store

gradient = 2 * load + mac + has("clip") * (load + mul)
update = 2 * load + mac + store

register(
    "sgd",
    step=E * (gradient + update),
    momentum_step=E * (gradient + load + mac + store + update + nonzero("nesterov") * mac),
)
