"""Small ONNX models for tests, and what onnxruntime makes of them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


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
    """Samples of ONNX's layout in ours: (N, C, H, W) to (N, H, W, C), (N, C, T) to a map of one row."""
    if x.ndim == 2:
        return x
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x.transpose(0, 2, 1)[:, None])
