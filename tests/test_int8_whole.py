"""The int8 microcontroller nets in whole numbers: every map against a plain statement, and beside the float net."""

import json

import numpy as np
import pytest
from int8_oracle import maps
from pretrained_files import int8_arrays, saved
from test_weight_files import MCUNET, MOBILENET, WEIGHTS, raw, shared

import refimpl as ri
from refimpl.data.cifar_jpeg import decode
from refimpl.data.dataset import Dataset
from refimpl.data.resized import Resized
from refimpl.formats.int8_nets import from_int8
from refimpl.formats.int8_whole import whole_from_int8
from refimpl.formats.npz import load_npz
from refimpl.graph import INPUT
from refimpl.kernels.running import threads
from refimpl.storage.checkpoint import CheckpointError
from refimpl.training.state import initial
from refimpl.training.trainer import Runner
from validation.campaign.samples import keras_arrays

JPEG = WEIGHTS.parent / "data" / "cifar10_jpeg.npz"
BACKENDS = ("reference", "fast")
NETS = (MOBILENET, MCUNET)


def small():
    """A file of two blocks, in which ReLU6 ends below 127 at one place."""
    arrays, structure = int8_arrays()
    first, block = structure["first_conv"]["params"], structure["blocks"][0]["depthwise"]["params"]
    first["y_scale"] = block["x_scale"] = 0.031  # 6 is 193.5 steps
    return arrays, structure


def packed(arrays, structure):
    return arrays | {"structure": np.array(json.dumps(structure))}


def random_pixels(n, size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *size, 3), np.uint8)


def cifar(count, size=(128, 128)):
    """Real images, stretched by our own resize to whole pixels."""
    if not JPEG.is_file():
        pytest.skip("the folder shared/ with the images is not beside the project")
    with np.load(JPEG) as file:
        ends = file["test_offsets"][: count + 1]
        images = decode(file["test_jpeg"][: ends[-1]], ends, "images")
    return Resized(images, size).with_pixels(0, 255, np.uint8)[:]


def every_map(graph, pixels, backend):
    """Each tensor that a node makes, of pixels (N, H, W, 3) uint8."""
    names = [n for node in graph.nodes for n in node.outputs if node.op != "quantized_linear" or n.endswith(".sums")]
    graph.outputs = names
    program = ri.compile(graph, None, len(pixels), backend=backend, threads=2)
    runner = Runner(program, initial(program, 0))
    with threads(program.threads):
        runner.write(INPUT, len(pixels), (pixels.astype(np.int16) - 128).astype(np.int8))
        runner.run("forward", len(pixels))
        hosts = {names[0]: "output"} | {n: f"output.{n}" for n in names[1:]}
        return {name: runner.read(host, len(pixels)).copy() for name, host in hosts.items()}


def check_maps(arrays, graph, pixels, backend):
    """Every map equals the plain statement's; returns how many there were."""
    found, wanted = every_map(graph, pixels, backend), maps(arrays, pixels)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        if name == "fc.real":
            np.testing.assert_allclose(found[name], values, rtol=1e-6)
        else:
            assert found[name].dtype == (np.int32 if name == "fc.sums" else np.int8)
            np.testing.assert_array_equal(found[name], values, name)
    return len(wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(16, 16), (9, 12), (1, 1)])
def test_every_map_of_a_small_net_is_the_plain_one(size, backend):
    arrays = packed(*small())
    graph = whole_from_int8(arrays, size=size)
    assert [graph.node(n).attrs["high"] for n in ("stem", "block1.depthwise")] == [round(6 / 0.031) - 128, 127]
    assert check_maps(arrays, graph, random_pixels(3, size), backend) == 10


@pytest.mark.parametrize("name", NETS)
def test_every_map_of_a_real_net_is_the_plain_one_for_the_reference(name):
    arrays = raw(name)
    assert check_maps(arrays, whole_from_int8(arrays, size=(32, 32)), random_pixels(1, (32, 32)), "reference") > 50


@pytest.mark.parametrize("name", NETS)
def test_every_map_of_a_real_net_is_the_plain_one_on_real_images(name):
    arrays = raw(name)
    assert check_maps(arrays, whole_from_int8(arrays), cifar(2), "fast") > 50


@pytest.mark.parametrize("name", NETS)
def test_whole_and_float_net_agree_on_real_images(name):
    """Top-1 on 200 images, and how far logits are apart, beside how far they spread."""
    pixels = cifar(200)
    whole = ri.Trainer(ri.compile(load_npz(shared(name), whole=True), None, 50))
    floats = ri.Trainer(ri.compile(load_npz(shared(name)), None, 50))
    found = whole.predict((pixels.astype(np.int16) - 128).astype(np.int8))
    wanted = floats.predict((pixels / 127.5 - 1).astype(np.float32))
    agree = (found.argmax(1) == wanted.argmax(1)).mean()
    inside = np.mean([w in np.argsort(f)[-5:] for f, w in zip(found, wanted.argmax(1), strict=True)])
    apart, spread = abs(found - wanted), wanted.std()
    print(
        f"{name}: top-1 agrees on {100 * agree:.1f} %, the float net's is among the five largest on {100 * inside:.1f} "
        f"%; logits differ by at most {apart.max():.2f}, by {np.sqrt((apart**2).mean()):.3f} in the root mean square; "
        f"their standard deviation is {spread:.2f}"
    )
    assert agree > 0.6 and inside > 0.9 and np.sqrt((apart**2).mean()) < 0.5 * spread


@pytest.mark.parametrize("name", NETS)
def test_rectified_maps_end_at_127_in_the_real_nets(name):
    """6/255 is the largest scale of a rectified map, and where it is that scale 127 is 6."""
    structure = json.loads(str(raw(name)["structure"]))
    entries = [structure["first_conv"]]
    entries += [b[p] for b in structure["blocks"] for p in ("pointwise1", "depthwise") if b[p]]
    scales = np.array([e["params"]["y_scale"] for e in entries])
    assert (scales * 255 <= 6 * (1 + 1e-9)).all() and np.isclose(scales * 255, 6).any()
    graph = load_npz(shared(name), whole=True)
    assert {n.attrs["high"] for n in graph.nodes if "high" in n.attrs} == {127}


def overflowing(bias, w=3, w_scale=3.9e-9):
    """The small file with a channel whose bias is at the end of int32."""
    arrays, structure = small()
    arrays["first.params.weight"][2], arrays["first.params.w_scales"][2] = w, w_scale
    arrays["first.params.bias"][2] = bias
    return packed(arrays, structure)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bias", [-(2**31), 2**31 - 1])
def test_a_bias_at_the_end_of_int32_is_moved_without_a_change(bias, backend):
    arrays = overflowing(bias)
    graph = whole_from_int8(arrays)
    moved = int(graph.weights["stem.b"][2])
    assert abs(moved) < 2**31 - 1 and abs(moved - bias) < 27 * 127 * 255 + 2
    assert (graph.weights["stem.b"] == arrays["first.params.bias"])[[0, 1, 3]].all()
    check_maps(arrays, graph, random_pixels(2, (16, 16)), backend)


def test_a_bias_at_the_end_of_int32_is_refused_where_the_output_is_not_one_number():
    """2.1 rounds to 2; with an output that the input moves over a border none may be chosen."""
    arrays = overflowing(2**31 - 1, w=127, w_scale=4.7e-8)
    steps = (2**31 - 1) * 4.7e-8 / 127.5 / 0.031
    assert abs(steps % 1 - 0.5) > 0.02  # far from a border, but 27·127·255 sums are 0.01 steps
    scale = 4.7e-8 * (np.ceil(steps) - 0.5) / steps  # now on it
    message = "net does not fit into whole numbers: node stem .conv2d. of .*: a sum of channel 2 may reach 2,147,9"
    whole_from_int8(arrays)
    with pytest.raises(CheckpointError, match=message):
        whole_from_int8(overflowing(2**31 - 1, w=127, w_scale=scale))


def test_the_input_is_pixels_less_128():
    graph = whole_from_int8(packed(*small()))
    assert graph.pixels == (-128, 127) and graph.tensors[INPUT].dtype == np.int8
    assert graph.weights["input.scale"].tolist() == [np.float32(1 / 127.5)] and "input.zero" not in graph.weights
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    made = Resized(images).with_pixels(*graph.pixels, np.int8)
    assert made.dtype == np.int8 and (made[:] == images.astype(int) - 128).all()
    d = Dataset("own", (images / 255).astype(np.float32), np.zeros(1, int), made, np.zeros(1, int), ("a",), True)
    kept = d.with_pixels(*graph.pixels, graph.tensors[INPUT].dtype)
    assert kept.x_train.dtype == np.int8 and (kept.x_train == images.astype(int) - 128).all()
    assert (kept.x_test[:] == made[:]).all()
    wide = Resized(images, (31, 9))
    between = wide.with_pixels(0, 255)[:]
    assert (wide.with_pixels(-128, 127, np.int8)[:] == np.rint(between - 128)).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_number_of_classes_trains_on_whole_features(backend):
    arrays, pixels = packed(*small()), random_pixels(12, (16, 16))
    y = np.arange(12) % 3
    graph = whole_from_int8(arrays, classes=3)
    assert set(graph.parameters) - set(graph.weights) == {"fc.w", "fc.b"}
    program = ri.compile(graph, ri.Plan(0, step=ri.Backprop(ri.SGD(lr=0.5))), 12, backend=backend)
    trainer = ri.Trainer(program, seed=1)
    before = {name: a.copy() for name, a in trainer.parameters.items()}
    x = Resized(pixels).with_pixels(*graph.pixels, np.int8)
    features = 0.02 * maps(arrays, pixels)["mean"]  # zero point 0
    logits = features @ before["fc.w"] + before["fc.b"]
    np.testing.assert_allclose(trainer.predict(x), logits, rtol=1e-4, atol=1e-5)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    slope = features.T @ (shares - np.eye(3)[y]) / 12
    trainer.train_step(x[:], y, 1)
    changed = [name for name, a in trainer.parameters.items() if (a != before[name]).any()]
    assert set(changed) == {"fc.w", "fc.b"}
    np.testing.assert_allclose(trainer.parameters["fc.w"], before["fc.w"] - 0.5 * slope, rtol=1e-4, atol=1e-5)


def test_rounding_twice_is_asked_for():
    graph = whole_from_int8(packed(*small()), twice=True)
    rounding = [n for n in graph.nodes if "y_zero" in n.attrs]
    assert len(rounding) == 8 and all(n.attrs["twice"] for n in rounding)


def change(structure, path, value):
    for key in path[:-1]:
        structure = structure[key]
    structure[path[-1]] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            ("blocks", 1, "depthwise", "params", "x_scale"), 0.021,
            "block2.depthwise of .*net.npz takes block2.expand.relu6 with scale 0.021 and zero point -128, but it is "
            "made with 0.02 and -128",
        ),
        (("blocks", 1, "residual", "params", "x_zero"), 4, "block2.add of .* takes block1.project .* point 4, but"),
        (("classifier", "params", "x_zero"), 1, "fc of .*net.npz takes mean with scale 0.02 and zero point 1, but"),
        (("first_conv", "params", "y_scale"), 0, "stem of .* has y_scale 0, but a number above 0 is needed"),
        (("blocks", 1, "residual", "params", "y_scale"), "a", "block2.add of .* has y_scale a, but a number above 0"),
        (("blocks", 0, "pointwise2", "params", "y_zero"), 128, "project of .* has y_zero 128, but a whole number from"),
        (("blocks", 0, "pointwise2", "params", "y_zero"), 1.5, "project of .* has y_zero 1.5, but a whole number from"),
        (("blocks", 1, "residual", "params"), {}, "the structure of .*net.npz is damaged: it lacks 'x_scale'"),
        (
            ("blocks", 0, "depthwise", "params", "y_scale"), 1e-30,
            "block1.project of .* takes block1.depthwise.relu6 with scale 0.02 and .*, but it is made with 1e-30 and",
        ),
    ],
)  # fmt: skip
def test_structures_that_do_not_fit(tmp_path, path, value, message):
    arrays, structure = small()
    change(structure, path, value)
    file = saved(tmp_path / "net.npz", arrays, structure)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_npz(file, whole=True)
    assert "\n" not in str(caught.value)


def test_what_was_never_quantized_is_refused(tmp_path):
    file = saved(tmp_path / "net.npz", keras_arrays())
    with pytest.raises(CheckpointError, match="net.npz holds floats: refimpl.surgery.quantize makes whole numbers of"):
        load_npz(file, whole=True)


def test_weights_are_those_of_the_float_net():
    arrays = packed(*small())
    whole, floats = whole_from_int8(arrays), from_int8(arrays)
    for name, w in floats.weights.items():
        if name.startswith("fc") or name.endswith(".w"):
            q, scale = whole.weights[name], whole.weights[f"{name}_scale"].astype(float)
            np.testing.assert_allclose(q * scale, w, rtol=1e-6)
