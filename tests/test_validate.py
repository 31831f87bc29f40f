"""`gradledger validate`: its record and files, its tables, its refusals."""

import json
import re

import numpy as np
import pytest

import refimpl as ri
from gradledger import validate
from gradledger.cli import main
from refimpl import data

SHORT = ("--batch", "8", "--batches", "2")


@pytest.fixture
def run(capsys, tmp_path):
    """Run the command; gives its exit status, output and errors."""

    def command(*args):
        with pytest.raises(SystemExit) as left:
            main(["validate", *SHORT, *map(str, args), "--output", str(tmp_path / "out")])
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return command


@pytest.fixture
def images(tmp_path):
    """A file of small images of three classes."""
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    x = rng.normal(size=(48, 12, 12, 1)).astype(np.float32) + y[:, None, None, None]
    np.savez(tmp_path / "own.npz", x=x, y=y)
    return tmp_path / "own.npz"


def test_the_record_and_its_files(run, tmp_path):
    status, out, err = run("--json")
    assert (status, err) == (0, "")
    r = json.loads(out)
    assert r["ok"] and r["method"] == "gradient-filter:patch=2,align=centre" and r["weights"] == "pre-trained"
    assert [e["layer"] for e in r["gradients"]["errors"]] == ["conv1", "conv2", "conv3"]
    assert r["gradients"]["checked"] == 5 and 0 < r["gradients"]["max_rel_err"] < r["gradients"]["tolerance"]
    assert r["counts"]["checked"] > 30 and r["counts"]["mismatches"] == 0
    assert r["memory"]["predicted_peak_bytes"] == r["memory"]["measured_peak_bytes"] > 0
    assert r["time"] == {}
    for e in r["gradients"]["errors"]:
        assert 0.9 < e["local"]["dw"]["cosine"] < 1 and 0 < e["local"]["dw"]["relative_error"] < 0.5
        assert 1 < e["filter"]["snr_dy_closed_form"] < e["filter"]["snr_dy"]
    saved = json.loads((tmp_path / "out" / "validate.json").read_text())
    assert saved == {k: v for k, v in r.items() if k != "files"}
    assert (tmp_path / "out" / "validate.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_tables_have_a_line_for_each_gradient(run):
    status, out, err = run("--train-last", 2)
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert [line[:3] for line in lines if line[:1] == ["conv2"]][0] == ["conv2", "dw", "local"]
    assert sum(line[:2] == ["dx", "whole"] for line in lines) == 1  # conv2 is the first that trains: no dx
    assert ["conv3", "1x5", "1x25", "2x2"] in [line[:4] for line in lines]
    assert "0 disagree with their formulas" in out and "…" not in out


def test_a_model_without_weights_is_trained_first_and_the_record_says_so(run, images):
    resnet = ("--model", "resnet8", "--data", images, "--train-last", 1)
    status, out, _ = run(*resnet, "--json")
    assert status == 0
    assert json.loads(out)["weights"] == "trained here first, for 1 epoch of back-propagation"
    status, out, _ = run(*resnet, "--epochs", 0, "--method", "backprop")
    assert status == 0
    assert "weights: random, from the seed: --epochs 1 trains them first" in out
    assert "closed form" not in out


def test_only_the_classifier_trains_where_only_it_is_missing(images):
    d = data.load(images)
    graph = ri.models.build("resnet8", classes=3, size=(12, 12), channels=1)
    weights = ri.train.initial(ri.compile(graph, None, 1), seed=0)
    graph.weights = {name: a.copy() for name, a in weights.items() if not name.startswith("fc")}
    told = validate.train_missing(graph, d, validate.Settings(batch=8), lambda *progress: None)
    assert told == "pre-trained but for fc.w, fc.b, which are trained here first, for 1 epoch of back-propagation"
    changed = [name for name, a in graph.weights.items() if (a != weights[name]).any()]
    assert changed == ["fc.w", "fc.b"]
    assert validate.train_missing(graph, d, validate.Settings(), None) == "pre-trained"


def test_a_failed_check_is_a_no_with_the_record(run, monkeypatch, tmp_path):
    monkeypatch.setattr(validate, "TOLERANCE", 1e-12)
    monkeypatch.setattr(validate.measured, "touched_bytes", lambda *a: 7)
    monkeypatch.setattr(validate.counting, "count_call", lambda call, n: {})
    status, out, err = run("--json")
    r = json.loads(out)
    assert status == 1 and r["ok"] is False
    assert re.search(r"is off by \d\.\de-\d\d of the float64 reference, where at most 1e-12 is rounding", err)
    assert re.search(r"(\d+) of \1 calls do other operations than their formulas say", err)
    assert re.search(r"a step touched 7 bytes of the arena, where [\d,]+ were predicted", err)
    assert json.loads((tmp_path / "out" / "validate.json").read_text())["ok"] is False


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--model", "wach"), "there is no model 'wach'; did you mean 'watch'"),
        (("--method", "gradient-filter:patch=0"), "patch must be at least 1, got 0"),
        (("--batches", 100), "100 batches of 8 need 800 samples, but there are 300: take fewer or smaller batches"),
        (("--batches", 0), "--batches must be at least 1, got 0"),
        (("--batch", "x"), "must be a whole number, got 'x'"),
        (("--epochs", -1), "--epochs must be at least 0, got -1"),
        (("--seed", -1), "--seed must be from 0"),
        (("--train-last", 0), "no convolution of watch trains its weights under this plan"),
        (("--method", "bias-only"), "no convolution of watch trains its weights under this plan"),
        (("--train-last", 9), "train_last is 9, but watch has 3 convolutions"),
        (("--data", "nowhere.npz"), "there is no file or folder nowhere.npz"),
    ],
)
def test_bad_input_is_answered_in_one_sentence(run, tmp_path, args, message):
    status, out, err = run(*args)
    assert (status, out) == (2, "")
    assert message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()
