"""The test of predicted seconds on whole nets: its record, figures and picture. Times themselves are not tested."""

import json

import numpy as np
import pytest
from test_calibrate import LAYERS
from test_experiments import assert_drawn, silent

from costmodel.device import calibration, device
from gradledger import show
from refimpl.kernels.running import threads as running
from validation.experiments import timing

CASES = (timing.Case("lenet5", 4, "all"), timing.Case("watch", 4, timing.INFERENCE))


@pytest.fixture
def few_layers(monkeypatch):
    monkeypatch.setattr(calibration, "LAYERS", LAYERS)


def test_the_record(few_layers, tmp_path, capsys):
    record = timing.run(None, silent, (1,), CASES, seconds=0, rounds=2)
    (found,) = record["threads"].values()
    assert not record["ok"]  # two nets are no test
    assert [row["name"] for row in found["rows"]] == ["lenet5, batch 4, all", "watch, batch 4, inference"]
    for row in found["rows"]:
        assert row["low_seconds"] < row["predicted_seconds"] < row["high_seconds"]
        assert row["error"] == pytest.approx(row["predicted_seconds"] / row["measured_seconds"] - 1)
        assert row["flops_model_seconds"] == pytest.approx(row["flops"] * found["seconds_per_flop"])
        assert row["steps"] >= 4 and row["measured_seconds"] > 0
    show.reproduced(json.loads(json.dumps(record)) | {"file": "here.json"})
    text = capsys.readouterr().out
    assert "1 thread, operations only" in text and "goals not reached: median error at most 8%" in text
    assert_drawn(record, tmp_path)


def test_the_summary():
    def row(error, inside, flops_error):
        measured = 1.0 if inside else 9.0
        return {"error": error, "flops_model_error": flops_error, "low_seconds": 0.5, "high_seconds": 2.0,
                "measured_seconds": measured}  # fmt: skip

    found = timing.summary([row(0.1, True, None), row(-0.2, True, 0.5), row(-0.05, False, 0.1)])
    assert found["cases"] == 3 and found["median_error"] == pytest.approx(0.1)
    assert found["bias"] == pytest.approx(-0.05) and found["within_15_percent"] == pytest.approx(2 / 3)
    assert found["inside_interval"] == pytest.approx(2 / 3)
    assert found["flops_model_within_15_percent"] == 0.5


def test_the_cases_are_whole_nets_forward_only_and_training():
    assert len({case.name for case in timing.CASES}) == len(timing.CASES) >= 40
    assert {case.method for case in timing.CASES} == set(timing.PLANS)
    assert {case.model for case in timing.CASES} >= {"lenet", "resnet8", "resnet18", "mobilenet_v2"}
    assert set(timing.QUICK) < set(timing.CASES)


def test_a_prediction_beside_a_measurement():
    told = []
    rows = timing.compare(CASES, device.find("reference"), lambda *t: told.append(t), repeats=2)
    assert [t[2] for t in told] == [row["name"] for row in rows] and len(rows) == 2
    assert all(row["flops_model_seconds"] is None and row["steps"] == 2 for row in rows)


def test_disturbed_steps_do_not_count():
    case = CASES[1]
    with running(1):
        timed = calibration.Timed(case.program(1))
    timed.whole = [(1.0, 0.004), (1.0, 0.005), (1.05, 0.006), (3.0, 9.0)]
    row = timing._row(case, timed, device.find("reference"), 1.1, None)
    assert row["measured_seconds"] == 0.005 and (row["undisturbed"], row["steps"]) == (3, 4)
    assert np.isfinite(row["error"])
