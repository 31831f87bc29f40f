"""Adam and AdamW, as in torch.optim (Kingma, Ba, arXiv 1412.6980, algorithm 1; Loshchilov, Hutter, arXiv 1711.05101).

    g = clip·dw (+ weight_decay·w in Adam),   m ← m + (1 − β₁)·(g − m),   v ← v + (1 − β₂)·(g² − v)
    w ← w (·(1 − lr·weight_decay) in AdamW) − lr/(1 − β₁ˢ) · m / (√v / √(1 − β₂ˢ) + ε)

m and v start at zero, the step s at 1. The attributes are gain1 = 1 − β₁ and gain2 = 1 − β₂, and 1 − βˢ is taken as
−expm1(s·log1p(−gain)): 1 − 0.999 in float32 would be wrong by 10⁻⁵. `clip` is the factor of `clip_norm`, 1 where it is
not given. `decoupled` makes it AdamW.
Dimensions: E elements of a parameter of any shape. Any float dtype.
"""

import math

from ..kernels.passes import declare

SHAPES = {
    "w": "E*", "m": "E*", "v": "E*", "dw": "E*", "lr": "1", "step": "int64: 1", "factors": "2", "clip": "1",
}  # fmt: skip


@declare(SHAPES, items="1", writes="factors")
def bias_correction(t, factors, lr, step, gain1=0.1, gain2=0.001):
    """Output factors, (2,): lr / (1 − β₁ˢ) and 1 / √(1 − β₂ˢ), from lr, (1,), and step, (1,), which holds s."""
    one = factors.dtype.type(1)
    steps = factors.dtype.type(step[0])
    zero = factors.dtype.type(0)
    factors[0] = lr[0] / (zero - math.expm1(steps * math.log1p(-gain1)))
    factors[1] = one / math.sqrt(zero - math.expm1(steps * math.log1p(-gain2)))


@declare(SHAPES, items="E", writes="w m v", inplace="w m v")
def update(t, w, m, v, dw, lr, factors, clip=None, gain1=0.1, gain2=0.001, eps=1e-8, weight_decay=0.0, decoupled=False):
    """New parameter w and moments m and v, (E,), from the old ones and dw, (E,).

    lr: learning rate, (1,); factors: of `bias_correction`, (2,); clip: of `clip_norm`, (1,), or absent. gain1,
    gain2: of the moments; eps: beside the root; weight_decay: joins the gradient or, where `decoupled`, w itself.
    """
    weight = w[t]
    g = dw[t]
    if clip.shape[0]:
        g *= clip[0]
    if decoupled:
        weight -= lr[0] * weight_decay * weight
    else:
        g += weight_decay * weight
    first = m[t]
    first += gain1 * (g - first)
    m[t] = first
    second = v[t]
    second += gain2 * (g * g - second)
    v[t] = second
    w[t] = weight - factors[0] * first / (math.sqrt(second) * factors[1] + eps)
