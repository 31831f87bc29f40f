"""What an instance filter is expected to let in: the equations, recorded runs, and data that nothing was fitted to."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import refimpl as ri
from costmodel import predict
from refimpl.methods import filter_shares
from refimpl.methods import instance_filter as eif
from validation.experiments import filter_shares as experiment
from validation.experiments import lenet_mnist

RESULTS = Path(__file__).resolve().parent.parent / "validation" / "results"
MNIST = json.loads((RESULTS / "lenet-mnist.json").read_text())
UNSEEN = json.loads((RESULTS / "instance-filter-shares.json").read_text())
FILTERED = [r for r in MNIST["runs"] if "EIF" in r["method"]]
SETTINGS = [(0.05, 0.6, 0.7), (0.1, 0.68, 1.3), (0.3, 0.6, 1.5), (0.3, 0.2, 0.5)]


def name(run: dict) -> str:
    return f"{run.get('method') or run['case']}, seed {run['seed']}"


@pytest.mark.parametrize(("wanted", "limit", "d"), SETTINGS)
def test_the_shares_are_those_of_the_rule_s_own_functions(wanted, limit, d):
    """A filter that has learned the two bell curves, weighted as eq. (6) says, judged by eq. (1), (2), (4) and (5)."""
    rng = np.random.default_rng(0)
    high = filter_shares.within(wanted, 0.0, d)
    known = filter_shares.within(wanted, filter_shares.reach(limit), d)
    low_weight, high_weight = eif.class_weights(wanted)

    def judge(b):  # b: share of Highs, which T settles
        is_high = rng.random(400_000) < b
        score = rng.normal(size=is_high.size) + d * is_high
        odds = np.exp(d * score - d * d / 2) * b / (1 - b) * high_weight / low_weight
        logits = np.stack([np.zeros(odds.size), np.log(odds)], 1)
        predicted = logits[:, eif.HIGH] > logits[:, eif.LOW]
        unsure = eif.uncertain(eif.entropy(logits), np.flatnonzero(~predicted), limit)
        ratio = eif.true_high_ratio(np.sum(predicted & is_high), is_high.size)
        return ratio, predicted.mean(), len(unsure) / is_high.size

    low, top = wanted, 1.0
    for _ in range(14):  # T rises, and b falls, where R_TH is too large, eq. (3)
        b = (low + top) / 2
        low, top = (low, b) if judge(b)[0] >= wanted else (b, top)
    assert judge(b)[1:] == pytest.approx((high, known - high), abs=4e-3)


def test_a_filter_that_knows_nothing_lets_everything_in_and_a_perfect_one_what_is_wanted():
    assert filter_shares.within(0.1, 0.0, 1e-4) > 0.999
    assert filter_shares.within(0.1, 0.0, 30.0) == pytest.approx(0.1)
    assert filter_shares.within(1.0, 0.0, 1.0) == 1.0
    falling = [filter_shares.shares(0.1, 0.6, highs)[0] for highs in (1, 1e3, 1e4, 1e5, 1e6)]
    assert falling == sorted(falling, reverse=True) and 0.1 < falling[-1] < falling[0] < 1
    assert filter_shares.reach(math.log(2)) == filter_shares.reach(2.0) == 0
    p = 1 / (1 + math.exp(filter_shares.reach(0.6)))
    assert -p * math.log(p) - (1 - p) * math.log(1 - p) == pytest.approx(0.6)


@pytest.mark.parametrize("run", FILTERED, ids=name)
def test_the_recorded_runs_on_mnist_are_predicted_within_15_percent(run):
    steps, macs, _ = run["curve"][-1]
    program = lenet_mnist.Protocol(**MNIST["protocol"]).program(run["method"])
    assert predict.estimate(program).macs == pytest.approx(macs / steps, rel=0.15)  # the length of the run not known
    over = {bound: predict.estimate(one) for bound, one in program.over(steps).items()}
    assert over["mid"].macs == pytest.approx(macs / steps, rel=0.15)
    assert over["low"].macs <= macs / steps <= over["high"].macs
    assert over["mid"].turns["forward"].samples / 64 == pytest.approx(run["shares"]["forward"], rel=0.15)
    assert run["predicted"] == lenet_mnist.predicted(run, lenet_mnist.Protocol(**MNIST["protocol"]))["predicted"]


@pytest.mark.parametrize("run", UNSEEN["runs"], ids=name)
def test_other_data_lie_within_15_percent_or_where_t_cannot_follow_inside_the_bounds(run):
    case = experiment.CASES[run["case"]]
    assert all(getattr(case, k) == v for k, v in run["settings"].items())
    shape, classes = {"watch": ((1, 100, 6), 7), "CIFAR-10": ((32, 32, 3), 10)}.get(case.data, ((28, 28, 1), 10))
    program = case.program(shape, classes)
    for (steps, macs, *_), row in zip(run["points"], run["judged"], strict=True):
        found = {bound: predict.estimate(one).macs for bound, one in program.over(steps, [run["opening"]]).items()}
        assert found["low"] <= macs / steps <= found["high"]
        if run["case"] in experiment.WITHIN:
            assert found["mid"] == pytest.approx(macs / steps, rel=0.15)
        assert {k: row["macs"][k] for k in found} == pytest.approx(found, abs=1)


def test_where_all_losses_lie_below_t_only_the_instance_in_doubt_is_looked_at():
    rule = ri.InstanceFilter(keep=0.1)
    needed = math.log(1 / 0.2) / -math.log(rule.fall)  # steps until T = 1 has come down to 0.2
    over = rule.over(32, int(needed), np.full(50, 0.2))
    assert over["mid"].shares == pytest.approx((0, 1 / 32), abs=1e-3)
    longer = rule.over(32, 10 * int(needed), [0.2])
    settled = filter_shares.shares(0.1, 0.6, 0.1 * 32 * 9 * needed)
    assert longer["mid"].shares[0] == pytest.approx(0.9 * settled[0], rel=1e-2)
    assert longer["low"].shares[0] < longer["mid"].shares[0] < longer["high"].shares[0]


def test_while_t_rises_to_the_losses_everything_may_enter():
    rule = ri.InstanceFilter(keep=0.1)
    steps = int(math.log(4) / math.log(rule.rise))
    assert rule.over(32, steps, [4.0])["high"].shares[0] == pytest.approx(1, abs=5e-3)
    assert rule.over(32, steps, [0.9])["high"].shares[0] < 0.9


def test_of_a_single_instance_the_loss_always_becomes_known():
    for rule in (ri.InstanceFilter(keep=0.1), *ri.InstanceFilter(keep=0.1).over(1, 500, [0.3]).values()):
        found = {turn.section: turn.samples for turn in rule.schedule(None, 1, ri.Backprop())}
        assert found["filter.forward"] == pytest.approx(1) and found["forward"] + found["uncertain"] == pytest.approx(1)


def test_shares_that_are_given_are_reckoned_with():
    rule = ri.InstanceFilter(keep=0.1, shares=(0.5, 0.25))
    found = {turn.section: turn.samples for turn in rule.schedule(None, 8, ri.Backprop())}
    assert (found["forward"], found["uncertain"], found["filter.update"]) == (4, 2, 6)
    assert set(rule.over(8, 100).values()) == {rule}
    message = r"^shares must be two shares that make at most 1, High and uncertain, got \(0.9, 0.2\)$"
    with pytest.raises(ValueError, match=message):
        ri.InstanceFilter(shares=(0.9, 0.2))
