"""Layer norm and softmax on the fast kernels: against float64, and as steps of a net."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import refimpl as ri
from checks import both_thread_counts
from refimpl.backends.cpu import layer_norm as fast_layer_norm
from refimpl.backends.cpu import softmax as fast_softmax
from refimpl.backends.cpu.simd import LANES
from refimpl.graph import Graph
from refimpl.ops import layer_norm, softmax
from validation.instruments import drawn

LIMIT = {"float32": 1e-5, "float64": 1e-13}
kinds = st.sampled_from(["float32", "float64"])
widths = st.sampled_from([1, 5, LANES - 1, LANES, LANES + 1, 3 * LANES + 7, 197, 9000])
heights = st.sampled_from([1, 2, 17, 41])


def is_near(ours, wanted, scale, kind):
    """‖ours − wanted‖ within the limit of the larger of ‖wanted‖ and ‖scale‖."""
    assert np.isfinite(ours).all()
    return np.linalg.norm(ours - wanted) <= LIMIT[kind] * max(np.linalg.norm(wanted), np.linalg.norm(scale))


@example(41, 197, 3.0, "float32", 0)
@example(300, 2 * LANES, 3.0, "float64", 0)
@given(heights, widths, st.sampled_from([0.1, 3.0, 60.0]), kinds, st.integers(0, 99))
def test_a_softmax_and_its_gradient_are_those_of_float64(n, count, spread, kind, seed):
    rng = np.random.default_rng(seed)
    x, dy = rng.normal(0, spread, (n, count)).astype(kind), rng.normal(size=(n, count)).astype(kind)

    def both():
        y, dx = np.full((2, n, count), np.nan, kind)
        fast_softmax.forward(y, x)
        fast_softmax.grad_x(dx, dy, y)
        return np.stack([y, dx])

    y, dx = both_thread_counts(both)
    wide = x.astype(float)
    wanted = softmax.forward(wide, *softmax.scales(wide))
    assert is_near(y, wanted, 0, kind)
    error = dy.astype(float)
    back = softmax.grad_x(error, wanted, softmax.projection(error, wanted))
    assert is_near(dx, back, wanted * (abs(error) + softmax.projection(abs(error), wanted)[:, None]), kind)


@pytest.mark.parametrize("count", [3, LANES + 3])
def test_a_softmax_of_what_is_special_is_that_of_the_reference(count):
    rows = np.zeros((6, count), np.float32)
    rows[0, 1], rows[1, 0], rows[2, -1], rows[3, 1], rows[4] = np.nan, np.nan, np.inf, -np.inf, -np.inf
    rows[5] = -1000
    y = np.empty_like(rows)
    fast_softmax.forward(y, rows)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(y, softmax.forward(rows, *softmax.scales(rows)), 1e-6)


@example(41, 197, 0.0, "float32", 0)
@example(1000, 24, 100.0, "float64", 0)
@given(heights, widths, st.sampled_from([0.0, 100.0]), kinds, st.integers(0, 99))
def test_a_layer_norm_and_its_gradients_are_those_of_float64(n, count, offset, kind, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(offset, 1, (n, count)).astype(kind)
    dy, gamma, beta = (rng.normal(size=shape).astype(kind) for shape in ((n, count), count, count))
    eps, parts = np.dtype(kind).type(1e-3), fast_layer_norm.slices(n)

    def every():
        y, dx = np.full((2, n, count), np.nan, kind)
        (mean, inv_std), (dgamma, dbeta) = np.full((2, n), np.nan, kind), np.full((2, count), np.nan, kind)
        fast_layer_norm.forward(y, mean, inv_std, x, gamma, beta, eps)
        fast_layer_norm.grad_x(dx, dy, x, gamma, mean, inv_std)
        partials = np.full((parts, 2, count), np.nan, kind)
        fast_layer_norm.grad_affine(dgamma, dbeta, partials, dy, x, mean, inv_std)
        return np.concatenate([a.reshape(-1) for a in (y, dx, mean, inv_std, dgamma, dbeta)])

    found = np.split(both_thread_counts(every), np.cumsum([n * count] * 2 + [n] * 2 + [count]))
    x, dy, gamma, beta = (a.astype(float) for a in (x, dy, gamma, beta))
    mean, inv_std = layer_norm.statistics(x, eps=1e-3)
    sums = layer_norm.projections(dy, x, gamma, mean, inv_std)
    wanted = (
        layer_norm.forward(x, gamma, beta, mean, inv_std),
        layer_norm.grad_x(dy, x, gamma, mean, inv_std, *sums),
        mean,
        inv_std,
        layer_norm.grad_gamma(dy, x, mean, inv_std),
        layer_norm.grad_beta(dy),
    )
    rounding = 1 + offset  # of x − mean, in units of the last place of what is subtracted
    scales = (
        rounding * inv_std[:, None] * abs(gamma) + abs(beta),
        rounding * inv_std[:, None] * abs(gamma * dy),
        mean,
        rounding * inv_std**2,
        rounding * (abs(dy) * inv_std[:, None]).sum(0),
        abs(dy).sum(0),
    )
    for ours, theirs, scale in zip(found, wanted, scales, strict=True):
        assert is_near(ours, theirs.reshape(-1), scale, kind)


def test_one_gradient_of_two_leaves_the_other():
    rng = np.random.default_rng(0)
    dy, none = rng.normal(size=(37, 5)).astype(np.float32), np.empty(0, np.float32)
    dbeta, partials = np.empty(5, np.float32), np.empty((fast_layer_norm.slices(37), 2, 5), np.float32)
    fast_layer_norm.grad_affine(none, dbeta, partials, dy, np.empty((0, 0), np.float32), none, none)
    np.testing.assert_allclose(dbeta, dy.sum(0), 1e-5, 1e-5)


def net() -> Graph:
    """Both operators, on maps and on rows."""
    g = Graph("net", (5, 3), 3)
    x = g.layer_norm("ln", g.conv2d("c", "input", 7, 1))
    x = g.softmax("share", g.conv2d("d", g.layer_norm("ln2", x), 21, 1))
    g.linear("fc", g.layer_norm("ln3", g.global_avg_pool("mean", x)), 3)
    return g


def before_a_block() -> Graph:
    """A layer norm before a residual block, and one at the end."""
    g = Graph("net", (5, 3), 3)
    x = g.layer_norm("ln", g.conv2d("c", "input", 6, 1))
    x = g.add("sum", g.conv2d("d", g.layer_norm("ln2", x), 6, 3, pad=1), x)
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    return g


PLANS = {
    "all": ri.Plan(step=ri.Backprop(ri.SGD(lr=1.0))),
    "bias": ri.Plan(step=ri.Backprop(ri.SGD(lr=1.0)), bias_only=True),
}


@pytest.mark.parametrize("plan", PLANS)
def test_a_net_of_rows_runs_on_them_and_they_execute_what_they_state(plan):
    p = ri.compile(net(), PLANS[plan], 2, threads=1)
    wanted = {fast_layer_norm.forward, fast_layer_norm.grad_x, fast_layer_norm.grad_affine}
    assert wanted | {fast_softmax.forward, fast_softmax.grad_x} <= {launch.function for launch in p.order}
    assert not any(c.passed.operator == "softmax" and len(p_.covers) < 2 for p_ in p.order for c in p_.covers)
    found = drawn.compare_kernels(p, 2)
    assert found and all(one.ok for one in found), [str(one) for one in found if not one.ok]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("kind, limit", [(np.float32, 2e-4), (np.float64, 1e-11)])
def test_steps_of_a_net_of_rows_are_those_of_the_reference_kernels(kind, limit, plan):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 5, 3, 3)), rng.integers(0, 3, 4)
    after = {}
    for backend in ("fast", "reference"):
        t = ri.Trainer(ri.compile(net(), PLANS[plan], 4, backend=backend, dtype=kind), 0)
        t.train_step(x, y, 1)
        t.train_step(x[:3], y[:3], 1)
        after[backend] = t.parameters
    for name, w in after["reference"].items():
        np.testing.assert_allclose(after["fast"][name], w, limit, limit)


@pytest.mark.parametrize("seed", range(4))
def test_a_layer_norm_before_a_block_that_steps_leave_out(seed):
    rng = np.random.default_rng(seed)
    x, y, after = rng.normal(size=(4, 5, 3, 3)), rng.integers(0, 3, 4), {}
    for backend in ("fast", "reference"):
        plan = ri.Plan(step=ri.Backprop(ri.SGD(lr=0.5)), depth=ri.StochasticDepth(0.5))
        t = ri.Trainer(ri.compile(before_a_block(), plan, 4, backend=backend, dtype=np.float64), seed)
        for _ in range(3):
            t.train_step(x, y, 3)
        after[backend] = t.parameters
    for name, w in after["reference"].items():
        np.testing.assert_allclose(after["fast"][name], w, 1e-11, 1e-11)
