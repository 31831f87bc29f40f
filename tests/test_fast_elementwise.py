"""Activations on the fast kernels: against float64, at what is special, and as steps of a net."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refimpl as ri
from checks import both_thread_counts
from refimpl.backends.cpu import elementwise as fast
from refimpl.backends.cpu import hard_sigmoid as fast_hard_sigmoid
from refimpl.backends.cpu.elementary import power_of_e
from refimpl.backends.cpu.simd import LANES, address, load, store
from refimpl.graph import Graph
from refimpl.kernels.kernel import inline
from refimpl.ops import affine, gelu, hard_sigmoid, hard_swish, sigmoid, silu
from validation.instruments import drawn

SPECIAL = (0.0, -0.0, 3.0, -3.0, np.inf, -np.inf, np.nan, 1e-45, -104.5, 89.5, -750.0, 720.0, 1e30, -1e30)
FORWARD = {
    fast.sigmoid: (sigmoid.forward, {}), fast.silu: (silu.forward, {}), fast.hard_swish: (hard_swish.forward, {}),
    fast.gelu: (gelu.forward, {}), fast.approximate_gelu: (gelu.forward, {"approximate": True}),
}  # fmt: skip
BACKWARD = {
    fast.silu_grad_x: (silu.grad_x, {}), fast.hard_swish_grad_x: (hard_swish.grad_x, {}),
    fast.sigmoid_grad_x: (sigmoid.grad_x, {}), fast.gelu_grad_x: (gelu.grad_x, {}),
    fast.approximate_gelu_grad_x: (gelu.grad_x, {"approximate": True}),
}  # fmt: skip
SINGLE = (fast.gelu, fast.gelu_grad_x)  # of float32 alone
KERNELS = (*FORWARD, *BACKWARD)
kernels = [(k, "float32") for k in KERNELS] + [(k, "float64") for k in KERNELS if k not in SINGLE]
LIMIT = {"float32": 4e-7, "float64": 4e-15}  # of the largest of the result and what it was made of
sizes = st.sampled_from([1, 7, LANES, LANES + 1, fast.RUN - 1, fast.RUN, fast.RUN + 9])


@inline
def powers(y, x):
    """y = exp(x)."""
    for i in range(0, y.size, LANES):
        m = min(LANES, y.size - i)
        store(address(y), i, power_of_e(load(address(x), i, m)), m)


@pytest.mark.parametrize("kind, lowest, highest", [("float32", -103.0, 88.7), ("float64", -745.0, 709.7)])
def test_the_exponential_is_within_two_units_of_the_last_place(kind, lowest, highest):
    x = np.linspace(lowest, highest, 200_001).astype(kind)
    y = np.empty_like(x)
    powers(y, x)
    wanted = np.exp(x.astype(np.longdouble))
    assert (np.abs(y - wanted) / np.spacing(wanted.astype(kind))).max() < 2


def test_the_exponential_of_what_is_special():
    for kind in (np.float32, np.float64):
        x = np.array([0.0, -0.0, -np.inf, np.inf, np.nan, -1e4, 1e4], kind)
        y = np.empty_like(x)
        powers(y, x)
        np.testing.assert_array_equal(y, np.array([1, 1, 0, np.inf, np.nan, 0, np.inf], kind))


@pytest.mark.parametrize("kernel, kind", kernels)
@given(size=sizes, n=st.integers(1, 3), spread=st.sampled_from([0.1, 1.0, 4.0, 40.0]), seed=st.integers(0, 99))
def test_it_is_the_reference_in_float64(kernel, kind, size, n, spread, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(0, spread, (n, size)).astype(kind)
    if kernel is fast.sigmoid_grad_x:
        x = rng.random((n, size)).astype(kind)
    given_ = (x,) if kernel in FORWARD else (rng.normal(size=(n, size)).astype(kind), x)
    reference, attrs = (FORWARD | BACKWARD)[kernel]

    def run():
        y = np.full_like(x, np.nan)
        kernel(y, *given_)
        return y

    y = both_thread_counts(run)
    wanted = reference(*(a.astype(np.float64) for a in given_), **attrs)
    scale = np.maximum(abs(wanted), abs(given_[0]))
    assert (abs(y - wanted) <= LIMIT[kind] * scale + np.finfo(kind).tiny).all()
    if kernel in BACKWARD:
        dx = given_[0].copy()
        kernel(dx, dx, x)
        np.testing.assert_array_equal(dx, y)


@pytest.mark.parametrize("kernel, kind", kernels)
def test_what_is_special_is_as_the_reference_has_it(kernel, kind):
    x = np.array([SPECIAL], kind)
    given_ = (x,) if kernel in FORWARD else (np.full_like(x, -2), x)
    y = np.empty_like(x)
    kernel(y, *given_)
    reference, attrs = (FORWARD | BACKWARD)[kernel]
    with np.errstate(all="ignore"):
        wanted = reference(*given_, **attrs)
    np.testing.assert_allclose(y, wanted, 1e-6, 4e-7)


@given(sizes, st.sampled_from(["float32", "float64"]), st.integers(0, 99))
def test_a_straight_line_is_the_references(size, kind, seed):
    x = np.random.default_rng(seed).normal(size=(1, size)).astype(kind)
    factor, offset = (np.dtype(kind).type(value) for value in (0.37, -1.25))
    y = np.empty_like(x)
    fast.affine(y, x, factor, offset)
    np.testing.assert_allclose(y, affine.forward(x, factor=0.37, offset=-1.25), 1e-6, 1e-6)


@given(sizes, st.integers(1, 3), st.booleans(), st.sampled_from(["float32", "float64"]), st.integers(0, 99))
def test_a_hard_sigmoid_its_mask_and_its_gradient_are_the_references(size, n, masked, kind, seed):
    rng = np.random.default_rng(seed)
    x, dy = rng.normal(0, 3, (n, size)).astype(kind), rng.normal(size=(n, size)).astype(kind)
    x[0, :14] = SPECIAL[:size]
    alpha, beta = np.dtype(kind).type(0.2), np.dtype(kind).type(0.5)

    def every():
        y, dx, mask = np.full_like(x, -9), np.full_like(x, -9), np.full((n, -(-size // 8)), 255, np.uint8)
        fast_hard_sigmoid.forward(y, mask if masked else np.empty((0, 0), np.uint8), x, alpha, beta)
        fast_hard_sigmoid.grad_x(dx, dy, mask, alpha)
        return np.concatenate([a.reshape(-1).view(np.uint8) for a in (y, dx, mask)])

    found = np.split(both_thread_counts(every), [x.nbytes, 2 * x.nbytes])
    y, dx, mask = found[0].copy().view(kind).reshape(x.shape), found[1].copy().view(kind).reshape(x.shape), found[2]
    np.testing.assert_allclose(y, hard_sigmoid.forward(x, alpha=0.2, beta=0.5), 1e-6, 1e-7)
    wanted = hard_sigmoid.pack_mask(y) if masked else np.full((n, -(-size // 8)), 255, np.uint8)
    np.testing.assert_array_equal(mask, wanted.reshape(-1))
    np.testing.assert_array_equal(dx, hard_sigmoid.grad_x(dy, mask.reshape(n, -1), alpha=0.2))


def net() -> Graph:
    """Every operator of these kernels, one after another."""
    g = Graph("net", (5, 3), 3)
    x = g.conv2d("c", "input", 7, 1)
    x = g.hard_sigmoid("hard", g.affine("wide", x, 2.0, 0.0), 0.2)
    for i, of in enumerate((g.sigmoid, g.silu, g.hard_swish, g.gelu, lambda name, x: g.gelu(name, x, True))):
        x = of(f"a{i}", g.affine(f"line{i}", x, 1.5, 0.25))
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    return g


def test_a_net_runs_on_them_and_they_execute_what_they_state():
    p = ri.compile(net(), ri.Plan(), 2, threads=1)
    kernels = {launch.function for launch in p.order}
    hard = {fast_hard_sigmoid.forward, fast_hard_sigmoid.grad_x}
    assert {*FORWARD, *BACKWARD, fast.affine, *hard} <= kernels
    found = drawn.compare_kernels(p, 2)
    assert found and all(one.ok for one in found), [str(one) for one in found if not one.ok]


@pytest.mark.parametrize("kind, limit", [(np.float32, 1e-4), (np.float64, 1e-12)])
def test_steps_of_a_net_of_activations_are_those_of_the_reference_kernels(kind, limit):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 5, 3, 3)), rng.integers(0, 3, 4)
    after = {}
    for backend in ("fast", "reference"):
        plan = ri.Plan(step=ri.Backprop(ri.SGD(lr=1.0)))
        t = ri.Trainer(ri.compile(net(), plan, 4, backend=backend, dtype=kind), 0)
        t.train_step(x, y, 1)
        after[backend] = t.parameters
    for name, w in after["reference"].items():
        np.testing.assert_allclose(after["fast"][name], w, limit, limit)


def test_a_gradient_takes_the_place_of_what_it_is_made_from():
    p = ri.compile(net(), ri.Plan(), 2, threads=1)
    launch = next(launch for launch in p.order if launch.function is fast.silu_grad_x)
    assert launch.writes[0].root is launch.reads[0].root
