"""The parts of a trainer: its state as named arrays, many states over one memory, and what it measures."""

from dataclasses import replace

import numpy as np
import pytest

import refimpl as ri
from refimpl.ops import softmax_cross_entropy


def net(classes=3) -> ri.Graph:
    g = ri.Graph("small", (6, 6), 2)
    x = g.relu("relu", g.batch_norm("bn", g.conv2d("conv", "input", 4, 3, pad=1)))
    x = g.relu("sum.relu", g.add("sum", g.conv2d("again", x, 4, 3, pad=1), x))
    g.linear("fc", g.global_avg_pool("mean", x), classes)
    return g


def data(seed, n=21):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6, 6, 2)).astype(np.float32), rng.integers(0, 3, n)


PLANS = {
    "adam": ri.Plan(step=ri.Backprop(ri.Adam(lr=0.01)), batch_norm="train", train_bias=True),
    "depth": ri.Plan(step=ri.Backprop(ri.SGD(lr=0.05, momentum=0.9)), depth=ri.StochasticDepth()),
    "filter": ri.Plan(instances=ri.InstanceFilter(keep=0.5)),
}


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("plan", PLANS)
def test_one_trainer_trains_several_nets_in_turn(plan, backend):
    program = ri.compile(net(), PLANS[plan], 4, backend=backend)
    alone = [ri.Trainer(program, seed=5) for _ in range(3)]
    for i, trainer in enumerate(alone):
        trainer.fit(*data(i), 3)
    shared = ri.Trainer(program, seed=5)
    states = [shared.state()] * 3
    for epoch in (1, 2, 3):
        for i in range(3):
            shared.restore(states[i])
            list(shared.steps(*data(i), epoch))
            states[i] = shared.state()
    for trainer, state in zip(alone, states, strict=True):
        assert state.losses == trainer.losses and state.step == trainer.step
        assert state.arrays.keys() == trainer.resume_arrays().keys()
        for name, a in trainer.resume_arrays().items():
            np.testing.assert_array_equal(state.arrays[name], a, err_msg=name)
    assert states[0].losses != states[1].losses


def test_a_state_is_a_copy_and_one_of_another_plan_is_refused():
    trainer = ri.Trainer(ri.compile(net(), PLANS["adam"], 4), seed=5)
    state = trainer.state()
    before = {name: a.copy() for name, a in state.arrays.items()}
    trainer.fit(*data(0), 1)
    for name, a in state.arrays.items():
        np.testing.assert_array_equal(a, before[name])
    other = ri.Trainer(ri.compile(net(), PLANS["depth"], 4), seed=5)
    with pytest.raises(ValueError, match="^the saved run has no array optimizer/.* it is of another plan$"):
        other.restore(state)


@pytest.mark.parametrize("plan", ["adam", "depth"])
def test_a_state_with_more_than_the_plan_needs_is_refused(plan):
    trainer = ri.Trainer(ri.compile(net(), replace(PLANS[plan], step=ri.Plan().step, depth=None), 4), seed=5)
    state = ri.Trainer(ri.compile(net(), PLANS[plan], 4), seed=5).state()
    with pytest.raises(ValueError, match="^the saved run has an array .* it is of another plan$"):
        trainer.restore(state)


def spoil(trainer):
    trainer.parameters["fc.w"][...] = np.inf
    trainer.runner.push()


def test_what_a_divergence_puts_back_is_what_was_restored():
    x, y = data(0)
    first, second = (ri.Trainer(ri.compile(net(), PLANS["adam"], 4), seed) for seed in (5, 6))
    first.fit(x, y, 2)
    second.restore(first.state())
    spoil(second)
    with pytest.raises(ri.NonFiniteError, match="the weights of step 12 are kept"):
        second.train_step(x[:4], y[:4], 20)
    assert second.step == 12 and second.losses == first.losses
    for name, a in first.parameters.items():
        np.testing.assert_array_equal(second.parameters[name], a, err_msg=name)


def test_after_a_divergence_there_is_a_loss_for_each_step():
    x, y = data(0)
    trainer = ri.Trainer(ri.compile(net(), ri.Plan(), 4), seed=5)
    steps = trainer.steps(x, y, 3)
    for _ in range(9):
        next(steps)
    spoil(trainer)
    with pytest.raises(ri.NonFiniteError, match="the weights of step 6 are kept"):
        next(steps)
    assert trainer.step == len(trainer.losses) == 6
    assert len(list(trainer.steps(x, y, 3))) == 12 and len(trainer.losses) == 18


def test_measures_of_a_classifier_are_those_counted_one_by_one():
    trainer = ri.Trainer(ri.compile(net(), PLANS["adam"], 4), seed=5)
    x, y = data(0)
    trainer.fit(x, y, 2)
    found, said = trainer.measures(x, y), trainer.predict(x).argmax(1)
    assert trainer.evaluate(x, y) == found["accuracy"] == np.mean(said == y)
    for k in range(3):
        both = sum(a == b == k for a, b in zip(said, y, strict=True))
        assert found["recall"][k] == both / sum(y == k)
        assert found["iou"][k] == both / sum((said == k) | (y == k))
        assert [found["confusion"][k, j] for j in range(3)] == [sum((y == k) & (said == j)) for j in range(3)]
    assert found["mean_recall"] == pytest.approx(np.mean(found["recall"]))
    assert found["mean_iou"] == pytest.approx(np.mean(found["iou"]))


def test_measures_leave_ignored_labels_out_and_classes_without_rows():
    logits = np.eye(4)[[[0, 1], [3, 1], [1, 2]]]
    labels = np.array([[0, 1], [1, -1], [1, -1]])
    found = softmax_cross_entropy.measures(logits, labels, -1)
    assert found["accuracy"] == 3 / 4 and found["mean_recall"] == pytest.approx((1 + 2 / 3) / 2)
    np.testing.assert_array_equal(found["recall"], [1, 2 / 3, np.nan, np.nan])
    np.testing.assert_array_equal(found["iou"], [1, 2 / 3, np.nan, 0])
    assert found["mean_iou"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    nothing = softmax_cross_entropy.measures(logits, np.full((3, 2), -1), -1)
    assert np.isnan(nothing["accuracy"]) and np.isnan(nothing["mean_iou"]) and not nothing["confusion"].any()


def test_a_regression_is_measured_by_its_errors():
    trainer = ri.Trainer(ri.compile(net(2), ri.Plan(loss="mse"), 4), seed=1)
    x, _ = data(0)
    target = np.random.default_rng(1).normal(size=(len(x), 2)).astype(np.float32)
    found, given = trainer.measures(x, target), trainer.predict(x).astype(float)
    errors = given - target
    mse = pytest.approx(np.mean(errors**2))
    assert found == {"mse": mse, "mae": pytest.approx(np.mean(np.abs(errors))), "loss": mse}
    assert trainer.evaluate(x, target) == found["mse"]


@pytest.mark.parametrize("target", [np.zeros(21), np.zeros((21, 1)), np.zeros((21, 2, 1)), np.zeros((21, 2), complex)])
def test_targets_of_another_shape_or_kind_are_refused(target):
    trainer = ri.Trainer(ri.compile(net(2), ri.Plan(loss="mse"), 4), seed=1)
    for call in (trainer.evaluate, lambda x, y: trainer.fit(x, y, 1)):
        with pytest.raises(ValueError, match=r"^y must be \(M, 2\) targets of real numbers, but its shape is \(21"):
            call(data(0)[0], target)


def test_a_row_that_is_no_number_is_found_as_nothing():
    logits = np.array([[1.0, 0], [np.nan, 0], [0, np.nan], [0, 1]])
    found = softmax_cross_entropy.measures(logits, np.array([0, 0, 1, 1]))
    assert found["accuracy"] == 0.5 and found["recall"].tolist() == [0.5, 0.5] and found["iou"].tolist() == [0.5, 0.5]
    assert found["confusion"].tolist() == [[1, 0], [0, 1]]
