"""Costs of refimpl.methods.sparse_update. With one group dw is conv2d.grad_w with C = M."""

from ..cost import G, H, K, M, N, R, S, W, add, axis_taps, has, load, mac, mul, register, store

register(
    "sparse_update",
    choose=M * (2 * load + store),
    take_x=N * H * W * M * (2 * load + store),
    grad_w=M * K / G * (N * axis_taps(0) * axis_taps(1) * (2 * load + mac) + R * S * (load + store)),
    update=R * S * M * K / G * (6 * load + 2 * mul + 2 * add + has("clip") * (load + mul) + store),
)
