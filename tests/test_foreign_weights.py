"""Weights of PyTorch, timm and Keras: read without them, known by their arrays, refused where they would run."""

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import refimpl as ri
from gradledger import cli, cost, door
from gradledger.models import assumed, described, says_pixels, taking
from refimpl.data.pixels import IMAGENET
from refimpl.formats import keras_names, timm_names, torch_file, torch_names
from refimpl.formats.hdf5 import read_hdf5
from refimpl.formats.keras_file import read_keras
from refimpl.formats.layouts import Misfit, fitted
from refimpl.formats.npz import load_npz
from refimpl.models.mobilenet_v2 import STAGES, round_channels, width_of
from refimpl.saved.described import described as saved
from refimpl.storage import checkpoint
from refimpl.storage.checkpoint import CheckpointError
from validation.instruments.hdf5_files import hdf5

SMALL = {"classes": 3, "size": (32, 32), "width": 0.1}


def drawn(graph):
    """Weights of a graph, every array another one."""
    rng = np.random.default_rng(0)
    return {n: rng.uniform(0.5, 1.5, p.shape).astype(np.float32) for n, p in graph.parameters.items()}


def in_torch(graph, weights, names):
    """The weights under PyTorch's layout and some names."""
    plain = torch_names.to_torch(graph, weights)
    theirs = torch_names.torch_names(graph)
    return {names[p]: torch.from_numpy(plain[theirs[p]]) for p in graph.parameters}


@pytest.fixture(scope="module")
def net():
    graph = ri.models.build("mobilenet_v2", **SMALL)
    weights = drawn(graph)
    return graph, weights, in_torch(graph, weights, torch_names.torch_names(graph))


@pytest.fixture(scope="module")
def keras():
    graph = ri.models.build("mobilenet_v2", variant="keras", **SMALL)
    weights = drawn(graph)
    shaped = {p: w.reshape(keras_names.keras_shape(graph, p)) for p, w in weights.items()}
    return graph, weights, shaped


def same(path, weights):
    graph = saved(path).graph()
    assert graph.weights.keys() == weights.keys()
    for name, array in graph.weights.items():
        np.testing.assert_array_equal(array, weights[name], name)
        assert array.dtype == np.float32 and array.flags.c_contiguous
    return graph


def written(path, what, old=False):
    torch.save(what, path, _use_new_zipfile_serialization=not old)
    return path


# PyTorch


@pytest.mark.parametrize("old", [False, True])
def test_a_state_dict_is_read_in_both_formats(tmp_path, net, old):
    graph, weights, state = net
    counted = state | {"features.0.1.num_batches_tracked": torch.tensor(7)}
    found = same(written(tmp_path / "net.pth", counted, old), weights)
    assert found.options == graph.options and found.shape(found.output) == (1, 3)
    assert found.pixels == IMAGENET and found.size == (224, 224)


@pytest.mark.parametrize("old", [False, True])
def test_of_a_checkpoint_the_state_dict_is_read_and_the_rest_is_said(tmp_path, net, old):
    _, weights, state = net
    layer = torch.nn.Linear(3, 2)
    adam = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    adam.step()
    given = {
        "epoch": 3, "best": torch.tensor(0.5), "state_dict": {f"module.{n}": t for n, t in state.items()},
        "optimizer": adam.state_dict(), "accuracy": np.float64(0.5), "size": torch.Size([3]), "at": torch.device("cpu"),
    }  # fmt: skip
    path = written(tmp_path / "net.pth.tar", given, old)
    same(path, weights)
    assert saved(path).foreign.told == (
        "of the checkpoint 'state_dict' is read",
        "left out: epoch, best, optimizer, accuracy, size and 1 more",
        "module. is taken off every name",
    )


def test_half_floats_and_parameters(tmp_path, net):
    graph, weights, state = net
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        expected = {n: torch.from_numpy(w).to(kind).float().numpy() for n, w in weights.items()}
        cast = {n: torch.nn.Parameter(t.to(kind)) for n, t in state.items()}
        same(written(tmp_path / "net.pt", cast), expected)
        same(written(tmp_path / "net.pt", cast, old=True), expected)


def test_views_shared_storages_and_empty_tensors_are_read(tmp_path):
    base = torch.arange(24, dtype=torch.float32)
    made = {
        "turned": base.reshape(2, 3, 4).permute(2, 0, 1), "part": base[3:20:4], "same": base, "one": torch.tensor(3),
        "none": torch.zeros((0, 4)), "mask": torch.tensor([True, False]), "brain": base.bfloat16()[::2],
    }  # fmt: skip
    for old in (False, True):
        found = torch_file.read_state(written(tmp_path / "net.pth", made, old))
        assert found.keys() == made.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, made[name].float().numpy())
            assert array.shape == tuple(made[name].shape)


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def program(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"net/{name}", b"\x80\x02}.")
    return path


@pytest.mark.parametrize("old", [False, True])
def test_what_would_run_is_refused_by_name(tmp_path, monkeypatch, old):
    monkeypatch.chdir(tmp_path)
    advice = r"in PyTorch, save the state dict, torch.save\(model.state_dict\(\), FILE\), or export the model to ONNX"
    path = written(tmp_path / "net.pth", {"a": torch.ones(3), "b": Harmful()}, old)
    with pytest.raises(CheckpointError, match=rf"net.pth would run posix.system, which is refused: {advice}"):
        saved(path)
    path = written(tmp_path / "net.pth", torch.nn.Sequential(torch.nn.Linear(2, 2)), old)
    with pytest.raises(
        CheckpointError,
        match=r"net.pth holds a whole model \(torch.save\(model\)\) and would run "
        rf"torch.nn.modules.container.Sequential, which is refused: {advice}",
    ):
        saved(path)
    path = written(tmp_path / "net.pth", {"epoch": 1, "model": torch.nn.ReLU()}, old)
    with pytest.raises(CheckpointError, match="net.pth would run torch.nn.modules.activation.ReLU, which is refused"):
        saved(path)
    assert not Path("harmed").exists()


def test_a_torchscript_program_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="are a TorchScript program, which is never run: in PyTorch, save the"):
        saved(program(tmp_path / "net.pt"))


def test_damaged_files_keep_their_kind(tmp_path, net):
    whole = written(tmp_path / "net.pth", net[2]).read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "net.pth").write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="are no state dict of torch.save, or are damaged: "):
            saved(tmp_path / "net.pth")
    written(tmp_path / "net.pth", {"a": {"b": 1}})
    with pytest.raises(CheckpointError, match="it holds no tensors by name"):
        saved(tmp_path / "net.pth")


def test_a_storage_that_is_short_is_told(tmp_path):
    raw = written(tmp_path / "a.pth", {"w": torch.ones(5)}).read_bytes()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive, zipfile.ZipFile(tmp_path / "net.pth", "w") as short:
        for name in archive.namelist():
            short.writestr(name, archive.read(name)[: 16 if name.endswith("data/0") else None])
    with pytest.raises(CheckpointError, match="it holds a tensor that is larger than its storage"):
        saved(tmp_path / "net.pth")


# timm, and safetensors of it


@pytest.mark.parametrize("name", ["mobilenet_v2", "efficientnet_lite0"])
def test_timm_publishes_safetensors(tmp_path, name):
    graph = ri.models.build(name, classes=3, **({"width": 0.35} if name == "mobilenet_v2" else {}))
    weights = drawn(graph)
    state = in_torch(graph, weights, timm_names.timm_names(graph)) if name == "mobilenet_v2" else {
        timm_names.timm_names(graph)[p]: torch.from_numpy(w.transpose(*((3, 2, 0, 1), (1, 0))[w.ndim == 2]).copy())
        if w.ndim > 1 else torch.from_numpy(w) for p, w in weights.items()
    }  # fmt: skip
    checkpoint.write_atomic(
        tmp_path / "model.safetensors",
        checkpoint.serialized({n: t.numpy() for n, t in state.items()}, {"format": "pt"}),
    )
    found = same(tmp_path / "model.safetensors", weights)
    assert found.name == name
    assert found.pixels == (IMAGENET if name == "mobilenet_v2" else (-1, 1))


def test_names_of_timm():
    names = timm_names.timm_names(ri.models.build("mobilenet_v2"))
    assert names["stem.w"] == "conv_stem.weight" and names["head.bn.gamma"] == "bn2.weight"
    assert names["block1.depthwise.bn.beta"] == "blocks.0.0.bn1.bias"
    assert names["block1.project.w"] == "blocks.0.0.conv_pw.weight"
    assert names["block3.project.bn.running_var"] == "blocks.1.1.bn3.running_var"
    assert names["block17.expand.w"] == "blocks.6.0.conv_pw.weight" and names["fc.b"] == "classifier.bias"
    names = timm_names.timm_names(ri.models.build("efficientnet_lite0"))
    assert names["block16.depthwise.w"] == "blocks.6.0.conv_dw.weight"


# Keras


def by_layer(names, shaped):
    """Paths as Keras 2 and 3 write a whole model."""
    found = {}
    for parameter, name in names.items():
        layer, _, local = name.rpartition(".")
        layer = {"dense.dense": "predictions"}.get(layer, layer)
        found[f"model_weights/{layer}/{layer}/{local}:0"] = shaped[parameter]
    return found | {
        "optimizer_weights/adam/m": np.ones(3, np.float32),
        "model_weights/d/seed_generator_state": np.ones(2),
    }


def counted(graph, shaped):
    """Paths as Keras 3 counts layers, of a net within another."""
    found = {}
    for parameter, name in keras_names.counted_names(graph).items():
        layer, _, local = name.rpartition(".")
        found[f"layers/{'' if layer == 'dense' else 'functional/layers/'}{layer}/vars/{local}"] = shaped[parameter]
    return found | {"optimizer/vars/0": np.ones(3, np.float32)}


def words(*layers, size=96):
    first = {"class_name": "InputLayer", "module": "keras.layers", "config": {"batch_shape": [None, size, size, 3]}}
    return json.dumps({"class_name": "Functional", "config": {"layers": [first, *layers]}})


def archived(path, raw, text):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", text)
        archive.writestr("model.weights.h5", raw)
    return path


def test_keras_weights_by_layer_and_by_count(tmp_path, keras):
    graph, weights, shaped = keras
    (tmp_path / "a.h5").write_bytes(hdf5(by_layer(keras_names.keras_names(graph), shaped), words()))
    (tmp_path / "b.weights.h5").write_bytes(hdf5(counted(graph, shaped)))
    archived(tmp_path / "c.keras", hdf5(counted(graph, shaped)), words(size=64))
    for name, size in (("a.h5", (96, 96)), ("b.weights.h5", (224, 224)), ("c.keras", (64, 64))):
        found = same(tmp_path / name, weights)
        assert found.size == size and found.pixels == (-1, 1) and found.options == graph.options
        assert saved(tmp_path / name).foreign.told == ("left out: what its optimizer kept",)


def test_names_that_keras_counts():
    names = keras_names.counted_names(ri.models.build("mobilenet_v2", variant="keras"))
    norm = [names[f"stem.bn.{local}"] for local in ("gamma", "beta", "running_mean", "running_var")]
    assert norm == [f"batch_normalization.{i}" for i in range(4)]
    assert names["stem.w"] == "conv2d.0" and names["block1.project.w"] == "conv2d_1.0"
    assert names["block1.depthwise.w"] == "depthwise_conv2d.0" and names["head.w"] == "conv2d_34.0"
    assert (names["fc.w"], names["fc.b"]) == ("dense.0", "dense.1")


def test_layers_of_python_are_refused(tmp_path, keras):
    graph, _, shaped = keras
    for layer in (
        {"class_name": "Lambda", "module": "keras.layers", "config": {"function": "4wEAAAA="}},
        {"class_name": "Mine", "module": "mine.layers", "config": {}},
    ):
        raw = hdf5(counted(graph, shaped), words(layer))
        (tmp_path / "net.h5").write_bytes(raw)
        for path in (
            tmp_path / "net.h5",
            archived(tmp_path / "net.keras", raw, words({"config": {"layers": [layer]}})),
        ):
            with pytest.raises(
                CheckpointError,
                match=rf"{path.name} would run the Python code of its layer {layer['class_name']}, which is refused: ",
            ):
                saved(path)


def test_a_npz_of_keras_may_have_any_width(tmp_path, keras):
    graph, weights, shaped = keras
    names = keras_names.keras_names(graph)
    np.savez(tmp_path / "net.npz", **{names[p]: a for p, a in shaped.items()})
    found = load_npz(tmp_path / "net.npz")
    assert found.options["width"] == 0.1
    np.testing.assert_array_equal(found.weights["block5.depthwise.w"], weights["block5.depthwise.w"])


def test_two_dense_layers_keep_their_names():
    raw = {"a/a/kernel:0": np.ones((2, 2)), "b/b/kernel:0": np.ones((2, 2)), "c/a/kernel:0": np.ones(3)}
    found = read_hdf5(hdf5(raw)).arrays
    assert found.keys() == raw.keys()


def patched(raw, old, new):
    assert raw.count(old) == 1
    return raw.replace(old, new)


LAYOUT, SPACE = b"\x08\0\x18\0\0\0\0\0\x03\x01", b"\x01\0\x10\0\0\0\0\0\x01\x01"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda raw: raw[:50], "it ends after 50 bytes, too early"),
        (lambda raw: raw[:-1], "'w' in it is of .3,., but its numbers are not there|too early"),
        (
            lambda raw: patched(raw, LAYOUT, LAYOUT[:-1] + b"\x02"),
            "'w' in it is kept in chunks or compressed: h5repack",
        ),
        (
            lambda raw: patched(raw, LAYOUT, LAYOUT[:-1] + b"\x03"),
            "'w' in it is kept in chunks or compressed: h5repack",
        ),
        (lambda raw: patched(raw, SPACE, b"\x07" + SPACE[1:]), "'w' in it has its numbers in another file"),
        (lambda raw: patched(raw, b"SNOD", b"snod"), "it has no table of names where one should be"),
        (lambda raw: patched(raw, b"HEAP", b"heap"), "it has no names where they should be"),
        (lambda raw: raw[:8] + b"\x09" + raw[9:], "its format has the version 9, which is not known"),
        (lambda raw: raw[:13] + b"\x03" + raw[14:], "its addresses have neither 4 nor 8 bytes"),
    ],
)
def test_hdf5_that_is_damaged_or_reaches_out(tmp_path, change, message):
    (tmp_path / "net.h5").write_bytes(change(hdf5({"w": np.arange(3, dtype=np.float32)})))
    with pytest.raises(CheckpointError, match=f"are no weights of Keras, or are damaged: {message}"):
        read_keras(tmp_path / "net.h5")


def entry_of(raw, place):
    """Where the first entry of the first table of names is."""
    return raw.index(b"SNOD") + 8 + place


def test_links_and_circles_of_hdf5_are_refused(tmp_path):
    raw = bytearray(hdf5({"g/w": np.arange(3, dtype=np.float32)}))
    soft = bytearray(raw)
    soft[entry_of(raw, 16)] = 2
    root = bytes(raw[64:72])
    circle = bytearray(raw)
    circle[entry_of(raw, 8) : entry_of(raw, 16)] = root
    for made, message in ((soft, "is a link to another place, which is not followed"), (circle, "holds itself")):
        (tmp_path / "net.h5").write_bytes(made)
        with pytest.raises(CheckpointError, match=message):
            read_keras(tmp_path / "net.h5")


# What fits, and what does not


def test_the_width_of_channels():
    for width in (0.1, 0.35, 0.5, 0.75, 1.0, 1.3, 1.4):
        projects = [round_channels(c * width) for _, c, blocks, _ in STAGES for _ in range(blocks)]
        found = width_of(round_channels(32 * width), projects)
        assert [round_channels(c * found) for _, c, _, _ in STAGES] == [
            round_channels(c * width) for _, c, _, _ in STAGES
        ]
    assert width_of(32, [16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]) == 1.0


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet8", "resnet20", "lenet5", "lenet", "slim_lenet", "vgg11"]
)
def test_other_nets_go_by_the_names_of_our_nodes(name):
    graph = ri.models.build(name, classes=4)
    fit = fitted(torch_names.to_torch(graph, drawn(graph)), "net")
    assert (fit.graph.name, fit.classes, fit.graph.size, fit.graph.channels) == (name, 4, graph.size, graph.channels)


def test_a_lenet_for_colours_has_maps_of_32():
    graph = ri.models.build("lenet5", size=(32, 32), channels=3)
    fit = fitted(torch_names.to_torch(graph, drawn(graph)), "net")
    assert fit.graph.size == (32, 32) and fit.fits and fit.pixels == (0, 1)


def test_a_file_without_a_classifier_is_for_adapting(tmp_path, net):
    graph, weights, state = net
    body = {n: t for n, t in state.items() if not n.startswith("classifier")}
    one = body | {"classifier.1.weight": torch.ones(1, 1280), "classifier.1.bias": torch.ones(1)}
    for made, said in ((body, "it has no classifier: a new one starts from the seed"), (one, "its classifier has one")):
        path = str(written(tmp_path / "net.pth", made))
        assert any(said in told for told in saved(path).foreign.told)
        found = described(path, 5, (32, 32))
        assert found.parameters.keys() - found.weights.keys() == {"fc.w", "fc.b"}
        assert found.shape(found.output) == (1, 5)
        assert cost.run(cost.CostSettings(path, classes=5, size="32x32", train_last="1"))["classes"] == 5
        with pytest.raises(CheckpointError, match="net.pth has no classifier, so that it tells nothing: adapt it"):
            door.load(path)


def differing(state):
    changed = {n: t for n, t in state.items() if n not in ("features.0.0.weight.x", "features.3.conv.3.bias")}
    changed["classifier.1.weight"] = torch.ones(3, 7)
    changed["extra"] = torch.ones(2)
    return changed


def test_check_lists_what_is_missing_unexpected_and_mismatched(tmp_path, net, capsys):
    path = str(written(tmp_path / "net.pth", differing(net[2])))
    sentence = (
        f"{path} does not fit mobilenet_v2 of torchvision, width 0.1, 3 classes, which is nearest: it lacks "
        "features.3.conv.3.bias (8,) (1 of 262 arrays are missing); classifier.1.weight has shape (3, 7), but needs "
        "(3, 1280); it has extra (2,), which the net does not know"
    )
    with pytest.raises(SystemExit) as left:
        cli.main(["check", path, "--json"])
    record = json.loads(capsys.readouterr().out)
    assert left.value.code == 1 and record["reason"] == sentence and record["ok"] is record["trainable"] is False
    assert record["weights"] == {
        "net": "mobilenet_v2", "program": "torchvision", "width": 0.1, "classes": 3, "arrays": 262,
        "missing": ["features.3.conv.3.bias"], "unexpected": ["extra"],
        "mismatched": [{"name": "classifier.1.weight", "shape": [3, 7], "wanted": [3, 1280]}],
    }  # fmt: skip
    with pytest.raises(SystemExit) as left:
        cli.main(["cost", "--model", path])
    assert left.value.code == 2 and capsys.readouterr().err == f"gradledger: {sentence}\n"


def test_check_tells_which_net_it_is(tmp_path, net, capsys):
    path = str(written(tmp_path / "net.pth", net[2]))
    with pytest.raises(SystemExit) as left:
        cli.main(["check", path, "--size", "32x32", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert left.value.code == 0 and record["trainable"] and record["outputs"] == 3
    assert record["weights"]["missing"] == record["weights"]["unexpected"] == record["weights"]["mismatched"] == []
    assert record["notes"][0] == "the arrays fit mobilenet_v2 of torchvision, width 0.1, 3 classes"
    assert "pixels from (-2.1179, -2.03571, -1.80444)" in record["notes"][-1]
    assert {m["method"] for m in record["methods"] if "macs" in m} >= {"backprop", "sparse-update"}


def test_check_of_what_no_net_has(tmp_path, capsys):
    path = str(written(tmp_path / "net.pth", {"a.weight": torch.ones(3)}))
    with pytest.raises(SystemExit) as left:
        cli.main(["check", path])
    said = capsys.readouterr()
    assert left.value.code == 1 and said.out == ""
    assert (
        "net.pth holds no net that is known by the names of its arrays, whose first are a.weight: export the"
        in said.err
    )
    with pytest.raises(SystemExit) as left:
        cli.main(["check", str(tmp_path / "no.pth")])
    assert left.value.code == 2 and "there is no file" in capsys.readouterr().err


def test_what_pixels_are_is_said_as_assumed(tmp_path, net):
    path = str(written(tmp_path / "net.pth", net[2]))
    assert not says_pixels(path)
    assert (
        "net.pth does not say what it takes for pixels: (-2.1179" in assumed(described(path, None, None), path, None)[0]
    )
    assert assumed(described(path, None, None), path, "imagenet") == ()
    path = str(tmp_path / "net.npz")
    np.savez(path, **{name: t.numpy() for name, t in net[2].items()})
    assert "net.npz does not say what it takes for pixels" in assumed(described(path, None, None), path, None)[0]
    assert taking(described(path, None, None), path, "0,1").pixels == (0, 1)


def test_what_pixels_are_is_known_of_keras(tmp_path, keras):
    graph, _, shaped = keras
    names = keras_names.keras_names(graph)
    path = str(tmp_path / "net.npz")
    np.savez(path, **{names[p]: a for p, a in shaped.items()})
    assert says_pixels(path)


def test_adapt_takes_weights_of_pytorch_and_predict_what_it_wrote(tmp_path, capsys):
    graph = ri.models.build("lenet5", classes=5)
    weights = torch_names.to_torch(graph, drawn(graph))
    path = written(tmp_path / "lenet.pt", {"model": {n: torch.from_numpy(a) for n, a in weights.items()}, "epoch": 1})
    x, y = np.random.default_rng(0).integers(0, 256, (40, 28, 28, 1), np.uint8), np.arange(40) % 2
    x[y == 1] //= 4
    np.savez(tmp_path / "data.npz", x=x, y=y)
    data = str(tmp_path / "data.npz")
    given = ["adapt", "--model", str(path), "--data", data, "--method", "backprop", "--epochs", "2"]
    with pytest.raises(SystemExit) as left:
        cli.main([*given, "--json", "--output", str(tmp_path / "out")])
    record = json.loads(capsys.readouterr().out)
    assert not left.value.code and record["model"] == str(path)
    assert record["weights"] == "pre-trained but for fc3.w, fc3.b, which are random"
    found = door.load(tmp_path / "out" / "adapted.safetensors")
    assert found.saved.adapted_from["sha256"] == checkpoint.sha256(path)
    assert found.predict_proba(x[:3]).shape == (3, 2)
    assert door.load(path).predict_proba(x[:3]).shape == (3, 5)


def test_what_holds_no_floats_is_told_by_its_own_name(tmp_path, net):
    changed = net[2] | {"features.0.0.weight": net[2]["features.0.0.weight"].to(torch.int64)}
    with pytest.raises(CheckpointError, match="features.0.0.weight of .*net.pth holds int64, but floats are needed"):
        saved(written(tmp_path / "net.pth", changed))
    changed = net[2] | {"features.0.0.weight": net[2]["features.0.0.weight"] * np.inf}
    with pytest.raises(CheckpointError, match="features.0.0.weight of .*net.pth holds NaN or infinite values"):
        saved(written(tmp_path / "net.pth", changed))


def test_a_misfit_without_a_near_net_has_no_fit():
    with pytest.raises(Misfit) as told:
        fitted({"conv1.weight": np.ones((1, 1, 1, 1), np.float32)}, "net")
    assert told.value.fit is None
