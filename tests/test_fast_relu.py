"""Rectifiers with their masks, and gradients through mask and scale, against the reference passes, bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks import both_thread_counts
from refimpl.backends.cpu import relu as fast
from refimpl.ops import relu, relu6

OPS = {1: relu, 2: relu6}
SPECIAL = (0.0, -0.0, 6.0, np.inf, -np.inf, np.nan, np.nextafter(np.float32(6), 0), 1e-45)
# elements of a sample: around a byte, a vector and the run of one item, and runs that share no border with channels
elements = st.sampled_from([1, 7, 8, 15, 16, 17, 33, fast.RUN - 1, fast.RUN, fast.RUN + 9])
dtypes = st.sampled_from(["float32", "float64"])


def drawn(seed, shape, dtype):
    """Normal values of deviation 4, one in eight of them a special one."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 4, shape).astype(dtype)
    return np.where(rng.random(shape) < 1 / 8, rng.choice(SPECIAL, shape), x).astype(dtype)


def nothing(dims, dtype):
    """An array that is not given."""
    return np.empty((0,) * dims, dtype)


@given(elements, st.integers(1, 3), st.sampled_from([1, 2]), st.booleans(), st.booleans(), dtypes, st.integers(0, 99))
def test_forward_and_mask_are_the_references(size, n, act, two, masked, dtype, seed):
    a = drawn(seed, (n, size), dtype)
    b = drawn(seed + 1, (n, size), dtype) if two else nothing(2, dtype)
    with np.errstate(invalid="ignore"):
        want = OPS[act].forward(a + b if two else a)

    def both():
        y, mask = np.full_like(a, -9), np.full((n, -(-size // 8)), 255, np.uint8)
        fast.forward(y, mask if masked else nothing(2, np.uint8), a, b, act)
        return np.concatenate([y.view(np.uint8), mask], 1)

    found = both_thread_counts(both)
    y, mask = found[:, : a.nbytes // n].copy().view(dtype), found[:, a.nbytes // n :]
    np.testing.assert_array_equal(y, want)
    np.testing.assert_array_equal(mask, OPS[act].pack_mask(want) if masked else 255)


@given(
    elements,
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([0, 1, 3, 8, 13, 16, 20, 24]),
    dtypes,
    st.integers(0, 99),
)
def test_grad_x_is_dy_through_mask_and_scale(size, n, masked, channels, dtype, seed):
    size *= max(1, channels)
    dy, rng = drawn(seed, (n, size), dtype), np.random.default_rng(seed)
    mask = relu.pack_mask(rng.normal(size=(n, size)))
    scale = drawn(seed + 2, channels, dtype)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = dy * np.tile(scale, size // channels) if channels else dy
    want = relu.grad_x(scaled, mask) if masked else scaled

    def backward(inplace=False):
        dx = dy.copy() if inplace else np.full_like(dy, -9)
        fast.grad_x(dx, dx if inplace else dy, mask if masked else nothing(2, np.uint8), scale)
        return dx

    np.testing.assert_array_equal(both_thread_counts(backward), want)
    np.testing.assert_array_equal(backward(inplace=True), want)


@pytest.mark.parametrize("act", [1, 2])
def test_a_bit_is_set_where_the_gradient_passes(act):
    x = np.array([[-1, 0, 1e-30, 3, 6, 7, np.inf, np.nan]], np.float32)
    y, mask = np.empty_like(x), np.empty((1, 1), np.uint8)
    fast.forward(y, mask, x, nothing(2, "float32"), act)
    assert (
        np.unpackbits(mask[0], bitorder="little").tolist()
        == {
            1: [0, 0, 1, 1, 1, 1, 1, 1],
            2: [0, 0, 1, 1, 0, 0, 0, 0],
        }[act]
    )
