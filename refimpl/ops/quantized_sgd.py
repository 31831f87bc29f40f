"""Gradient descent on whole numbers, with quantization-aware scaling of gradients (arXiv 2206.15472).

A parameter holds whole numbers w with a scale, whose real numbers are scale·w. Their gradient G = ∂L/∂(scale·w) is
dw, that of the whole numbers scale·G. With quantization-aware scaling this is multiplied by scale⁻²,

    w ← saturated(w − round(lr·(scale⁻²·(scale·clip·dw) + weight_decay·w)))        `scaled`
    w ← saturated(w − round(lr·(scale·clip·dw + weight_decay·w)))                  without

so that ‖w‖/‖gradient‖ is that of the float net, and a step moves scale·w as far as one of floats with the same lr does.

  [paper] Weights are multiplied by w_scale⁻², biases, whose scale is w_scale·x_scale, by w_scale⁻²·x_scale⁻².
Readings:
  [ours]  round: to the whole number below or above, at random, so that its mean is the step: most steps are less than
          a half, and the nearest number would be 0. Drawn from (seed, stream, number of the update, element).
  [ours]  Weights of 8 bits are saturated at ±127, biases at the largest number that leaves room for every sum of
          weights that training may make (`end`).
  [ours]  Plain SGD: a velocity would take four bytes for a weight of one.
Dimensions: E elements of a parameter of any shape, L scales: one, or one for each index along its last axis.
"""

import numpy as np

from ..kernels.passes import declare
from ..kernels.random import words
from ..kernels.rounding import LEVELS, SUM_END, WORDS, stepped

SHAPES = {
    "w": "int8|int32: E*", "dw": "E*", "lr": "1", "clip": "1", "scale": "L", "step": "int64: 1", "seed": "int64: 1",
}  # fmt: skip
REACH = 255  # of x − x_zero, both of 8 bits


def end(dtype: np.dtype, terms: int) -> int:
    """The largest magnitude that training may give a parameter, so that every sum stays within int32.

    terms: products of a sum. Of weights it is 127, of biases what those leave times the largest x − x_zero, 255.
    """
    return LEVELS if np.dtype(dtype).itemsize == 1 else SUM_END - terms * LEVELS * REACH


@declare(SHAPES, items="E", writes="w", inplace="w")
def update(
    t, w, dw, lr, scale, step, seed, clip=None, weight_decay=0.0, scaled=True, most=LEVELS, stream=0
):  # fmt: skip
    """New w, (E,), by quantization-aware scaling, from the old one, dw, (E,), scale, (L,), and lr, clip, step and seed.

    These are (1,).
    """
    gradient = dw[t]
    if clip.shape[0]:
        gradient *= clip[0]
    draw, _ = words(seed[0], stream, step[0], t)
    moved = stepped(
        w[t], gradient, lr[0], scale[t % scale.shape[0]], draw, dw.dtype.type(WORDS), scaled, weight_decay, most, dw, w
    )
    w[t] = w.dtype.type(moved)
