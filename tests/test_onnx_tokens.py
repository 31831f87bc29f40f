"""Nodes of ONNX that give samples another shape or order, attention and norms of tokens: held against onnxruntime."""

import numpy as np
import onnx
import pytest
from onnx_models import by_runtime, floats, ours, saved

import refimpl as ri
from refimpl.formats.onnx import imported, layout, load_onnx
from refimpl.formats.onnx.exporting import exported
from refimpl.formats.onnx.value import Value

RNG = np.random.default_rng(1)


SHAPES = [(1, 8, 24), (1, 2, 4, 24), (1, 192), (8, 4, 6), (1, 1, 8, 2, 2, 3, 2), (1, 8, 2, 12), (2, 4, 1, 24)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_layout_under_another_shape(shape):
    x = np.arange(4 * 6 * 8)
    before = layout.of_axes((0, 3, 1, 2), (4, 6, 8))
    y = x.reshape(4, 6, 8).transpose(2, 0, 1)[None]
    after = layout.reshaped(before, shape)
    np.testing.assert_array_equal(x[layout.places(after)], y.reshape(shape))
    assert layout.shape_of(after) == shape
    assert sum(axis.count(layout.SAMPLES) for axis in after) == 1
    np.testing.assert_array_equal(x[layout.places(layout.reshaped(after, y.shape))], y)


def test_values_go_there_and_back():
    value = Value("x", (4, 6, 8), layout.reshaped(layout.of_axes((0, 3, 1, 2), (4, 6, 8)), (8, 24)))
    x = floats(3, 4, 6, 8)
    theirs = value.theirs(x)
    np.testing.assert_array_equal(theirs, x.transpose(0, 3, 1, 2).reshape(24, 24))
    np.testing.assert_array_equal(value.ours(theirs), x)


def test_a_layout_that_cannot_be():
    before = layout.of_axes((0, 3, 1, 2), (4, 6, 8))
    with pytest.raises(layout.Unshaped, match="cuts across its axes"):
        layout.reshaped(before, (1, 12, 16))
    with pytest.raises(layout.Unshaped, match="has not as many elements"):
        layout.reshaped(before, (1, 8, 4, 5))


def reshape(x, y, shape):
    """A Reshape to a constant shape."""
    return "Reshape", [x, f"{y}.shape"], [y], {}, np.array(shape)


def nodes_of(steps):
    """Nodes, and the constants of their shapes."""
    constants = {ins[1]: more[0] for _, ins, _, _, *more in steps if more}
    return [step[:4] for step in steps], constants


MOVES = {
    "heads": [reshape("x", "a", (0, 2, 3, 20)), ("Transpose", ["a"], ["b"], {"perm": [0, 1, 3, 2]}),
              ("Relu", ["b"], ["c"], {}), reshape("c", "y", (0, 2, 60))],
    "windows": [("Transpose", ["x"], ["a"], {"perm": [0, 2, 3, 1]}), reshape("a", "b", (-1, 2, 2, 5, 1, 6)),
                ("Transpose", ["b"], ["c"], {"perm": [0, 1, 3, 2, 4, 5]}), reshape("c", "d", (-1, 2, 6)),
                ("Softmax", ["d"], ["e"], {"axis": 1}), reshape("e", "f", (-1, 2, 5, 2, 1, 6)),
                ("Transpose", ["f"], ["g"], {"perm": [0, 1, 3, 2, 4, 5]}), reshape("g", "h", (-1, 4, 5, 6)),
                ("Transpose", ["h"], ["i"], {"perm": [0, 3, 1, 2]}), ("Add", ["x", "i"], ["y"], {})],
    "samples in between": [reshape("x", "a", (-1, 3, 2, 20)), ("Transpose", ["a"], ["b"], {"perm": [1, 0, 3, 2]}),
                           ("Gather", ["b", "one"], ["c"], {"axis": 0}), ("Tanh", ["c"], ["y"], {})],
    "a first axis that comes and goes": [("Unsqueeze", ["x", "zero1"], ["a"], {}),
                                         ("Gather", ["a", "zero"], ["b"], {"axis": 0}), ("Tanh", ["b"], ["y"], {})],
    "rows of features": [("Flatten", ["x"], ["a"], {}), reshape("a", "b", (0, 6, 20)), ("Sigmoid", ["b"], ["y"], {})],
    "a sum of two orders": [("Transpose", ["x"], ["a"], {"perm": [0, 1, 3, 2]}), reshape("a", "b", (0, 6, 20)),
                            reshape("x", "c", (0, 6, 20)), ("Add", ["b", "c"], ["d"], {}), ("Relu", ["d"], ["y"], {})],
    "joined rows": [("Relu", ["x"], ["a"], {}), ("Concat", ["x", "a"], ["y"], {"axis": 2})],
    "joined columns": [("Relu", ["x"], ["a"], {}), ("Concat", ["x", "a", "x"], ["y"], {"axis": -1})],
    "joined in another order": [("Transpose", ["x"], ["a"], {"perm": [0, 1, 3, 2]}), reshape("a", "b", (0, 6, 20)),
                                reshape("x", "c", (0, 6, 20)), ("Concat", ["b", "c"], ["y"], {"axis": 1})],
    "a part of the rows": [("Slice", ["x", "one1", "three", "two"], ["a"], {}), ("Relu", ["a"], ["y"], {})],
    "every second pixel": [("Slice", ["x", "zeros", "far", "maps", "steps"], ["a"], {}), ("Relu", ["a"], ["y"], {})],
    "every third row of four": [("Slice", ["x", "zero1", "far1", "two", "three"], ["a"], {}),
                                ("Relu", ["a"], ["y"], {})],
    "every second of five columns": [("Slice", ["x", "one1", "far1", "three", "two"], ["a"], {}),
                                     ("Relu", ["a"], ["y"], {})],
    "indices of another shape": [("Gather", ["x", "square"], ["a"], {"axis": 1}), ("Relu", ["a"], ["y"], {})],
    "spread before a quotient": [("ReduceL2", ["x"], ["a"], {"axes": [3]}), ("Expand", ["a", "all"], ["b"], {}),
                                 ("Div", ["x", "b"], ["y"], {})],
    "means of tokens": [("Transpose", ["x"], ["a"], {"perm": [0, 2, 3, 1]}), reshape("a", "b", (0, 20, 6)),
                        ("ReduceMean", ["b"], ["y"], {"axes": [1], "keepdims": 0})],
    "weights of tokens": [("Transpose", ["x"], ["a"], {"perm": [0, 2, 3, 1]}), reshape("a", "b", (0, 20, 6)),
                          ("Add", ["b", "place"], ["c"], {}), reshape("c", "d", (0, 20, 2, 3)),
                          ("Mul", ["head", "d"], ["e"], {}), ("Tanh", ["e"], ["y"], {})],
    "one row": [("Gather", ["x", "one"], ["a"], {"axis": 2}), ("Relu", ["a"], ["y"], {})],
    "columns apart": [("Split", ["x", "counts"], ["a", "b"], {"axis": 3}), ("Mul", ["b", "b"], ["c"], {}),
                      ("Concat", ["c", "a"], ["y"], {"axis": 3})],
    "softmax along channels": [("Softmax", ["x"], ["a"], {"axis": 1}), ("Relu", ["a"], ["y"], {})],
    "softmax along columns": [("Softmax", ["x"], ["a"], {"axis": 3}), ("Relu", ["a"], ["y"], {})],
    "a map with itself": [reshape("x", "a", (0, 6, 20)), ("Transpose", ["a"], ["b"], {"perm": [0, 2, 1]}),
                          ("MatMul", ["a", "b"], ["c"], {}), ("Relu", ["c"], ["y"], {})],
    "itself with a map": [reshape("x", "a", (0, 6, 20)), ("Transpose", ["a"], ["b"], {"perm": [0, 2, 1]}),
                          ("MatMul", ["b", "a"], ["c"], {}), ("Relu", ["c"], ["y"], {})],
    "rows of a Gemm": [("Transpose", ["x"], ["a"], {"perm": [0, 2, 3, 1]}), reshape("a", "b", (-1, 6)),
                       ("Gemm", ["b", "layer", "bias"], ["c"], {"alpha": 0.5, "beta": 2.0}),
                       reshape("c", "d", (-1, 20, 2)), ("Tanh", ["d"], ["y"], {})],
    "samples alone in between": [
        ("Transpose", ["x"], ["a"], {"perm": [3, 0, 2, 1]}), reshape("a", "b", (5, -1, 4, 3, 2)),
        ("Transpose", ["b"], ["c"], {"perm": [1, 0, 2, 3, 4]}), ("Tanh", ["c"], ["y"], {})],
    "attention where samples come second": [  # as PyTorch's MultiheadAttention leaves
        reshape("x", "a", (0, 6, 20)), ("Transpose", ["a"], ["t"], {"perm": [2, 0, 1]}), reshape("t", "h", (20, -1, 2)),
        ("Transpose", ["h"], ["g"], {"perm": [1, 0, 2]}), reshape("g", "q", (-1, 3, 20, 2)),
        ("Transpose", ["q"], ["k"], {"perm": [0, 1, 3, 2]}), ("MatMul", ["q", "k"], ["s"], {}),
        ("Softmax", ["s"], ["p"], {}), ("MatMul", ["p", "q"], ["o"], {}),
        ("Transpose", ["o"], ["b"], {"perm": [2, 0, 1, 3]}), reshape("b", "c", (-1, 6)),
        ("Gemm", ["c", "layer", "bias"], ["d"], {}), reshape("d", "e", (20, -1, 2)),
        ("Transpose", ["e"], ["y"], {"perm": [1, 0, 2]})],
}  # fmt: skip
CONSTANTS = {
    "layer": floats(6, 2), "bias": floats(2),
    "one": np.array(1), "one1": np.array([1]), "three": np.array([3]), "two": np.array([2]), "zeros": np.array([1, 0]),
    "zero1": np.array([0]), "zero": np.array(0), "far1": np.array([2**31]), "square": np.arange(2, 6).reshape(2, 2),
    "all": np.array([1, 6, 4, 5]),
    "place": floats(1, 20, 6), "head": floats(2, 1),
    "far": np.array([2**31, 2**31]), "maps": np.array([2, 3]), "steps": np.array([2, 5]), "counts": np.array([1, 4]),
}  # fmt: skip


@pytest.mark.parametrize("of", MOVES)
@pytest.mark.parametrize("batch", [1, 3])
def test_moves(of, batch, tmp_path):
    nodes, shapes = nodes_of(MOVES[of])
    used = {name for _, ins, _, _ in nodes for name in ins}
    constants = shapes | {name: a for name, a in CONSTANTS.items() if name in used}
    path = saved(tmp_path / "a.onnx", nodes, ("n", 6, 4, 5), constants=constants)
    x = floats(batch, 6, 4, 5)
    np.testing.assert_allclose(ours(path, x), by_runtime(path, x), 1e-4, 1e-6)


def test_a_batch_of_the_file_itself(tmp_path):
    nodes, constants = nodes_of([reshape("x", "a", (2, 6, 20)), ("Relu", ["a"], ["y"], {})])
    path, x = saved(tmp_path / "a.onnx", nodes, (2, 6, 4, 5), constants=constants), floats(2, 6, 4, 5)
    np.testing.assert_allclose(ours(path, x), by_runtime(path, x), 1e-6)
    assert ours(path, floats(5, 6, 4, 5)).shape == (5, 6, 20)
    nodes, constants = nodes_of([reshape("x", "a", (3, 4, 20)), ("Relu", ["a"], ["y"], {})])
    found = imported(saved(tmp_path / "b.onnx", nodes, (2, 6, 4, 5), constants=constants))
    assert "of a batch of 2, which mixes samples" in found.missing[0].why


REFUSED = {
    "joins samples": [("Concat", ["x", "x"], ["y"], {"axis": 0})],
    "takes some of the samples": [("Gather", ["x", "apart"], ["y"], {"axis": 0})],
    "cuts across its axes": [("Reshape", ["x", "odd"], ["y"], {})],
    "works along samples": [("Transpose", ["x"], ["a"], {"perm": [1, 0, 2, 3]}), ("Softmax", ["a"], ["b"], {"axis": 1}),
                            ("Relu", ["b"], ["y"], {})],
    "samples are not along the first axis": [("Transpose", ["x"], ["a"], {"perm": [1, 0, 2, 3]}),
                                             ("Transpose", ["a"], ["b"], {"perm": [0, 1, 3, 2]}),
                                             ("MatMul", ["a", "b"], ["y"], {})],
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_cannot_be_read(why, tmp_path):
    constants = {"apart": np.array([0, 0]), "odd": np.array([1, 8, 15])}
    used = {name for _, ins, _, _ in REFUSED[why] for name in ins}
    kept = {name: a for name, a in constants.items() if name in used}
    found = imported(saved(tmp_path / "a.onnx", REFUSED[why], (1, 6, 4, 5), constants=kept))
    assert found.missing and any(why in told.why for told in found.missing), found.missing


def transformer(path, tokens=6, width=8, heads=2, batch="n"):
    """A patch embedding, a class token, one block of attention and of a linear layer, and a classifier of the token."""
    each, w = width // heads, lambda *shape: (RNG.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32)
    constants = {
        "stem.weight": w(width, 3, 2, 2), "token": w(1, 1, width), "norm.weight": w(width), "norm.bias": w(width),
        "qkv.weight": w(width, 3 * width), "qkv.bias": w(3 * width), "proj.weight": w(width, width),
        "proj.bias": w(width), "head.weight": w(4, width), "head.bias": w(4), "tokens": np.array([0, width, tokens]),
        "cut": np.array([0, tokens + 1, 3, heads, each]), "back": np.array([0, tokens + 1, width]), "zero": np.array(0),
        "many": np.array([1, 1, 1]),
    }  # fmt: skip
    expanded = "token" if batch == 1 else "tokens.all"
    constants[expanded] = constants["token"]
    nodes = [
        ("Conv", ["x", "stem.weight"], ["a"], {"strides": [2, 2]}), ("Reshape", ["a", "tokens"], ["b"], {}),
        ("Transpose", ["b"], ["c"], {"perm": [0, 2, 1]}), ("Concat", [expanded, "c"], ["d"], {"axis": 1}),
        ("LayerNormalization", ["d", "norm.weight", "norm.bias"], ["e"], {"axis": -1}),
        ("MatMul", ["e", "qkv.weight"], ["f"], {}), ("Add", ["qkv.bias", "f"], ["g"], {}),
        ("Reshape", ["g", "cut"], ["h"], {}), ("Transpose", ["h"], ["i"], {"perm": [2, 0, 3, 1, 4]}),
        ("Split", ["i"], ["q5", "k5", "v5"], {"axis": 0, "num_outputs": 3}),
        ("Squeeze", ["q5", "first"], ["q"], {}), ("Squeeze", ["k5", "first"], ["k"], {}),
        ("Squeeze", ["v5", "first"], ["v"], {}), ("Transpose", ["k"], ["kt"], {"perm": [0, 1, 3, 2]}),
        ("MatMul", ["q", "kt"], ["s"], {}), ("Softmax", ["s"], ["p"], {"axis": -1}), ("MatMul", ["p", "v"], ["o"], {}),
        ("Transpose", ["o"], ["ot"], {"perm": [0, 2, 1, 3]}), ("Reshape", ["ot", "back"], ["j"], {}),
        ("MatMul", ["j", "proj.weight"], ["l"], {}), ("Add", ["l", "proj.bias"], ["m"], {}),
        ("Add", ["d", "m"], ["r"], {}), ("Gather", ["r", "zero"], ["t"], {"axis": 1}),
        ("Gemm", ["t", "head.weight", "head.bias"], ["y"], {"transB": 1}),
    ]  # fmt: skip
    constants["first"] = np.array([0])
    return saved(path, nodes, (batch, 3, 4, 6), opset=18, constants=constants)


def test_a_transformer_trains_and_goes_back(tmp_path):
    path, x = transformer(tmp_path / "a.onnx", batch=1), floats(1, 3, 4, 6)
    np.testing.assert_allclose(ours(path, x), by_runtime(path, x), 1e-4, 1e-5)
    graph = load_onnx(path)
    ops = [node.op for node in graph.nodes]
    assert ops.count("conv2d") == 3 and ops.count("matmul") == 2 and ops.count("attach") == 1, ops
    assert set(graph.parameters) <= set(graph.stored)
    trainer = ri.Trainer(ri.compile(graph, ri.Plan(train_bias=True), 4), 0)
    rng = np.random.default_rng(3)
    samples, y = rng.normal(size=(4, 4, 6, 3)).astype(np.float32), np.array([0, 1, 2, 3])
    first, *_, last = (trainer.train_step(samples, y, 40) for _ in range(40))
    assert last < 0.9 * first
    weights = {name: a for name, a in trainer.parameters.items() if name in graph.parameters}
    content = exported(path, graph.stored, weights, {})
    (tmp_path / "b.onnx").write_bytes(content)
    changed = onnx.load(tmp_path / "b.onnx")
    assert [n.name for n in changed.graph.node] == [n.name for n in onnx.load(path).graph.node]
    again, told = by_runtime(tmp_path / "b.onnx", x), trainer.predict(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(again, told, 1e-4, 1e-5)
    assert np.abs(again - by_runtime(path, x)).max() > 1e-3


def quantized(path, zero):
    """A convolution as a quantized export has it, whose rectifier is the lower end of its integers."""
    w = RNG.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    constants = {
        "in": np.float32(0.02), "mid": np.uint8(128), "w": w, "w.s": np.full(4, 0.01, np.float32),
        "w.z": np.zeros(4, np.int8), "b": RNG.integers(-900, 900, 4).astype(np.int32),
        "b.s": np.full(4, 2e-4, np.float32), "b.z": np.zeros(4, np.int32), "out": np.float32(0.01),
        "zero": np.uint8(zero),
    }  # fmt: skip
    nodes = [
        ("QuantizeLinear", ["x", "in", "mid"], ["q"], {}), ("DequantizeLinear", ["q", "in", "mid"], ["a"], {}),
        ("DequantizeLinear", ["w", "w.s", "w.z"], ["wf"], {"axis": 0}),
        ("DequantizeLinear", ["b", "b.s", "b.z"], ["bf"], {"axis": 0}), ("Conv", ["a", "wf", "bf"], ["c"], {}),
        ("QuantizeLinear", ["c", "out", "zero"], ["r"], {}), ("DequantizeLinear", ["r", "out", "zero"], ["y"], {}),
    ]  # fmt: skip
    return saved(path, nodes, (1, 3, 6, 5), constants=constants)


@pytest.mark.parametrize("zero", [0, 100])
def test_a_quantized_model_is_read_as_floats_within_its_ranges(zero, tmp_path):
    path, x = quantized(tmp_path / "a.onnx", zero), 2 * floats(1, 3, 6, 5)
    y, wanted = ours(path, x), by_runtime(path, x)
    assert np.abs(y - wanted).max() < 0.01 + 0.005 + 27 * 127 * 0.01 * 0.01  # a step out, half a step of each factor in
    assert np.abs(y - wanted).mean() < 0.05 and (zero or y.min() == 0)
    found = imported(path)
    assert found.graph is not None and "clip" in {n.op for n in found.graph.nodes}
    assert any("the rounding of its maps is left out" in note for note in found.notes)
