"""The instrument that shows bias and variance of 8-bit gradients, on a small net."""

import numpy as np
import pytest
from nets import NETS

import refimpl as ri
from validation.instruments import rounding


@pytest.fixture(scope="module")
def found():
    graph = NETS["residual"]()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, *graph.size, 3)).astype(np.float32), np.arange(4) % 3
    x[1] *= 0.01  # a sample whose error maps differ from the others'
    schemes = {(s, b): ri.Plan(rules=[ri.QuantizedTraining(s, b)]) for s in ("psq", "ptq") for b in (4, 8)}
    return {key: rounding.measure(graph, plan, x, y, 12, seed=3) for key, plan in schemes.items()}


def test_fewer_bits_and_one_scale_for_all_samples_vary_more(found):
    """arXiv 2010.14298: a scale for each sample has less variance than one for all; four bits less, 16² to 18² more."""
    for array in ("dw", "dx"):
        variance = {key: gradients[array].variance for key, gradients in found.items()}
        assert all(v > 0 for v in variance.values())
        for bits in (4, 8):
            assert variance["psq", bits] < variance["ptq", bits]
        for scheme in ("psq", "ptq"):
            assert 150 < variance[scheme, 4] / variance[scheme, 8] < 700


def test_bias_falls_with_the_steps_of_the_operands(found):
    for array in ("dw", "dx"):
        for scheme in ("psq", "ptq"):
            few, many = found[scheme, 4][array], found[scheme, 8][array]
            assert many.bias < few.bias / 4 and many.chance == pytest.approx((many.variance / 12) ** 0.5)


def test_exact_gradients_have_neither():
    graph = NETS["residual"]()
    x = np.random.default_rng(1).normal(size=(3, *graph.size, 3)).astype(np.float32)
    exact = rounding.measure(graph, ri.Plan(), x, np.arange(3) % 3, 3)
    assert all(r.variance == pytest.approx(0, abs=1e-25) and r.bias < 1e-12 for r in exact.values())
