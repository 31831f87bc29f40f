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


def test_a_step_takes_the_bytes_of_its_elements(tmp_path):
    path = small(tmp_path)
    one, four = (microcontroller.training(path, 1, n) for n in (1, 4))
    assert one["forward"] == four["forward"] and one["weights"] == four["weights"]
    assert one["weights"] == 12 * 4 + 4 * microcontroller.CLASSES + microcontroller.CLASSES
    assert 0 <= one["forward"]["terms"]["maps"] - 8 * 8 * (4 + 12 + 12) < 16  # and a few scalars
    found = [row["backward"]["terms"]["gradients of maps"] for row in (one, four)]
    assert found == [8 * 8 * 4, 4 * (8 * 8 * 4 + 4)]  # of the mean, too, at the fullest moment of wide ones
    chosen = 4  # one of 12 channels, 4 outputs
    assert one["backward"]["terms"]["gradients of weights"] == 4 * (chosen + 5 * microcontroller.CLASSES)


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
