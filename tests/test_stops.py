"""Operators at which gradients stop: what lies before them alone is frozen, the rest trains."""

import numpy as np
import pytest
from node_cases import check_net

import refimpl as ri
from costmodel import closed_form, predict
from refimpl.graph import Graph
from validation.instruments import approximation, counting, measured


def net(beside: bool) -> Graph:
    """A convolution and a batch norm before a rounding, one behind it; beside: and a way around it."""
    g = Graph("net", (6, 5), 3)
    x = g.batch_norm("bn", g.conv2d("front", "input", 4, 3, pad=1, bias=True))
    y = g.staircase("rounded", x, 2)
    y = g.add("sum", y, x) if beside else y
    g.linear("fc", g.global_avg_pool("mean", g.conv2d("behind", y, 4, 3)), 3)
    return g


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("beside", [False, True])
def test_what_lies_before_it_alone_is_frozen(beside, backend):
    g, rng = net(beside), np.random.default_rng(2)
    x, y = rng.normal(size=(8, 6, 5, 3)).astype(np.float32), rng.integers(0, 3, 8)
    plan = ri.Plan(step=ri.Backprop(ri.SGD(lr=0.1)), batch_norm="train", train_bias=True)
    p = ri.compile(g, plan, 8, backend=backend)
    trainer = ri.Trainer(p, seed=1)
    before = {name: a.copy() for name, a in trainer.parameters.items()}
    losses = [trainer.train_step(x, y, 60) for _ in range(60)]
    assert losses[-1] < losses[0]
    moved = {name for name, a in trainer.parameters.items() if not np.array_equal(a, before[name])}
    front = {"front.w", "front.b", "bn.gamma", "bn.beta", "bn.running_mean", "bn.running_var"}
    assert front <= moved if beside else not front & moved
    assert {"behind.w", "fc.w"} <= moved
    assert measured.touched_bytes(p, x, y, trainer.parameters) == p.peak_bytes
    for call in p.step:
        assert dict(predict.call_counts(call, 5)) == counting.count_call(call, 5), call.name
    assert closed_form.of(g, plan).at(N=8) == predict.estimate(p).units
    if not beside:  # its jumps aside it is constant, so that these slopes are gradients
        frozen = ri.Plan(train_bias=True)
        assert p.graph.reached() == {"rounded", "behind", "mean", "fc"}
        gaps = approximation.slopes(g, frozen, x, y, h=1e-6)
        assert gaps.keys() == {"behind.w", "fc.w", "fc.b"} and max(gaps.values()) < 1e-6, gaps
        along = {"front.w": np.ones((3, 3, 3, 4))}
        with pytest.raises(ValueError, match="the loss of net depends on no parameter that has a tangent"):
            ri.directional_derivative(g, x, y, along, backend=backend)


def test_a_condition_that_trains_by_another_way():
    g = Graph("net", (6, 5), 3)
    c, a = g.conv2d("c", "input", 4, 3), g.conv2d("a", "input", 4, 3)
    g.linear("fc", g.global_avg_pool("mean", g.one_of_two("y", c, a, g.tanh("squashed", c))), 3)
    check_net(g, "fast", "c.w", "a.w")


def test_train_last_counts_what_can_train():
    assert [ri.Plan(k).trained(net(False)).keys() for k in (0, 1)] == [{"fc"}, {"behind", "fc"}]
    with pytest.raises(ValueError, match="train_last is 2, but net has 1 convolutions that gradients reach"):
        ri.Plan(2).trained(net(False))
    assert ri.Plan(2).trained(net(True)).keys() == {"front", "behind", "fc"}


def test_a_net_of_which_nothing_can_train():
    g = Graph("net", (6, 5), 3)
    g.staircase("end", g.linear("fc", g.global_avg_pool("mean", g.conv2d("c", "input", 4, 3)), 3))
    with pytest.raises(
        ValueError,
        match=r"net cannot train: gradients stop at end \(staircase\), and no layer that the plan trains lies behind",
    ):
        ri.compile(g, ri.Plan(), 8)
    assert ri.compile(g, None, 8).step  # it computes
