"""The experiment that adapts int8 nets in whole numbers: its runs on a small net, and its record judged anew."""

import json
from pathlib import Path

import numpy as np
import pytest
from pretrained_files import saved

from validation.experiments import datasets, quantized_scaling
from validation.instruments import int8_files

RECORD = Path(__file__).parents[1] / "validation" / "results" / "quantized-scaling.json"


def test_runs_are_kept_and_all_methods_begin_with_one_classifier(tmp_path, monkeypatch):
    path = saved(tmp_path / "net.npz", *int8_files.int8_arrays())
    rng = np.random.default_rng(0)
    images = {
        part: (rng.integers(0, 256, (n, 32, 32, 3), np.uint8), rng.integers(0, 10, n))
        for part, n in zip(quantized_scaling.PARTS, (12, 4, 6), strict=True)
    }
    monkeypatch.setattr(quantized_scaling, "WEIGHTS", {"small": "net.npz"})
    monkeypatch.setattr(quantized_scaling, "photographs", lambda protocol: images)
    monkeypatch.setattr(datasets, "weights", lambda name: path)
    protocol = quantized_scaling.Protocol((0, 1), 16, 2, 0.5, 4, 1, 1, (12, 4, 6))
    out = tmp_path / "out"
    out.mkdir()
    said = []
    found = quantized_scaling.run(out, lambda *told: said.append(told), protocol)
    assert len(found["runs"]) == 2 * len(quantized_scaling.METHODS)
    for seed in (0, 1):
        firsts = {run["first"] for run in found["runs"] if run["seed"] == seed}
        assert len(firsts) == 1
    assert set(found["settings_chosen_on"]) == {f"small, {m}" for m in quantized_scaling.CANDIDATES}
    again = quantized_scaling.run(out, lambda *told: pytest.fail("a run was made twice"), protocol)
    assert again == found
    assert quantized_scaling.judge(json.loads(json.dumps(found))) | {
        "settings_chosen_on": 0,
        "protocol": 0,
        "seeds": 0,
    } == (found | {"settings_chosen_on": 0, "protocol": 0, "seeds": 0})


def test_the_record_is_that_of_its_runs():
    given = json.loads(RECORD.read_text(encoding="utf-8"))
    made = json.loads(json.dumps(quantized_scaling.judge(given)))
    assert {k: given[k] for k in made} == made
    moved = {name: found["mean"] for name, found in given["moved"].items()}
    assert all(moved[f"{n}, unscaled"] == 0 < moved[f"{n}, whole"] for n in given["classifier before"])
