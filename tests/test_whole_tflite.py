"""Quantized TensorFlow Lite models as nets of whole numbers: the stored numbers, trained, written back, refused."""

import json
import struct

import numpy as np
import pytest
from test_whole_onnx import METHODS, small_arrays

import refimpl as ri
from gradledger.cli import main
from refimpl.formats.int8_nets import DTYPES, PIXEL_SCALE, STRUCTURE, convolutions, read_structure
from refimpl.formats.int8_whole import whole_from_int8
from refimpl.formats.tflite_whole import holds_quantized, load_whole, rewritten
from refimpl.formats.whole_net import WithoutForm
from refimpl.storage.checkpoint import CheckpointError
from refimpl.surgery.for_step import made_for
from validation.instruments.tflite_files import VALID, FlatScalar, Lite, small_lite


def byte(value):
    return FlatScalar("b", value)


def number(value):
    return FlatScalar("i", value)


def of_int8(arrays, kind="int8", change=lambda p: p, last=None):
    """A stored microcontroller net as a TensorFlow Lite model of the same whole numbers, maps of int8 or uint8.

    change: of the scale and zero point of a map, as dictionaries; last: an operator before the mean.
    """
    entries, structure, net = convolutions(read_structure(arrays, "net")), json.loads(str(arrays[STRUCTURE])), Lite()
    side, moved = structure["first_conv"]["in_shape"], 128 if kind == "uint8" else 0

    def held(scale, zero):
        return change({"kind": kind, "scales": [np.float32(scale)], "zeros": [zero + moved]})

    def layer(op, x, name, shape, y, options):
        p = entries[name]["params"]
        w, b, w_scale = (arrays[p[a]["array"]] for a in DTYPES)
        depthwise, zeros = op == "DEPTHWISE_CONV_2D", [0] * len(w_scale)
        w = w.transpose(1, 2, 3, 0) if depthwise else w.transpose(0, 2, 3, 1) if w.ndim == 4 and op == "CONV_2D" else w
        w = w.reshape(w.shape[:2]) if op == "FULLY_CONNECTED" else w
        kernel = net.tensor(w.shape, w, scales=w_scale, zeros=zeros, axis=3 if depthwise else 0)
        scales = (np.float32(p["x_scale"]) * w_scale).astype(np.float32)
        return net.operator(op, [x, kernel, net.tensor(b.shape, b, scales=scales, zeros=zeros)], shape, options, **y)

    def conv(x, size, name, rectified):
        entry, p = entries[name], entries[name]["params"]
        pad, depth = entry["kernel_size"][0] // 2, entry["in_channel"]
        if pad:
            sides = net.tensor([4, 2], np.array([[0, 0], [pad, pad], [pad, pad], [0, 0]], np.int32))
            made = net.tensors[x][4]
            x = net.operator("PAD", [x, sides], [1, size + 2 * pad, size + 2 * pad, depth], kind=kind,
                             scales=made[2].values, zeros=made[3].values)  # fmt: skip
        size = -(-size // entry["stride"])
        op = "DEPTHWISE_CONV_2D" if entry["groups"] > 1 else "CONV_2D"
        steps = {0: byte(VALID), 1: number(entry["stride"]), 2: number(entry["stride"])}
        options = steps | ({3: number(1), 4: byte(3 * rectified)} if entry["groups"] > 1 else {3: byte(3 * rectified)})
        return layer(op, x, name, [1, size, size, entry["out_channel"]], held(p["y_scale"], p["y_zero"]), options), size

    x = begin = net.tensor([1, side, side, 3], **held(PIXEL_SCALE, 0))
    x, size = conv(x, side, "stem", True)
    for i, block in enumerate(structure["blocks"], start=1):
        shortcut = x
        if block["pointwise1"]:
            x, size = conv(x, size, f"block{i}.expand", True)
        x, size = conv(x, size, f"block{i}.depthwise", True)
        x, size = conv(x, size, f"block{i}.project", False)
        if block["residual"]:
            p = block["residual"]["params"]
            shape = [1, size, size, block["pointwise2"]["out_channel"]]
            x = net.operator("ADD", [x, shortcut], shape, {0: byte(0)}, **held(p["y_scale"], p["y_zero"]))
    fc = entries["fc"]["params"]
    depth = entries["fc"]["in_channel"]
    if last:
        x = net.operator(last, [x], [1, size, size, depth], None, **held(fc["x_scale"], fc["x_zero"]))
    axes = net.tensor([2], np.array([1, 2], np.int32))
    x = net.operator("MEAN", [x, axes], [1, depth], {0: byte(0)}, **held(fc["x_scale"], fc["x_zero"]))
    classes = entries["fc"]["out_channel"]
    y = layer("FULLY_CONNECTED", x, "fc", [1, classes], held(fc["y_scale"], fc["y_zero"]), {0: byte(0)})
    y = net.operator("SOFTMAX", [y], [1, classes], {0: FlatScalar("f", 1.0)}, **held(1 / 256, -128))
    return net.file(begin, y)


def written(path, raw):
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("kind", ["int8", "uint8"])
def test_it_is_the_net_that_is_stored_otherwise(tmp_path, kind):
    arrays = small_arrays()
    path = written(tmp_path / "a.tflite", of_int8(arrays, kind))
    assert holds_quantized(path, "a.tflite")
    found, wanted = load_whole(path), whole_from_int8(arrays)
    assert found.pixels == wanted.pixels == (-128, 127) and found.tensors["input"].dtype == np.int8
    ours = [n for n in found.nodes if n.op != "reshape"]
    assert [n.op for n in ours] == [n.op for n in wanted.nodes]
    for one, other in zip(ours, wanted.nodes, strict=True):
        assert dict(one.attrs) == dict(other.attrs), one.name
        for local, name in one.params.items():
            np.testing.assert_array_equal(found.weights[name], wanted.weights[other.params[local]])
    x = np.random.default_rng(0).integers(-128, 128, (3, 16, 16, 3)).astype(np.int8)
    scores = [np.asarray(ri.Trainer(ri.compile(g, None, 3, threads=1), 0).predict(x)) for g in (found, wanted)]
    np.testing.assert_array_equal(*scores)
    assert scores[0].std() > 0


def test_most_operators_are_whole_numbers(tmp_path):
    graph = load_whole(written(tmp_path / "a.tflite", small_lite(True)[0]))
    ops = {n.op for n in graph.nodes}
    assert ops >= {"quantized_conv2d", "quantized_add", "quantized_max_pool", "quantized_avg_pool", "quantized_linear"}
    assert graph.tensors["input"].dtype == np.int8


def test_a_model_of_floats_is_none(tmp_path, capsys):
    path = str(written(tmp_path / "a.tflite", small_lite()[0]))
    assert not holds_quantized(path, path)
    with pytest.raises(SystemExit) as left:
        main(["cost", "--model", path, "--whole"])
    assert left.value.code == 2 and "but " in (said := capsys.readouterr().err) and "a.tflite holds floats" in said


def test_operators_without_a_form_are_named(tmp_path):
    path = written(tmp_path / "a.tflite", of_int8(small_arrays(), last="HARD_SWISH"))
    with pytest.raises(WithoutForm, match=r"a.tflite .*no form of them for HARD_SWISH \(1\)"):
        load_whole(path)


def damaged(**new):
    count = iter(range(100))
    return lambda p: p | (new if next(count) == 3 else {})


@pytest.mark.parametrize(
    "new, why",
    [
        ({"scales": [0.0]}, "is 0, but a number above 0 is needed"),
        ({"scales": [-0.5]}, "is -0.5, but a number above 0"),
        ({"scales": [np.nan]}, "is nan, but a number"),
        ({"scales": [0.1, 0.2], "zeros": [0, 0]}, "has 2 scales and 2 zero points, but a map has one"),
        ({"zeros": [300]}, "has a zero point of 300, which is none of int8"),
    ],
)
def test_damaged_scales_are_told_in_a_sentence(tmp_path, new, why):
    path = written(tmp_path / "a.tflite", of_int8(small_arrays(), change=damaged(**new)))
    with pytest.raises(CheckpointError, match=why) as e:
        load_whole(path)
    assert "\n" not in str(e.value) and "a.tflite" in str(e.value)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_damaged_scales_of_weights_are_told(tmp_path, value):
    arrays = small_arrays()
    raw = of_int8(arrays)
    scales = next(a for n, a in arrays.items() if n == "first.params.w_scales")
    at = raw.find(scales.tobytes())
    path = written(tmp_path / "a.tflite", raw[: at + 4] + struct.pack("<f", value) + raw[at + 8 :])
    with pytest.raises(CheckpointError, match="but a number above 0 is needed"):
        load_whole(path)


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_and_leaves_in_its_own_places(tmp_path, method):
    path = written(tmp_path / "a.tflite", of_int8(small_arrays()))
    graph, plan = load_whole(path), METHODS[method]
    classes = graph.shape(graph.output)[-1]
    y = np.arange(16) % classes
    x = np.random.default_rng(0).integers(-100, 100, (16, 16, 16, 3))
    x = (x + 8 * y[:, None, None, None]).clip(-128, 127).astype(np.int8)
    graph = made_for(plan.step, graph, x, trained=[n.name for n in graph.nodes if "w" in n.params][-2:])
    trainer = ri.Trainer(ri.compile(graph, plan if method != "forward-gradient" else ri.Plan(1, step=plan.step), 8,
                                    threads=1), 0)  # fmt: skip
    trainer.fit(x, y, epochs=2)
    graph.weights = {name: trainer.parameters[name].copy() for name in graph.parameters}
    raw, kept = rewritten(path, graph)
    again = load_whole(written(tmp_path / "b.tflite", raw))
    assert len(raw) == path.stat().st_size and raw != path.read_bytes()
    for name, array in kept.items():
        np.testing.assert_array_equal(again.weights[name], array)
    scores = [np.asarray(ri.Trainer(ri.compile(g, None, 16, threads=1), 0).predict(x)) for g in (graph, again)]
    if method == "forward-gradient":  # whose weights have 16 bits
        assert np.abs(scores[0] - scores[1]).max() < 0.1 * scores[0].std()
    else:
        np.testing.assert_array_equal(*scores)


def test_other_classes_have_no_place_there(tmp_path):
    path = written(tmp_path / "a.tflite", of_int8(small_arrays()))
    graph = load_whole(path, 7)
    graph.weights = {name: ri.Trainer(ri.compile(graph, None, 1, threads=1), 0).parameters[name].copy()
                     for name in graph.parameters}  # fmt: skip
    with pytest.raises(CheckpointError, match=r"fully_connected_1 tells 7 classes, but the file has a place for \d+"):
        rewritten(path, graph)
