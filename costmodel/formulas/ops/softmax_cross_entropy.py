"""Costs of refimpl.ops.softmax_cross_entropy: class weights and label smoothing each add their terms."""

from ..cost import K, N, add, cmp, differs, div, exp, has, load, log, mac, mul, nonzero, register, store

weighted, smooth = has("class_weights"), nonzero("label_smoothing")
ignoring = differs("ignored", -1)  # rows that are ignored cost less: this is the price where none is

register(
    "softmax_cross_entropy",
    log_sum_exp=N * (K * (2 * load + 2 * add + exp) + (K - 1) * cmp + log + add + store),
    sample_losses=N * (3 * load + add + weighted * (load + mul) + store)
    + smooth * N * (mul + K * (2 * load + 2 * add + weighted * (load + mul)) + div + mac),
    mean_loss=N * (weighted * (2 * load + add) + load + add)
    + 2 * store
    + div
    + ignoring * (cmp + N * (1 - weighted) * (load + add)),
    grad_x=N * (2 * load + div + weighted * (load + mul) + mac + K * (2 * load + add + exp + mul + store))
    + N * (load + add + store)
    + smooth * N * (mul + 2 * div + load + K * add + weighted * K * (2 * load + add + mul)),
    tangent_lse=N * (K * (3 * load + add + exp + mac) + store),
    tangent_loss=N * (load + add) + load + div + store,
)
