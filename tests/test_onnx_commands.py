"""An ONNX model at the command line: checked, adapted, told of, used, and written back."""

import json
import os

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_models import by_runtime, net, saved  # noqa: E402

from gradledger import cli, models  # noqa: E402
from refimpl.formats.onnx import model_file  # noqa: E402
from refimpl.saved.model import load  # noqa: E402

NAMES = ("left", "middle", "right")


@pytest.fixture
def told(capsys):
    """Run a command; its exit status, what it printed as JSON (else as text), and its sentence."""

    def run(*args, as_json=True):
        with pytest.raises(SystemExit) as left:
            cli.main([*map(str, args), *(["--json"] if as_json else [])])
        found = capsys.readouterr()
        return left.value.code, json.loads(found.out) if as_json and found.out else found.out, found.err

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Maps of 12x10x3 whose brightest third tells the class, as a .npz with names."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.normal(0, 0.3, (90, 12, 10, 3)).astype(np.float32)
    for i, k in enumerate(y):
        x[i, 4 * k : 4 * k + 4, :, k] += 2
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(path, x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:], classes=np.array(NAMES))
    return path


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, data):
    """The folder of a run of adapt on an ONNX model that knows other classes."""
    folder = tmp_path_factory.mktemp("run")
    path = net(folder / "mine.onnx")
    with pytest.raises(SystemExit) as left:
        cli.main(["adapt", "--model", str(path), "--data", str(data), "--epochs", "3", "--output", str(folder / "out")])
    assert left.value.code == 0
    return folder


def test_a_model_that_trains_is_told_of(told, adapted):
    status, found, _ = told("check", adapted / "mine.onnx", "--batch", 4)
    assert status == 0 and found["trainable"] and found["opset"] == 17 and found["outputs"] == 5
    assert {row["op"]: row["count"] for row in found["operators"]}["Conv"] == 2
    assert [layer["name"] for layer in found["layers"]] == ["stem", "BatchNormalization_1", "dw", "fc"]
    methods = {row["method"]: row for row in found["methods"]}
    assert methods["backprop"]["bytes"] > methods["bias-only"]["bytes"] and "refused" in methods["niti"]
    status, priced, _ = told("cost", "--model", adapted / "mine.onnx", "--batch", 4, "--method", "backprop")
    assert priced["macs"] == methods["backprop"]["macs"]
    status, text, _ = told("check", adapted / "mine.onnx", as_json=False)
    assert "takes 12x10x3, tells 5 classes" in text and "not by niti" in text


def test_a_model_that_does_not_train_has_status_1_and_every_reason(told, tmp_path):
    nodes = [("Det", ["x"], ["d"], {}), ("Relu", ["d"], ["r"], {}), ("Sin", ["r"], ["y"], {})]
    path = saved(tmp_path / "a.onnx", nodes, (1, 4, 5, 5))
    status, found, sentence = told("check", path)
    assert status == 1 and not found["trainable"] and not found["ok"]
    assert sentence == f"gradledger: {path} cannot be trained: there is no way yet for Det, Sin\n"
    assert {row["op"]: (len(row["missing"]), row["behind"]) for row in found["operators"]} == {
        "Det": (1, 0), "Relu": (0, 1), "Sin": (1, 0)
    }  # fmt: skip
    status, text, _ = told("check", path, as_json=False)
    assert status == 1 and "no: there is no converter for Det (Det_0)" in " ".join(text.split())


def test_models_of_other_kinds_are_told_of_too(told, adapted):
    for model in ("lenet5", adapted / "out" / "adapted.safetensors"):
        status, found, _ = told("check", model)
        assert status == 0 and found["trainable"] and found["operators"], model
    assert told("check", adapted / "none.onnx")[0] == 2


def test_adapt_writes_what_it_was_given(told, adapted, data):
    out = adapted / "out"
    record = json.loads((out / "adapt.json").read_text())
    assert record["accuracy_after"] > 0.9 and record["weights"].startswith("pre-trained")
    made, ours = onnx.load(out / "adapted.onnx"), load(out / "adapted.safetensors")
    onnx.checker.check_model(made)
    x = np.load(data)["x_test"]
    scores = by_runtime(out / "adapted.onnx", np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    np.testing.assert_allclose(scores, ours.trainer.predict(x), 1e-5, 1e-5)
    said = {p.key: json.loads(p.value) for p in made.metadata_props}
    assert said["gradledger.classes"] == list(NAMES) and said["gradledger.ledger"]["steps"] == record["steps"]
    assert said["gradledger.adapted_from"]["model"] == "mine.onnx"


def test_the_model_that_was_written_is_a_file_like_ours(told, adapted, data):
    out = adapted / "out"
    assert told("info", out / "adapted.onnx")[1]["classes"] == list(NAMES)
    one, other = (told("evaluate", out / f"adapted.{kind}", "--data", data, "--output", adapted / kind)[1]
                  for kind in ("safetensors", "onnx"))  # fmt: skip
    assert one["accuracy"] == other["accuracy"] > 0.9 and one["confusion"] == other["confusion"]
    status, found, _ = told("adapt", "--model", out / "adapted.onnx", "--data", data, "--epochs", 1,
                            "--output", adapted / "again")  # fmt: skip
    assert status == 0 and found["accuracy_before"] == one["accuracy"]  # its classes go by their names


def test_export(told, adapted, tmp_path):
    file = adapted / "out" / "adapted.safetensors"
    status, found, _ = told("export", file, "--like", adapted / "mine.onnx", "--output", tmp_path / "a.onnx")
    assert status == 0 and (tmp_path / "a.onnx").read_bytes() == (adapted / "out" / "adapted.onnx").read_bytes()
    assert found["bytes"] == (tmp_path / "a.onnx").stat().st_size and found["classes"] == list(NAMES)
    for args, said in (
        ((file,), "mine.onnx, from which"),
        ((file, "--like", tmp_path / "b.onnx"), "there is no file"),
        ((file, "--like", tmp_path / "a.onnx"), "its content is another"),
        ((file, "--like", adapted / "mine.onnx", "--output", adapted / "mine.onnx"), "name another --output"),
    ):
        status, _, sentence = told("export", *args)
        assert status == 2 and said in sentence and sentence.count("\n") == 1, sentence


def test_export_in_int8(told, adapted, data, tmp_path):
    file = adapted / "out" / "adapted.safetensors"
    status, found, _ = told("export", file, "--like", adapted / "mine.onnx", "--output", tmp_path / "a.onnx",
                            "--quantize", data)  # fmt: skip
    made = found["int8"]
    assert status == 0 and made["samples"] == 30 and made["same_class"] > 0.9
    floats, integers = (onnx.load(path) for path in (tmp_path / "a.onnx", made["file"]))
    ops = [node.op_type for node in integers.graph.node]
    assert ops.count("QuantizeLinear") > 3 and {t.data_type for t in integers.graph.initializer} >= {
        onnx.TensorProto.INT8
    }
    assert {p.key: p.value for p in integers.metadata_props} == {p.key: p.value for p in floats.metadata_props}
    assert [i.name for i in integers.graph.input] == [i.name for i in floats.graph.input]
    one, other = (told("evaluate", path, "--data", data, "--output", tmp_path / "e")[1]
                  for path in (tmp_path / "a.onnx", made["file"]))  # fmt: skip
    assert abs(one["accuracy"] - other["accuracy"]) < 0.1 and other["accuracy"] > 0.8
    status, said, _ = told("export", file, "--like", adapted / "mine.onnx", "--output", tmp_path / "b.onnx",
                           "--quantize", data, as_json=False)  # fmt: skip
    assert "the same in int8, with ranges from 30 samples" in " ".join(said.split())
    status, _, sentence = told("export", file, "--like", adapted / "mine.onnx", "--output", tmp_path / "c.onnx",
                               "--quantize", tmp_path / "none.npz")  # fmt: skip
    assert status == 2 and "none.npz" in sentence and not list(tmp_path.glob("c.*"))


def test_a_net_that_came_as_none_leaves_as_none(told, tmp_path):
    told("adapt", "--epochs", 1, "--output", tmp_path / "out")
    status, _, sentence = told("export", tmp_path / "out" / "adapted.safetensors")
    assert status == 2 and "was adapted from watch, which is no ONNX model" in sentence
    assert not (tmp_path / "out" / "adapted.onnx").exists()


def test_python_takes_it_too(adapted):
    net = load(adapted / "mine.onnx")
    assert net.graph.size == (12, 10) and net.predict_proba(np.zeros((2, 12, 10, 3), np.uint8)).shape == (2, 5)


def test_a_net_of_features_adapts_to_a_table(told, tmp_path):
    rng = np.random.default_rng(0)
    sizes = {"v": (12, 9), "b": (9,), "s": (9,), "t": (9,), "m": (9,), "w": (9, 5), "c": (5,)}
    constants = {name: rng.normal(size=n).astype(np.float32) for name, n in sizes.items()}
    constants["q"] = rng.uniform(0.5, 1, 9).astype(np.float32)
    nodes = [("Gemm", ["x", "v", "b"], ["h"], {}), ("BatchNormalization", ["h", "s", "t", "m", "q"], ["n"], {}),
             ("Relu", ["n"], ["r"], {}), ("Gemm", ["r", "w", "c"], ["y"], {})]  # fmt: skip
    path, table = saved(tmp_path / "mlp.onnx", nodes, ("n", 12), constants=constants, rank=2), tmp_path / "a.csv"
    y = np.arange(60) % 3
    x = rng.normal(size=(60, 12)) + 4 * np.eye(12)[y]
    rows = [",".join((*(f"{v:.5f}" for v in row), NAMES[k])) for row, k in zip(x, y, strict=True)]
    table.write_text("\n".join([",".join((*"abcdefghijkl", "label")), *rows]))
    status, found, _ = told("check", path)
    assert status == 0 and found["size"] == [1, 1] and found["channels"] == 12 and found["outputs"] == 5
    assert [layer["trains"] for layer in found["layers"] if layer["op"] == "linear"] == ["counted", "always"]
    _, _, said = told(
        "cost", "--model", path, "--method", "sparse-update", "--memory-limit", "64KiB", "--fit", "trained"
    )
    assert "has no convolutions, of which layers could be chosen: its linear layers train in full" in said
    status, found, _ = told("adapt", "--model", path, "--data", table, "--label", "label", "--epochs", 30,
                            "--output", tmp_path / "out")  # fmt: skip
    assert found["course"]["first"]  # the last layer alone is the classifier, and trains before the others
    assert status == 0 and found["accuracy_after"] > 0.8 and found["predicted"]["macs"] == found["measured"]["macs"]
    net = load(tmp_path / "out" / "adapted.safetensors")
    samples = rng.normal(size=(7, 1, 1, 12)).astype(np.float32)
    scores = by_runtime(tmp_path / "out" / "adapted.onnx", samples.reshape(7, 12))
    np.testing.assert_allclose(scores, net.trainer.predict(samples), 1e-5, 1e-5)


def test_a_model_of_16_bits_leaves_as_one(told, tmp_path, data):
    made = onnx.load(net(tmp_path / "mine.onnx"))
    for tensor in made.graph.initializer:
        half = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, tensor.name))
    for end in (*made.graph.input, *made.graph.output):
        end.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(made, tmp_path / "half.onnx")
    out = tmp_path / "out"
    status, _, said = told("adapt", "--model", tmp_path / "half.onnx", "--data", data, "--epochs", 2, "--output", out)
    assert status == 0 and not said
    x = np.load(data)["x_test"]
    scores = by_runtime(out / "adapted.onnx", x.transpose(0, 3, 1, 2).astype(np.float16))
    assert scores.dtype == np.float16
    np.testing.assert_allclose(scores, load(out / "adapted.safetensors").trainer.predict(x), 0.01, 0.02)
    args = ("--like", tmp_path / "half.onnx", "--output", tmp_path / "b.onnx", "--quantize", data)
    status, _, said = told("export", out / "adapted.safetensors", *args)
    assert status == 2 and "half.onnx takes floats of 16 bits" in said and not (tmp_path / "b.onnx").exists()


def test_a_second_head_is_told_of(told, tmp_path):
    made = onnx.load(net(tmp_path / "mine.onnx"))
    made.graph.output.add().CopyFrom(onnx.helper.make_tensor_value_info("g", onnx.TensorProto.FLOAT, None))
    onnx.save(made, tmp_path / "two.onnx")
    status, found, _ = told("check", tmp_path / "two.onnx")
    assert status == 0 and found["notes"] == [
        "the output 'y', the first, trains and tells classes; no layer of 'g' alone does"
    ]


@pytest.mark.parametrize("args, most", [
    ("adapt --epochs 1 --train-last 1 --output {out} --data {data}", 3),  # at the start; to be written like; as written
    ("check --batch 2", 3),  # by node; as a model that every method trains; are there whole numbers?
])  # fmt: skip
def test_a_command_parses_the_model_no_more_often_than_it_must(args, most, tmp_path, data, monkeypatch, told):
    counted, expanded = [], model_file.expanded
    monkeypatch.setattr(model_file, "expanded", lambda *of: counted.append(of) or expanded(*of))
    command, *more = args.format(out=tmp_path / "out", data=data).split()
    path = net(tmp_path / "mine.onnx")
    told(command, "--model", path, *more) if command == "adapt" else told(command, path, *more)
    assert 1 <= len(counted) <= most


def test_what_was_read_is_kept_for_a_block_while_the_file_is_the_same(tmp_path):
    path = net(tmp_path / "mine.onnx")
    assert models.saved(path) is not models.saved(path)
    with models.read_once():
        first = models.saved(path)
        with models.read_once():
            assert models.saved(path) is first
        assert models.saved(path) is first
        os.utime(path, ns=(1, 1))
        assert models.saved(path) is not first
    assert models.saved(path) is not first and models.KEPT.get() is None
