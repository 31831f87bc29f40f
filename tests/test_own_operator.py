"""An operator from a folder of its own: everything that the library does with operators, it does with this one."""

import itertools

import numpy as np
import pytest
from own import softplus, softplus_cost  # noqa: F401 (its cost registers itself)

import refimpl as ri
from checks import Case, Subject, map_shape, rng_of
from costmodel import closed_form, predict
from costmodel.formulas import cost
from refimpl.graph import INPUT, Graph
from refimpl.ops import operator, operators, register_operator
from refimpl.surgery import prune
from validation.instruments import approximation, counting, drawn, drawn_nets, drawn_passes, measured

register_operator(softplus)
BACKENDS = ("reference", "fast")


def by_numpy(a, attrs):
    """y by a sum of exponentials, and dx by the derivative of tanh."""
    x = a["x"]
    return {"y": np.logaddexp(0, x), "dx": a["dy"] * (1 + np.tanh(x / 2)) / 2}


def case(pick):
    shape = map_shape(pick) if pick(0, 1) else (pick(1, 3), pick(1, 20))
    return Case({"x": rng_of(pick).normal(size=shape)})


subject = Subject("softplus", case, by_numpy, lambda F, t, a: F.softplus(t["x"]))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def net() -> Graph:
    """It stands behind a convolution, behind a sum and behind a linear layer."""
    g = Graph("own", (6, 5), 3)
    act = lambda name, x: g.add_node(name, "softplus", (x,), {}, {})  # noqa: E731
    x = act("a1", g.batch_norm("bn", g.conv2d("c1", INPUT, 4, 3, pad=1)))
    x = act("a2", g.add("sum", g.conv2d("c2", x, 4, 3, pad=1, bias=True), x))
    g.linear("fc", act("a3", g.linear("hidden", g.global_avg_pool("mean", x), 6)), 3)
    return g


def samples(n=8):
    rng = np.random.default_rng(2)
    return rng.normal(size=(n, 6, 5, 3)).astype(np.float32), rng.integers(0, 3, n)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rules", [(), (ri.GradientFilter(2),), (ri.SparseUpdate(0.5),)], ids=len)
def test_a_net_with_it_compiles_trains_and_is_priced(backend, rules):
    g, (x, y) = net(), samples()
    p = ri.compile(g, ri.Plan(rules=rules, step=ri.Backprop(ri.SGD(lr=0.1))), 8, backend=backend)
    trainer = ri.Trainer(p, seed=1)
    first, *_, last = (trainer.train_step(x, y, 40) for _ in range(40))
    assert last < 0.8 * first
    assert measured.touched_bytes(p, x, y, trainer.parameters) == p.peak_bytes
    for call in p.step:
        assert dict(predict.call_counts(call, 5)) == counting.count_call(call, 5), call.name


def test_its_net_has_the_gradients_that_the_loss_has_as_slopes():
    x, y = samples()
    found = approximation.slopes(net(), ri.Plan(train_bias=True), x, y, h=1e-6)
    assert found.keys() >= {"c1.w", "c2.b", "hidden.w"} and max(found.values()) < 1e-6


def test_its_closed_form_is_what_a_step_counts():
    g, plan = net(), ri.Plan()
    form = closed_form.of(g, plan)
    for n, size in ((8, (6, 5)), (3, (9, 12))):
        counts = form.at(N=n, H=size[0], W=size[1])
        p = ri.compile(g, plan, n, size)
        assert counts["mul"] + counts["add"] == predict.estimate(p).flops
        assert counts["exp"] == sum(counting.count_call(call, n).get("exp", 0) for call in p.step) > 0


@pytest.mark.parametrize("name", ["softplus.forward", "softplus.grad_x"])
def test_it_is_drawn_counted_and_shown_with_the_others(name, capsys, monkeypatch):
    assert "softplus" in operators() and name in drawn_passes.passes()
    assert all(drawn.compare_pass(name, seed).ok for seed in range(20))
    assert drawn.main([name, "3"]) == 0 and capsys.readouterr().out.startswith(f"{name}\n")
    key = tuple(name.split("."))
    monkeypatch.setitem(cost.COSTS, key, cost.COSTS[key] + cost.N * cost.mul)
    cost._function.cache_clear()
    try:
        assert not drawn.compare_pass(name, 3).ok
    finally:
        cost._function.cache_clear()


def test_channels_pass_through_it_when_others_are_pruned():
    g = net()
    weights = {name: np.ones(p.shape) for name, p in g.parameters.items()}
    smaller = prune.remove(g, weights, {group: [0] for group in prune.groups(g) if not group.fixed})
    assert [smaller.shape(name)[-1] for name in ("a1", "a2", "a3")] == [3, 3, 5]
    assert ri.compile(smaller, ri.Plan(), 2).step


@pytest.mark.parametrize(
    "statement, value, wrong",
    [
        ("CHANNELS", "swapped", "CHANNELS of the operator softplus must be left out or 'kept' or 'made' or 'flat"),
        ("TRAINS", "always", "TRAINS of the operator softplus must be left out, got 'always'"),
        ("BIAS", "b", "BIAS of the operator softplus must be left out, got 'b'"),
        ("SCALES", ("w",), "each of SCALES of the operator softplus must be one of its PARAMS, got 'w'"),
        (
            "STOPS",
            ("x",),
            "each of STOPS of the operator softplus must be an input without a gradient",
        ),
        ("PARAMS", ("w",), "TRAINS of the operator softplus must be 'always' or 'counted' or 'behind' or 'statistics'"),
    ],
)
def test_what_it_cannot_state_is_refused(monkeypatch, statement, value, wrong):
    monkeypatch.setattr(softplus, statement, value, raising=False)
    with pytest.raises(ValueError, match=wrong):
        operator.__wrapped__("softplus")


def test_drawn_nets_have_it_and_do_what_is_predicted():
    having = (s for s in range(1000) if "softplus" in {n.op for n in drawn_nets.net_case(s).program.graph.nodes})
    seeds = list(itertools.islice(having, 5))
    assert len(seeds) == 5
    for seed in seeds:
        assert drawn.show("net", seed)
