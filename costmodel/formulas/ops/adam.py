"""Costs of refimpl.ops.adam. expm1 counts as exp; log1p of an attribute, one number for all steps, as nothing."""

from ..cost import E, add, div, exp, has, load, mac, mul, nonzero, register, sqrt, store

gradient = load + has("clip") * (load + mul)
decay = mac + nonzero("decoupled") * (load + mul)
moments = 2 * (load + add + mac + store) + mul
change = 2 * load + sqrt + div + 2 * mac

register(
    "adam",
    bias_correction=2 * (load + mul + exp + add + div + store) + sqrt,
    update=E * (load + gradient + decay + moments + change + store),
)
