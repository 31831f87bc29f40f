"""The terms of an int8 net's memory against sums over its maps, and the timed cases in whole numbers."""

import json

import numpy as np
import pytest
from pretrained_files import saved

from gradledger import cli
from validation import bench
from validation.bench import integers
from validation.experiments import microcontroller
from validation.instruments import int8_files


def small(tmp_path):
    arrays, structure = int8_files.int8_arrays()
    return saved(tmp_path / "net.npz", arrays, structure)


def test_the_terms_of_a_small_net_are_those_of_its_maps(tmp_path):
    path = small(tmp_path)
    rows = {(r["form"], r["backend"]): r for r in microcontroller.inference(path)}
    pixels = 8 * 8
    alive = {"block1.project": 4 * pixels, "block2.expand": 12 * pixels, "block2.depthwise": 12 * pixels}
    whole, floats = rows["int8", "reference"], rows["float32", "reference"]
    assert whole["alive"] == alive and whole["peak_bytes"] == sum(alive.values())
    assert floats["peak_bytes"] == 4 * whole["peak_bytes"]  # there the rectified map takes the place of the third


def test_a_step_in_whole_numbers_is_told_term_by_term(tmp_path):
    path = small(tmp_path)
    found = {b: microcontroller.training(path, 1, b) for b in microcontroller.BACKENDS}
    for row in found.values():
        terms, pixels = row["terms"], 8 * 8
        assert row["needed"] == row["arena"] + row["state"] and row["fits"]
        assert sum(terms["state"].values()) == row["state"] and sum(terms["arena"].values()) == row["arena"]
        classifier = 4 * (4 * microcontroller.CLASSES + microcontroller.CLASSES)
        assert terms["state"]["classifier"] == classifier and row["state"] == 12 * 4 + classifier
        assert terms["state"]["convolutions_updated"] == 4 and row["waiting"] == 11 * 4  # one channel of 12
        assert (
            0 < terms["arena_most"]["stored_features"] - pixels < 64
        )  # one channel, a byte each, and the classifier's
        assert terms["arena_most"]["masks"] == pixels * 4 // 8 + pixels * 4 // 8 + 1  # of the layer, the sum, the mean
    assert found["rows"]["arena"] < found["fast"]["arena"]
    none = microcontroller.training(path, 0, "fast")
    assert none["waiting"] == 0 and none["state"] == classifier


def test_a_timed_case_is_exact_and_a_fourth_in_memory(monkeypatch):
    monkeypatch.setitem(int8_files.BLOCKS, "tiny", ((16, 3, 1, 8), (24, 3, 1, 8), (24, 5, 2, 8)))
    case = integers.IntegerCase("tiny", 2)
    assert case.error() == 0
    assert case.bytes() > 0 and case.ours()().shape == case.float32()().shape == (2, 1000)
    found = case.predicted()
    assert found["peak_ratio"] == found["peak_bytes"] / found["peer_peak_bytes"] < 0.3
    assert found["constant_bytes"] < found["peer_constant_bytes"]
    monkeypatch.setattr(integers, "from_int8", integers.whole_from_int8)
    assert case.predicted()["peak_ratio"] == 1


def test_the_nets_are_those_of_the_files():
    for name, blocks in int8_files.BLOCKS.items():
        arrays = int8_files.whole_size(name)
        structure = json.loads(str(arrays["structure"]))
        assert [b["pointwise2"]["out_channel"] for b in structure["blocks"]] == [row[3] for row in blocks]
    floats = np.concatenate([a.ravel() for n, a in arrays.items() if n.endswith(".weight")])
    assert floats.size == 623_216  # of the real one (tests/test_weight_files.py)


def test_the_command_prints_both_ratios(monkeypatch, capsys):
    measured = {"check": {"error": 0.0}, "ours": {"times": [2.0]}, "float32": {"times": [8.0]}}
    monkeypatch.setattr(bench, "launch", lambda side, *_: measured[side])
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "integers-mcunet_5fps-batch1"])
    assert stopped.value.code == 0
    found = integers.CASES["integers-mcunet_5fps-batch1"].predicted()
    line = (
        f"0.25 of the time of float32 (8.00 ms); arena of {found['peak_bytes']:,} bytes, {found['peak_ratio']:.2f} of "
    )
    assert line + f"{found['peer_peak_bytes']:,}" in capsys.readouterr().out
