"""Early instance filter (arXiv 2007.03213): equations, the step with its sections, counts, memory, resuming."""

import math
from collections import Counter
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refimpl as ri
from checks import check_counts, check_threads
from costmodel import predict
from refimpl.methods import instance_filter as eif
from refimpl.ops import softmax_cross_entropy
from refimpl.storage import checkpoint
from validation.instruments import counting, measured


def main_net() -> ri.Graph:
    g = ri.Graph("main", (6, 5), 2)
    x = g.relu("relu", g.batch_norm("bn", g.conv2d("conv", "input", 4, 3, pad=1)))
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    return g


def filter_net() -> ri.Graph:
    g = ri.Graph("filter", (6, 5), 2)
    x = g.relu("relu", g.conv2d("conv", "input", 3, 3, 2, bias=True))
    g.linear("fc", g.flatten("flat", x), 2)
    return g


def trainer(backend="reference", batch=8, rule=None, **plan) -> ri.Trainer:
    rule = rule or ri.InstanceFilter(filter_net(), keep=0.25, optimizer=ri.SGD(lr=0.05))
    program = ri.compile(main_net(), ri.Plan(instances=rule, **plan), batch, backend=backend)
    return ri.Trainer(program, seed=3)


def samples(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6, 5, 2)).astype(np.float32), rng.integers(0, 3, n)


def test_eq_1_labels_are_high_from_the_threshold_on():
    assert eif.labels(np.array([0.1, 0.5, 0.7]), 0.5).tolist() == [eif.LOW, eif.HIGH, eif.HIGH]


def test_eq_2_true_high_ratio_is_taken_over_all_instances_of_the_last_mini_batches():
    assert eif.true_high_ratio(np.array([3, 0, 1]), np.array([8, 8, 4])) == 4 / 20
    assert eif.true_high_ratio(np.zeros(3), np.zeros(3)) == 0


def test_eq_3_the_threshold_rises_where_too_many_are_high_and_falls_else():
    assert eif.next_threshold(2.0, 0.1, 0.1, 1.005, 0.995) == 2.0 * 1.005
    assert eif.next_threshold(2.0, 0.0999, 0.1, 1.005, 0.995) == 2.0 * 0.995


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 1000))
def test_eq_4_entropy_of_the_softmax(n, k, seed):
    logits = np.random.default_rng(seed).normal(scale=4, size=(n, k))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(eif.entropy(logits), -(p * np.log(p)).sum(1), rtol=1e-12, atol=1e-14)
    assert eif.entropy(np.zeros((1, 2)))[0] == pytest.approx(math.log(2))


def test_eq_5_uncertain_are_dropped_instances_above_the_limit():
    doubt = np.array([0.1, 0.65, 0.69, 0.6])
    assert eif.uncertain(doubt, np.array([0, 2, 3]), 0.6).tolist() == [2]


def test_eq_6_and_7_weights_of_the_labels_and_a_loss_normalised_by_them():
    low, high = eif.class_weights(0.1)
    assert (low, high) == (1 / 0.9, 1 / 0.1)
    assert ri.InstanceFilter(keep=0.25).filter_settings()["class_weights"] == eif.class_weights(0.25)
    t = trainer()
    step = t.program.step
    assert t.runner.owned[step.constants["filter.loss.class_weights"].buffer] == pytest.approx([1 / 0.75, 1 / 0.25])
    weighted = [c for c in step.calls["filter.forward"] if "class_weights" in c.arrays]
    assert [c.passed.name for c in weighted] == ["sample_losses", "mean_loss"]
    logits, truth = np.array([[0.3, -1.0], [0.2, 0.9], [1.5, 1.0]]), np.array([eif.LOW, eif.HIGH, eif.HIGH])
    w = np.array([low, high])
    ce = np.log(np.exp(logits).sum(1)) - logits[np.arange(3), truth]
    loss = softmax_cross_entropy
    lse = loss.log_sum_exp(logits)
    losses = loss.sample_losses(logits, truth, lse, w)
    assert loss.mean_loss(losses, truth, w)[0] == pytest.approx(np.sum(w[truth] * ce) / np.sum(w[truth]))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 100))
def test_passes_count_as_their_formulas_say(n, e, k, seed):
    rng = np.random.default_rng(seed)
    chosen = rng.integers(0, 6, n).astype(np.int32)
    stream = rng.normal(size=(6, e, 2))
    check_counts(eif.select, {"stream": stream, "chosen": chosen}, {}, {})
    check_counts(eif.entropy, {"logits": rng.normal(size=(n, k))}, {}, {})
    check_threads(eif.select, {"stream": stream, "chosen": chosen}, {}, {})
    np.testing.assert_array_equal(eif.select(stream, chosen).reshape(n, e, 2), stream[chosen])


class PlainThreshold:
    """T after each mini-batch, from a list of all of them: eq. (2) and (3) in plain Python."""

    def __init__(self, rule):
        self.rule, self.value, self.seen = rule, rule.threshold, []

    def follow(self, true_high: int, n: int) -> None:
        self.seen.append((true_high, n))
        last = self.seen[-self.rule.window :]
        enough = sum(high for high, _ in last) >= self.rule.keep * sum(n for _, n in last)
        self.value *= self.rule.rise if enough else self.rule.fall


def plain_step(t: ri.Trainer, x, y, rule, threshold: PlainThreshold) -> tuple[dict, float | None]:
    """Parameters and loss of the same step from separate programs: the filter's inference, the main net's step, …"""
    names = t.program.graph.parameters
    main = {n: t.parameters[n].copy() for n in names}
    own = {n.removeprefix("filter."): a.copy() for n, a in t.parameters.items() if n not in names}
    plan = replace(t.program.plan, instances=None)

    def run(graph, weights, plan, x, y):
        graph.weights = weights
        stepper = ri.Trainer(ri.compile(graph, plan, len(x), backend="reference"), seed=3)
        loss = stepper.train_step(x, y, 10)
        return stepper.parameters, loss

    def infer(graph, weights, x):
        graph.weights = weights
        return ri.Trainer(ri.compile(graph, ri.Plan(), len(x), backend="reference")).predict(x)

    def cross_entropy(logits, y):
        z = logits.astype(np.float64)
        return np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]

    logits = infer(filter_net(), own, x)
    high = np.flatnonzero(logits[:, 1] > logits[:, 0])
    low = np.setdiff1d(np.arange(len(x)), high)
    known = np.full(len(x), np.nan)
    known[high] = cross_entropy(infer(main_net(), main, x[high]), y[high]) if len(high) else []
    loss = None
    if len(high):
        main, loss = run(main_net(), main, plan, x[high], y[high])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    doubt = -(p * np.log(p)).sum(1)
    unsure = low[doubt[low] > rule.entropy]
    if len(unsure):
        known[unsure] = cross_entropy(infer(main_net(), main, x[unsure]), y[unsure])
    labelled = np.flatnonzero(~np.isnan(known))
    truth = (known[labelled] >= threshold.value).astype(np.int64)
    threshold.follow(int(np.sum((known >= threshold.value)[high])), len(x))
    own_plan = ri.Plan(**rule.filter_settings(), step=ri.Backprop(rule.optimizer))
    if len(labelled):
        own, _ = run(filter_net(), own, own_plan, x[labelled], truth)
    return main | {f"filter.{n}": a for n, a in own.items()}, loss


@pytest.mark.parametrize("limit", [0.0, 0.6, 0.693])
def test_eq_2_and_5_steps_equal_their_parts(limit):
    optimizer = ri.SGD(lr=0.05)
    rule = ri.InstanceFilter(
        filter_net(), keep=0.45, optimizer=optimizer, entropy=limit, threshold=1.05, window=2, rise=1.2, fall=0.8
    )
    t, threshold, values = trainer(rule=rule), PlainThreshold(rule), []
    for i in range(6):  # more than the window
        x, y = samples(8 - i % 2, seed=5 + i)
        expected, loss = plain_step(t, x, y, rule, threshold)
        found = t.train_step(x, y, 10)
        if loss is not None:
            np.testing.assert_allclose(found, loss, rtol=1e-5)
        for name, value in expected.items():
            np.testing.assert_allclose(t.parameters[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
        assert t.memory["threshold"][0] == pytest.approx(threshold.value, rel=1e-12)
        values.append(threshold.value)
    assert len({np.sign(d) for d in np.diff(values)}) == 2  # it rose and fell


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_tiers_agree_and_counts_are_predicted(batch_norm):
    found = []
    x, y = samples(21)
    for backend in ("reference", "fast"):
        t = trainer(backend, batch_norm=batch_norm, rules=[ri.ErrorMapPruning(0.5)])
        t.fit(x, y, 2)
        found.append(t.parameters)
        assert measured.touched_bytes(t.program, x, y, t.parameters) == t.program.peak_bytes
        for n in (8, 3):
            for call in t.program.step:
                assert dict(predict.call_counts(call, n)) == counting.count_call(call, n), call.name
    for name, value in found[0].items():
        np.testing.assert_allclose(found[1][name], value, rtol=2e-4, atol=1e-5, err_msg=name)


def test_every_overhead_is_on_the_ledger():
    t = trainer()
    x, y = samples(16)
    t.fit(x, y, 2)
    program, made = t.program, t.made[frozenset()]
    assert made["filter", 8] == 4
    assert sum(times for (s, _), times in made.items() if s == "filter.backward") >= 1
    total = measured.run_flops(program, made)
    parts = {s: measured.run_flops(program, {k: v for k, v in made.items() if k[0] == s}) for s in program.sections}
    assert total == sum(parts.values()) and parts["filter"] and parts["filter.backward"]
    estimate = predict.estimate(program)
    assert estimate.flops == pytest.approx(sum(predict.arithmetic(u) for u in estimate.sections.values()))
    reckoned = {turn.section: turn.samples for turn in program.schedule(8)}
    assert reckoned["filter"] == 8 and 2 < reckoned["forward"] < reckoned["filter.forward"] <= 8  # more than R_set


def test_the_price_of_a_small_batch_reckons_with_shares_of_an_instance():
    rule = ri.InstanceFilter(filter_net(), keep=0.25, shares=(0.25, 0.05))
    program = trainer(rule=rule).program
    one, eight = predict.estimate(program, 1).sections, predict.estimate(program, 8).sections
    for section in ("forward", "backward", "uncertain"):  # a quarter, a twentieth of one instance
        whole = sum((predict.call_counts(c, 1) for c in program.step if c.section == section), Counter())
        share = 0.05 if section == "uncertain" else 0.25
        assert dict(one[section]) == pytest.approx({u: share * k for u, k in whole.items() if k})
        assert 0 < predict.arithmetic(one[section]) < predict.arithmetic(eight[section])
    updates = sum((predict.call_counts(c, 2) for c in program.step if c.section == "update"), Counter())
    assert one["update"]["mul"] == pytest.approx(0.25 * updates["mul"]) and eight["update"] == updates


def test_a_step_with_nobody_high_trains_only_the_filter():
    t = trainer(rule=ri.InstanceFilter(filter_net(), keep=0.25, optimizer=ri.SGD(lr=0.05), entropy=0.0))
    t.parameters["filter.fc.b"][...] = (100, 0)
    t.parameters["filter.fc.w"][...] *= 0.1
    before = {n: a.copy() for n, a in t.parameters.items()}
    x, y = samples(8)
    loss = t.train_step(x, y, 10)
    assert loss == 0.0 and t.step == 1
    assert all((t.parameters[n] == before[n]).all() for n in t.program.graph.parameters)


def test_a_filter_that_drops_everything_still_sees_the_most_doubtful_instance():
    t = trainer(rule=ri.InstanceFilter(filter_net(), keep=0.25, optimizer=ri.SGD(lr=0.05), entropy=0.69))
    t.parameters["filter.fc.b"][...] = (20, 0)
    t.parameters["filter.fc.w"][...] *= 0.1
    x, y = samples(8)
    put, seen = t.put, {}
    t.put = lambda labels, prefix, chosen: (seen.update({prefix: list(chosen)}), put(labels, prefix, chosen))
    own = {n.removeprefix("filter."): a for n, a in t.parameters.items() if n.startswith("filter.")}
    judge = filter_net()
    judge.weights = own
    p = np.exp(ri.Trainer(ri.compile(judge, ri.Plan(), 8)).predict(x).astype(np.float64))
    t.train_step(x, y, 10)
    p /= p.sum(1, keepdims=True)
    most = int(np.argmax(-(p * np.log(p)).sum(1)))
    assert seen == {"uncertain.": [most], "filter.": [most]}
    assert t.made[frozenset()]["uncertain", 1] == t.made[frozenset()]["filter.update", 1] == 1


def thin(name: str, classes: int) -> ri.Graph:
    """A net whose batch norm has one value a sample."""
    g = ri.Graph(name, (6, 5), 2)
    x = g.relu("relu", g.batch_norm("bn", g.conv2d("conv", "input", 4, (6, 5))))
    g.linear("fc", g.flatten("flat", x), classes)
    return g


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("high", [0, 1, 2])
def test_nets_that_need_two_values_a_channel_never_train_on_one(backend, high):
    rule = ri.InstanceFilter(thin("filter", 2), keep=0.25, optimizer=ri.SGD(lr=0.05), entropy=0.693)
    t = ri.Trainer(ri.compile(thin("main", 3), ri.Plan(instances=rule, batch_norm="train"), 8, backend=backend), seed=3)
    x, y = samples(8)
    own = thin("filter", 2)
    own.weights = {n.removeprefix("filter."): a for n, a in t.parameters.items() if n.startswith("filter.")}
    logits = ri.Trainer(ri.compile(own, None, 8)).predict(x)
    gap = np.sort(logits[:, 1] - logits[:, 0])[::-1]
    t.parameters["filter.fc.b"][1] -= (gap[high] + gap[high - 1]) / 2 if high else gap[0] + 1
    t.train_step(x, y, 10)
    made = {section: n for section, n in t.made[frozenset()] if n}
    assert made.get("forward", 0) == (2 if high == 2 else 0)
    assert made.get("uncertain", 0) == (0 if high == 2 else 2) and made["filter.forward"] == 2
    assert all(np.isfinite(a).all() for a in t.parameters.values())
    with pytest.raises(ValueError, match="the last batch of 9 samples in batches of 8 is a single one, which gives bn"):
        t.fit(*samples(9), 1)


def test_resuming_gives_the_same_bits():
    x, y = samples(24)
    whole, first, second = trainer(), trainer(), trainer()
    whole.fit(x, y, 3)
    for progress in first.steps(x, y, 3):
        if progress.step == 4:
            break
    second.resume({n: a.copy() for n, a in first.resume_arrays().items()}, first.step, first.losses)
    list(second.steps(x, y, 3))
    assert second.losses == whole.losses
    for name, a in whole.parameters.items():
        assert a.tobytes() == second.parameters[name].tobytes(), name
    assert whole.memory["threshold"] == second.memory["threshold"]


def test_saved_weights_are_those_of_the_model(tmp_path):
    t = trainer()
    t.save(tmp_path / "weights.safetensors")
    weights, _ = checkpoint.load(tmp_path / "weights.safetensors")
    assert set(weights) == set(t.program.graph.parameters)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"keep": 0}, "keep must be a share between 0 and 1, got 0"),
        ({"keep": 1}, "keep must be a share between 0 and 1, got 1"),
        ({"rise": 0.9}, "rise must be above 1 and fall between 0 and 1, both finite, got 0.9 and 0.995"),
        ({"rise": math.inf}, "rise must be above 1 and fall between 0 and 1, both finite, got inf and 0.995"),
        ({"fall": -1}, "rise must be above 1 and fall between 0 and 1, both finite, got 1.005 and -1"),
        ({"window": 0}, "window must be at least 1 mini-batch, got 0"),
        ({"threshold": 0}, "threshold must be a loss above 0 and finite, got 0"),
        ({"threshold": math.nan}, "threshold must be a loss above 0 and finite, got nan"),
        ({"entropy": math.nan}, "entropy must be a limit in nats from 0 up, got nan"),
        ({"graph": main_net()}, "the filter net main must have two outputs, Low and High"),
    ],
)
def test_refuses(given_, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        ri.InstanceFilter(**{"graph": filter_net(), **given_})


def test_plan_refuses_another_loss():
    with pytest.raises(ValueError, match="chooses by niti_cross_entropy or softmax_cross_entropy, but the loss is mse"):
        ri.Plan(loss="mse", instances=ri.InstanceFilter(filter_net()))


def test_maps_of_labels_have_the_mean_loss_of_their_pixels():
    """Losses are those of rows; a sample's is their mean, and the two samples of the batch are told apart by it."""
    g = ri.Graph("net", (4, 4), 3)
    g.conv2d("out", g.relu("relu", g.conv2d("conv", "input", 4, 3, pad=1)), 3, 1)
    small = ri.Graph("judge", (4, 4), 3)
    small.linear("fc", small.global_avg_pool("mean", small.conv2d("c", "input", 2, 3)), 2)
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    y = np.random.default_rng(1).integers(0, 3, (2, 4, 4))
    plan = ri.Plan(instances=ri.InstanceFilter(small, entropy=0.0), step=ri.Backprop(ri.SGD(lr=1e-9)))
    trainer = ri.Trainer(ri.compile(g, plan, 2), 0)
    with mock.patch.object(eif, "labels", wraps=eif.labels) as labelled:
        trainer.train_step(x, y, 1)
    losses = labelled.call_args.args[0]
    z = ri.Trainer(ri.compile(g, ri.Plan(), 2), 0).predict(x).astype(float)
    pixels = np.log(np.exp(z).sum(-1)) - np.take_along_axis(z, y[..., None], -1)[..., 0]
    np.testing.assert_allclose(losses, pixels.mean((1, 2)), rtol=1e-5)
