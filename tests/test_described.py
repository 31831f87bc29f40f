"""A file says what it holds: net, classes, preprocessing, origin, recipe, totals; and its classes go by name."""

import hashlib
import json
import re
from collections import Counter

import numpy as np
import pytest
from safetensors.numpy import load_file

import refimpl as ri
from gradledger import adapt, describe, finish, job
from gradledger.models import pretrained
from gradledger.settings import AdaptSettings
from refimpl import data
from refimpl.data.preprocessing import Preprocessing
from refimpl.models import written
from refimpl.saved import labels
from refimpl.saved.described import PARTS, described, said
from refimpl.storage import checkpoint
from refimpl.storage.checkpoint import CheckpointError

NAMES = ("ant", "bee", "cat", "dog")
RNG = np.random.default_rng(0)
X = (3 * RNG.normal(size=(24, 1, 1, 3)) + RNG.normal(size=(24, 12, 10, 3))).astype(np.float32)


def own_net(classes=4, size=(12, 10)):
    """A net that no name builds: padding "same", a branch, dropout."""
    g = ri.Graph("of my own", size, 3)
    x = g.relu("relu1", g.conv2d("conv1", "input", 6, 3, stride=2, pad="same", bias=True))
    x = g.add("add", x, g.gelu("gelu", g.batch_norm("bn", g.conv2d("conv2", x, 6, 3, pad=1))))
    g.linear("out", g.dropout("drop", g.global_avg_pool("mean", x)), classes)
    g.classes = NAMES[:classes]
    return g


def saved(path, graph, seed=1, **more):
    trainer = ri.Trainer(ri.compile(graph, None, 8), seed)
    trainer.save(path, **more)
    return trainer


def outputs(graph, x=X):
    return ri.Trainer(ri.compile(graph, None, 8), 0).predict(x)


def dataset(classes, labels_of, x=X):
    """A data set whose samples are the same whatever the order of its classes."""
    y = np.array([classes.index(name) for name in labels_of])
    return data.Dataset("own", x, y, x, y, tuple(classes))


def test_a_net_of_the_users_own_comes_back(tmp_path):
    trainer = saved(tmp_path / "own.safetensors", own_net())
    found = described(tmp_path / "own.safetensors")
    assert (found.model, found.classes, found.size, found.own_classes) == ("of my own", NAMES, (12, 10), 4)
    np.testing.assert_array_equal(outputs(found.graph()), trainer.predict(X))
    assert found.graph(size=(20, 16)).shape("conv1") == (1, 10, 8, 6)
    more = found.graph(classes=7)
    assert more.shape("out") == (1, 7) and {"out.w", "out.b"} == more.parameters.keys() - more.weights.keys()
    with pytest.raises(CheckpointError, match="own.safetensors takes maps with C=3, not C=1"):
        found.graph(channels=1)


def test_what_a_name_builds_is_not_written_out(tmp_path):
    saved(tmp_path / "named.safetensors", ri.models.build("mobilenet_v2", variant="keras", width=0.35, size=(32, 32)))
    assert "graph" not in described(tmp_path / "named.safetensors").notes
    graph = ri.models.lenet5()
    graph.pixels = (-1.0, 1.0)  # which its name would not tell
    saved(tmp_path / "changed.safetensors", graph)
    assert described(tmp_path / "changed.safetensors").graph().pixels == (-1.0, 1.0)
    assert not written.named(own_net())


def test_files_of_before_are_read(tmp_path):
    weights = saved(tmp_path / "x", ri.models.resnet8(4, (12, 10), 3)).parameters
    checkpoint.save(tmp_path / "old.safetensors", weights, {"model": "resnet8", "size": "(12, 10)", "options": "{}"})
    found = described(tmp_path / "old.safetensors")
    assert found.classes == () and not any(getattr(found, part) for part in PARTS)
    again = pretrained(str(tmp_path / "old.safetensors"), dataset(NAMES, NAMES * 6), None, None)
    assert again.classes == NAMES and again.weights.keys() == weights.keys()


def test_a_changed_byte_of_any_part_is_told(tmp_path):
    parts = {part: {"of": f"{part} as it was"} for part in PARTS}
    saved(tmp_path / "net", own_net(), **said(**parts))
    whole = (tmp_path / "net").read_bytes()
    assert {part: getattr(described(tmp_path / "net"), part) for part in PARTS} == parts
    for text in (*(f"{part} as it was".encode() for part in PARTS), b"of my own", b"(12, 10)", b'\\"bee\\"', b"conv2"):
        assert text in whole
        for byte in range(len(text)):
            at = whole.index(text) + byte
            (tmp_path / "net").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(CheckpointError, match="damaged"):
                described(tmp_path / "net")


@pytest.mark.parametrize(
    "notes, message",
    [
        ({"recipe": "[1]"}, r"'recipe' in the metadata of .*net is no JSON object: '\[1\]'"),
        ({"ledger": "{"}, "'ledger' in the metadata of .*net is no JSON: "),
        ({"classes": "[1, 2, 3, 4]"}, "'classes' in the metadata of .*net are no names"),
        ({"graph": "{}"}, "the graph in .*net is damaged: it lacks 'name'"),
    ],
)
def test_parts_that_are_none(tmp_path, notes, message):
    arrays = saved(tmp_path / "net", own_net()).parameters
    checkpoint.save(tmp_path / "net", arrays, checkpoint.load(tmp_path / "net")[1] | notes)
    with pytest.raises(CheckpointError, match=message):
        described(tmp_path / "net").graph()


# Classes by name


@pytest.mark.parametrize(
    "wanted, outputs_, rows, classes, told",
    [
        (NAMES, None, (0, 1, 2, 3), NAMES, ""),
        (("dog", "ant", "cat", "bee"), None, (3, 0, 2, 1), None, "in another order than the file's"),
        (("ant", "bee", "cat", "dog", "eel"), None, (0, 1, 2, 3, None), None, "new: eel"),
        (("ant", "cat"), None, (0, 2), None, r"left out: bee, dog \(--classes 4 keeps all\)"),
        (("ant", "eel"), 5, (0, None, 1, 2, 3), ("ant", "eel", "bee", "cat", "dog"), "^new: eel$"),
        (("dog", "bee"), 5, (3, 1, 0, 2, None), ("dog", "bee", "ant", "cat", None), "another order"),
        (("w", "x", "y", "z"), None, (None,) * 4, None, r"no class has a name of the file's \(ant, bee, cat, dog\)"),
    ],
)
def test_rows_go_by_name(wanted, outputs_, rows, classes, told):
    match = labels.matched(NAMES, wanted, outputs_)
    assert (match.rows, match.classes) == (rows, wanted if classes is None else classes)
    if told:
        assert re.search(told, match.told)
    else:
        assert match.told == ""


def test_reordered_classes_keep_outputs_and_accuracy_to_the_bit(tmp_path):
    trainer = saved(tmp_path / "net.safetensors", own_net())
    told = [NAMES[i] for i in trainer.predict(X).argmax(1)]
    assert len(set(told)) > 1
    told[::5] = ["ant"] * len(told[::5])  # some are wrong
    turned = ("dog", "ant", "cat", "bee")
    graph = pretrained(str(tmp_path / "net.safetensors"), dataset(turned, told), None, None)
    np.testing.assert_array_equal(outputs(graph)[:, [1, 3, 2, 0]], trainer.predict(X))
    before, after = dataset(NAMES, told), dataset(turned, told)
    again = ri.Trainer(ri.compile(graph, None, 8), 5)
    assert 0 < again.evaluate(X, after.y_test) == trainer.evaluate(X, before.y_test) < 1
    assert graph.classes == turned and "by name" in graph.origin


def test_added_classes_keep_the_known_rows_and_start_small(tmp_path):
    trainer = saved(tmp_path / "net.safetensors", own_net())
    d = dataset(("ant", "bee", "beetle", "cat", "dog"), ["ant", "beetle"] * 12)
    first, same, other = (pretrained(str(tmp_path / "net.safetensors"), d, None, None, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.weights["out.w"][:, [0, 1, 3, 4]], trainer.parameters["out.w"])
    new = first.weights["out.w"][:, 2]
    assert 0 < np.abs(new).max() < 0.1 * np.abs(trainer.parameters["out.w"]).max()
    assert (new == same.weights["out.w"][:, 2]).all() and (new != other.weights["out.w"][:, 2]).any()
    assert first.origin == "pre-trained; new: beetle"


def test_renamed_classes_start_anew_and_say_so(tmp_path):
    saved(tmp_path / "net.safetensors", own_net())
    graph = pretrained(str(tmp_path / "net.safetensors"), dataset(("w", "x", "y", "z"), ["w", "z"] * 12), None, None)
    assert "out.w" not in graph.weights and graph.parameters["out.w"].gain == labels.HEAD_GAIN
    assert graph.origin.endswith("all are new") and "conv1.w" in graph.weights


# What `adapt` saves


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """An adaptation of a file with images as uint8, and the file that it wrote."""
    folder = tmp_path_factory.mktemp("adapted")
    rng = np.random.default_rng(2)
    x, y = rng.integers(0, 256, (40, 12, 10, 3), dtype=np.uint8), np.arange(40) % 4
    np.savez(folder / "own.npz", x=x, y=y, classes=np.array(NAMES))
    saved(folder / "first.safetensors", own_net())
    settings = AdaptSettings(str(folder / "first.safetensors"), str(folder / "own.npz"), epochs=1, batch=16, threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "draw_up", lambda path: finish.make("ledger", path) is not None)  # a plot takes seconds
        record = adapt.run(settings, folder / "out", False, lambda progress: None)
    return folder, record, described(folder / "out" / "adapted.safetensors")


def test_an_adapted_file_explains_itself(adapted):
    folder, record, found = adapted
    raw = (folder / "out" / "adapted.safetensors").read_bytes()
    pixels = Preprocessing(divisor=255.0, size=(12, 10), channels=3)
    assert Preprocessing.from_json(dict(found.preprocessing)) == pixels
    assert found.adapted_from == {
        "model": "first.safetensors", "weights": "pre-trained",
        "sha256": hashlib.sha256((folder / "first.safetensors").read_bytes()).hexdigest(),
    }  # fmt: skip
    assert found.recipe["epochs"] == 1 and found.recipe["method"] == record["method"] and "threads" not in found.recipe
    assert found.ledger == describe.totals(record) and found.ledger["macs"] == record["predicted"]["macs"] > 0
    assert found.ledger["samples"] > record["samples"]["train"] + record["samples"]["validation"]  # rehearsed, then all
    course = record["course"]
    assert found.ledger["chosen_lr"] == found.recipe["lr"] * course["factor"]
    value = record["accuracy_after" if record["ok"] else "accuracy_before"]
    assert found.accuracy["value"] == value
    assert found.classes == NAMES and str(folder).encode() not in raw
    assert record["weights_sha256"] == hashlib.sha256(raw).hexdigest()
    assert load_file(folder / "out" / "adapted.safetensors").keys() == found.weights.keys()


COURSE = {"tried": [[1.0, 0.9], [4.0, 0.5]], "factor": 4.0, "lowered": 0}


@pytest.mark.parametrize(
    ("change", "rate"),
    [
        ({}, 0.08),
        ({"factor": 1.0, "lowered": 1}, 0.08),  # the run lowered what the probes had chosen
        ({"again": {"made": 70}}, 0.08),
        ({"again": {"made": 0}}, None),  # no probe improved, and nothing ran at its rate
        ({"tried": [], "factor": 1.0}, None),  # all layers at once, or a rate that is as it was given
        ({"tried": [], "factor": 0.25, "lowered": 1}, None),
    ],
)
def test_the_rate_that_probes_chose(change, rate):
    assert describe.chosen_rate({"settings": {"lr": 0.02}, "course": COURSE | change}) == rate
    assert describe.chosen_rate({"settings": {"lr": 0.02}, "course": {"recipe": "plain"}}) is None


def test_the_classes_of_a_run_that_goes_on_are_those_of_the_file(adapted):
    folder, _, found = adapted
    with np.load(folder / "own.npz") as file:
        arrays = {name: file[name] for name in file}
    turned = ["dog", "cat", "bee", "ant"]
    np.savez(folder / "turned.npz", **arrays | {"y": 3 - arrays["y"], "classes": np.array(turned)})
    paths = (folder / "own.npz", folder / "turned.npz")
    model = str(folder / "out" / "adapted.safetensors")
    jobs = [job.prepare(AdaptSettings(model, str(path), epochs=1, batch=16)) for path in paths]
    first, second = (j.trainer.predict(X) for j in jobs)
    np.testing.assert_array_equal(first, second[:, ::-1])
    assert Counter(j.weights for j in jobs)["pre-trained"] == 1 and "by name" in jobs[1].weights
    assert json.loads(found.notes["classes"]) == list(NAMES)
