"""What a step can be: sections, runs, prices and counts follow from a strategy, the tests' own included."""

import numpy as np
import pytest
from own import priced, two_points

import refimpl as ri
from costmodel import predict
from costmodel.formulas.cost import E, add, iadd, imul, load, logic, mul, shift, store
from refimpl.compiler.lower import BACKENDS, Lowering
from validation.instruments import counting, measured

drawn = 20 * iadd + 19 * imul + 20 * shift + 102 * logic  # ±1 of an element


@pytest.fixture(scope="module", autouse=True)
def costs():
    shifted, stepped = drawn + 4 * load + add + store, drawn + 5 * load + mul + add + store
    with priced("two_points", shift=E * shifted, step=E * stepped):
        yield


def net():
    g = ri.Graph("net", (5, 4), 2)
    x = g.relu("r1", g.batch_norm("n1", g.conv2d("c1", "input", 4, 3, pad=1)))
    g.linear("fc", g.global_avg_pool("pool", x), 3)
    return g


def data(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 5, 4, 2)), rng.integers(0, 3, n)


def compiled(backend="reference", batch=6, **plan):
    step = two_points.TwoPoints(ri.SGD(lr=0.25))
    return ri.compile(net(), ri.Plan(step=step, **plan), batch, backend=backend, dtype=np.float64)


def loss_of(weights, x, y):
    g = net()
    g.weights = weights
    t = ri.Trainer(ri.compile(g, None, len(x), backend="reference", dtype=np.float64))
    z = t.predict(x)
    return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]))


@pytest.mark.parametrize("backend", sorted(BACKENDS.keys() - {"cuda"}))
@pytest.mark.parametrize("n", [6, 4])
def test_a_step_without_a_backward_pass_is_its_plain_form(backend, n):
    t = ri.Trainer(compiled(backend), seed=7)
    x, y = data(n)
    for count in (1, 2, 3):
        before = {name: a.copy() for name, a in t.parameters.items()}
        trained = {name: before[name].shape for name in ("c1.w", "fc.w", "fc.b")}
        z = two_points.signs_of(trained, 7, count)
        plus, minus = (
            loss_of({m: a + d * two_points.TwoPoints().scale * z.get(m, 0) for m, a in before.items()}, x, y)
            for d in (1, -1)
        )
        loss = t.train_step(x, y, 10)
        assert loss == pytest.approx((plus + minus) / 2, rel=1e-10)
        slope = (plus - minus) / (2 * two_points.TwoPoints().scale)
        for name, a in before.items():
            np.testing.assert_allclose(t.parameters[name], a - 0.25 * slope * z.get(name, 0), rtol=0, atol=1e-12)
    assert t.updates[""][0] == 3


@pytest.mark.parametrize("backend", sorted(BACKENDS.keys() - {"cuda"}))
def test_it_is_priced_counted_and_printed(backend):
    p = compiled(backend)
    assert p.sections == ("plus", "first.look", "minus", "second.look", "back", "learn")
    assert p.training and not p.saved
    for n in (6, 4):
        for call in p.step:
            assert dict(predict.call_counts(call, n)) == counting.count_call(call, n), call.name
    x, y = data(12)
    t = ri.Trainer(p, seed=1)
    t.fit(x, y, 1)
    assert t.made[frozenset()] == {(s, 6): 2 for s in p.sections}
    price = predict.estimate(p)
    assert measured.all_flops(p, t.made) == 2 * price.flops and price.seconds["low"] < price.seconds["high"]
    assert price.sections["learn"]["mul"] == price.sections["plus"]["add"] == 72 + 12 + 3
    assert measured.touched_bytes(p, x, y, t.parameters) == p.peak_bytes
    assert not any("grad" in call.passed.name for call in p.step)
    assert "second.look\n" in str(p) and "c1.w two_points.shift" in str(p)


def test_it_goes_with_what_leaves_steps_out():
    p = compiled(instances=ri.RandomSkip(0.5))
    x, y = data(120)
    t = ri.Trainer(p, seed=3)
    t.fit(x, y, 1)
    made = int(t.updates[""][0])
    assert 0 < made < 20 and made == p.plan.strategy.updates(20, 3)
    assert t.made[frozenset()] == {(s, 6): made for s in p.sections}
    assert predict.estimate(p).flops == pytest.approx(predict.estimate(compiled()).flops / 2)
    assert "plus (in 50 % of the steps)" in str(p)


def test_the_ledger_tells_what_is_expected():
    g = ri.models.build("resnet8", size=(16, 16))
    lines = lambda plan: str(ri.compile(g, plan, 8)).splitlines()  # noqa: E731
    assert {"forward", "backward", "update"} <= {*lines(ri.Plan())}
    hard = lines(ri.Plan(instances=ri.HardExamples(0.25)))
    assert {"judge", "forward (on 2 of 8 samples)", "update (on 2 of 8 samples)"} <= {*hard}
    deep = lines(ri.Plan(depth=ri.StochasticDepth(0.5)))
    assert "backward (some calls left out at random)" in deep
    both = lines(ri.Plan(depth=ri.StochasticDepth(0.5), instances=ri.RandomSkip(0.25)))
    assert "forward (in 75 % of the steps, some calls left out at random)" in both


def test_sections_run_in_their_order():
    p = ri.compile(net(), ri.Plan(), 4)
    assert p.step.follows == {"backward": "forward", "update": "backward"}
    t = ri.Trainer(p)
    with pytest.raises(RuntimeError, match="backward on 4 samples needs what forward leaves"):
        t.runner.run("backward", 4)
    g = ri.Graph("two inputs")
    g.linear("fc", g.concat("cat", g.add_input("a", (3,)), g.add_input("b", (2,))), 3)
    with pytest.raises(ValueError, match="nets can share an input called input, but two inputs has a, b"):
        ri.compile(g, ri.Plan(instances=ri.HardExamples()), 4)


@pytest.mark.parametrize("step", [ri.Backprop(), ri.ForwardGradient(), ri.ForwardGradient(m=1, sharpness=0.1)])
@pytest.mark.parametrize("instances", [None, ri.HardExamples(0.5)])
def test_kernels_are_given_scratch_for_the_whole_batch_whatever_the_host_writes_first(step, instances):
    p = ri.compile(net(), ri.Plan(step=step, instances=instances), 6, backend="fast")
    assert Lowering(p.step, 1).batch == 6
    x, y = data(6)
    assert measured.touched_bytes(p, x, y, ri.Trainer(p, seed=1).parameters) <= p.peak_bytes
