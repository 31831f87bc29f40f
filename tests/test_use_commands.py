"""The commands that use what was trained: their JSON, files and sentences; runs by number."""

import csv
import fcntl
import json
import os
import shlex
import shutil
import signal
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import typer
from small_model import NAMES, PIXELS, SIDE, images, net

import gradledger
from gradledger import adapt, cli, finish, info, models, numbered
from gradledger.command import GROUPS
from gradledger.run_folder import RECORD, RESUME
from gradledger.settings import AdaptSettings
from refimpl.data.preprocessing import Preprocessing
from refimpl.recipes.head import PART
from refimpl.saved.model import Model
from refimpl.storage import checkpoint

X, Y = images(10)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A file of a net that tells all of X but where it was taught wrong: every `cat` is a `bee` to it."""
    path = tmp_path_factory.mktemp("file") / "net.safetensors"
    Model(net(), PIXELS, seed=3).fit(X, np.where(Y == 2, 1, Y), epochs=12, lr=0.05, batch=10, recipe="plain").save(path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of class folders, named in another order than the net's classes are."""
    image = pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("data") / "photos"
    for i, (x, y) in enumerate(zip(X, Y, strict=True)):
        folder = root / NAMES[y]
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(x).save(folder / f"{i:02}.png")
    return root


@pytest.fixture
def said(capsys):
    """Run a command; its JSON, or where it leaves with another status than 0 its one sentence."""

    def run(*args, status=0):
        with pytest.raises(SystemExit) as left:
            cli.main([*map(str, args), "--json"])
        told = capsys.readouterr()
        assert left.value.code == status
        if not status:
            return json.loads(told.out)
        assert told.err.startswith("gradledger: ") and told.err.count("\n") == 1 and not told.out
        return told.err

    return run


def shown(capsys, *args):
    """What a person sees of a command."""
    with pytest.raises(SystemExit) as left:
        cli.main([*map(str, args)])
    assert left.value.code == 0
    return " ".join(capsys.readouterr().out.split())


def test_info(said, capsys, file, tmp_path):
    found = said("info", file)
    assert found["model"] == "small" and found["classes"] == list(NAMES) and not found["by_name"]
    assert (found["size"], found["channels"], found["takes"]) == ([SIDE, SIDE], 3, "pixels")
    assert found["parameters"] == 251 and found["bytes"] == file.stat().st_size
    assert found["recipe"]["epochs"] == 12 and found["ledger"]["steps"] == 36
    assert found["next"][0] == f"gradledger predict {file} --data photos/"
    told = shown(capsys, "info", file)
    assert "small, written out in the file" in told and "0 to 255 becomes -1 to 1" in told
    arrays, notes = checkpoint.load(file, ours=True)
    found = json.dumps(found["ledger"] | {"chosen_lr": 0.4})
    checkpoint.save(tmp_path / "b.safetensors", arrays, notes | {"ledger": found})
    assert "probes" not in told
    assert "lr 0.4 (chosen by probes, which began at 0.0" in shown(capsys, "info", tmp_path / "b.safetensors")


def test_info_of_a_file_of_another_program(said, tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x08\x07\x12\x07pytorch" + bytes(40))
    (tmp_path / "a.bin").write_bytes((tmp_path / "a.onnx").read_bytes())
    assert "a.bin is an ONNX model: such are read under the suffix" in said("info", tmp_path / "a.bin", status=2)
    assert "a.onnx is damaged: " in said("info", tmp_path / "a.onnx", status=2)
    (tmp_path / "a.onnx").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF\0")
    assert "a.onnx is an image: an image is no net" in said("info", tmp_path / "a.onnx", status=2)
    Model(net(), PIXELS).save(tmp_path / "b.safetensors")
    (tmp_path / "b.safetensors").rename(tmp_path / "b.onnx")
    assert "b.onnx is a safetensors file: as a net it must bear the" in said("info", tmp_path / "b.onnx", status=2)
    assert "there is no file" in said("info", tmp_path / "b.safetensors", status=2)


def test_predict_one_sample_of_many(said, capsys, file, photos):
    every = said("predict", file, "--data", photos)
    for number in (0, 17):  # of the first batch of ten and of the second
        one = said("predict", file, "--data", photos, "--sample", number, "--top", 2)
        assert one["predictions"] == [p | {"top": p["top"][:2]} for p in every["predictions"][number : number + 1]]
    p = every["predictions"][17]
    told = shown(capsys, "predict", file, "--data", photos, "--sample", 17)
    rows = " ".join(f"{t['class']} {100 * t['probability']:.1f} %" for t in p["top"])
    assert told == f"{p['source']} sure {rows}"
    assert "photos holds no sample of number 99: it has those of 0 to 29" in said(
        "predict", file, "--data", photos, "--sample", 99, status=2
    )
    assert "--sample must be a number from 0 up" in said("predict", file, "--data", photos, "--sample", -1, status=2)


def test_predict_one_image_a_folder_and_arrays(said, capsys, file, photos, tmp_path):
    one = said("predict", file, "--data", photos / "ant" / "00.png")
    (p,) = one["predictions"]
    assert p["source"] == "00.png" and p["class"] == "ant" and len(p["top"]) == 3
    assert p["top"][0] == {"class": "ant", "probability": p["probability"]}
    assert sum(t["probability"] for t in p["top"]) == pytest.approx(1)
    table = tmp_path / "all.csv"
    found = said("predict", file, "--data", photos, "--top", 2, "--csv", table)
    assert found["samples"] == 30 and found["counts"] == {"bee": 20, "ant": 10}
    assert [p["source"] for p in found["predictions"]][:2] == ["ant/00.png", "ant/03.png"]
    rows = list(csv.reader(table.read_text().splitlines()))
    assert rows[0] == ["source", "class", "probability", "class2", "probability2"] and len(rows) == 31
    assert rows[1][:2] == ["ant/00.png", "ant"]
    np.save(tmp_path / "x.npy", X)
    arrays = said("predict", file, "--data", tmp_path / "x.npy")["predictions"]
    by_image = {p["source"][4:6]: p["probability"] for p in found["predictions"]}
    assert [p["probability"] for p in arrays] == [by_image[f"{i:02}"] for i in range(30)]
    told = shown(capsys, "predict", file, "--data", photos)
    assert "ant/00.png ant" in told and "30 samples: bee 20, ant 10" in told


def test_evaluate_by_name_with_the_files_that_were_taken_for_others(
    said, capsys, file, photos, tmp_path, monkeypatch
):  # fmt: skip
    found = said("evaluate", file, "--data", photos, "--part", "all", "--output", tmp_path)
    assert found["accuracy"] == pytest.approx(2 / 3) and found["samples"] == 30
    assert found["confusion"] == [[10, 0, 0], [0, 10, 0], [0, 10, 0]] and found["classes"] == list(NAMES)
    assert found["per_class"]["bee"] == {"precision": 0.5, "recall": 1.0, "samples": 10}
    assert found["per_class"]["cat"] == {"precision": None, "recall": 0.0, "samples": 10}
    (pair,) = found["confused"]
    assert (pair["true"], pair["told"], pair["count"], len(pair["samples"])) == ("cat", "bee", 10, 5)
    assert all(os.path.exists(path) and "/cat/" in path for path in pair["samples"])
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "evaluate.json").read_text())["accuracy"] == found["accuracy"]
    monkeypatch.setattr(finish, "make", lambda *_: None)  # a picture takes seconds
    part = said("evaluate", file, "--data", photos, "--output", tmp_path)
    assert part["samples"] == 6 and part["accuracy"] == pytest.approx(2 / 3)
    assert (found["left"], part["left"]) == (0, 24)
    told = shown(capsys, "evaluate", file, "--data", photos, "--output", tmp_path)
    assert "cat bee 2 (100.0 %)" in told
    assert "24 more samples are not of this part: --part all judges by all of them" in told
    arrays, notes = checkpoint.load(file, ours=True)
    checkpoint.save(tmp_path / "own.safetensors", arrays, notes | {"recipe": json.dumps({"data": "photos"})})
    own = said("evaluate", tmp_path / "own.safetensors", "--data", photos, "--output", tmp_path)
    assert (own["samples"], own["left"]) == (6, 0)  # the others have trained it


def test_evaluate_one_class_alone(said, file, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(finish, "make", lambda *_: None)  # a picture takes seconds
    for name, right in (("bee", 1.0), ("cat", 0.0)):
        shutil.copytree(photos / name, tmp_path / f"only_{name}" / name)
        found = said("evaluate", file, "--data", tmp_path / f"only_{name}", "--part", "all", "--output", tmp_path)
        assert (found["samples"], found["accuracy"]) == (10, right)
        assert {of: row["samples"] for of, row in found["per_class"].items() if row["samples"]} == {name: 10}
    part = said("evaluate", file, "--data", tmp_path / "only_cat", "--output", tmp_path)
    assert (part["samples"], part["left"]) == (2, 8)  # as of other data
    first, *others = sorted((tmp_path / "only_cat" / "cat").iterdir())
    for path in others:
        path.unlink()
    assert said("evaluate", file, "--data", tmp_path / "only_cat", "--output", tmp_path)["samples"] == 1
    first.parent.rename(tmp_path / "only_cat" / "dog")
    told = said("evaluate", file, "--data", tmp_path / "only_cat", status=2)
    assert "only_cat has the classes dog, which " in told and "it knows ant, bee, cat; a class is told by the n" in told
    arrays, notes = checkpoint.load(file, ours=True)
    checkpoint.save(tmp_path / "plain.safetensors", arrays, notes | {"classes": "[null, null, null]"})
    told = said("evaluate", tmp_path / "plain.safetensors", "--data", tmp_path / "only_cat", status=2)
    assert "it knows 0, 1, 2; its classes have no names, so that the data need all 3 of them, in their order" in told


def test_what_takes_a_net_names_data_of_the_kind_that_it_was_trained_on(file):
    found, graph = models.saved(file), net()
    kinds = {"sounds/": replace(PIXELS, kind="sound", divisor=1.0), "photos/": PIXELS}
    kinds["DATA.csv"] = Preprocessing("window", columns=("ax", "ay"))
    kinds["DATA.npz"] = Preprocessing("window")
    for told, made in kinds.items():
        assert info.commands("a", graph, found, made)[0] == f"gradledger predict a --data {told}"


@pytest.mark.parametrize(
    "args, message",
    [
        (("predict", "FILE", "--data", "nothing.png"), "there is no file or folder nothing.png"),
        (("predict", "FILE", "--data", "PHOTOS", "--top", "0"), "--top must be at least 1, got 0"),
        (("predict", "FILE", "--data", "watch"), "watch has maps of 1x100x6, but the net takes 8x8x3"),
        (("evaluate", "FILE", "--data", "PHOTOS", "--part", "tset"), "no part 'tset'; did you mean 'test'?"),
        (("evaluate", "FILE", "--data", "OTHER"), "has the classes dog, which FILE does not know: it knows ant, bee"),
        (("evaluate", "FILE", "--data", "PHOTOS", "--part", "val"), "photos has no samples of the part val"),
        (("adapt", "--model", "FILE", "--data", "TABLE"), "/net.safetensors takes maps with C=3, but own has C=2"),
        (
            ("adapt", "--model", "watch", "--from-scratch", "--data", "TABLE"),
            "own.csv is a sample: --window 2s --rate 50 cuts windows of two seconds",
        ),
        (("runs", "nowhere"), "there is no folder nowhere: gradledger adapt writes its runs into gradledger-out"),
    ],
)
def test_what_cannot_be_used_is_said(said, file, photos, tmp_path, args, message):
    if "OTHER" in args:
        shutil.copytree(photos, tmp_path / "other")
        (tmp_path / "other" / "cat").rename(tmp_path / "other" / "dog")
    (tmp_path / "own.csv").write_text("ax,ay,is\n" + "".join(f"{i},{2 * i},{'ab'[i % 2]}\n" for i in range(20)))
    places = {"FILE": str(file), "PHOTOS": str(photos), "OTHER": str(tmp_path / "other")}
    places["TABLE"] = str(tmp_path / "own.csv")
    assert message.replace("FILE", str(file)) in said(*(places.get(a, a) for a in args), status=2)


# Runs by number


@pytest.fixture
def settings(file, tmp_path, monkeypatch):
    """Settings of a short run, in a folder of its own; costs and plot, which take seconds, are left out."""
    monkeypatch.setattr(finish, "draw_up", lambda record: False)
    np.savez(tmp_path / "own.npz", x=X, y=Y, classes=np.array(NAMES))
    monkeypatch.chdir(tmp_path)
    return {"model": str(file), "data": str(tmp_path / "own.npz"), "epochs": 2, "batch": 10, "threads": 1}


def test_adapt_ends_with_commands_that_run_as_they_stand(said, settings, photos, capsys):
    """One evaluates beside the run, into a new folder each time, one predicts; paths are as called from here."""
    (numbered.BASE.parent / "a b").symlink_to(photos)
    own = ("--model", settings["model"], "--data", "a b", "--epochs", 2, "--batch", 10, "--threads", 1)
    told = shown(capsys, "adapt", *own)
    weights = "gradledger-out/run-1/adapted.safetensors"
    evaluate, predict = f"gradledger evaluate {weights} --data 'a b'", f"gradledger predict {weights} --data 'a b'"
    assert told.endswith(f"what comes next; predict takes new samples as well: {evaluate} {predict}")
    for number in (1, 2):
        found = said(*shlex.split(evaluate)[1:])
        assert found["files"]["record"] == f"gradledger-out/run-1/evaluate-{number}/evaluate.json"
        assert found["samples"] == 6 and found["weights_sha256"] == checkpoint.sha256(weights)
    assert said(*shlex.split(predict)[1:])["samples"] == 30
    assert said("evaluate", settings["model"], "--data", "a b")["files"]["record"].startswith(
        "gradledger-out/evaluate-1/"
    )
    assert said("runs")["runs"][0]["folder"] == "gradledger-out/run-1" and len(said("runs")["runs"]) == 1
    found = said("adapt", *own)
    assert found["next"] == [command.replace("run-1", "run-2") for command in (evaluate, predict)]


def test_the_next_commands_say_what_the_weights_do_not():
    settings = {"data": "watch", "subject": 3, "skip_bad": True}
    assert finish.commands(settings, "w")[0] == "gradledger evaluate w --data watch"
    found = finish.commands(settings | {"data": "clips.npz"}, "w")
    assert found[0] == "gradledger evaluate w --data clips.npz --subject 3"
    assert found[1] == "gradledger predict w --data clips.npz --subject 3 --skip-bad"


def test_runs_are_numbered_and_none_is_overwritten(said, settings, capsys):
    first = gradledger.adapt(**settings)
    assert first.record["files"]["weights"] == "gradledger-out/run-1/adapted.safetensors"
    kept = {p.name: p.read_bytes() for p in (numbered.BASE / "run-1").iterdir()}
    with pytest.raises(ValueError, match="lr must be a positive number"):
        gradledger.adapt(**settings, lr=-1.0)
    second = gradledger.adapt(**settings, method="backprop")
    assert sorted(p.name for p in numbered.BASE.iterdir()) == ["run-1", "run-2"]
    assert {p.name: p.read_bytes() for p in (numbered.BASE / "run-1").iterdir()} == kept
    assert second.record["files"]["record"] == "gradledger-out/run-2/adapt.json"
    found = said("runs")["runs"]
    assert [(r["folder"], r["state"], r["method"]) for r in found] == [
        ("gradledger-out/run-1", "finished", "gradient-filter:patch=2,align=centre"),
        ("gradledger-out/run-2", "finished", "backprop"),
    ]
    assert found[0]["accuracy_after"] == first.record["accuracy_after"]
    assert found[0]["steps"] == first.record["steps"]
    record = json.loads(kept["adapt.json"]) | {"ok": False}
    record["measured"]["macs"] = 1_234_567
    (numbered.BASE / "run-1" / "adapt.json").write_text(json.dumps(record))
    told = said("info", numbered.BASE / "run-2")  # a run's folder stands for its weights
    assert told["recipe"]["method"] == "backprop" and told["sha256"] == second.record["weights_sha256"]
    assert gradledger.load(numbered.BASE / "run-2").predict(X).tolist() == second.predict(X).tolist()
    settings["model"] = "gradledger-out/run-2"
    assert gradledger.adapt(**settings).record["accuracy_before"] == second.record["accuracy_after"]
    (numbered.BASE / "run-2").rename("lenet5")  # a model's name stays one
    assert not models.is_file("lenet5") and models.is_file("gradledger-out/run-3")
    Path("lenet5").rename(numbered.BASE / "run-2")
    told = shown(capsys, "runs")
    assert "run-1 worse" in told and "1.23 MMAC" in told and "run-2 finished" in told
    assert " own.npz, backprop" in told and str(Path.cwd()) not in told


def test_the_latest_interrupted_run_is_resumed(said, settings, capsys):
    def stop(progress):
        nonlocal steps
        steps += progress.part != PART
        if steps == 9:  # of a second probe, which counts its own from 1
            signal.raise_signal(signal.SIGINT)

    saved = []
    for _ in range(2):
        steps = 0
        with (
            numbered.run_folder(None, False) as folder,
            pytest.raises(adapt.Interrupted, match="is saved, go on with: gradledger adapt --resume --output") as told,
        ):
            adapt.run(AdaptSettings(**settings), folder, False, stop)
        saved.append(str(told.value).split("; ")[1].split(",")[0])
    states = [(r["folder"][-5:], r["state"], r["accuracy_after"]) for r in said("runs")["runs"]]
    assert states == [("run-1", "interrupted", None), ("run-2", "interrupted", None)]
    assert [f"step {r['steps']} is saved" for r in said("runs")["runs"]] == saved == ["step 9 is saved"] * 2
    handle = os.open(numbered.BASE / "run-2", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert numbered.state(numbered.BASE / "run-2") == "running"
    assert numbered.interrupted(numbered.BASE) == numbered.BASE / "run-1"
    os.close(handle)
    capsys.readouterr()
    again = gradledger.adapt(resume=True)
    assert capsys.readouterr().err == "gradledger: the run in gradledger-out/run-2 goes on after step 9\n"
    assert again.record["files"]["weights"] == "gradledger-out/run-2/adapted.safetensors"
    assert [r["state"] for r in said("runs")["runs"]] == ["interrupted", "finished"]
    assert gradledger.adapt(resume=True).record["files"]["weights"].startswith("gradledger-out/run-1/")
    capsys.readouterr()
    message = "gradledger-out holds no interrupted run to resume: leave --resume out to start one"
    assert message in said("adapt", "--resume", status=2)


def test_what_is_no_run_or_is_damaged_is_told(said, tmp_path):
    for name in ("run-1", "run-2", "run-10", "other", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "run-1" / RECORD).write_text("{")
    (tmp_path / "run-2" / RESUME).write_bytes(b"x")
    (tmp_path / "other" / "diverged.safetensors").write_bytes(b"x")
    found = {r["folder"].rpartition("/")[2]: r["state"] for r in said("runs", tmp_path)["runs"]}
    assert found == {"other": "diverged", "run-1": "damaged", "run-2": "damaged"}
    assert numbered.new(tmp_path) == tmp_path / "run-11"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file is no folder: move it away|cannot be made"):
        numbered.new(tmp_path / "file")


def test_size_is_that_of_the_file(said, file, photos, tmp_path, settings):
    found = said("adapt", "--model", file, "--data", photos, "--epochs", 1, "--batch", 10, "--output", tmp_path / "o")
    assert found["settings"]["size"] == f"{SIDE}x{SIDE}" and found["samples"]["test"] == 6
    arrays, notes = checkpoint.load(tmp_path / "o" / "adapted.safetensors")
    assert json.loads(notes["classes"]) == list(NAMES) and arrays["fc.w"].shape == (8, 3)


def test_the_door(tmp_path):
    assert gradledger.cost(model="lenet5", batch=4)["model"] == "lenet5"
    with pytest.raises(TypeError, match="there is no option 'modle'; known: model, data"):
        gradledger.cost(modle="lenet5")
    with pytest.raises(TypeError, match="takes 0 positional arguments"):  # a folder of data is none for results
        gradledger.adapt("photos/")
    with pytest.raises(AttributeError, match="has no attribute 'lod'; it offers adapt, cost, load"):
        gradledger.lod  # noqa: B018
    assert {"adapt", "cost", "load"} <= set(dir(gradledger)) and gradledger.__version__ == metadata.version(
        "gradledger"
    )


@pytest.mark.parametrize("command", ["", "predict", "adapt"])
def test_short_help(capsys, command):
    told = [shown(capsys, *filter(None, [command, flag])) for flag in ("-h", "--help")]
    assert told[0] == told[1] and "-h, --help" in told[0]


def test_commands_are_told_in_whole_sentences(capsys):
    told = shown(capsys, "-h")
    assert "predict Tell the class of new samples, by name, and how sure the net is. evaluate" in told
    assert "..." not in told.partition("Commands:")[2] and "finish" not in told


@pytest.mark.parametrize(
    "args, message",
    [
        (
            ("predict", "net.safetensors", "new photos"),
            "'new photos' stands alone: data are given as --data 'new photos'",
        ),
        (("adapt", "photos"), "'photos' stands alone: data are given as --data photos"),
        (("adapt", "photos", "--data", "watch"), "unexpected extra argument"),
        (("predict", "net.safetensors"), "Missing option '--data'"),
        (("adapt", "photos", "--modl"), "No such option: --modl"),
    ],
)
def test_a_word_that_stands_alone_is_told_to_be_data(said, args, message):
    assert message in said(*args, status=2)


def test_the_help_of_many_options_tells_the_common_ones_first(capsys):
    told = shown(capsys, "adapt", "--help")
    first, *others = (told.index(f"{head}: ") for head in ("Options", *GROUPS))
    assert first < min(others) and others == sorted(others)
    place = {option: told.index(f" {option} ") for option in ("--model", "--data", "--output", "--resume", "--json")}
    assert all(first < at < others[0] for at in place.values())
    assert others[0] < told.index(" --skip-bad ") < others[1] < told.index(" --clip ") < others[2]
    known = {p.name.removesuffix("_") for p in typer.main.get_command(cli.app).commands["adapt"].params}
    assert {name for names in GROUPS.values() for name in names} <= known


def test_skip_bad_leaves_out_what_cannot_be_used(said, capsys, file, photos, tmp_path):
    shutil.copytree(photos, tmp_path / "mine")
    for name in ("ant/broken.png", "bee/phone.heic"):
        (tmp_path / "mine" / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    for command in ("predict", "evaluate"):
        assert "--skip-bad leaves such out" in said(command, file, "--data", tmp_path / "mine", status=2)
    found = said("predict", file, "--data", tmp_path / "mine", "--skip-bad")
    assert found["samples"] == 30 and found["counts"] == {"bee": 20, "ant": 10}
    assert [one["what"].rpartition("/")[2] for one in found["skipped"]] == ["broken.png", "phone.heic"]
    assert "phone.heic is an image that is not read (.heic; " in shown(
        capsys, "predict", file, "--data", tmp_path / "mine", "--skip-bad"
    )
    told = shown(capsys, "evaluate", file, "--data", tmp_path / "mine", "--skip-bad", "--output", tmp_path)
    assert "test: 6 samples 24 more samples are not of this part: --part all judges by all of them left out: " in told
    assert "broken.png cannot be read" in told


def test_what_is_shown_of_a_run_has_paths_as_they_are_called_from_here(settings, photos, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "own")
    (tmp_path / "own" / "ant" / "bad.png").write_bytes(b"no")
    shutil.copy(settings["model"], tmp_path / "net.safetensors")
    told = shown(capsys, "adapt", "--model", tmp_path / "net.safetensors", "--data", tmp_path / "own", "--skip-bad",
                 "--epochs", 1, "--threads", 1)  # fmt: skip
    assert "left out: own/ant/bad.png cannot be read" in told and " net.safetensors on own: " in told
    assert str(tmp_path) not in told
