"""The long experiments on a few images: records, resuming, what is refused. Their records go to validation/results."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gradledger import reproduce, show
from gradledger.errors import Malformed
from refimpl import data
from refimpl.data import DataError, Resized
from refimpl.storage.checkpoint import CheckpointError
from validation.experiments import datasets, lenet_mnist, runs, sparse_mobilenet

RESULTS = Path(__file__).parents[1] / "validation" / "results"


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
    found = lenet_mnist.run(tmp_path, silent, d, protocol, {})
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
    assert lenet_mnist.run(tmp_path, silent, digits(), protocol, {}) == found
    assert found["verdict"] == runs.OPEN and found["settings_chosen_on"] == lenet_mnist.ON_TEST
    assert lenet_mnist.judge(found) == {k: v for k, v in found.items() if k != "settings_chosen_on"}


def test_lenet_mnist_chooses_its_settings_on_training_images(tmp_path, monkeypatch):
    seen = []

    def train(d, protocol, method, seed, watch):
        seen.append((method, seed, protocol.share, protocol.ohem_keep, len(d.x_train), len(d.x_test)))
        good = protocol.share * protocol.ohem_keep  # the larger ones win
        return {"curve": [[1, 10.0, good]], "shares": {}, "train_seconds": 0.0}

    monkeypatch.setattr(lenet_mnist, "train", train)
    candidates = {
        "EIF+EMP": ({"share": 0.1, "entropy": 0.6}, {"share": 0.2, "entropy": 0.6}),
        "OHEM": ({"ohem_keep": 0.5}, {"ohem_keep": 0.25}),
    }
    found = lenet_mnist.run(tmp_path, silent, digits(), lenet_mnist.Protocol(seeds=(3,)), candidates)
    trials, finals = seen[:4], seen[4:]
    assert [t[:4] for t in trials] == [
        ("EIF+EMP", 9, 0.1, 0.25), ("EIF+EMP", 9, 0.2, 0.25), ("OHEM", 9, 0.1, 0.5), ("OHEM", 9, 0.1, 0.25),
    ]  # fmt: skip
    assert {t[4:] for t in trials} == {(173, 19)} and {t[1:] for t in finals} == {(3, 0.2, 0.5, 192, 50)}
    assert found["protocol"]["share"] == 0.2 and found["protocol"]["ohem_keep"] == 0.5
    where = "19 training images held out of trial runs of seed 9, the best of 2"
    assert found["settings_chosen_on"]["share"] == f"0.2: {where}"
    assert found["settings_chosen_on"]["budget"] == lenet_mnist.TEST


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
    assert runs.spread([1, 2, 6]) == {"mean": 3, "std": 2.65, "se": 1.53, "min": 1, "max": 6}
    assert runs.spread([4])["std"] == 0 == runs.spread([4])["se"]


def test_three_seeds_show_less_than_their_mean():
    """The figures that README called reached: the mean lies above, the interval does not."""
    found = runs.judged("accuracy", [85.76, 85.53, 86.26], 85.77)
    assert found == {
        "goal": "accuracy", "least": 85.77, "n": 3, "mean": 85.85, "se": 0.2155, "low": 84.9228, "high": 86.7772,
        "above": 1, "sign_p": 0.875, "verdict": "not decided by these seeds",
    }  # fmt: skip
    assert runs.sentence(found) == (
        "accuracy, at least 85.77: 85.85, standard error 0.22, 95 % interval 84.92 to 86.78, 1 of 3 seeds above it "
        "(sign test p = 0.875): not decided by these seeds"
    )


@pytest.mark.parametrize(
    ("values", "verdict", "above", "p"),
    [
        ([1.0, 1.1, 1.2], runs.REACHED, 3, 0.125),
        ([1.0, 1.1, 1.2, 1.1, 1.0], runs.REACHED, 5, 0.0312),
        ([-1.0, -1.1, -1.2], runs.MISSED, 0, 1),
        ([3.0, 0.1, 0.1], runs.OPEN, 3, 0.125),  # all above, and the interval reaches below
        ([0.0, 0.0, 1.0], runs.OPEN, 1, 0.5),  # two ties say nothing
        ([5.0], runs.OPEN, 1, 0.5),  # one seed has no interval
    ],
)
def test_a_goal_is_judged_by_its_interval(values, verdict, above, p):
    found = runs.judged("points", values, 0)
    assert (found["verdict"], found["above"], found["sign_p"]) == (verdict, above, p)


def test_one_missed_goal_is_enough_and_one_open_goal_too():
    reached, missed, still_open = (runs.judged("x", [v, v + 0.1], 0) for v in (5, -5, -0.05))
    assert runs.verdicts([reached, reached])["ok"] is True
    assert runs.verdicts([reached, still_open])["verdict"] == runs.OPEN
    assert runs.verdicts([reached, still_open, missed])["verdict"] == runs.MISSED
    assert runs.certain("bytes", 5, 6)["verdict"] == runs.MISSED
    assert runs.sentence(runs.certain("bytes", 6, 6)) == "bytes, at least 6: 6, reached"


@pytest.mark.parametrize("d", [digits(), "images"], ids=["arrays", "resized"])
def test_what_is_held_out_comes_from_the_training_images(d):
    d = images() if d == "images" else d
    found = runs.held_out(d, 5)
    assert (len(found.x_train), len(found.x_test)) == (len(d.x_train) - 5, 5)
    whole = slice(None)
    together = [x[whole] for x in (found.x_train, found.x_test)]
    labels = np.concatenate([found.y_train, found.y_test])
    pairs = [sorted((y, x.tobytes()) for x, y in zip(maps, labels, strict=True))
             for maps, labels in ((np.concatenate(together), labels), (d.x_train[whole], d.y_train))]  # fmt: skip
    assert pairs[0] == pairs[1]


# Experiments that are written and were not run to their end yet; their pages say so.
PENDING: set[str] = set()
RECORDED = [name for name in reproduce.JUDGED if name not in PENDING]


def test_only_what_is_pending_has_no_record():
    assert {name for name in reproduce.JUDGED if not (RESULTS / f"{name}.json").exists()} == PENDING


@pytest.mark.parametrize("name", RECORDED)
def test_a_committed_record_is_what_judging_its_runs_gives(name, tmp_path, capsys):
    """No training, and no other machine, versions or command than those of the runs."""
    committed = json.loads((RESULTS / f"{name}.json").read_text())
    found = reproduce.judge(name, RESULTS / f"{name}.json", tmp_path)
    assert committed["settings_chosen_on"] and committed["goals"]
    assert {k: v for k, v in found.items() if k not in ("judged", "file", "picture")} == {
        k: v for k, v in committed.items() if k != "judged"
    }
    assert found["machine"] == committed["machine"] and committed["judged"]["command"].startswith("gradledger ")
    show.reproduced(found)
    assert f"goals {found['verdict']}; record in {tmp_path}" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*RECORDED, "watch-adapt"])
def test_a_record_of_several_seeds_says_what_its_settings_were_chosen_on(name):
    chosen = json.loads((RESULTS / f"{name}.json").read_text())["settings_chosen_on"]
    said = (
        "test images",
        "windows that evaluate",
        "training images held out",
        "training samples of",
        "training images beside",
    )
    assert chosen and all(any(words in on for words in (*said, "nothing is chosen")) for on in chosen.values())


def test_what_cannot_be_judged_is_refused(tmp_path):
    wanted = "--judge takes the record that gradledger reproduce lenet-mnist wrote"
    file = tmp_path / "x.json"
    for text, what in (
        (None, "cannot read .*x.json: No such file or directory"),
        ("{", ".*x.json is not JSON"),
        ("[]", ".*x.json is no record of lenet-mnist"),
        ('{"name": "lenet-mnist", "runs": 3}', "the runs of .*x.json are not those of lenet-mnist"),
    ):
        if text is not None:
            file.write_text(text)
        with pytest.raises(Malformed, match=f"^{what}; {wanted}$"):
            reproduce.judge("lenet-mnist", file, tmp_path / "out")
    with pytest.raises(Malformed, match="there is no experiment whose runs can be judged anew 'tables'"):
        reproduce.judge("tables", file, tmp_path)


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
    candidates = ({"lr": 0.01, "length": 400.0}, {"lr": 0.02, "length": 400.0})
    found = sparse_mobilenet.run(tmp_path, silent, images(), protocol, candidates)
    assert found["protocol"]["length"] == 400 and found["verdict"] in (runs.OPEN, runs.MISSED)
    assert "6 training images held out of trial runs of seed 9" in found["settings_chosen_on"]["lr"]
    assert found["settings_chosen_on"]["sizes, epochs"].endswith("in whole runs of seeds 0 and 1")
    assert sparse_mobilenet.judge(found) == {k: v for k, v in found.items() if k != "settings_chosen_on"}
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
            {"finding": "c", "says": "unclear", "claims": {"0 < 1": True, "1 < x": None}},
        ],
        "goals": [runs.certain("bytes [B]", 6, 6)],
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
        "finding c, unclear: not confirmed (not decided by these seeds: 1 < x)",
        "bytes [B], at least 6: 6, reached",
        "goals not reached: 2 [%]; record in x.json",
    ]
