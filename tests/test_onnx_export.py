"""ONNX models written back: the same graph, with other weights."""

import numpy as np
import pytest

import refimpl as ri

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_models import as_ours, by_runtime, floats, net, ours, saved  # noqa: E402

from refimpl.formats.onnx import imported, load_onnx  # noqa: E402
from refimpl.formats.onnx.exporting import exported  # noqa: E402
from refimpl.formats.onnx.walk import IN_TRAINING  # noqa: E402
from validation.instruments import approximation  # noqa: E402


@pytest.mark.parametrize("classes", [None, 3, 9])
def test_what_is_written_back_computes_what_ours_does(tmp_path, classes):
    path = net(tmp_path / "net.onnx")
    graph = load_onnx(path, classes)
    trainer = ri.Trainer(ri.compile(graph, None, 4), 5)
    weights = {name: np.asarray(a) + np.float32(0.1) for name, a in trainer.parameters.items()}
    trainer.resume({**trainer.resume_arrays(), **weights}, 0, [])
    out = tmp_path / "out.onnx"
    out.write_bytes(exported(path, graph.stored, weights, {"classes": '["a"]'}))
    x = floats(4, 3, 12, 10)
    np.testing.assert_allclose(by_runtime(out, x), trainer.predict(as_ours(x)), 1e-5, 1e-5)
    first, second = onnx.load(path), onnx.load(out)
    onnx.checker.check_model(second)
    assert [n.SerializeToString() for n in first.graph.node] == [n.SerializeToString() for n in second.graph.node]
    assert [t.name for t in first.graph.initializer] == [t.name for t in second.graph.initializer]
    assert {p.key: p.value for p in second.metadata_props} == {"gradledger.classes": '["a"]'}


def test_what_was_not_trained_is_written_back_to_the_bit(tmp_path):
    path = net(tmp_path / "net.onnx")
    graph = load_onnx(path)
    out = onnx.ModelProto.FromString(exported(path, graph.stored, graph.weights, {}))
    assert out.SerializeToString() == onnx.load(path).SerializeToString()


def shared(path, copied, bias=None, turned=False):
    """A net that applies one convolution twice, the second time by a copy of its arrays, and a classifier.

    turned: and reads the classifier's weights another way too.
    """
    second = ("w2", "b2") if copied else ("w", "b")
    copies = [("Identity", [old], [new], {}) for old, new in zip("wb", second, strict=True)] if copied else []
    nodes = [("Conv", ["x", "w", "b"], ["c"], {"pads": [1, 1, 1, 1]}), ("Relu", ["c"], ["r"], {}), *copies,
             ("Conv", ["r", *second], ["d"], {}), ("GlobalAveragePool", ["d"], ["g"], {}),
             ("Flatten", ["g"], ["f"], {}),
             *([("Gemm", ["f", "v"], ["h"], {"transB": 1})] if turned else []),
             ("Gemm", ["h" if turned else "f", "v"], ["y"], {})]  # fmt: skip
    constants = {"w": floats(3, 3, 3, 3), "b": floats(3) if bias is None else bias, "v": floats(3, 3)}
    return saved(path, nodes, ("n", 3, 6, 5), constants=constants, rank=2)


@pytest.mark.parametrize("copied", [False, True])
def test_a_layer_that_is_applied_twice_has_one_array(tmp_path, copied):
    path = shared(tmp_path / "a.onnx", copied)
    graph, x, y = load_onnx(path), floats(4, 3, 6, 5), np.arange(4) % 3
    w, b = (graph.nodes[0].params[local] for local in "wb")
    assert graph.parameters.keys() == graph.weights.keys() == graph.stored.keys() and len(graph.stored) == 3
    assert len(graph.users()[w]) == len(graph.users()[b]) == 2
    plan = ri.Plan(1, step=ri.Backprop(ri.SGD(1.0)), train_bias=True)  # counts the layer once, and trains it whole
    program = ri.compile(graph, plan, 4, dtype=np.float64)
    assert program.step.gradients.keys() == graph.parameters.keys()
    gaps = approximation.slopes(graph, plan, as_ours(x).astype(float), y, h=1e-6)
    assert {w, b} <= gaps.keys() and max(gaps.values()) < 1e-6, gaps
    trainer = ri.Trainer(ri.compile(graph, plan, 4), 0)
    trainer.train_step(as_ours(x), y, 1)
    (tmp_path / "b.onnx").write_bytes(exported(path, graph.stored, trainer.parameters, {}))
    np.testing.assert_allclose(by_runtime(tmp_path / "b.onnx", x), trainer.predict(as_ours(x)), 1e-4, 1e-4)
    before, after = onnx.load(path).graph, onnx.load(tmp_path / "b.onnx").graph
    assert before.node == after.node and [t.name for t in before.initializer] == [t.name for t in after.initializer]
    arrays = [onnx.numpy_helper.to_array(t) for of in (before, after) for t in of.initializer]
    assert not any(np.array_equal(one, other) for one, other in zip(arrays[:3], arrays[3:], strict=True))


def test_a_constant_that_no_initializer_is_and_two_layers_share(tmp_path):
    value = onnx.numpy_helper.from_array(floats(3, 3, 1, 1))
    nodes = [("Constant", [], ["w"], {"value": value}), ("Conv", ["x", "w"], ["c"], {}), ("Tanh", ["c"], ["t"], {}),
             ("Conv", ["t", "w"], ["d"], {}), ("GlobalAveragePool", ["d"], ["g"], {}),
             ("Flatten", ["g"], ["y"], {})]  # fmt: skip
    path, x = saved(tmp_path / "a.onnx", nodes, (1, 3, 5, 5), rank=2), floats(1, 3, 5, 5)
    graph = load_onnx(path)
    (name,) = graph.weights
    weights = {name: graph.weights[name] + 1}
    (tmp_path / "b.onnx").write_bytes(exported(path, graph.stored, weights, {}))
    graph.weights = weights
    y = ri.Trainer(ri.compile(graph, None, 1)).predict(as_ours(x))
    np.testing.assert_allclose(by_runtime(tmp_path / "b.onnx", x), y, 1e-4, 1e-5)
    assert len(onnx.load(tmp_path / "b.onnx").graph.initializer) == len(load_onnx(tmp_path / "b.onnx").weights) == 1


def test_arrays_that_an_exporter_merged_are_not_shared(tmp_path):
    nodes = [("Conv", ["x", "v", "b"], ["c"], {}), ("Conv", ["c", "w", "b"], ["d"], {}),
             ("GlobalAveragePool", ["d"], ["g"], {}), ("Flatten", ["g"], ["y"], {})]  # fmt: skip
    constants = {"v": floats(4, 3, 1, 1), "w": floats(4, 4, 1, 1), "b": np.zeros(4, np.float32)}
    path = saved(tmp_path / "a.onnx", nodes, (1, 3, 5, 5), constants=constants, rank=2)
    graph, x = load_onnx(path), floats(1, 3, 5, 5)
    biases = [name for name in graph.weights if name.endswith(".b")]
    assert len(biases) == 2
    weights = dict(graph.weights) | {biases[1]: graph.weights[biases[1]] + 1}
    (tmp_path / "b.onnx").write_bytes(exported(path, graph.stored, weights, {}))
    onnx.checker.check_model(onnx.load(tmp_path / "b.onnx"))
    np.testing.assert_allclose(by_runtime(tmp_path / "b.onnx", x), by_runtime(path, x) + 1, 1e-4, 1e-5)
    again = load_onnx(tmp_path / "b.onnx")
    assert all(np.array_equal(a, again.weights[n]) for n, a in weights.items())
    graph = load_onnx(shared(tmp_path / "c.onnx", True, np.zeros(3, np.float32)))
    assert len(graph.parameters) == 3  # where the weights are shared the zeros are too


def test_weights_that_are_read_two_ways_are_two_and_told(tmp_path):
    path = shared(tmp_path / "a.onnx", False, turned=True)
    found, x = imported(path), floats(2, 3, 6, 5)
    assert found.notes == [
        "v is read in different ways, by Gemm_5 and Gemm_6: each has weights of its own from here on"
    ]
    graph = load_onnx(path)
    weights = {name: a + (name == "Gemm_6.w") for name, a in graph.weights.items()}
    (tmp_path / "b.onnx").write_bytes(exported(path, graph.stored, weights, {}))
    assert [t.name for t in onnx.load(tmp_path / "b.onnx").graph.initializer] == ["w", "b", "v", "v.2"]
    again = load_onnx(tmp_path / "b.onnx")
    assert all(np.array_equal(a, again.weights[n]) for n, a in weights.items())
    np.testing.assert_allclose(ours(path, x), by_runtime(path, x), 1e-4, 1e-5)


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_a_block_with_a_norm_that_is_applied_twice(tmp_path, batch_norm):
    nodes = [("Conv", ["x", "w"], ["c"], {}), ("BatchNormalization", ["c", "s", "b", "m", "u"], ["n"], {}),
             ("Conv", ["n", "w"], ["d"], {}), ("BatchNormalization", ["d", "s", "b", "m", "u"], ["o"], {}),
             ("GlobalAveragePool", ["o"], ["g"], {}), ("Flatten", ["g"], ["y"], {})]  # fmt: skip
    constants = {"w": floats(3, 3, 1, 1), **{n: np.abs(floats(3)) + 0.5 for n in "sbmu"}}
    path = saved(tmp_path / "a.onnx", nodes, ("n", 3, 6, 5), constants=constants, rank=2)
    graph, x, y = load_onnx(path), floats(4, 3, 6, 5), np.arange(4) % 3
    assert len(graph.parameters) == 5
    plan = ri.Plan(batch_norm=batch_norm, step=ri.Backprop(ri.SGD(0.1)))
    gaps = approximation.slopes(graph, plan, as_ours(x).astype(float), y, h=1e-6)
    assert len(gaps) == (3 if batch_norm == "train" else 1) and max(gaps.values()) < 1e-6, gaps
    trainer = ri.Trainer(ri.compile(graph, plan, 4), 0)
    trainer.train_step(as_ours(x), y, 1)
    (tmp_path / "b.onnx").write_bytes(exported(path, graph.stored, trainer.parameters, {}))
    np.testing.assert_allclose(by_runtime(tmp_path / "b.onnx", x), trainer.predict(as_ours(x)), 1e-4, 1e-4)


APART = {  # nodes between a map and its mean, and their constants
    "added": ([("Add", ["x", "a"], ["t"], {})], {"a": floats(3, 1, 1)}),
    "taken off": ([("Sub", ["x", "a"], ["t"], {})], {"a": floats(1, 3, 5, 1)}),
    "multiplied": ([("Mul", ["a", "x"], ["t"], {})], {"a": floats(3, 5, 6)}),
    "divided by": ([("Div", ["x", "a"], ["t"], {})], {"a": 2 + np.abs(floats(3, 1, 1))}),
    "slopes": ([("PRelu", ["x", "a"], ["t"], {})], {"a": floats(3, 1, 1)}),
    "of another shape": (
        [("Reshape", ["a", "to"], ["b"], {}), ("Mul", ["x", "b"], ["t"], {})],
        {"a": floats(3), "to": np.array([3, 1, 1])}),
    "turned": (
        [("Transpose", ["a"], ["b"], {}), ("Add", ["x", "b"], ["t"], {})], {"a": floats(6, 5)}),
    "a bias behind a convolution": (
        [("Conv", ["x", "w"], ["c"], {}), ("Unsqueeze", ["a", "to"], ["b"], {}), ("Add", ["c", "b"], ["t"], {})],
        {"w": floats(3, 3, 1, 1), "a": floats(3), "to": np.array([1, 2])}),
    "a stack of matrices": ([("MatMul", ["x", "a"], ["t"], {})], {"a": floats(3, 6, 4)}),
    "a stack of one of some": ([("MatMul", ["x", "a"], ["t"], {})], {"a": floats(1, 1, 6, 4)}),
    "a stack from the left": ([("MatMul", ["a", "x"], ["t"], {})], {"a": floats(1, 3, 4, 5)}),
    "a matrix from the left": ([("MatMul", ["a", "x"], ["t"], {})], {"a": floats(4, 5)}),
    "a vector": ([("MatMul", ["x", "a"], ["t"], {})], {"a": floats(6)}),
    "a turned matrix": (
        [("Transpose", ["a"], ["b"], {}), ("GlobalAveragePool", ["x"], ["g"], {}), ("Flatten", ["g"], ["f"], {}),
         ("MatMul", ["f", "b"], ["m"], {}), ("Unsqueeze", ["m", "to"], ["t"], {})],
        {"a": floats(3, 3), "to": np.array([2, 3])}),
}  # fmt: skip


@pytest.mark.parametrize("case", APART)
def test_constants_that_trained_are_written_back(tmp_path, case):
    nodes, constants = APART[case]
    behind = [("GlobalAveragePool", ["t"], ["g2"], {}), ("Flatten", ["g2"], ["y"], {})]
    path = saved(tmp_path / "a.onnx", [*nodes, *behind], (1, 3, 5, 6), constants=constants, rank=2)
    graph, x = load_onnx(path), floats(1, 3, 5, 6)
    np.testing.assert_allclose(ours(path, x), by_runtime(path, x), 1e-4, 1e-5)
    assert graph.weights.keys() == graph.parameters.keys() != set()
    weights = {name: a + 0.5 + np.abs(floats(*a.shape)) for name, a in graph.weights.items()}
    (tmp_path / "b.onnx").write_bytes(exported(path, graph.stored, weights, {}))
    onnx.checker.check_model(onnx.load(tmp_path / "b.onnx"))
    assert np.abs(by_runtime(tmp_path / "b.onnx", x) - by_runtime(path, x)).max() > 1e-3
    again = load_onnx(tmp_path / "b.onnx")
    for name, a in weights.items():
        np.testing.assert_allclose(again.weights[name], a, 1e-5)


def test_weights_of_16_bits_train_in_32_and_leave_in_16(tmp_path):
    made = onnx.load(net(tmp_path / "net.onnx"))
    for tensor in made.graph.initializer:
        tensor.CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float16), tensor.name)
        )
    onnx.save(made, tmp_path / "half.onnx")
    graph = load_onnx(tmp_path / "half.onnx")
    assert {a.dtype for a in graph.weights.values()} == {np.dtype(np.float32)}
    out = onnx.ModelProto.FromString(exported(tmp_path / "half.onnx", graph.stored, graph.weights, {}))
    assert out.SerializeToString() == made.SerializeToString()


def test_a_model_of_training_leaves_in_inference(tmp_path):
    constants = {"w": floats(4, 3, 3, 3), "s": floats(4), "b": floats(4), "m": floats(4), "v": np.abs(floats(4)) + 1,
                 "half": np.float32(0.5), "mode": np.array(True), "fc": floats(4, 5)}  # fmt: skip
    nodes = [("Conv", ["x", "w"], ["c"], {}),
             ("BatchNormalization", ["c", "s", "b", "m", "v"], ["n", "mean", "var"], {"training_mode": 1}),
             ("GlobalAveragePool", ["n"], ["g"], {}), ("Flatten", ["g"], ["f"], {}),
             ("Dropout", ["f", "half", "mode"], ["d"], {}), ("MatMul", ["d", "fc"], ["y"], {})]  # fmt: skip
    path, x = saved(tmp_path / "a.onnx", nodes, ("n", 3, 6, 5), constants=constants, rank=2), floats(4, 3, 6, 5)
    assert imported(path).notes == [IN_TRAINING]
    graph = load_onnx(path)
    (tmp_path / "b.onnx").write_bytes(exported(path, graph.stored, graph.weights, {}))
    y = ri.Trainer(ri.compile(graph, None, 4)).predict(as_ours(x))
    np.testing.assert_allclose(by_runtime(tmp_path / "b.onnx", x), y, 1e-4, 1e-5)
    assert imported(tmp_path / "b.onnx").notes == []
    assert "mode" not in {t.name for t in onnx.load(tmp_path / "b.onnx").graph.initializer}


@pytest.mark.parametrize("op", ["Expand", "Tile"])
def test_a_token_that_is_repeated_for_each_sample_leaves_so(tmp_path, op):
    constants = {"w": floats(4, 3, 1, 1), "token": floats(1, 4, 1, 1), "fc": floats(4, 5), "first": np.array([0]),
                 "one": np.array([1]), "others": np.array([4, 1, 1] if op == "Expand" else [1, 1, 1])}  # fmt: skip
    nodes = [("Conv", ["x", "w"], ["c"], {}), ("Shape", ["c"], ["s"], {}), ("Slice", ["s", "first", "one"], ["n"], {}),
             ("Concat", ["n", "others"], ["many"], {"axis": 0}), (op, ["token", "many"], ["all"], {}),
             ("GlobalAveragePool", ["c"], ["g"], {}), ("Concat", ["all", "g"], ["d"], {"axis": 2}),
             ("Tanh", ["d"], ["t"], {}), ("GlobalAveragePool", ["t"], ["p"], {}), ("Flatten", ["p"], ["f"], {}),
             ("MatMul", ["f", "fc"], ["y"], {})]  # fmt: skip
    path, x = saved(tmp_path / "a.onnx", nodes, ("n", 3, 6, 5), constants=constants, rank=2), floats(3, 3, 6, 5)
    graph = load_onnx(path)
    weights = {name: a + 1 for name, a in graph.weights.items()}
    assert any(at["name"] == "token" for at in graph.stored.values())
    (tmp_path / "b.onnx").write_bytes(exported(path, graph.stored, weights, {}))
    graph.weights = weights
    y = ri.Trainer(ri.compile(graph, None, 3)).predict(as_ours(x))
    np.testing.assert_allclose(by_runtime(tmp_path / "b.onnx", x), y, 1e-4, 1e-5)
