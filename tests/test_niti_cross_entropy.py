"""The integer approximation of the softmax cross-entropy: its distance from the exact one, and its ends."""

import niti_oracle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.ops import niti_cross_entropy as op


def errors(x, exponent, labels):
    """Errors in units of 2^−14 of logits x·2^exponent."""
    e = np.array([exponent], np.int32)
    top, total = op.totals(x, e)
    return op.wide_errors(x, e, labels, top, total)


def drawn(seed):
    """Logits (N, K), their exponent, labels (N,)."""
    rng = np.random.default_rng(seed)
    n, k = rng.integers(1, 5, 2)
    most = (127, 5, 0)[rng.integers(3)]
    return rng.integers(-most, most + 1, (n, k)).astype(np.int8), int(rng.integers(-30, 40)), rng.integers(0, k, n)


@given(st.integers(0, 2**32 - 1).map(drawn))
def test_integer_cross_entropy_is_that_of_plain_integers(case):
    x, exponent, labels = case
    assert errors(x, exponent, labels).tolist() == niti_oracle.errors(x.astype(object), exponent, labels).tolist()


@pytest.mark.parametrize("exponent", [-7, -5, -4, -2, 0])
def test_errors_are_close_to_those_of_the_exact_softmax(exponent):
    """The straight line between powers of two is 6.2 % too high at most: a probability is off by as much at most."""
    rng = np.random.default_rng(1)
    x, labels = rng.integers(-127, 128, (200, 10)).astype(np.int8), rng.integers(0, 10, 200)
    real = np.exp((x - x.max(1, keepdims=True).astype(int)) * 2.0**exponent)
    exact = real / real.sum(1, keepdims=True)
    found = errors(x, exponent, labels) / 2**14
    found[np.arange(200), labels] += 1
    assert (np.abs(found - exact) <= 0.066 * exact + 2 / 2**14).all()
    assert (np.abs(found.sum(1) - 1) < 11 / 2**14).all() and (found >= 0).all()


def test_equal_logits_and_one_far_above_the_others():
    labels = np.array([0, 1])
    found = errors(np.array([[5, 5, 5, 5], [127, -127, -127, -127]], np.int8), 2, labels)
    assert found.tolist() == [[4096 - 2**14, 4096, 4096, 4096], [2**14, -(2**14), 0, 0]]


@given(st.integers(0, 2**32 - 1).map(drawn))
def test_the_loss_that_is_reported_is_the_exact_one(case):
    x, exponent, labels = case
    real = x.astype(float) * 2.0**exponent
    top = real.max(1)
    wanted = np.log(np.exp(real - top[:, None]).sum(1)) + top - real[np.arange(len(x)), labels]
    losses = op.sample_losses.kernel  # in float64: no array of floats tells the dtype of an eager call
    found = np.empty(len(x))
    losses(len(x), found, x, np.array([exponent], np.int32), labels)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)
    assert op.mean_loss(found)[0] == pytest.approx(found.mean())
