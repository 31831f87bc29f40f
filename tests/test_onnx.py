"""ONNX models: read as onnxruntime runs them, trained as PyTorch trains them, and written back."""

import numpy as np
import pytest

import refimpl as ri
from refimpl.storage.checkpoint import CheckpointError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_models import RNG, as_ours, by_runtime, floats, model, net, ours, saved  # noqa: E402

from refimpl.formats.onnx import imported, load_onnx  # noqa: E402
from refimpl.formats.onnx.exporting import exported  # noqa: E402

FLATTENED = {
    "Flatten": (("Flatten", ["p"], ["f"], {}), {}),
    "Reshape to −1": (("Reshape", ["p", "to"], ["f"], {}), {"to": np.array([0, -1])}),
}


@pytest.mark.parametrize("how", FLATTENED)
def test_rows_of_a_classifier_follow_a_flattened_map(tmp_path, how):
    node, more = FLATTENED[how]
    nodes = [("MaxPool", ["x"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}), node,
             ("Gemm", ["f", "w"], ["h"], {"transB": 1}), ("Relu", ["h"], ["r"], {}),
             ("MatMul", ["r", "v"], ["y"], {})]  # fmt: skip
    constants = {"w": floats(6, 4 * 3 * 2), "v": floats(6, 3)} | more
    path, x = saved(tmp_path / "a.onnx", nodes, (1, 4, 6, 5), constants=constants), floats(1, 4, 6, 5)
    np.testing.assert_allclose(ours(path, x), by_runtime(path, x), 1e-4, 1e-5)


def test_shapes_that_an_export_computes_are_folded(tmp_path):
    nodes = [("Shape", ["x"], ["s"], {}), ("Gather", ["s", "i"], ["n"], {}), ("Unsqueeze", ["n", "zero"], ["u"], {}),
             ("Concat", ["u", "minus"], ["to"], {"axis": 0}), ("Relu", ["x"], ["r"], {}),
             ("GlobalAveragePool", ["r"], ["g"], {}), ("Reshape", ["g", "to"], ["y"], {})]  # fmt: skip
    constants = {"i": np.array(0), "zero": np.array([0]), "minus": np.array([-1])}
    path, x = saved(tmp_path / "a.onnx", nodes, ("n", 4, 6, 5), constants=constants), floats(2, 4, 6, 5)
    np.testing.assert_allclose(ours(path, x), by_runtime(path, x), 1e-4, 1e-5)
    assert imported(path).folded == 4


def test_a_function_is_inlined(tmp_path):
    inner = onnx.helper.make_node("Relu", ["a"], ["b"])
    imports = [onnx.helper.make_opsetid("", 17)]
    function = onnx.helper.make_function("own", "Twice", ["a"], ["c"], [
        inner, onnx.helper.make_node("Add", ["b", "b"], ["c"])], imports)  # fmt: skip
    made = model([("Relu", ["x"], ["t"], {})], (1, 4, 6, 5), output="y", functions=[function],
                 imports=[onnx.helper.make_opsetid("own", 1)])  # fmt: skip
    made.graph.node.append(onnx.helper.make_node("Twice", ["t"], ["y"], domain="own"))
    onnx.save(made, tmp_path / "a.onnx")
    x = floats(1, 4, 6, 5)
    np.testing.assert_allclose(ours(tmp_path / "a.onnx", x), 2 * np.maximum(x, 0), 1e-6)


def test_layers_have_the_names_of_their_weights(tmp_path):
    graph = load_onnx(net(tmp_path / "net.onnx"))
    assert {"stem.w", "stem.b", "dw.w", "fc.w", "fc.b"} <= set(graph.parameters)
    assert graph.size == (12, 10) and graph.channels == 3 and graph.name == "net"


def test_gradients_are_those_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    graph = load_onnx(net(tmp_path / "net.onnx"))
    plan = ri.Plan("all", step=ri.Backprop(ri.SGD(1.0)), train_bias=True)
    trainer = ri.Trainer(ri.compile(graph, plan, 6), 0)
    before = {name: a.copy() for name, a in trainer.parameters.items()}
    x, y = floats(6, 3, 12, 10), RNG.integers(0, 5, 6)
    trainer.train_step(as_ours(x), y, 1)
    w = {n: torch.tensor(onnx.numpy_helper.to_array(t), requires_grad=True)
         for t in onnx.load(tmp_path / "net.onnx").graph.initializer for n in [t.name]}  # fmt: skip
    f = torch.nn.functional
    c = f.conv2d(torch.tensor(x), w["stem.weight"], w["stem.bias"], 2, 1)
    r = f.relu(f.batch_norm(c, w["m"].detach(), w["v"].detach(), w["s"], w["b"], False))
    a = f.conv2d(r, w["dw.weight"], None, 1, 1, 1, 8) + r
    f.cross_entropy(f.linear(a.mean((2, 3)), w["fc.weight"], w["fc.bias"]), torch.tensor(y)).backward()
    for name, theirs in (("stem.w", "stem.weight"), ("stem.b", "stem.bias"), ("dw.w", "dw.weight"),
                         ("fc.w", "fc.weight"), ("fc.b", "fc.bias")):  # fmt: skip
        wanted = w[theirs].grad.numpy()
        gradient = before[name] - trainer.parameters[name]
        wanted = wanted.transpose(2, 3, 1, 0) if wanted.ndim == 4 else wanted.T
        np.testing.assert_allclose(gradient, wanted, 1e-3, 1e-5 + 1e-4 * np.abs(wanted).max(), err_msg=name)


def test_weights_in_a_file_beside_the_model(tmp_path):
    made = onnx.load(net(tmp_path / "net.onnx"))
    onnx.save(made, tmp_path / "apart.onnx", save_as_external_data=True, location="apart.data", size_threshold=0)
    one, other = load_onnx(tmp_path / "net.onnx"), load_onnx(tmp_path / "apart.onnx")
    assert all(np.array_equal(a, other.weights[n]) for n, a in one.weights.items()) and one.weights
    back = onnx.ModelProto.FromString(exported(tmp_path / "apart.onnx", other.stored, other.weights, {}))
    assert not any(t.HasField("data_location") and t.data_location for t in back.graph.initializer)
    (tmp_path / "apart.data").write_bytes((tmp_path / "apart.data").read_bytes()[:100])
    with pytest.raises(CheckpointError, match="apart.data, which has 100"):
        load_onnx(tmp_path / "apart.onnx")
    (tmp_path / "apart.data").unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        load_onnx(tmp_path / "apart.onnx")


@pytest.mark.parametrize("where", ["../secret", "/etc/passwd", "link", ""])
def test_weights_elsewhere_are_refused(tmp_path, where):
    (tmp_path / "secret").write_bytes(bytes(10_000))
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    made = onnx.load(net(folder / "net.onnx"))
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", where
    (folder / "bad.onnx").write_bytes(made.SerializeToString())
    with pytest.raises(CheckpointError, match="which does not lie beside the model"):
        load_onnx(folder / "bad.onnx")


def test_each_node_that_is_missing_is_told(tmp_path):
    nodes = [("Det", ["x"], ["d"], {}), ("Relu", ["d"], ["r"], {}), ("Sin", ["r"], ["y"], {})]
    found = imported(saved(tmp_path / "a.onnx", nodes, (1, 4, 5, 5)))
    assert found.graph is None and [(t.op, t.what) for t in found.told] == [
        ("Det", "missing"), ("Relu", "behind a missing one"), ("Sin", "missing")
    ]  # fmt: skip
    with pytest.raises(CheckpointError, match=r"cannot be trained: Det_0 \(Det\): there is no converter for Det; Sin"):
        load_onnx(tmp_path / "a.onnx")


def test_what_no_output_needs_is_not_read(tmp_path):
    nodes = [("Relu", ["x"], ["y"], {}), ("Sin", ["x"], ["z"], {})]
    assert imported(saved(tmp_path / "a.onnx", nodes, (1, 4, 5, 5))).graph is not None


REFUSED = {
    "an old opset": (dict(opset=7), "is of opset 7, but 9 to 25 are read"),
    "no channels": (dict(shape=("n", "c", 5, 5)), "its channels are open"),
    "channels below 0": (dict(shape=(1, -1, 5, 5)), "the input 'x' of .* has the shape 1x-1x5x5, which cannot be"),
    "rows below 0": (dict(shape=("n", 4, -(2**63), 5)), "has the shape nx4x-9223372036854775808x5, which cannot be"),
    "no size": (dict(shape=("n", 4, "h", "w")), "give its size, --size"),
    "five axes": (dict(shape=(1, 4, 5, 5, 5)), "has the shape 1x4x5x5x5 of float; maps "),
    **{
        f"{op} along three axes": (
            dict(
                nodes=[("Relu", ["x"], ["r"], {}), (op, ["r", "w"][:n], ["y"], attrs)],
                shape=(1, 4, 5, 5, 5),
                constants={"w": floats(2, 4, 3, 3, 3)},
            ),
            rf"has the shape 1x4x5x5x5, and {op}_1 \({op}\) runs along three axes of it: convolutions and pools",
        )
        for op, n, attrs in (("Conv", 2, {}), ("MaxPool", 1, {"kernel_shape": [2, 2, 2]}))
    },
    "a map that becomes one of three dimensions": (
        dict(
            nodes=[("Reshape", ["x", "s"], ["r"], {}), ("Conv", ["r", "w"], ["y"], {})],
            constants={"w": floats(2, 2, 1, 3, 3), "s": np.array([0, 2, 2, 5, 5])},
        ),
        r"cannot be trained: Conv_1 \(Conv\): its input has 5 axes \(of maps of three dimensions, which are not run",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_bad_models_are_told_in_one_sentence(tmp_path, what):
    changed, said = REFUSED[what]
    path = saved(tmp_path / "a.onnx", **{"nodes": [("Relu", ["x"], ["y"], {})], "shape": (1, 4, 5, 5)} | changed)
    with pytest.raises(CheckpointError, match=said) as e:
        load_onnx(path)
    assert "\n" not in str(e.value)


def test_an_open_size_is_given(tmp_path):
    nodes = [("GlobalAveragePool", ["x"], ["g"], {}), ("Flatten", ["g"], ["f"], {}), ("Gemm", ["f", "w"], ["y"], {})]
    path = saved(tmp_path / "a.onnx", nodes, ("n", 4, "h", "w"), constants={"w": floats(4, 2)})
    graph = load_onnx(path, size=(6, 7))
    assert graph.size == (6, 7) and graph.shape(graph.output) == (1, 2)
    assert load_onnx(net(tmp_path / "b.onnx"), size=(20, 24)).size == (20, 24)  # another one than the file's


def test_damaged_bytes_are_told(tmp_path):
    raw = net(tmp_path / "net.onnx").read_bytes()
    rng = np.random.default_rng(1)
    for i in range(60):
        cut = bytearray(raw[: rng.integers(1, len(raw))] if i % 2 else raw)
        for place in rng.integers(0, len(cut), 3):
            cut[place] ^= int(rng.integers(1, 256))
        (tmp_path / "bad.onnx").write_bytes(bytes(cut))
        try:
            load_onnx(tmp_path / "bad.onnx")
        except CheckpointError as e:
            assert "\n" not in str(e)
