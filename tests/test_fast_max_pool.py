"""Fast max pooling against the reference passes: equal to the bit, NaN and ties included."""

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.backends.cpu import max_pool
from refimpl.kernels.geometry import out_size
from refimpl.ops import max_pool as reference


@st.composite
def cases(draw):
    attrs = {"window": [], "stride": [], "pad": []}
    shape = [draw(st.integers(1, 3))]
    for _ in range(2):
        window = draw(st.integers(1, 4))
        pad = (draw(st.integers(0, window - 1)), draw(st.integers(0, window - 1)))
        attrs["window"].append(window)
        attrs["stride"].append(draw(st.integers(1, 5)))
        attrs["pad"].append(pad)
        shape.append(draw(st.integers(max(1, window - sum(pad)), 12)))
    shape.append(draw(st.sampled_from([1, 3, 6, 16, 33])))
    return tuple(shape), {k: tuple(v) for k, v in attrs.items()}


@settings(max_examples=80, deadline=None)
@given(cases(), st.sampled_from(["float32", "float64"]), st.integers(0, 2**32 - 1), st.booleans())
def test_equals_the_reference(case, dtype, seed, odd_values):
    shape, attrs = case
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(dtype)
    if odd_values:  # ties, infinities and NaN
        x = rng.choice(np.array([0, 1, -np.inf, np.nan], dtype), shape)
    size = [out_size(shape[i + 1], attrs["window"][i], attrs["stride"][i], 1, attrs["pad"][i]) for i in range(2)]
    y = np.full((shape[0], *size, shape[3]), 7, dtype)
    places = np.full(y.shape, 255, np.uint8)
    geometry = max_pool.geometry(attrs)
    max_pool.forward(y, places, x, geometry)
    np.testing.assert_array_equal(y, reference.forward(x, **attrs))
    np.testing.assert_array_equal(places, reference.argmax(x, **attrs))
    alone = np.full_like(y, 7)
    max_pool.forward(alone, np.empty((0,) * 4, np.uint8), x, geometry)
    np.testing.assert_array_equal(alone, y)

    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = np.full(shape, np.nan, dtype)
    max_pool.grad_x(dx, dy, places, geometry)
    want = reference.grad_x(dy, places, H=shape[1], W=shape[2], **attrs)
    assert np.linalg.norm(dx - want) <= (1e-14 if dtype == "float64" else 1e-6) * max(np.linalg.norm(dy), 1e-30)


@pytest.mark.parametrize("threads", [1, 2])
def test_same_bits_for_any_thread_count(threads):
    x = np.random.default_rng(0).standard_normal((3, 9, 9, 5)).astype("float32")
    attrs = {"window": (3, 3), "stride": (2, 2), "pad": ((1, 1), (1, 1))}
    y, places = reference.forward(x, **attrs), reference.argmax(x, **attrs)
    dx = np.empty_like(x)
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    try:
        max_pool.grad_x(dx, y, places, max_pool.geometry(attrs))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(dx, reference.grad_x(y, places, H=9, W=9, **attrs))
