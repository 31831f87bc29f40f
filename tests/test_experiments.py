"""The long experiments on a few images: records, resuming, what is refused. Their records go to validation/results."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gradledger import show
from refimpl import data
from refimpl.checkpoint import CheckpointError
from refimpl.data import DataError, Resized
from validation import datasets, lenet_mnist, runs, sparse_mobilenet


def silent(done, total, name):
    """No progress bar."""


def assert_drawn(record: dict, folder: Path) -> None:
    """The picture of a record, as `reproduce` has it drawn from the JSON, is there and not one colour."""
    (folder / "record.json").write_text(json.dumps(record))
    command = [sys.executable, "-m", "gradledger.plot", str(folder / "record.json"), str(folder / "picture.png")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with Image.open(folder / "picture.png") as picture:
        assert picture.width > 800 and len(picture.convert("RGB").getcolors(1 << 24)) > 20


def digits() -> data.Dataset:
    d = data.fashion_mnist()
    return replace(d, x_train=d.x_train[:192], y_train=d.y_train[:192], x_test=d.x_test[:50], y_test=d.y_test[:50])


def test_lenet_mnist_goes_on_where_it_stood_and_counts_everything(tmp_path, monkeypatch):
    protocol = lenet_mnist.Protocol(seeds=(0,), epochs=2, points=3, entropy=0.69)
    d = digits()
    found = lenet_mnist.run(tmp_path, silent, d, protocol)
    rows = found["measured"]
    assert set(rows) == {*protocol.methods(), "OHEM, same computation", "SMB, same computation"}
    assert rows["SGD"]["saved"]["mean"] == 0 == rows["SGD"]["gain"]["mean"]
    assert 20 < rows["EMP"]["saved"]["mean"] < 50  # half of the backward pass of the convolutions
    curves = {r["method"]: r["curve"] for r in found["runs"]}
    assert [step for step, _, _ in curves["SGD"]] == [1, 2, 3, 4, 5, 6]
    assert curves["SGD"][-1][1] == protocol.sgd_macs(len(d.x_train))  # predicted and counted
    assert rows["SMB, same computation"]["steps"]["mean"] == 1 and rows["SMB, same computation"]["saved"]["mean"] > 80
    for method in ("EIF+EMP", "EIF", "OHEM", "SMD"):
        most = protocol.methods()[method][2] * curves["SGD"][-1][1]
        assert len(curves[method]) == 1 or curves[method][-1][1] <= most
    assert [r["shares"].keys() >= {"forward", "uncertain"} for r in found["runs"]].count(True) == 2
    assert_drawn(found, tmp_path)
    monkeypatch.setattr(lenet_mnist, "train", lambda *a: pytest.fail("a finished run was run again"))
    assert lenet_mnist.run(tmp_path, silent, digits(), protocol) == found


def test_lenet_mnist_keeps_the_paper_s_schedule():
    methods = lenet_mnist.Protocol().methods()
    optimizer = methods["EIF+EMP"][0].optimizer
    assert [optimizer.rate(step, 18760) for step in (0, 939, 940, 18000)] == [0.1, 0.1, 0.05, 0.05]


def test_the_last_point_of_a_curve_within_a_budget():
    curve = [[1, 10, 0.1], [2, 20, 0.5], [3, 30, 0.4]]
    assert [lenet_mnist.within(curve, macs)[0] for macs in (5, 10, 29, 30, 99)] == [1, 1, 2, 3, 3]


def test_runs_of_other_settings_do_not_count(tmp_path):
    one = runs.Runs(tmp_path, "x", {"lr": 0.1})
    one.add(seed=0, accuracy=0.5)
    assert runs.Runs(tmp_path, "x", {"lr": 0.1}).get(seed=0)["accuracy"] == 0.5
    assert runs.Runs(tmp_path, "x", {"lr": 0.2}).get(seed=0) is None
    (tmp_path / "x.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="line 1 of .*x.jsonl is no run of x; delete the line or the file"):
        runs.Runs(tmp_path, "x", {})


def test_a_folder_that_cannot_hold_runs_is_found_before_the_first_run(tmp_path):
    with pytest.raises(CheckpointError, match="cannot write .*x.jsonl: there is no folder .*missing"):
        runs.Runs(tmp_path / "missing", "x", {})


def test_spread():
    assert runs.spread([1, 2, 6]) == {"mean": 3, "std": 2.65, "min": 1, "max": 6}
    assert runs.spread([4])["std"] == 0


def images(n=24) -> data.Dataset:
    rng = np.random.default_rng(0)
    x = [Resized(rng.integers(0, 256, (m, 32, 32, 3), np.uint8), (32, 32)) for m in (n, 6)]
    y = [np.arange(m) % 10 for m in (n, 6)]
    return data.Dataset("noise", x[0], y[0], x[1], y[1], tuple(map(str, range(10))), pixels=True)


@pytest.fixture
def weights():
    try:
        datasets.weights(sparse_mobilenet.WEIGHTS["width 0.35"])
    except DataError as e:
        pytest.skip(str(e))


def test_sparse_update_mobilenet_small(tmp_path, weights):
    protocol = sparse_mobilenet.Protocol(seeds=(0,), sizes=(32, 32), epochs=(1, 1), batch=8, images=16)
    found = sparse_mobilenet.run(tmp_path, silent, images(), protocol)
    assert len(found["runs"]) == 6 and set(found["measured"]) == {f"{n}, {m}" for n in sparse_mobilenet.WEIGHTS
                                                                   for m in protocol.methods()}  # fmt: skip
    assert_drawn(found, tmp_path)
    for memory in found["memory"].values():
        assert memory["runs_under_it"] and 1.5 < memory["updated_share"] < 2.6
        terms = memory["terms"]
        assert sum(terms["state"].values()) + sum(terms["arena"].values()) == memory["smallest_limit"]
        assert memory["saved_against_whole_net"]["features"] > memory["saved_against_same_layers"]["features"] > 90


def test_missing_weights_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADLEDGER_DATA", str(tmp_path))
    with pytest.raises(DataError, match="the weights must lie in a folder `weights` beside the data"):
        sparse_mobilenet.net("width 1.0", 96)
    with pytest.raises(DataError, match="there is no mnist in .*: set GRADLEDGER_DATA"):
        lenet_mnist.run(tmp_path, silent)


def test_a_record_is_a_table_with_a_column_for_each_figure(capsys):
    gain = runs.spread([1.0, 2.0])
    record = {
        "measured": {"one": {"saved": gain, "steps": 12345}, "two": {**gain, "gap": gain}, "three": 7, "four": gain},
        "published": {"one": {"saved": 78.6}, "two": {"flops": 8180000.0}, "three": "in [1]"},
        "ok": False, "goal": "2 [%]", "file": "x.json",
        "findings": [
            {"finding": "a", "says": "more [is] more", "claims": {"1 > 0": True, "2 > [3]": False}},
            {"finding": "b", "says": "less", "claims": {"0 < 1": True}},
        ],
    }  # fmt: skip
    show.reproduced(record)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "saved steps measured gap published",
        "one 1.50 ± 0.71 12,345 saved 78.6",
        "two 1.50 ± 0.71 1.50 ± 0.71 flops 8,180,000",
        "three 7 in [1]",
        "four 1.50 ± 0.71 -",
        "mean ± standard deviation over the seeds",
        "finding a, more [is] more: not confirmed (2 > [3])",
        "finding b, less: confirmed",
        "goals not reached: 2 [%]; record in x.json",
    ]
