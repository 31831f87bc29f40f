"""OHEM and random mini-batch skipping: what trains, what it costs."""

import numpy as np
import pytest
from test_instance_filter import main_net, samples

import refimpl as ri
from costmodel import predict
from validation.instruments import counting, measured


def trainer(rule, backend="reference", batch=8) -> ri.Trainer:
    return ri.Trainer(ri.compile(main_net(), ri.Plan(instances=rule), batch, backend=backend), seed=3)


def test_hard_examples_train_on_the_highest_losses():
    t, plain = trainer(ri.HardExamples(0.25)), trainer(None)
    x, y = samples(8)
    logits = plain.predict(x).astype(float)
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(8), y]
    hardest = np.sort(np.argsort(-losses, kind="stable")[:2])
    t.train_step(x, y, 10)
    plain.train_step(x[hardest], y[hardest], 10)
    for name, a in plain.parameters.items():
        np.testing.assert_allclose(t.parameters[name], a, rtol=1e-5, atol=1e-7, err_msg=name)
    assert t.made[frozenset()] == {("judge", 8): 1, ("forward", 2): 1, ("backward", 2): 1, ("update", 2): 1}


def test_hard_examples_count_and_fit_as_predicted():
    x, y = samples(8)
    for backend in ("reference", "fast"):
        t = trainer(ri.HardExamples(0.25), backend)
        t.fit(x, y, 1)
        assert measured.run_flops(t.program, t.made[frozenset()]) == predict.estimate(t.program).flops
        assert measured.touched_bytes(t.program, x, y, t.parameters) == t.program.peak_bytes
        for call in t.program.step:
            assert dict(predict.call_counts(call, 3)) == counting.count_call(call, 3)


@pytest.mark.parametrize("batch", [8, 7])  # 21 samples: with a smaller last batch, and without
def test_a_run_of_hard_examples_counts_to_the_operation(batch):
    t = trainer(ri.HardExamples(0.3), batch=batch)
    t.fit(*samples(21), 2)
    sizes = ([8, 8, 5] if batch == 8 else [7, 7, 7]) * 2
    counted = predict.as_macs(measured.run_flops(t.program, t.made[frozenset()]))
    assert {predict.run_macs(one, sizes) for one in t.program.over(6).values()} == {counted}


def test_a_run_of_random_skip_counts_within_its_bounds():
    t = trainer(ri.RandomSkip(0.6), "fast")
    t.fit(*samples(21), 60)
    counted = predict.as_macs(measured.run_flops(t.program, t.made[frozenset()]))
    found = {bound: predict.run_macs(one, [8, 8, 5] * 60) for bound, one in t.program.over(180).items()}
    assert found["low"] <= counted <= found["high"] and found["high"] < 1.25 * found["mid"] < 1.6 * found["low"]
    nothing = trainer(ri.RandomSkip(0.0)).program.over(10)
    assert len({one.plan.instances for one in nothing.values()}) == 1


def test_random_skip_leaves_out_about_its_share_and_always_the_same():
    x, y = samples(8)
    made = []
    for _ in range(2):
        t = trainer(ri.RandomSkip(0.75))
        for _ in range(200):
            t.train_step(x, y, 200)
        made.append(t.made[frozenset()]["forward", 8])
        assert t.step == 200
    assert made[0] == made[1] and 30 <= made[0] <= 70


def test_random_skip_is_priced_as_its_mean():
    whole, half = (predict.estimate(trainer(rule).program) for rule in (None, ri.RandomSkip(0.5)))
    assert half.flops == whole.flops / 2 and half.seconds["mid"] == pytest.approx(whole.seconds["mid"] / 2)
    assert predict.run_macs(half.program, [8, 8]) == whole.macs


def test_refusals():
    with pytest.raises(ValueError, match="^keep must be a share above 0 and at most 1, got 0$"):
        ri.HardExamples(0)
    with pytest.raises(ValueError, match="^skip must be a probability from 0 to below 1, got 1$"):
        ri.RandomSkip(1)
