"""Commands on nets that a method makes ones of whole numbers: `--method forward-gradient:bits=16w8a`."""

import json
import re

import numpy as np
import pytest
from pretrained_files import saved
from test_adapt import gradledger

import refimpl as ri
from costmodel import predict
from gradledger import models as nets
from gradledger.cli import main
from gradledger.cost import whole_numbers
from gradledger.show import multiply_adds
from refimpl import data, models
from refimpl.formats.npz import load_npz
from refimpl.storage import checkpoint
from refimpl.surgery.for_step import CALIBRATED_ON, made_for, outlined_for
from validation.instruments import int8_files

METHOD = "forward-gradient:m=1,bits=16w8a"


def told(capsys, *args):
    """Exit status, record and errors of a command."""
    with pytest.raises(SystemExit) as left:
        main([*args, "--json"])
    out, err = capsys.readouterr()
    return left.value.code, json.loads(out) if out else None, err


def test_cost_without_data_is_that_of_the_calibrated_net(capsys):
    status, found, _ = told(capsys, "cost", "--method", METHOD, "--train-last", "1", "--batch", "4")
    assert status == 0 and found["method"].startswith("forward-gradient:m=1,") and "bits=16w8a" in found["method"]
    g = models.watch_net(classes=7)
    g.weights = models.watch_weights(1)
    step = ri.ForwardGradient(m=1, bits="16w8a")
    q = made_for(step, g, data.watch(1).x_train)
    p = ri.compile(q, ri.Plan(1, step=step), 4)
    price = predict.estimate(p)
    assert found["integers"] == json.loads(json.dumps(whole_numbers(price, "width")))
    for key, value in (("flops", price.flops), ("peak_bytes", p.peak_bytes), ("state_bytes", p.state_bytes)):
        assert found[key] == value, key
    assert set(found["integers"]["imacs"]) == {"8x16"} and found["flops"] < 210
    assert {layer["op"] for layer in found["layers"]} >= {"quantize", "quantized_conv2d", "dequantize"}


def test_an_outline_has_no_weights_and_the_shapes_of_the_net():
    step = ri.ForwardGradient(bits="8w8a")
    g = models.build("mobilenet_v2", size=(32, 32), classes=5, width=0.35)
    q = outlined_for(step, g)
    assert not q.weights and q.parameters["fc.w"].dtype == np.int8 and q.shapes(2)[q.output] == g.shapes(2)[g.output]
    assert outlined_for(step, q) is q and outlined_for(ri.ForwardGradient(), g) is g
    assert outlined_for(ri.Backprop(), g) is g


def test_a_net_is_calibrated_on_some_samples_evenly_and_drawn_weights_are_kept():
    g = models.build("lenet5", classes=3, size=(28, 28))
    x = np.zeros((2 * CALIBRATED_ON + 1, 28, 28, 1), np.float32)
    x[-1] = 5  # the last one is looked at
    x[CALIBRATED_ON // 2] = 0.5
    step = ri.ForwardGradient(bits="16w8a")
    q, other = (made_for(step, g, x, seed) for seed in (0, 1))
    assert float(q.weights["input.scale"][0]) == pytest.approx(5 / 127)
    assert (q.weights["fc3.w"] != other.weights["fc3.w"]).any() and not g.weights
    largest = abs(q.weights["fc3.w"].astype(int)).max()
    assert 32767 / 1.5 - 1 < largest <= 32767 / 1.5 + 1  # weights can grow by half


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The record of a short run."""
    done = gradledger(
        "adapt", "--json", "--epochs", "20", "--method", METHOD, "--train-last", "0", "--output",
        tmp_path_factory.mktemp("whole"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_adapt_trains_whole_numbers(record):
    for key in ("macs", "executed_macs", "peak_bytes"):
        assert record["predicted"][key] == record["measured"][key]
    assert record["weights"] == "pre-trained" and "bits=16w8a" in record["method"]
    assert record["accuracy_after"] > record["accuracy_before"] - 0.01


def test_the_saved_model_is_of_whole_numbers_with_their_scales(record):
    weights, notes = checkpoint.load(record["files"]["weights"])
    assert (weights["fc.w"].dtype, weights["fc.b"].dtype) == (np.int16, np.int32)
    assert json.loads(notes["quantized"])["fc.w"] == {"scale": "fc.w_scale", "zero_point": None, "axis": None}
    assert notes["model"] == "watch 16w8a"
    step = ri.ForwardGradient(bits="16w8a")
    g = models.watch_net(classes=7)
    g.weights = models.watch_weights(1)
    d = data.watch(1)
    q = made_for(step, g, d.x_train)
    assert (weights["fc.w"] != q.weights["fc.w"]).any() and (weights["conv1.w"] == q.weights["conv1.w"]).all()
    q.weights = weights
    t = ri.Trainer(ri.compile(q, None, 64))
    assert np.mean(t.predict(d.x_test).argmax(1) == d.y_test) == pytest.approx(record["accuracy_after"])


def test_8_bit_weights_are_refused_with_what_would_do(capsys, tmp_path):
    status, _, err = told(
        capsys,
        "adapt",
        "--method",
        "forward-gradient:bits=8w8a",
        "--train-last",
        "0",
        "--output",
        str(tmp_path / "out"),
    )
    assert status == 2 and not (tmp_path / "out").exists()
    assert (
        "epsilon=0.001 of forward-gradient is lost in 98% of the weights, whose last digit is larger: epsilon=" in err
    )


def outputs(graph, x):
    """What a net gives."""
    return ri.Trainer(ri.compile(graph, None, 64)).predict(x)


def test_the_saved_model_is_a_model_again_to_the_bit(record, capsys, tmp_path):
    """As `cost`, `adapt` and a program take it: the same nodes, numbers and results; it trains on."""
    path, d = record["files"]["weights"], data.watch(1)
    again, other = nets.pretrained(path, d, 1, None), nets.described(path, None, None)
    step = ri.ForwardGradient(m=1, bits="16w8a")
    g = models.watch_net(classes=7)
    g.weights = models.watch_weights(1)
    first = made_for(step, g, d.x_train)
    first.weights = checkpoint.load(path)[0]
    assert again.nodes == other.nodes == first.nodes and again.tensors == first.tensors
    assert list(again.parameters.items()) == list(first.parameters.items())
    assert (again.outputs, again.pixels) == (first.outputs, first.pixels)
    np.testing.assert_array_equal(outputs(again, d.x_test), outputs(first, d.x_test))
    trained = [ri.Trainer(ri.compile(one, ri.Plan(1, step=step), 16), seed=4) for one in (again, first)]
    for t in trained:
        t.fit(d.x_train[:32], d.y_train[:32], 2)
    for name, a in trained[0].parameters.items():
        np.testing.assert_array_equal(a, trained[1].parameters[name], name)
    trained[0].save(tmp_path / "more.safetensors")
    once_more = nets.described(str(tmp_path / "more.safetensors"), None, None)
    assert once_more.nodes == first.nodes and (once_more.weights["fc.w"] == trained[0].parameters["fc.w"]).all()
    status, found, _ = told(capsys, "cost", "--model", path, "--method", METHOD, "--train-last", "0", "--batch", "8")
    assert status == 0 and found["classes"] == 7 and "int16" not in str(found["model"])
    assert found["peak_bytes"] == ri.compile(first, ri.Plan(0, step=step), 8).peak_bytes
    status, found, _ = told(
        capsys, "adapt", "--model", path, "--method", METHOD, "--train-last", "0", "--epochs", "1", "--output",
        str(tmp_path / "again"),
    )  # fmt: skip
    assert status == 0 and found["accuracy_before"] == pytest.approx(record["accuracy_after"])


def test_a_net_of_whole_numbers_is_for_its_own_classes_and_size(record, capsys, tmp_path):
    path = record["files"]["weights"]
    for given, message in (
        (("--classes", "9"), "holds whole numbers that were found for classes 7, so that it cannot be used with 9"),
        (("--size", "8x8"), "holds whole numbers that were found for size 1x100, so that it cannot be used with 8x8"),
    ):
        status, _, err = told(capsys, "cost", "--model", path, "--method", METHOD, *given)
        assert status == 2 and message in err
    weights, notes = checkpoint.load(path)
    graph = json.loads(notes["graph"])
    graph["nodes"][1]["op"] = "no_such"
    large = json.loads(notes["graph"])
    large["nodes"][1]["attrs"]["low"] = 1e300
    for text, why in (
        (json.dumps(graph), "there is no operator no_such"), ("{", "is damaged"), (json.dumps(large), "is damaged"),
    ):  # fmt: skip
        checkpoint.save(tmp_path / "damaged.safetensors", weights, notes | {"graph": text})
        status, _, err = told(capsys, "cost", "--model", str(tmp_path / "damaged.safetensors"), "--method", METHOD)
        assert status == 2 and "the graph in" in err and why in err


def test_an_int8_file_trains_in_its_own_whole_numbers(tmp_path, capsys):
    """Its layers that train in 16 bits, the others as stored, and a classifier for other classes of whole numbers."""
    arrays, structure = int8_files.int8_arrays()
    path = str(tmp_path / "small.npz")
    np.savez(path, **arrays, structure=json.dumps(structure))
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 16, 16, 3), np.uint8)
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(40) % 3)
    given = ("--model", path, "--method", METHOD, "--train-last", "1", "--batch", "4")
    status, found, err = told(
        capsys,
        "adapt",
        *given,
        "--data",
        str(tmp_path / "data.npz"),
        "--epochs",
        "2",
        "--output",
        str(tmp_path / "out"),
    )
    assert found and found["predicted"]["peak_bytes"] == found["measured"]["peak_bytes"], err
    weights, notes = checkpoint.load(found["files"]["weights"])
    dtypes = {name: a.dtype for name, a in weights.items() if name.endswith(".w")}
    assert [name for name, dtype in dtypes.items() if dtype == np.int16] == ["block2.project.w", "fc.w"]
    assert weights["fc.w"].shape[1] == 3
    assert json.loads(notes["graph"])["inputs"][0]["dtype"] == "int8"
    again = nets.described(found["files"]["weights"], None, None)
    assert again.pixels == (-128.0, 127.0)
    status, priced, _ = told(capsys, "cost", *given, "--classes", "3", "--size", "16x16")
    assert status == 0 and priced["peak_bytes"] == found["predicted"]["peak_bytes"]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """A quantized net of two blocks and images of two classes, as files."""
    folder = tmp_path_factory.mktemp("quantized")
    model = saved(folder / "net.npz", *int8_files.int8_arrays())
    rng = np.random.default_rng(0)
    y = np.arange(48) % 2
    x = rng.integers(0, 120, (48, 16, 16, 3)) + 100 * y[:, None, None, None]
    np.savez(folder / "data.npz", x=x.astype(np.uint8), y=y)
    return str(model), str(folder / "data.npz"), folder


WHOLE = ("--whole", "--classes", "2", "--method", "sparse-update:ratio=0.5", "--batch", "8")


def test_a_quantized_file_trains_in_whole_numbers(quantized):
    model, data_file, folder = quantized
    done = gradledger(
        "adapt", "--json", "--model", model, "--data", data_file, *WHOLE, "--lr", "0.1", "--epochs", "20", "--output",
        folder / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for key in ("macs", "executed_macs", "peak_bytes", "imacs"):
        assert found["predicted"][key] == found["measured"][key]
    assert found["measured"]["imacs"] > 5 * found["measured"]["macs"]  # floats are few in such a net
    looks = found["recipe_macs"]["looks"]["imacs"]
    assert looks["predicted"] == looks["measured"] > found["recipe_macs"]["looks"]["measured"]
    told = gradledger("info", found["files"]["weights"])
    apart = multiply_adds(found["measured"]["macs"], found["measured"]["imacs"])
    assert re.fullmatch(r"[\d.]+ [kM]MAC, [\d.]+ [MG]IMAC", ", ".join(apart))
    for listing in (told, gradledger("runs", folder)):
        assert all(part in " ".join(listing.stdout.split()) for part in apart)
    row = json.loads(gradledger("runs", folder, "--json").stdout)["runs"][0]
    assert (row["macs"], row["imacs"]) == (found["measured"]["macs"], found["measured"]["imacs"])
    weights, _ = checkpoint.load(found["files"]["weights"])
    before = load_npz(model, 2, whole=True).weights
    assert weights["block2.project.w"].dtype == np.int8
    assert (weights["block2.project.w"] != before["block2.project.w"]).any()
    assert (weights["block2.project.w_scale"] == before["block2.project.w_scale"]).all()


def test_a_refused_limit_lists_every_term_and_the_smallest_one(quantized, capsys):
    model, _, _ = quantized
    p = ri.compile(
        load_npz(model, 2, whole=True), ri.Plan("all", (ri.SparseUpdate(0.5),)), 8, backend="rows", threads=1
    )
    need = p.state_bytes + p.peak_bytes
    args = ("cost", "--model", model, *WHOLE, "--backend", "rows", "--threads", "1", "--memory-limit")
    status, found, _ = told(capsys, *args, str(need))
    assert (
        status == 0
        and found["memory"]["state"]["convolutions_updated"] < found["memory"]["state"]["convolutions_waiting"] * 3
    )
    status, found, _ = told(capsys, *args, str(need - 1))
    assert status == 1 and found["smallest_limit_bytes"] == need
    assert sum(found["memory"]["state"].values()) + p.peak_bytes == need, found["memory"]
    assert f"needs {need:,} bytes" in found["reason"] and "--json lists every term" in found["reason"]


def test_whole_needs_a_quantized_file(quantized, capsys):
    status, _, err = told(capsys, "cost", "--model", "lenet5", "--whole")
    assert status == 2 and "or one of TensorFlow Lite, but --model is lenet5" in err
    status, _, err = told(
        capsys, "cost", "--model", quantized[0], "--whole", "--momentum", "0.9", "--method", "backprop"
    )
    assert status == 2 and "which plain SGD trains alone" in err
