"""The experiment that asks whether trials tell which plans end best."""

from functools import partial

import pytest
from test_outcomes import samples

from validation.experiments import advice_outcomes as experiment
from validation.experiments import outcome_pairs
from validation.experiments.outcome_pairs import Pair


def judged(outcomes, ranks, errors):
    """The judgement of one run with so many plans."""
    plans = [
        {"plan": "p", "accuracy": 0, "loss": 0, "rank": rank, "gradient_error": error, "after": after, "error": None}
        for after, rank, error in zip(outcomes, ranks, errors, strict=True)
    ]
    protocol = {"pairs": ["some"], "seeds": [10], "seconds": 1, "epochs": None}
    return experiment.judge({"protocol": protocol, "runs": [{"pair": "some", "seed": 10, "plans": plans}]})


def test_trials_and_errors_are_compared_with_what_came_of_plans():
    found = judged([0.9, 0.7, 0.8, None], [1, 3, 2, 4], [1.0, 0.0, 0.5, 0.7])
    assert found["measured"]["some, seed 10"] == {
        "plans": 3, "trials": 1.0, "gradient_error": -1.0, "spread": 20.0, "chosen": 0.0,
    }  # fmt: skip
    assert found["ok"] and found["mean"]["trials"]["mean"] == 1.0
    wrong = judged([0.9, 0.7, 0.8], [3, 1, 2], [0.0, 1.0, 0.5])
    assert not wrong["ok"] and wrong["measured"]["some, seed 10"]["chosen"] == 20.0
    assert wrong["measured"]["some, seed 10"]["gradient_error"] == 1.0


def test_plans_that_end_alike_have_no_order():
    assert experiment.correlation([1.0, 2.0, 3.0], [0.5, 0.5, 0.5]) is None
    found = judged([0.5, 0.5, 0.5], [1, 2, 3], [1.0, 0.5, 0.0])
    assert not found["ok"] and found["goals"][0]["verdict"] == "not decided by these seeds"
    assert found["mean"]["trials"] is None and found["mean"]["chosen"]["mean"] == 0


def test_what_is_advised_is_run_as_it_is_printed(tmp_path, monkeypatch):
    net = partial(outcome_pairs.trained, "lenet", "lenet5", samples, 1)
    monkeypatch.setitem(outcome_pairs.PAIRS, "some", Pair("LeNet-5; squares", net, lambda seed: samples()))
    protocol = experiment.Protocol(("some",), (10,), 1.0, 1)
    record = experiment.run(tmp_path, lambda *_: None, protocol)
    (run,) = record["runs"]
    assert 1 < len(run["plans"]) <= 6
    assert all(0 <= p["after"] <= 1 and p["error"] is None and p["steps"] >= 1 for p in run["plans"])
    assert sorted(p["rank"] for p in run["plans"]) == [*range(1, len(run["plans"]) + 1)]

    def never(*_):
        raise AssertionError("it is run again")

    monkeypatch.setattr(experiment, "followed", never)
    assert experiment.run(tmp_path, lambda *_: None, protocol) == record
    with pytest.raises(AssertionError):
        experiment.run(tmp_path, lambda *_: None, experiment.Protocol(("some",), (11,), 1.0, 1))
