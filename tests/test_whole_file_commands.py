"""Quantized models of ONNX and TensorFlow Lite at the command line: told of, adapted in whole numbers, written back."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_models import by_runtime  # noqa: E402
from test_onnx_commands import told  # noqa: E402, F401 (a fixture)
from test_whole_onnx import many_kinds, plain, samples, small_arrays  # noqa: E402
from test_whole_tflite import of_int8, written  # noqa: E402

from gradledger.show import multiply_adds  # noqa: E402
from refimpl.formats.onnx import load_whole  # noqa: E402
from refimpl.saved.described import described  # noqa: E402
from refimpl.saved.model import load  # noqa: E402

NAMES = ("few", "some", "many")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Maps of 8x10x2 whose first channel tells the class, as a .npz with names."""
    x, y = samples(120, 3)
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, x_train=x[:90], y_train=y[:90], x_test=x[90:], y_test=y[90:], classes=np.array(NAMES))
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images of 16x16 that are the brighter the higher their class is."""
    y = np.arange(100) % 5
    x = np.random.default_rng(0).integers(0, 100, (100, 16, 16, 3)) + 30 * y[:, None, None, None]
    path = tmp_path_factory.mktemp("data") / "images.npz"
    np.savez(path, x_train=x[:70].astype(np.uint8), y_train=y[:70], x_test=x[70:].astype(np.uint8), y_test=y[70:])
    return path


def test_check_tells_what_trains_in_whole_numbers(told, tmp_path):  # noqa: F811
    path = many_kinds(tmp_path / "a.onnx")
    status, found, _ = told("check", path)
    assert status == 0 and found["trainable"] and found["whole"]["ok"]
    rows = {row["method"]: row for row in found["whole"]["methods"]}
    for method in ("backprop", "sparse-update", "bias-only", "forward-gradient:bits=16w8a"):
        assert rows[method]["imacs"] > 0 and rows[method]["train_last"] is not None
    assert "computes with floats" in rows["gradient-filter"]["refused"]
    assert all(row.get("imacs", 0) == 0 for row in found["methods"] if row["method"] in ("backprop", "bias-only"))
    _, said, _ = told("check", path, as_json=False)
    said = " ".join(said.split())
    assert "with --whole it trains in its own whole numbers" in said
    for row in (r for r in rows.values() if "macs" in r):  # no sum of floats and whole numbers
        assert all(part in said for part in multiply_adds(row["macs"], row["imacs"]))


@pytest.mark.parametrize(
    "given",
    [
        ["--whole", "--method", "sparse-update:ratio=0.5"],
        ["--method", "forward-gradient:m=1,bits=16w8a", "--train-last", "0"],
    ],
)
def test_it_is_adapted_in_whole_numbers_and_leaves_as_it_came(told, data, tmp_path, given):  # noqa: F811
    path, out = many_kinds(tmp_path / "a.onnx"), tmp_path / "out"
    status, record, said = told("adapt", "--model", path, "--data", data, "--epochs", 12, "--output", out, *given)
    assert status == 0, said
    assert record["weights"] == "pre-trained but for fc.w, fc.b, which are random"
    assert record["predicted"]["peak_bytes"] == record["measured"]["peak_bytes"]
    saved = described(out / "adapted.safetensors")
    assert saved.whole and saved.weights["first.w"].dtype == np.int8 and saved.classes == NAMES
    net = load(out / "adapted.safetensors")
    with np.load(data) as file:
        x = file["x_test"]
    ours = net.predict_proba(x)
    made = next(net.inputs(str(data)))[1]
    theirs = by_runtime(
        out / "adapted.onnx", np.ascontiguousarray(np.asarray(net.preprocessing(x)).transpose(0, 3, 1, 2))
    )
    assert len(made) and np.abs(ours - theirs).max() < 0.1 and np.mean(ours.argmax(1) == theirs.argmax(1)) > 0.9
    kept = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(out / "adapted.onnx").graph.initializer}
    assert kept["fc_w"].dtype == np.int8 and kept["fc_w"].shape == (3, 12) and kept["first_w"].shape == (6, 2, 3, 3)
    again = load_whole(out / "adapted.onnx")  # and may come again
    assert again.shape(again.output)[-1] == 3
    status, found, _ = told("evaluate", out / "adapted.onnx", "--data", data, "--output", tmp_path / "e")
    assert status == 0 and abs(found["accuracy"] - record["accuracy_after"]) < 0.15


def test_floats_stay_the_default(told, data, tmp_path):  # noqa: F811
    path, out = many_kinds(tmp_path / "a.onnx"), tmp_path / "out"
    status, _, _ = told("adapt", "--model", path, "--data", data, "--epochs", 1, "--output", out)
    assert status == 0 and not described(out / "adapted.safetensors").whole
    assert {a.dtype for a in described(out / "adapted.safetensors").weights.values()} == {np.dtype(np.float32)}


def test_the_classifier_stays_where_the_classes_are_the_same(told, data, tmp_path):  # noqa: F811
    path, first, then = many_kinds(tmp_path / "a.onnx"), tmp_path / "first", tmp_path / "then"
    given = ["--data", data, "--whole", "--method", "sparse-update:ratio=0.5", "--recipe", "plain"]
    _, record, _ = told("adapt", "--model", path, *given, "--epochs", 30, "--output", first)
    _, again, _ = told("adapt", "--model", first / "adapted.onnx", *given, "--epochs", 1, "--output", then)
    assert again["weights"].startswith("pre-trained, of the ONNX model")
    assert again["accuracy_before"] == pytest.approx(record["accuracy_after"], abs=0.1)
    assert again["accuracy_before"] > 0.5


def test_a_quantized_model_is_not_quantized_again(told, data, tmp_path):  # noqa: F811
    path, out = many_kinds(tmp_path / "a.onnx"), tmp_path / "out"
    told("adapt", "--model", path, "--data", data, "--whole", "--method", "backprop", "--epochs", 1, "--output", out)
    status, _, sentence = told("export", out / "adapted.safetensors", "--like", path, "--quantize", data,
                               "--output", tmp_path / "b.onnx")  # fmt: skip
    assert status == 2 and "a.onnx is quantized already" in sentence and not (tmp_path / "b.onnx").exists()


def test_a_model_of_tensorflow_lite_leaves_in_its_places(told, images, tmp_path):  # noqa: F811
    path, out = written(tmp_path / "a.tflite", of_int8(small_arrays())), tmp_path / "out"
    status, record, said = told("adapt", "--model", path, "--data", images, "--whole", "--method",
                                "sparse-update:ratio=0.5", "--epochs", 10, "--output", out)  # fmt: skip
    assert status == 0 and record["weights"].startswith("pre-trained, of the model"), said
    assert "is assumed" not in said  # pixels are its own whole numbers
    status, found, said = told("export", out / "adapted.safetensors", "--like", path)
    assert status == 0 and found["file"].endswith("adapted.tflite"), said
    assert (out / "adapted.tflite").stat().st_size == path.stat().st_size
    given = ["--data", images, "--output", tmp_path / "e"]
    status, one, _ = told("evaluate", out / "adapted.safetensors", *given)
    assert status == 0 and one["accuracy"] == pytest.approx(record["accuracy_after"])
    floats = tmp_path / "floats"
    told("adapt", "--model", path, "--data", images, "--epochs", 1, "--output", floats)
    status, _, sentence = told("export", floats / "adapted.safetensors", "--like", path)
    assert status == 2 and "in floats, which have no place there" in sentence


def test_whole_is_refused_for_other_files(told, tmp_path):  # noqa: F811
    for model, why in (("lenet5", "but --model is lenet5"), (plain(tmp_path / "a.safetensors"), "but --model is")):
        status, _, sentence = told("cost", "--model", model, "--whole")
        assert status == 2 and why in sentence
