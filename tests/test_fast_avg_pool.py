"""Fast average pooling against the reference passes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fast_max_pool import cases

from refimpl.backends.common import counted_margin
from refimpl.backends.cpu import avg_pool
from refimpl.backends.cpu.max_pool import geometry
from refimpl.ops import avg_pool as reference
from refimpl.ops import global_avg_pool

LIMIT = {"float32": 1e-5, "float64": 1e-12}


def near(ours, theirs, scale, dtype):
    return np.linalg.norm(ours - theirs) <= LIMIT[dtype] * max(np.linalg.norm(theirs), np.linalg.norm(scale), 1e-30)


@settings(max_examples=80, deadline=None)
@given(cases(), st.sampled_from(["float32", "float64"]), st.integers(0, 2**32 - 1), st.booleans())
def test_equals_the_reference(case, dtype, seed, count_include_pad):
    shape, attrs = case
    rng = np.random.default_rng(seed)
    overhang = tuple(int(rng.integers(0, after + 1)) for _, after in attrs["pad"])
    attrs |= {"count_include_pad": count_include_pad, "overhang": overhang}
    x = rng.standard_normal(shape).astype(dtype)
    want = reference.forward(x.astype("float64"), **attrs)
    y = np.full(want.shape, np.nan, dtype)
    avg_pool.forward(y, x, geometry(attrs), counted_margin(attrs))
    assert near(y, want, reference.forward(abs(x).astype("float64"), **attrs), dtype)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = np.full(shape, np.nan, dtype)
    avg_pool.grad_x(dx, dy, geometry(attrs), counted_margin(attrs))
    known = {"H": shape[1], "W": shape[2], **attrs}
    want = reference.grad_x(dy.astype("float64"), **known)
    assert near(dx, want, reference.grad_x(abs(dy).astype("float64"), **known), dtype)


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 9)] * 4), st.sampled_from(["float32", "float64"]), st.integers(0, 2**32 - 1))
def test_mean_of_whole_maps(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(dtype)
    y = np.full((shape[0], shape[3]), np.nan, dtype)
    avg_pool.global_forward(y, x)
    wide = x.astype("float64")
    assert near(y, global_avg_pool.forward(wide), global_avg_pool.forward(abs(wide)), dtype)
    dx = np.full(shape, np.nan, dtype)
    avg_pool.global_grad_x(dx, y)
    want = global_avg_pool.grad_x(y.astype("float64"), H=shape[1], W=shape[2])
    assert near(dx, want, want, dtype)
