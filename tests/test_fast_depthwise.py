"""The fast depthwise kernels against the reference convolution with as many groups as channels."""

import numba
import numpy as np
import pytest
from fast_oracles import HIGH, LIMIT, LOW, activated, assert_near, away_from_kinks, flat, raw_gradient, tables, wide
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.backends.cpu import depthwise
from refimpl.kernels.geometry import out_size
from refimpl.ops import conv2d

pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
pads = st.tuples(st.integers(0, 3), st.integers(0, 3))


@st.composite
def cases(draw):
    n, channels = draw(st.integers(1, 3)), draw(st.sampled_from([1, 3, 15, 16, 17, 40]))
    taps = draw(st.sampled_from([(3, 3), (3, 3), (1, 1), (5, 5), (2, 3), (3, 1)]))
    case = {"stride": draw(pair), "dilation": draw(pair), "pad": (draw(pads), draw(pads))}
    size = []
    for axis in range(2):
        least = max(1, case["dilation"][axis] * (taps[axis] - 1) + 1 - sum(case["pad"][axis]))
        size.append(draw(st.integers(least, least + 8)))
    case |= {"x": (n, *size, channels), "taps": taps, "act": draw(st.integers(0, 2))}
    case |= {
        "affine": draw(st.booleans()) or case["act"] > 0,
        "coef": draw(st.sampled_from(["none", "frozen", "full"])),
        "post": draw(st.sampled_from([None, (False, 0), (False, 2), (True, 0), (True, 1), (True, 2)])),
    }
    return case | {"seed": draw(st.integers(0, 2**31))}


def make(case, dtype):
    """Arrays of a case; `y` is what the reference computes, rounded to the dtype."""
    rng = np.random.default_rng(case["seed"])
    n, h, w, c = case["x"]
    affine = tables(rng, c, dtype, case["affine"])
    x = away_from_kinks(rng, case["x"], affine, case["act"], dtype)
    kernel = rng.standard_normal((*case["taps"], 1, c)).astype(dtype)
    sizes = [out_size((h, w)[i], case["taps"][i], *(case[k][i] for k in ("stride", "dilation", "pad"))) for i in (0, 1)]
    dz = rng.standard_normal((n, *sizes, c)).astype(dtype)
    y = rng.standard_normal(dz.shape).astype(dtype) if case["coef"] == "full" else np.empty((0, 0, 0, 0), dtype)
    coef = np.empty((0, 0), dtype) if case["coef"] == "none" else rng.standard_normal((3, c)).astype(dtype)
    return x, affine, kernel, dz, y, coef


def geometry(case):
    return {k: case[k] for k in ("stride", "dilation", "pad")}


def after(case, dtype):
    """Scale, shift and activation of what is done to y."""
    rng, channels = np.random.default_rng(case["seed"] + 1), case["x"][3]
    scaled, post = case.get("post") or (False, 0)
    scale = rng.standard_normal(channels if scaled else 0).astype(dtype)
    return scale, rng.standard_normal(channels if case.get("post") else 0).astype(dtype), post


def run_forward(case, x, affine, kernel, out):
    dtype = x.dtype
    scale, shift, post = after(case, dtype)
    y = np.full(out, np.nan, dtype)
    sums = np.full((depthwise.slices(x.shape[0]), 2, x.shape[3]), np.nan)
    need = depthwise.forward_scratch(x.shape, kernel.shape, out, x.itemsize, *geometry(case).values())
    scratch = np.full((numba.get_num_threads(), need), np.nan, dtype)
    depthwise.forward(y, x, kernel, affine, sums, scale, shift, scratch, case["act"], post, *geometry(case).values())
    return y, sums


def run_backward(case, x, affine, kernel, dz, y, coef):
    dtype = x.dtype
    dx = np.full(x.shape, np.nan, dtype)
    parts = depthwise.slices(x.shape[0])
    dw = np.full((parts, *kernel.shape), np.nan, dtype)
    sums = np.full((parts, 2, x.shape[3]), np.nan)
    need = depthwise.backward_scratch(x.shape, kernel.shape, dz.shape, x.itemsize, *geometry(case).values())
    scratch = np.full((numba.get_num_threads(), need), np.nan, dtype)
    depthwise.backward(dx, dw, dz, y, coef, x, affine, kernel, sums, scratch, case["act"], *geometry(case).values())
    return dx, dw, sums


@pytest.mark.parametrize("dtype", LIMIT)
@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_forward(dtype, case):
    x, affine, kernel, dz, _, _ = make(case, dtype)
    y, sums = run_forward(case, x, affine, kernel, dz.shape)
    read = activated(x, affine, case["act"])
    want = conv2d.forward(read, wide(kernel), **geometry(case))
    scale = conv2d.forward(abs(read), abs(wide(kernel)), **geometry(case))
    factor, term, post = after(case, dtype)
    if term.size:
        factor = wide(factor) if factor.size else 1.0
        want = np.clip(want * factor + wide(term), LOW[post], HIGH[post])
        scale = scale * abs(factor) + abs(wide(term))
    assert_near(y, want, scale, dtype, "y")
    axes = (0, 1, 2)
    assert_near(sums.sum(0), np.stack([want.sum(axes), (want**2).sum(axes)]), scale.sum(), dtype, "sums")


@pytest.mark.parametrize("dtype", LIMIT)
@given(case=cases())
@settings(max_examples=40, deadline=None)
def test_backward(dtype, case):
    x, affine, kernel, dz, y, coef = make(case, dtype)
    dx, dw, sums = run_backward(case, x, affine, kernel, dz, y, coef)
    size = {"H": x.shape[1], "W": x.shape[2], "G": x.shape[3]}
    window = {"R": kernel.shape[0], "S": kernel.shape[1], "G": x.shape[3]}
    gradient, read = raw_gradient(dz, y, coef), activated(x, affine, case["act"])
    terms = raw_gradient(abs(dz), abs(y), abs(coef))
    want = np.where(flat(x, affine, case["act"]), 0, conv2d.grad_x(gradient, wide(kernel), **size, **geometry(case)))
    scale = conv2d.grad_x(terms, abs(wide(kernel)), **size, **geometry(case))
    assert_near(dx, want, scale, dtype, "dx")
    want_w = conv2d.grad_w(gradient, read, **window, **geometry(case))
    assert_near(dw.sum(0), want_w, conv2d.grad_w(terms, abs(read), **window, **geometry(case)), dtype, "dw")
    axes = (0, 1, 2)
    want_sums = np.stack([want.sum(axes), (want * x).sum(axes)])
    assert_near(sums.sum(0), want_sums, np.stack([scale.sum(axes), (scale * abs(x)).sum(axes)]), dtype, "sums")


def test_arrays_that_are_not_wanted_are_not_written():
    case = {"x": (2, 5, 6, 20), "taps": (3, 3), "stride": (1, 1), "dilation": (1, 1), "pad": ((1, 1), (1, 1)), "act": 2}
    case |= {"affine": True, "coef": "full", "seed": 1}
    x, affine, kernel, dz, y, coef = make(case, np.float32)
    dx, dw, sums = run_backward(case, x, affine, kernel, dz, y, coef)
    need = depthwise.backward_scratch(x.shape, kernel.shape, dz.shape, 4, *geometry(case).values())
    scratch = np.empty((numba.get_num_threads(), need), np.float32)
    no4, no5, no3 = np.empty((0,) * 4, np.float32), np.empty((0,) * 5, np.float32), np.empty((0,) * 3)
    only_w, only_x = np.empty_like(dw), np.empty_like(dx)
    attrs = (case["act"], *geometry(case).values())
    depthwise.backward(no4, only_w, dz, y, coef, x, affine, kernel, no3, scratch, *attrs)
    depthwise.backward(only_x, no5, dz, y, coef, x, affine, kernel, no3, scratch, *attrs)
    assert np.array_equal(only_w, dw) and np.array_equal(only_x, dx)


@pytest.mark.parametrize("stride", [(1, 1), (2, 1)])
@pytest.mark.parametrize("taps", [(3, 3), (5, 3)])
def test_dx_alone_reads_nothing_of_x(taps, stride):
    case = {"x": (2, 9, 8, 20), "taps": taps, "stride": stride, "dilation": (1, 1), "pad": ((1, 1), (1, 1)), "act": 0}
    case |= {"affine": False, "coef": "none", "seed": 1}
    x, affine, kernel, dz, y, coef = make(case, np.float32)
    want, _, _ = run_backward(case, x, affine, kernel, dz, y, coef)
    need = depthwise.backward_scratch(x.shape, kernel.shape, dz.shape, 4, *geometry(case).values())
    scratch = np.full((numba.get_num_threads(), need), np.nan, np.float32)
    no4, no5, no3 = np.empty((0,) * 4, np.float32), np.empty((0,) * 5, np.float32), np.empty((0,) * 3)
    dx = np.full(x.shape, np.nan, np.float32)
    depthwise.backward(dx, no5, dz, y, coef, no4, affine, kernel, no3, scratch, 0, *geometry(case).values())
    assert np.array_equal(dx, want)


@pytest.mark.parametrize("taps", [(3, 3), (5, 5)])
def test_same_bits_for_any_number_of_threads(taps):
    case = {"x": (5, 12, 9, 70), "taps": taps, "stride": (2, 1), "dilation": (1, 1), "pad": ((2, 2), (2, 2)), "act": 2}
    case |= {"affine": True, "coef": "full", "seed": 2}
    x, affine, kernel, dz, y, coef = make(case, np.float32)
    found = []
    before = numba.get_num_threads()
    for threads in (1, 2):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        found.append(
            run_forward(case, x, affine, kernel, dz.shape) + run_backward(case, x, affine, kernel, dz, y, coef)
        )
    numba.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_nan_is_not_hidden():
    case = {"x": (1, 4, 4, 16), "taps": (3, 3), "stride": (1, 1), "dilation": (1, 1), "pad": ((1, 1), (1, 1)), "act": 2}
    case |= {"affine": True, "coef": "full", "seed": 3}
    x, affine, kernel, dz, y, coef = make(case, np.float32)
    x[0, 1, 1, 5] = np.nan
    out, _ = run_forward(case, x, affine, kernel, dz.shape)
    _, dw, _ = run_backward(case, x, affine, kernel, dz, y, coef)
    assert np.isnan(out[0, 0, 0, 5]) and np.isnan(dw[0, 1, 1, 0, 5]) and not np.isnan(out[..., 6]).any()
