"""Stochastic gradient descent with momentum, Nesterov momentum and weight decay, as in torch.optim.SGD.

    g = clip·dw + weight_decay·w,   velocity ← momentum·velocity + g
    w ← w − lr·velocity   (Nesterov: w ← w − lr·(g + momentum·velocity))

The velocity starts at zero. `clip` is the factor of `clip_norm`, 1 where it is not given. The learning rate is an
array, so that the host changes it from step to step.
Dimensions: E elements of a parameter of any shape. Any float dtype.
"""

from ..kernels.passes import declare

SHAPES = {"w": "E*", "velocity": "E*", "dw": "E*", "lr": "1", "clip": "1"}


@declare(SHAPES, items="E", writes="w", inplace="w")
def step(t, w, dw, lr, clip=None, weight_decay=0.0):
    """New parameter w, (E,), without momentum, from the old one, dw, (E,), lr, (1,), and clip, (1,)."""
    g = dw[t]
    if clip.shape[0]:
        g *= clip[0]
    g += weight_decay * w[t]
    w[t] -= lr[0] * g


@declare(SHAPES, items="E", writes="w velocity", inplace="w velocity")
def momentum_step(t, w, velocity, dw, lr, clip=None, momentum=0.9, nesterov=False, weight_decay=0.0):
    """New parameter w and velocity, (E,), from the old ones, dw, (E,), lr, (1,), and clip, (1,)."""
    g = dw[t]
    if clip.shape[0]:
        g *= clip[0]
    g += weight_decay * w[t]
    moved = momentum * velocity[t] + g
    velocity[t] = moved
    w[t] -= lr[0] * (g + momentum * moved if nesterov else moved)
