"""The fast 1×1 convolution against the reference convolution, through the norms before and after it."""

import numba
import numpy as np
import pytest
from fast_oracles import LIMIT, activated, assert_near, away_from_kinks, flat, raw_gradient, tables, wide
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.backends.cpu import pointwise
from refimpl.kernels.running import single_threaded_blas
from refimpl.ops import conv2d


@pytest.fixture(autouse=True, scope="module")
def one_pool():
    with single_threaded_blas():
        yield


@st.composite
def cases(draw):
    shape = draw(st.sampled_from([(1, 1, 1), (1, 5, 7), (2, 8, 8), (3, 9, 11), (2, 17, 20), (4, 19, 31)]))
    case = {
        "x": (*shape, draw(st.sampled_from([1, 3, 16, 24, 33, 130]))),
        "k": draw(st.sampled_from([1, 5, 16, 40, 200])),
    }
    case |= {"act": draw(st.integers(0, 2)), "prev": draw(st.sampled_from(["x", "other", "none"]))}
    case |= {
        "affine": draw(st.booleans()) or case["act"] > 0,
        "coef": draw(st.sampled_from(["none", "frozen", "full"])),
    }
    return case | {"residual": draw(st.booleans()), "seed": draw(st.integers(0, 2**31))}


def make(case, dtype):
    rng = np.random.default_rng(case["seed"])
    c, k = case["x"][3], case["k"]
    none4, none2 = np.empty((0, 0, 0, 0), dtype), np.empty((0, 0), dtype)
    a = {"affine": tables(rng, c, dtype, case["affine"])}
    a["x"] = away_from_kinks(rng, case["x"], a["affine"], case["act"], dtype)
    a["w"] = rng.standard_normal((1, 1, c, k)).astype(dtype)
    a["dz"] = rng.standard_normal((*case["x"][:3], k)).astype(dtype)
    a["y"] = rng.standard_normal(a["dz"].shape).astype(dtype) if case["coef"] == "full" else none4
    a["coef"] = none2 if case["coef"] == "none" else rng.standard_normal((3, k)).astype(dtype)
    a["residual"] = rng.standard_normal(case["x"]).astype(dtype) if case["residual"] else none4
    if case["prev"] == "x":
        a |= {"prev": a["x"], "prev_affine": a["affine"], "prev_act": case["act"]}
    elif case["prev"] == "other":
        a["prev_affine"] = tables(rng, c, dtype, True)
        a |= {"prev": away_from_kinks(rng, case["x"], a["prev_affine"], 2, dtype), "prev_act": 2}
    else:
        a |= {"prev": none4, "prev_affine": none2, "prev_act": 0}
    return a


def run_forward(case, a):
    x, w = a["x"], a["w"]
    y = np.full((*x.shape[:3], case["k"]), np.nan, x.dtype)
    sums = np.full((pointwise.slices(x[..., 0].size), 2, case["k"]), np.nan)
    own, shared = pointwise.forward_scratch(x.shape, w.shape)
    scratch, shared = np.full((numba.get_num_threads(), own), np.nan, x.dtype), np.full(shared, np.nan, x.dtype)
    pointwise.forward(y, x, w, a["affine"], sums, scratch, shared, case["act"])
    return y, sums


def run_backward(case, a, want_x=True, want_w=True):
    x, w = a["x"], a["w"]
    parts = pointwise.slices(x[..., 0].size)
    dx = np.full(x.shape if want_x else (0,) * 4, np.nan, x.dtype)
    dw = np.full((parts, *w.shape) if want_w else (0,) * 5, np.nan, x.dtype)
    sums = np.full((parts, 2, x.shape[3]) if case["prev"] != "none" and want_x else (0, 0, 0), np.nan)
    own, shared = pointwise.backward_scratch(x.shape, w.shape)
    scratch, shared = np.full((numba.get_num_threads(), own), np.nan, x.dtype), np.full(shared, np.nan, x.dtype)
    pointwise.backward(
        dx, dw, a["dz"], a["y"], a["coef"], x, a["affine"], w, a["residual"], a["prev"], a["prev_affine"], sums,
        scratch, shared, case["act"], a["prev_act"],
    )  # fmt: skip
    return dx, dw, sums


@pytest.mark.parametrize("dtype", LIMIT)
@given(case=cases())
@settings(max_examples=35, deadline=None)
def test_forward(dtype, case):
    a = make(case, dtype)
    y, sums = run_forward(case, a)
    read = activated(a["x"], a["affine"], case["act"])
    want = conv2d.forward(read, wide(a["w"]))
    scale = conv2d.forward(abs(read), abs(wide(a["w"])))
    assert_near(y, want, scale, dtype, "y")
    axes = (0, 1, 2)
    assert_near(sums.sum(0), np.stack([want.sum(axes), (want**2).sum(axes)]), scale.sum(), dtype, "sums")


@pytest.mark.parametrize("dtype", LIMIT)
@given(case=cases())
@settings(max_examples=35, deadline=None)
def test_backward(dtype, case):
    a = make(case, dtype)
    dx, dw, sums = run_backward(case, a)
    n, h, w, c = a["x"].shape
    g, read = raw_gradient(a["dz"], a["y"], a["coef"]), activated(a["x"], a["affine"], case["act"])
    terms = raw_gradient(abs(a["dz"]), abs(a["y"]), abs(a["coef"]))
    want = conv2d.grad_x(g, wide(a["w"]), H=h, W=w)
    scale = conv2d.grad_x(terms, abs(wide(a["w"])), H=h, W=w)
    if case["residual"]:
        want, scale = want + a["residual"], scale + abs(a["residual"])
    want = np.where(flat(a["prev"], a["prev_affine"], a["prev_act"]), 0, want) if case["prev"] != "none" else want
    assert_near(dx, want, scale, dtype, "dx")
    assert_near(dw.sum(0), conv2d.grad_w(g, read, R=1, S=1), conv2d.grad_w(terms, abs(read), R=1, S=1), dtype, "dw")
    if case["prev"] != "none":
        axes = (0, 1, 2)
        want_sums = np.stack([want.sum(axes), (want * a["prev"]).sum(axes)])
        scales = np.stack([scale.sum(axes), (scale * abs(a["prev"])).sum(axes)])
        assert_near(sums.sum(0), want_sums, scales, dtype, "sums")


@pytest.mark.parametrize("shape", [(1, 8, 9, 20), (4, 19, 31, 24)])
def test_arrays_that_are_not_wanted_are_not_written(shape):
    case = {"x": shape, "k": 40, "act": 2, "prev": "x", "affine": True, "coef": "full", "residual": False, "seed": 1}
    a = make(case, np.float32)
    dx, dw, _ = run_backward(case, a)
    assert np.array_equal(run_backward(case, a, want_w=False)[0], dx)
    assert np.array_equal(run_backward(case, a, want_x=False)[1], dw)


@pytest.mark.parametrize("shape", [(1, 8, 9, 20), (4, 19, 31, 24)])
def test_same_bits_for_any_number_of_threads(shape):
    case = {"x": shape, "k": 200, "act": 2, "prev": "x", "affine": True, "coef": "full", "residual": True, "seed": 2}
    a = make(case, np.float32)
    found = []
    before = numba.get_num_threads()
    for threads in (1, 2):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        found.append(run_forward(case, a) + run_backward(case, a))
    numba.set_num_threads(before)
    assert all(np.array_equal(one, two) for one, two in zip(*found, strict=True))
