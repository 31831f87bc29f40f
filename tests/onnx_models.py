"""Small ONNX models for tests, what onnxruntime makes of them, and what we make of them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import refimpl as ri
from refimpl.formats.onnx import imported

OPSET = 17
RNG = np.random.default_rng(0)


def floats(*shape):
    """Random numbers."""
    return RNG.normal(size=shape).astype(np.float32)


def model(nodes, shape, opset=OPSET, output="y", constants=None, functions=(), rank=None, **more):
    """A model of nodes, each (operator, inputs, outputs, attributes), on the input x (N, *shape).

    constants: name → array; rank: of the output, where it is said.
    """
    made = [
        helper.make_node(op, ins, outs, name=f"{op}_{i}", **attrs) for i, (op, ins, outs, attrs) in enumerate(nodes)
    ]
    takes = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    gives = [helper.make_tensor_value_info(output, TensorProto.FLOAT, rank and [None] * rank)]
    kept = [numpy_helper.from_array(np.asarray(a), name) for name, a in (constants or {}).items()]
    graph = helper.make_graph(made, "net", takes, gives, kept)
    imports = [helper.make_opsetid("", opset), *more.pop("imports", ())]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8, **more)


def saved(path, *args, **kwargs):
    """The path of such a model, written."""
    onnx.save(model(*args, **kwargs), path)
    return path


def by_runtime(path, x):
    """The first output of a model on x, by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def by_reference(path, x):
    """The first output of a model on x, by the reference evaluator of ONNX."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(str(path)).run(None, {"x": x})[0]


def as_ours(x):
    """Samples of ONNX's layout in ours: (N, C, H, W) to (N, H, W, C), (N, C, T) to one row, (N, D) to one pixel."""
    if x.ndim == 2:
        return x[:, None, None]
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x.transpose(0, 2, 1)[:, None])


def ours(path, x, last=False):
    """What we make of samples x, both in ONNX's layout. last: are the channels of x last there too?"""
    found = imported(path)
    assert found.graph is not None and found.end is not None, found.missing
    y = ri.Trainer(ri.compile(found.graph, None, len(x))).predict(x if last else as_ours(x))
    return found.end.theirs(y)


NODES = [("Conv", ["x", "stem.weight", "stem.bias"], ["c"], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
         ("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], {}), ("Relu", ["n"], ["r"], {}),
         ("Conv", ["r", "dw.weight"], ["d"], {"group": 8, "pads": [1, 1, 1, 1]}), ("Add", ["d", "r"], ["a"], {}),
         ("GlobalAveragePool", ["a"], ["g"], {}), ("Flatten", ["g"], ["f"], {}),
         ("Gemm", ["f", "fc.weight", "fc.bias"], ["y"], {"transB": 1})]  # fmt: skip


def net(path, classes=5, **more):
    """A small net with each kind of parameter."""
    rng = np.random.default_rng(3)

    def some(*shape):
        return (0.5 * rng.normal(size=shape)).astype(np.float32)

    constants = {
        "stem.weight": some(8, 3, 3, 3), "stem.bias": some(8), "s": 1 + some(8), "b": some(8), "m": some(8),
        "v": np.abs(some(8)) + 0.5, "dw.weight": some(8, 1, 3, 3), "fc.weight": some(classes, 8),
        "fc.bias": some(classes),
    }  # fmt: skip
    return saved(path, NODES, ("n", 3, 12, 10), constants=constants, rank=2, **more)
