"""The fast kernels of gradient filtering against the reference passes."""

import numba
import numpy as np
import pytest
from filter_cases import Case, cases, error, magnitudes
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gradient_filter import TOLERANCE, filtered

from refimpl.backends.cpu import gradient_filter as fast


def run(case, x, dy, w, mask=None, scale=None, n=None):
    """Every array that the fast kernels write, each first filled with NaN; `n` ≤ N samples of larger scratch."""
    z, dtype = case.sizes, x.dtype
    new = lambda *shape: np.full(shape, np.nan, dtype)  # noqa: E731
    depth = z["C"] // z["G"]
    work = {name: new(*shape) for name, shape in fast.scratch(z, numba.config.NUMBA_NUM_THREADS).items()}
    n = n or z["N"]
    x, dy = x[:n], dy[:n]
    x_sum, dy_mean = new(n, z["U"], z["V"], z["C"]), new(n, z["U"], z["V"], z["K"])
    dx, dw, w_sum = new(*x.shape), new(*w.shape), new(depth, z["K"])
    align = case.attrs["align"]
    mask = np.empty((0, 0), "uint8") if mask is None else mask
    scale = np.empty(0, dtype) if scale is None else scale
    fast.pool_x(x_sum, x, case.patch, case.stride, align)
    fast.pool_dy(dy_mean, dy, mask, scale, case.patch, align)
    if case.rule.dilated(case.attrs):
        fast.grad_x_dilated(dx, work["tiles"], dy_mean, w, case.patch, case.stride, case.dilation, align)
    else:
        fast.sum_w(w_sum, w)
        fast.grad_x(dx, work["tiles"], work["turned"], work["panels"], dy_mean, w_sum, case.patch, case.stride, align)
    fast.grad_w(dw, work["dw_partial"], work["panels"], dy_mean, x_sum)
    return {"x_sum": x_sum, "dy_mean": dy_mean, "dx": dx, "dw": dw}


def compare(case, arrays, dy_seen, **keywords):
    dtype = str(arrays[0].dtype)
    x, dy, w = arrays
    ours = run(case, x, dy, w, **keywords)
    reference = filtered(case, x, dy_seen, w)
    scale = filtered(case, *magnitudes((x, dy_seen, w)))
    for name, value in ours.items():
        assert value.dtype == dtype
        assert error(value, reference[name], scale[name]) <= TOLERANCE[dtype], name


@settings(max_examples=200, deadline=None)
@given(cases(channels=5), st.sampled_from(["float64", "float32"]))
def test_equals_the_reference(case, dtype):
    arrays = case.arrays(dtype)
    compare(case, arrays, arrays[1])


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(["float64", "float32"]), st.booleans(), st.booleans(), st.sampled_from([1, 4, 8]))
def test_mask_and_scale_of_the_layer_above(case, dtype, masked, scaled, times):
    case = Case(**{**vars(case), "width": case.width * times})
    x, dy, w = case.arrays(dtype)
    rng = np.random.default_rng(case.seed)
    bits = rng.random(dy.shape) < 0.5 if masked else np.ones(dy.shape, bool)
    mask = np.packbits(bits.reshape(case.n, -1), axis=1, bitorder="little") if masked else None
    scale = rng.standard_normal(dy.shape[3]).astype(dtype) if scaled else None
    seen = np.where(bits, dy * (scale if scaled else dy.dtype.type(1)), dy.dtype.type(0))
    dy = np.where(bits, dy, np.inf)  # what is masked must not matter, not even as infinity times zero
    compare(case, (x, dy.astype(dtype), w), seen, mask=mask, scale=scale)


LARGE = [
    Case(3, (30, 27), 1, 300, 270, (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), (2, 2), "centre", 1),
    Case(2, (33, 41), 70, 1, 1, (3, 3), (2, 1), (1, 1), ((1, 1), (1, 1)), (2, 2), "centre", 2),
    Case(2, (33, 41), 3, 100, 40, (3, 3), (1, 1), (4, 4), ((4, 4), (4, 4)), (2, 2), "centre", 3),
    Case(2, (64, 64), 2, 130, 9, (1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), (4, 4), "corner", 4),
    Case(600, (3, 2), 1, 5, 6, (3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)), (15, 15), "centre", 5),
]  # several tiles, blocks and slices each


@pytest.mark.parametrize("case", LARGE)
def test_many_tiles_equal_the_reference(case):
    arrays = case.arrays("float64")
    compare(case, arrays, arrays[1])


@pytest.mark.parametrize("case", LARGE)
def test_a_smaller_batch_in_the_same_scratch(case):
    x, dy, w = case.arrays("float64")
    ours = run(case, x, dy, w, n=1)
    one = Case(**{**vars(case), "n": 1})
    reference, scale = filtered(one, x[:1], dy[:1], w), filtered(one, *magnitudes((x[:1], dy[:1], w)))
    for name, value in ours.items():
        assert error(value, reference[name], scale[name]) <= 1e-12, name


@pytest.mark.parametrize("case", LARGE)
def test_same_bits_with_one_and_two_threads(case):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("one thread here")
    threads = numba.get_num_threads()
    arrays = case.arrays("float32")
    try:
        numba.set_num_threads(1)
        one = run(case, *arrays)
        numba.set_num_threads(2)
        two = run(case, *arrays)
    finally:
        numba.set_num_threads(threads)
    for name, value in one.items():
        np.testing.assert_array_equal(value, two[name])


@pytest.mark.parametrize("dtype, shift", [("float32", 0), ("float32", 1), ("float64", 0)])
def test_a_map_larger_than_the_caches(dtype, shift):
    """Such a map is written past the caches where it is aligned; a crooked one is written as others are."""
    n, h, w, c = 2, 191, 177, 64
    z = {"N": n, "U": 64, "V": 59, "C": c, "K": 32, "G": 1}
    rng = np.random.default_rng(0)
    dy_mean, w_sum = rng.normal(size=(n, 64, 59, 32)).astype(dtype), rng.normal(size=(c, 32)).astype(dtype)
    work = {name: np.empty(s, dtype) for name, s in fast.scratch(z, numba.config.NUMBA_NUM_THREADS).items()}
    memory = np.full(n * h * w * c + 64, np.nan, dtype)
    first = -memory.ctypes.data // memory.itemsize % (128 // memory.itemsize) + shift
    dx = memory[first : first + n * h * w * c].reshape(n, h, w, c)
    assert dx.nbytes > fast.FAR
    fast.grad_x(dx, work["tiles"], work["turned"], work["panels"], dy_mean, w_sum, (3, 3), (1, 1), fast.CENTRE)
    wide = (dy_mean.astype("float64") @ w_sum.T.astype("float64")).repeat(3, 1).repeat(3, 2)
    top = -((h - 64 * 3) // 2)
    expected = wide[:, top : top + h, :w]
    assert error(dx, expected, np.zeros(1)) <= TOLERANCE[dtype]
    assert np.isnan(memory[:first]).all() and np.isnan(memory[first + dx.size :]).all()
