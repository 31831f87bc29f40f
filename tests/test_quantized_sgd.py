"""The update of whole numbers: scaled gradients, rounding at random, ends."""

import numpy as np

from refimpl.ops import quantized_sgd

SEED, I64 = 5, np.ones(1, np.int64)


def update(w, g, scale, lr, **attrs):
    one = np.ones(1)
    return quantized_sgd.update(w, g, lr * one, np.asarray(scale), attrs.pop("step", SEED * I64), SEED * I64, **attrs)


def test_quantization_aware_scaling_moves_the_real_number_as_far_as_a_float_does_on_average():
    """arXiv 2206.15472: the gradient of the whole numbers, scale·G, times scale⁻², is lr·G/scale in whole numbers."""
    rng = np.random.default_rng(0)
    w, g, scale = rng.integers(-60, 60, (6, 5)).astype(np.int8), rng.normal(size=(6, 5)), rng.uniform(0.01, 0.3, 5)
    for scaled, wanted in ((True, -0.1 * g / scale), (False, -0.1 * g * scale)):
        moves = [update(w, g, scale, 0.1, scaled=scaled, step=i * I64).astype(int) - w for i in range(4000)]
        share = wanted - np.floor(wanted)
        error = np.abs(np.mean(moves, 0) - wanted)
        assert (error <= 4.5 * np.sqrt(share * (1 - share) / 4000) + 1e-9).all()
        assert np.std(moves, 0).max() > 0  # at random
    assert (update(w, g, scale, 0.1) == update(w, g, scale, 0.1)).all()


def test_weights_saturate_at_127_and_biases_where_every_sum_still_fits():
    w, g = np.array([126, -126, 3], np.int8), np.array([-1e9, 1e9, 0.0])
    assert update(w, g, [1e-9], 1.0).tolist() == [127, -127, 3]
    end = quantized_sgd.end(np.dtype(np.int32), 40)
    assert end == 2**31 - 1 - 40 * 127 * 255
    b = update(np.array([end - 1, 1 - end, 5], np.int32), g, [1e-12], 1.0, most=end)
    assert b.dtype == np.int32 and b.tolist() == [end, -end, 5]
    assert update(np.array([100], np.int8), np.zeros(1), [0.5], 0.25, weight_decay=0.5).item() in (87, 88)
