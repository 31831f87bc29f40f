"""Cost until an accuracy is reached, from learning curves; `gradledger compare`."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import costmodel
from costmodel import predict
from costmodel.advice import convergence
from costmodel.device import device as devices
from gradledger.cli import main
from validation.experiments import forward_gradients, lenet_mnist, sparse_mobilenet

RECORD = Path(__file__).parents[1] / "validation" / "results" / "lenet-mnist.json"
CURVE = [(10, 1000, 0.5), (20, 2000, 0.7), (30, 3000, 0.6), (40, 4000, 0.9)]


def test_between_two_points():
    assert convergence.reached(CURVE, 0.6) == convergence.Reached(15, 1500)
    assert convergence.reached(CURVE, 0.8) == convergence.Reached(
        pytest.approx(30 + 10 * 2 / 3), pytest.approx(11e3 / 3)
    )
    assert convergence.reached(CURVE, 0.9) == convergence.Reached(40, 4000)


def test_before_the_first_point_and_beyond_the_last():
    assert convergence.reached(CURVE, 0.1) == convergence.Reached(10, 1000)
    assert convergence.reached(CURVE, 0.91) is None
    with pytest.raises(ValueError, match="at least one point"):
        convergence.reached([], 0.5)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=8), st.integers(0, 100), st.integers(0, 100))
def test_a_higher_accuracy_never_costs_less(accuracies, a, b):
    curve = [(i + 1, 100 * (i + 1), x / 100) for i, x in enumerate(accuracies)]
    low, high = (convergence.reached(curve, x / 100) for x in sorted((a, b)))
    assert high is None or low.macs <= high.macs
    assert (high is None) == (max(accuracies) < max(a, b))


def test_fewer_operations_a_step_may_cost_more_in_all():
    slow = [(100, 5000, 0.5), (200, 10_000, 0.9)]
    curves = {"dense": [CURVE, CURVE], "half": [slow]}
    assert convergence.common(curves) == 0.9
    dense, half = convergence.compare(curves)
    assert (dense["macs_per_step"], half["macs_per_step"]) == (100, 50)
    assert half["ratio"] == pytest.approx(2.5) and half["steps"] == 200 and dense["reached"] == 2
    assert [row["macs"] for row in convergence.compare(curves, 0.95)] == [None, None]


def test_seconds_are_those_of_the_methods_own_step():
    p = lenet_mnist.Protocol().program("SGD")
    price = costmodel.estimate(p, device="raspberry-pi-4")
    steps = 7
    (row,) = convergence.compare({"SGD": [[(steps, steps * price.macs, 0.9)]]}, 0.9, {"SGD": price})
    assert row["seconds"] == {k: pytest.approx(steps * v) for k, v in price.seconds.items()}


@pytest.fixture
def run(capsys):
    def command(*args):
        with pytest.raises(SystemExit) as left:
            main(["compare", *map(str, args)])
        return left.value.code, *capsys.readouterr()

    return command


def test_the_recorded_methods_at_the_accuracy_that_all_reach(run):
    status, out, _ = run(RECORD, "--json", "--device", "raspberry-pi-4")
    found = json.loads(out)
    (group,) = found["groups"].values()
    rows = {row["method"]: row for row in group["methods"]}
    assert status == 0 and found["device_measured"] is False and rows.keys() == lenet_mnist.Protocol().methods().keys()
    assert all(row["reached"] == row["runs"] == 3 for row in rows.values())
    runs = json.loads(RECORD.read_text())["runs"]
    assert group["accuracy"] == min(max(a for *_, a in r["curve"]) for r in runs)
    assert rows["SGD"]["ratio"] == 1 and rows["EIF+EMP"]["ratio"] < 1 < rows["SMD"]["ratio"]
    assert rows["SMD"]["macs_per_step"] < rows["SGD"]["macs_per_step"]  # cheaper steps, and more of them
    assert 0 < rows["EMP"]["seconds"]["low"] < rows["EMP"]["seconds"]["high"]


def test_the_table_tells_which_runs_do_not_reach_it(run):
    status, out, _ = run(RECORD, "--accuracy", "98.9")
    assert status == 0 and "LeNet: until 98.90 % is reached" in out and "0 of 3" in out and "3 of 3" in out
    assert "MAC a step" in out and "to SGD" in out and " T" in out and " M" in out


def test_an_accuracy_that_no_run_reaches(run):
    best = max(a for r in json.loads(RECORD.read_text())["runs"] for *_, a in r["curve"])
    status, out, err = run(RECORD, "--accuracy", "99.9", "--json")
    refused = json.loads(out)
    assert status == 1 and refused["ok"] is False and refused["highest_accuracy"] == best
    assert err == f"gradledger: no run in {RECORD} reaches 99.9 %: the highest accuracy is {100 * best:.6g} %\n"
    assert run(RECORD, "--accuracy", f"{100 * best:.6g}")[0] == 0


@pytest.mark.parametrize("text, args, problem", [
    ("{", (), "is not JSON"),
    ("[]", (), "has no learning curves; gradledger compare reads the record of lenet-mnist or"),
    ('{"name": "watch-adapt"}', (), "has no learning curves"),
    ('{"name": "lenet-mnist"}', (), "are not those that gradledger reproduce writes"),
    ('{"name": "lenet-mnist", "runs": [{"method": "SGD", "curve": 3}]}', (), "are not those"),
    (None, ("--accuracy", "0"), "--accuracy is a percentage between 0 and 100, got 0"),
    (None, ("--accuracy", "nan"), "--accuracy is a percentage"),
    (None, ("--accuracy", "0.98"), "--accuracy is in percent, such as 98, got 0.98"),
    (None, ("--device", "abacus"), "abacus"),
])  # fmt: skip
def test_bad_input(run, tmp_path, text, args, problem):
    path = RECORD
    if text is not None:
        path = tmp_path / "record.json"
        path.write_text(text)
    status, out, err = run(path, *args)
    assert status == 2 and out == "" and problem in err and err.count("\n") == 1


def test_a_file_that_is_missing(run, tmp_path):
    status, _, err = run(tmp_path / "none.json")
    assert status == 2 and "cannot read" in err


def test_the_curves_of_sparse_update_count_what_a_step_costs():
    runs = [{"net": "width 1.0", "method": "fixed", "curve": [[5, 0.7], [10, 0.8]]}]
    found = sparse_mobilenet.curves({"runs": runs, "macs_per_step": {"width 1.0": {"fixed": 300}}})
    assert found == {"width 1.0": {"fixed": [[(5, 1500, 0.7), (10, 3000, 0.8)]]}}


def test_ways_without_a_backward_pass_beside_one_with(run):
    """The record's own classifiers: whole numbers count by their bits, and a step's price is in the same unit."""
    record = RECORD.with_name("forward-gradient-watch.json")
    status, out, _ = run(record, "--json", "--accuracy", "94", "--device", "raspberry-pi-4")
    rows = {row["method"]: row for row in json.loads(out)["groups"]["classifier"]["methods"]}
    given = json.loads(record.read_text())["measured"]["classifier"]
    assert status == 0 and rows.keys() == given.keys() and rows["8w8a, m = 3"]["macs"] is None
    for name, row in rows.items():
        if row["macs"]:
            assert row["macs"] == pytest.approx(row["steps"] * given[name]["macs_a_step"])
    assert rows["16w8a, m = 1"]["macs_per_step"] < rows["sign, m = 1"]["macs_per_step"] / 5
    programs = forward_gradients.programs(json.loads(record.read_text()))["classifier"]
    for name in ("16w8a, m = 1", "sign, m = 1"):
        a_step = predict.estimate(programs[name], device=devices.find("raspberry-pi-4")).seconds["mid"]
        assert rows[name]["seconds"]["mid"] == pytest.approx(rows[name]["steps"] * a_step, rel=1e-3)
