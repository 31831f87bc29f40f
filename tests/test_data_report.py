"""The report before training: what `describe` says of a data set, and what a person sees of it."""

import json

import numpy as np
import pytest
from PIL import Image

from gradledger import cli, show, show_data
from refimpl import data
from refimpl.data import Preprocessing, ReadOptions, augmented, describe, validation_split

RNG = np.random.default_rng(0)
KEYS = {
    "name", "kind", "samples", "classes", "shape", "values", "split", "labels", "groups", "skipped", "ignored",
    "decided", "missing", "preprocessing",
}  # fmt: skip


def counts(folder, **more):
    x = RNG.integers(-900, 900, (40, 50, 3), dtype=np.int16)
    np.savez(folder / "own.npz", x=x, y=np.array([3, 8])[np.arange(40) % 2], **more)
    return folder / "own.npz"


def pets(root):
    for name in ("cat", "dog"):
        for i in range(5):
            path = root / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(path)
    (root / "cat" / "bad\x1b.png").write_bytes(b"")
    (root / "cat" / "notes.txt").write_text("")
    return root


def test_counts_are_described_and_the_preprocessing_comes_back(tmp_path):
    d = data.load(counts(tmp_path, group=np.arange(40) // 10))
    found = json.loads(json.dumps(describe(d)))
    assert found.keys() == KEYS and found["shape"] == [1, 50, 3]
    assert found["samples"] == {"train": 30, "test": 10}
    assert found["classes"] == {"3": {"train": 15, "test": 5}, "8": {"train": 15, "test": 5}}
    assert found["labels"] == {"3": 0, "8": 1} and found["groups"] == 3
    assert found["values"]["source"][0] < -890 and abs(found["values"]["training"][0]) < 3
    assert Preprocessing.from_json(found["preprocessing"]) == d.origin.preprocessing
    three = describe(validation_split(d, 0.3))
    assert (
        three["samples"] == {"train": 20, "validation": 10, "test": 10}
        and "validation: 1 whole group" in three["split"]
    )


def test_what_was_left_out_is_listed_and_names_steer_no_terminal(tmp_path):
    d = data.load(pets(tmp_path / "pets"), size=(6, 6), reading=ReadOptions(skip_bad=True))
    found = describe(augmented(d, "flip,rotate").with_pixels(-1.0, 1.0))
    (bad,), (foreign,) = found["skipped"], found["ignored"]
    assert bad["what"].endswith("bad\\x1b.png") and bad["why"] == "cannot be read: it is empty"
    assert foreign["what"].endswith("notes.txt") and foreign["why"] == "is no image"
    low, high = found["values"]["training"]
    assert -1 <= low < -0.9 and 0.9 < high <= 1 and found["values"]["source"] == [0, 255]
    assert found["preprocessing"]["black"] == -1 and found["preprocessing"]["size"] == [6, 6]


def test_a_class_that_nothing_judges_is_said(tmp_path):
    x = RNG.random((12, 5, 5)).astype(np.float32)
    y = np.arange(12) % 3
    np.savez(tmp_path / "own.npz", x=x, y=y, x_test=x[:2], y_test=y[:2])
    assert describe(data.load(tmp_path / "own.npz"))["missing"] == ["2"]


@pytest.mark.parametrize("name", ["watch", "fashion-mnist"])
def test_embedded_data_are_described(name):
    found = describe(data.load(name))
    assert sum(n["train"] for n in found["classes"].values()) == found["samples"]["train"] > 100
    assert found["split"] and json.dumps(found)


def test_a_person_sees_classes_decisions_and_what_was_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(show_data, "console", show.Console(width=200))
    show_data.described(describe(data.load(counts(tmp_path))))
    said = capsys.readouterr().out
    assert "data own: arrays, maps of 1x50x3, values from -9" in said and "all         32     8" in said
    assert "int16 counts are standardised" in said and "labels 3, 8 are classes 0 to 1" in said
    assert "20 % of each class judges, drawn by the seed" in said
    show_data.described(describe(data.load(pets(tmp_path / "p"), size=(6, 6), reading=ReadOptions(skip_bad=True))))
    said = capsys.readouterr().out
    assert (
        "left out: " in said and "cannot be read: it is empty" in said and "no sample: " in said and "\x1b" not in said
    )


def test_many_classes_and_files_are_cut_short(capsys, monkeypatch):
    monkeypatch.setattr(show_data, "console", show.Console(width=200))
    y = np.arange(300) % 30
    d = data.from_arrays("own", RNG.random((300, 5, 5)).astype(np.float32), y)
    found = describe(d) | {"ignored": [{"what": f"file {i}", "why": "is no image"} for i in range(50)]}
    show_data.described(found)
    said = capsys.readouterr().out
    assert "10 more classes" in said and "no sample: 30 more, which the record lists" in said and "file 20" not in said


def test_adapt_reports_the_data_before_it_trains_and_keeps_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(show_data, "console", show.Console(width=200))
    path = counts(tmp_path)
    out = tmp_path / "out"
    given = ["adapt", "--data", str(path), "--epochs", "1", "--output", str(out), "--augment", "jitter,time-shift"]
    given.append("--from-scratch")
    with pytest.raises(SystemExit):
        cli.main(given)
    said = capsys.readouterr().out
    assert "data own: arrays, maps of 1x50x3" in said
    record = json.loads((out / "adapt.json").read_text())
    samples = record["data_report"]["samples"]
    assert samples["train"] + samples["validation"] == 32 and samples["validation"] > 0 and samples["test"] == 8
    assert record["settings"]["augment"] == "jitter,time-shift"
    with pytest.raises(SystemExit) as ended:
        cli.main([*given, "--axes", "NTX"])
    assert ended.value.code == 2 and "--axes must name each axis" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*given, "--json"])
    assert json.loads(capsys.readouterr().out)["data_report"]["name"] == "own"


def test_a_folder_of_tables_goes_through_every_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k, kind in enumerate(("sit", "walk")):
        for i in range(5):
            (tmp_path / "own" / kind).mkdir(parents=True, exist_ok=True)
            x = RNG.standard_normal((90 + 10 * i, 2)) + 40 * k
            (tmp_path / "own" / kind / f"{i}.csv").write_text("\n".join(["ax,ay", *(f"{a:.2f},{b:.2f}" for a, b in x)]))

    def told(*args):
        with pytest.raises(SystemExit) as ended:
            cli.main([*args, "--json"])
        said = capsys.readouterr()
        assert ended.value.code == 0, said.err
        return json.loads(said.out)

    options = ["--window", "1s", "--stride", "0.5s", "--rate", "20", "--from-scratch", "--recipe", "plain"]
    record = told("adapt", "--data", "own", *options, "--epochs", "6", "--method", "backprop", "--output", "run")
    report = record["data_report"]
    assert report["kind"] == "folder of tables" and report["groups"] == 8 and report["samples"]["test"] >= 16
    judged = told("evaluate", "run/adapted.safetensors", "--data", "own")
    assert judged["samples"] == report["samples"]["test"] and judged["accuracy"] == record["accuracy_after"] > 0.9
    found = told("predict", "run/adapted.safetensors", "--data", "own")["predictions"]
    assert len(found) == sum(report["samples"].values()) and found[0]["source"] == "sit/0.csv, lines 2 to 21"
    right = [p["class"] == p["source"].split("/")[0] for p in found]
    assert sum(right) / len(right) > 0.9
    alone = told("predict", "run/adapted.safetensors", "--data", "own/walk/1.csv")["predictions"]
    of_folder = [p for p in found if p["source"].startswith("walk/1.csv")]
    assert [p["probability"] for p in alone] == [p["probability"] for p in of_folder]
