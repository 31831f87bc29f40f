"""Costs of refimpl.ops.gelu. Which function gives Φ is a matter of the attribute `approximate`."""

from ..cost import E, N, add, erf, exp, load, mul, nonzero, register, store, tanh

approximate = nonzero("approximate")
# 1 + erf(v/√2), or 1 + tanh(√(2/π)·(v + 0.044715·v³))
twice = add + (1 - approximate) * (mul + erf) + approximate * (4 * mul + add + tanh)
density = (1 - approximate) * (3 * mul + exp) + approximate * (6 * mul + 2 * add)

register(
    "gelu",
    forward=N * E * (load + twice + 2 * mul + store),
    grad_x=N * E * (2 * load + twice + density + 3 * mul + add + store),
)
