"""Linear layers under 8-bit training against plain NumPy integers, in nets of any rank, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import NETS
from rule_cases import thorough
from test_quantized_training import close, nearest

import refimpl as ri
from costmodel import predict
from refimpl.kernels.passes import ShapeError
from refimpl.methods import linear_quantized, quantized
from refimpl.methods.quantized import SCHEMES, WIDE_LEVELS, QuantizedTraining
from refimpl.training.trainer import Trainer
from validation.instruments import counting

BANNER = QuantizedTraining("banner")


def drawn(seed):
    """Whole numbers of a layer: x (N, [rows,] D), w (D, K), dy (N, [rows,] K), scales (N,) and (1,), b (K,)."""
    rng = np.random.default_rng(seed)
    n, d, k = rng.integers(1, 7, 3)
    rows = tuple(rng.integers(1, 5, rng.integers(0, 3)))
    whole = lambda *shape: rng.integers(-127, 128, shape).astype(np.int8)  # noqa: E731
    ends = [whole(n, *rows, d), whole(d, k), whole(n, *rows, k)]
    return *ends, rng.uniform(0.1, 2, n), rng.uniform(0.1, 2, 1), rng.uniform(0.1, 2, 1), rng.normal(size=k)


def flat(v):
    """The rows of a sample side by side, int64: (N, M, features)."""
    return v.astype(np.int64).reshape(len(v), -1, v.shape[-1])


@given(st.integers(0, 2**32 - 1).map(drawn))
@thorough
def test_products_are_those_of_whole_numbers(case):
    x, w, dy, s_dy, s_x, s_w, b = case
    wide = dy.astype(np.int16) * 258
    y = s_x * s_w * (flat(x) @ w.astype(np.int64)).reshape(dy.shape)
    close(linear_quantized.forward(x, w, s_x, s_w), y)
    close(linear_quantized.forward(x, w, s_x, s_w, b), y + b)
    each = s_dy.reshape(-1, *[1] * (x.ndim - 1))
    close(linear_quantized.grad_x(dy, w, s_dy, s_w), each * s_w * (flat(dy) @ w.T.astype(np.int64)).reshape(x.shape))
    for of in (dy, wide):
        sums = np.einsum("nmd,nmk->ndk", flat(x), flat(of))
        close(linear_quantized.grad_w(of, x, s_dy, s_x), s_x * np.einsum("n,ndk->dk", s_dy, sums))


def net(rank):
    """Two linear layers on (N, [5, 3,] 6) and a classifier."""
    g = ri.Graph("rows")
    g.add_input("input", (5, 3, 6)[3 - rank :])
    x = g.linear("second", g.relu("act", g.linear("first", "input", 7)), 4)
    g.linear("classes", x if rank == 1 else g.flatten("flat", x), 3)
    return g


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_step_of_any_rank_quantizes_each_linear_layer_and_does_what_is_priced(scheme, rank):
    p = ri.compile(net(rank), ri.Plan(rules=[QuantizedTraining(scheme)]), 4, backend="reference")
    ran = {(c.node, c.passed.name) for c in p.step if c.passed.operator == "linear_quantized"}
    wanted = {(node, "grad_w") for node in ("first", "second", "classes")}
    wanted |= {("second", "grad_x"), ("classes", "grad_x")}
    assert ran == wanted | ({(node, "forward") for node, _ in wanted} if scheme == "banner" else set())
    assert {c.passed.name for c in p.step if c.passed.operator == "linear"} <= {"forward", "grad_b"}
    for call in p.step:
        assert dict(predict.call_counts(call, 4)) == counting.count_call(call, 4), call.name
    assert {b.dtype for b in p.saved if b.name.endswith(".x_q")} == {np.dtype(np.int8)}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_the_gradient_of_a_step_is_the_statement_in_numpy(scheme, backend):
    """One update by the rate 1 shows dw of the classifier: that of the quantized x and dy, a scale for each sample."""
    rule, graph = QuantizedTraining(scheme), ri.Graph("one")
    graph.add_input("input", (6,))
    graph.linear("classes", "input", 3)
    plan = ri.Plan(rules=[rule], step=ri.Backprop(ri.SGD(lr=1.0)))
    t = Trainer(ri.compile(graph, plan, 4, backend=backend, dtype=np.float64), seed=5)
    x, labels = np.random.default_rng(2).normal(size=(4, 6)), np.array([0, 2, 1, 1])
    w, b = (t.parameters[f"classes.{a}"].copy() for a in "wb")
    t.train_step(x, labels, 1)
    x_q, s_x = nearest(x, 127)
    logits = x @ w + b
    if scheme == "banner":
        w_q, s_w = nearest(w, 127)
        logits = s_x * s_w * (x_q @ w_q) + b
    dy = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(3)[labels]) / 4
    settings = {"stream": rule.stream, "step": np.ones(1, np.int64), "seed": np.array([5], np.int64)}
    most = quantized.most_dy(dy)
    if scheme == "banner":
        s_dy = quantized.batch_scales(most, levels=WIDE_LEVELS)
        dy_q = quantized.stochastic_wide(dy, s_dy, **settings)
    else:
        s_dy = (quantized.sample_scales if scheme == "psq" else quantized.batch_scales)(most)
        dy_q = quantized.stochastic(dy, s_dy, **settings)
    close(w - t.parameters["classes.w"], s_x * x_q.T @ (s_dy[:, None] * dy_q), 1e-9)
    close(b - t.parameters["classes.b"], dy.sum(0), 1e-9)


def test_frozen_layers_and_inference_compute_with_floats():
    p = ri.compile(NETS["residual"](), None, 4, backend="reference")
    assert not [c for c in p.step if c.passed.operator == "linear_quantized"]
    only = ri.compile(NETS["residual"](), ri.Plan(0, rules=[BANNER]), 4, backend="reference")
    assert {c.node for c in only.step if "quantized" in c.passed.operator} == {"fc"}


def test_a_rule_for_convolutions_leaves_linear_layers_dense():
    p = ri.compile(NETS["residual"](), ri.Plan(rules=[ri.GradientFilter(2), BANNER]), 4, backend="reference")
    assert [rule.method for rule in p.plan.rules_of(p.graph.node("fc"))] == ["quantized"]
    p = ri.compile(NETS["residual"](), ri.Plan(rules=[ri.GradientFilter(2)]), 4, backend="reference")
    assert p.plan.rules_of(p.graph.node("fc")) == []


def test_a_sum_that_may_overflow_is_refused_with_the_most_that_fits():
    q, one = lambda *shape: np.full(shape, 127, np.int8), np.ones(1)  # noqa: E731
    assert linear_quantized.grad_w(q(1, 133_144, 1), q(1, 133_144, 1), one, one).item() == 127 * 127 * 133_144
    with pytest.raises(ShapeError, match=r"^a sum of 133145 .* the rows M of a sample of dy must be at most 133144$"):
        linear_quantized.grad_w(q(1, 133_145, 1), q(1, 133_145, 1), one, one)
    wide = np.full((1, 517, 1), 32767, np.int16)
    with pytest.raises(ShapeError, match=r"the rows M of a sample of dy must be at most 516$"):
        linear_quantized.grad_w(wide, q(1, 517, 1), one, one, levels=WIDE_LEVELS)
    with pytest.raises(ShapeError, match=r" D must be at most 133144$"):
        linear_quantized.forward(q(1, 133_145), q(133_145, 1), one, one)
    with pytest.raises(ShapeError, match=r" K must be at most 133144$"):
        linear_quantized.grad_x(q(1, 133_145), q(1, 133_145), one, one)


def test_a_net_whose_sums_are_too_long_is_refused_before_it_runs():
    g = ri.Graph("tokens")
    g.add_input("input", (517, 2))
    g.linear("classes", g.flatten("flat", g.linear("each", "input", 2)), 2)
    ri.compile(g, ri.Plan(rules=[QuantizedTraining("psq")]), 2)
    with pytest.raises(ShapeError, match=r"^node each .*the rows M of a sample of dy must be at most 516$"):
        ri.compile(g, ri.Plan(rules=[BANNER]), 2)
