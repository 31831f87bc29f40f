"""TensorFlow Lite models: read without TensorFlow, as a graph of floats, and refused in one sentence."""

import json

import numpy as np
import pytest
import torch
from torch.nn import functional

import refimpl as ri
from gradledger import cli, cost
from gradledger.models import says_pixels
from refimpl.formats import tflite
from refimpl.formats.flatbuffer import FlatBuffer
from refimpl.formats.tflite import OPERATORS, Unconverted, read_tflite
from refimpl.saved.described import described as saved
from refimpl.storage.checkpoint import CheckpointError
from validation.instruments.tflite_files import SAME, FlatScalar, FlatVector, Lite, flatbuffer, small_lite


def written(path, raw):
    path.write_bytes(raw)
    return path


def in_pytorch(w, x):
    """The small net by plain statements, scores (N, 3) of x (N, 9, 8, 2)."""
    a = {n: torch.from_numpy(np.ascontiguousarray(v)).double() for n, v in w.items()}
    y = torch.from_numpy(x).double().permute(0, 3, 1, 2)
    kernel = a["conv_2d_1.w"].permute(3, 2, 0, 1)
    y = functional.conv2d(functional.pad(y, (0, 1, 1, 1)), kernel, a["conv_2d_1.b"], stride=(1, 2)).clamp(0, 6)
    shortcut, kernel = y, a["depthwise_conv_2d_1.w"].permute(3, 2, 0, 1)
    y = functional.conv2d(functional.pad(y, (1, 1, 0, 1)), kernel, a["depthwise_conv_2d_1.b"], groups=4)
    y = functional.relu(y + shortcut)
    y = functional.max_pool2d(functional.pad(y, (0, 0, 0, 1), value=-torch.inf), 2)
    y = functional.avg_pool2d(y, 2, ceil_mode=True, count_include_pad=False)
    y = y.permute(0, 2, 3, 1).flatten(1)
    y = functional.relu(y @ a["fully_connected_1.w"] + a["fully_connected_1.b"])
    return (y @ a["fully_connected_2.w"] + a["fully_connected_2.b"]).numpy()


@pytest.mark.parametrize("quantized", [False, True])
def test_the_graph_gives_what_plain_statements_give(tmp_path, quantized):
    raw, weights = small_lite(quantized)
    path = written(tmp_path / "net.tflite", raw)
    graph = saved(path).graph()
    assert graph.weights.keys() == weights.keys() == graph.parameters.keys()
    for name, array in weights.items():
        np.testing.assert_allclose(graph.weights[name], array, rtol=1e-6)
    x = np.random.default_rng(1).uniform(-1, 1, (3, 9, 8, 2)).astype(np.float32)
    found = np.asarray(ri.Trainer(ri.compile(graph, None, 3), 0).predict(x))
    expected = in_pytorch(weights, x)
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()
    told = read_tflite(path, "net").told
    assert (tflite.QUANTIZED in told) == quantized
    assert "the net ends with SOFTMAX; it trains, and gives scores, before it" in told
    assert graph.pixels == ((-2.0, 127 / 64) if quantized else (0.0, 1.0))


def test_check_and_cost_take_it(tmp_path, capsys):
    path = str(written(tmp_path / "net.tflite", small_lite()[0]))
    with pytest.raises(SystemExit) as left:
        cli.main(["check", path, "--json"])
    record = json.loads(capsys.readouterr().out)
    assert left.value.code == 0 and record["trainable"] and record["outputs"] == 3 and record["size"] == [9, 8]
    assert {row["op"]: row["count"] for row in record["operators"]}["FULLY_CONNECTED"] == 2
    assert cost.run(cost.CostSettings(path, classes=5))["classes"] == 5
    assert not says_pixels(path)


def test_what_has_no_form_is_named_all_at_once(tmp_path, capsys):
    net = Lite()
    x = begin = net.tensor([1, 4, 4, 1])
    x = net.operator("RESIZE_BILINEAR", [x], [1, 8, 8, 1], {})
    x = net.operator("TRANSPOSE_CONV", [x], [1, 8, 8, 1], {})
    path = str(written(tmp_path / "net.tflite", net.file(begin, x)))
    sentence = (
        "net.tflite cannot be imported: there is no way yet for RESIZE_BILINEAR (no converter); convert the model to "
        "ONNX (the package tf2onnx takes such files) and give that"
    )
    with pytest.raises(SystemExit) as left:
        cli.main(["check", path, "--json"])
    record = json.loads(capsys.readouterr().out)
    assert left.value.code == 1 and record["reason"].endswith(sentence)
    assert record["operators"][0] == {
        "op": "RESIZE_BILINEAR", "count": 1, "missing": [{"node": "RESIZE_BILINEAR", "why": "no converter"}],
        "forward": [], "behind": 0,
    }  # fmt: skip
    with pytest.raises(SystemExit) as left:
        cli.main(["cost", "--model", path])
    assert left.value.code == 2 and capsys.readouterr().err.endswith(f"{sentence}\n")


def of_one(name, shape, options, *constants):
    """A net of one operator that cannot be converted."""
    net = Lite()
    begin = net.tensor([1, 4, 4, 2])
    reads = [begin, *(net.tensor(a.shape, a) for a in constants)]
    return net.file(begin, net.operator(name, reads, shape, options))


STEPS = {0: FlatScalar("b", SAME), 1: FlatScalar("i", 1), 2: FlatScalar("i", 1)}
PADS = np.array([[0, 0], [1, 1], [0, 0], [0, 0]], np.int32)


@pytest.mark.parametrize(
    "raw, why",
    [
        (of_one("MEAN", [1, 4], {}, np.array([1], np.int32)), r"MEAN \(of other axes than rows and columns\)"),
        (of_one("RESHAPE", [1, 8, 4], None), r"RESHAPE \(to \(1, 8, 4\)\)"),
        (of_one("ADD", [1, 4, 4, 2], {}, np.ones((1, 4, 4, 2), np.float32)), r"ADD \(it reads a constant"),
        (of_one("PAD", [1, 4, 4, 2], {}, PADS[::-1] + PADS.T[:1, :2]), r"PAD \(of other axes than rows and columns\)"),
        (of_one("RELU6", [1, 4, 4, 2], {}), None),
        (
            of_one("CONV_2D", [1, 4, 4, 1], STEPS | {3: FlatScalar("b", 5)}, np.ones((1, 1, 1, 2), np.float32)),
            r"CONV_2D \(an activation that is not known\)",
        ),
        (
            of_one("FULLY_CONNECTED", [1, 3], {1: FlatScalar("b", 1)}, np.ones((3, 32), np.float32)),
            r"FULLY_CONNECTED \(its weights are kept in another way\)",
        ),
    ],
)  # fmt: skip
def test_forms_that_are_not_read(tmp_path, raw, why):
    path = written(tmp_path / "net.tflite", raw)
    if why is None:
        assert [node.op for node in read_tflite(path, "net").graph.nodes] == ["relu6"]
        return
    with pytest.raises(Unconverted, match=why):
        read_tflite(path, "net.tflite")


def test_files_that_are_none_or_damaged(tmp_path):
    raw, _ = small_lite()
    path = tmp_path / "net.tflite"
    for changed, message in (
        (b"", "it does not begin as such a file"),
        (raw[:200], "is no TensorFlow Lite model, or is damaged: "),
        (raw[:8], "it points to what lies behind its 8 bytes"),
        (flatbuffer({0: FlatScalar("I", 2)}, b"TFL3"), "its schema has version 2, and 3 is known"),
        (flatbuffer({0: FlatScalar("I", 3), 2: [{1: FlatVector("i", [0, 1])}]}, b"TFL3"), "has 2 inputs and 0 outputs"),
    ):
        with pytest.raises(CheckpointError, match=message):
            saved(written(path, changed))
    net = Lite()
    begin = net.tensor([1, 10**6, 10**6, 1])
    with pytest.raises(CheckpointError, match=r"takes \(1, 1000000, 1000000, 1\), and maps"):
        saved(written(path, net.file(begin, net.operator("RELU", [begin], [1, 10**6, 10**6, 1], {}))))
    net = Lite()
    begin = x = net.tensor([1, 2, 2, 1])
    for _ in range(tflite.MOST_NODES + 1):
        x = net.operator("RELU", [x], [1, 2, 2, 1])
    with pytest.raises(CheckpointError, match="has 2,001 nodes, and at most 2,000 are read"):
        saved(written(path, net.file(begin, x)))


def test_arrays_that_many_tensors_share_do_not_multiply(tmp_path):
    net = Lite()
    begin = x = net.tensor([1, 1, 1, 64])
    first = net.tensor([64, 1, 1, 64], np.ones((64, 1, 1, 64), np.int8), scales=[1.0], zeros=[0])
    for _ in range(40):
        w = net.tensor([64, 1, 1, 64], kind="int8", scales=[1.0], zeros=[0])
        net.tensors[w][2] = net.tensors[first][2]
        x = net.operator("CONV_2D", [x, w], [1, 1, 1, 64], {1: FlatScalar("i", 1), 2: FlatScalar("i", 1)})
    with pytest.raises(CheckpointError, match="its arrays take more than 16 times its bytes"):
        saved(written(tmp_path / "net.tflite", net.file(begin, x)))


def test_reads_are_counted():
    file = FlatBuffer(bytes(8), 300_000)
    with pytest.raises(ValueError, match="it has more than 300,000 structures"):
        file.number(0, "I")
    assert OPERATORS[3] == "CONV_2D" and OPERATORS[114] == "QUANTIZE" and OPERATORS[117] == "HARD_SWISH"
