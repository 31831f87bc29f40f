"""A small ONNX model, whole and with its weights in a file beside it, and how a part of it is damaged."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

NODES = (
    ("Conv", ["x", "w", "b"], ["c"], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("BatchNormalization", ["c", "s", "b", "b", "s"], ["n"], {}),
    ("Clip", ["n", "low", "high"], ["r"], {}),
    ("MaxPool", ["r"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ("Reshape", ["p", "to"], ["f"], {}),
    ("Gemm", ["f", "v"], ["y"], {"transB": 1}),
)
TEXTS = ("", "x", "\x1b[2J\x07", "../../etc/passwd", "9" * 5000, "Conv")
NUMBERS = (-1, 0, 1, 2**31, 2**62, -(2**63))


def model() -> onnx.ModelProto:
    """A net with a convolution, a batch norm, bounds, a pool, a reshape and a classifier."""
    ones = {"w": (4, 3, 3, 3), "b": (4,), "s": (4,), "v": (3, 16)}
    constants = {name: np.ones(shape, np.float32) for name, shape in ones.items()}
    constants |= {"low": np.float32(0), "high": np.float32(6), "to": np.array([0, -1])}
    return helper.make_model(
        helper.make_graph(
            [
                helper.make_node(op, ins, outs, name=f"{op}_{i}", **attrs)
                for i, (op, ins, outs, attrs) in enumerate(NODES)
            ],
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
            [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )


def apart() -> tuple[bytes, bytes]:
    """The model with its weights in `net.data`, and that file."""
    made, data = model(), b""
    for tensor in made.graph.initializer:
        place = {"location": "net.data", "offset": str(len(data)), "length": str(len(tensor.raw_data))}
        data += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in place.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
    return made.SerializeToString(), data


def changed(raw: bytes, rng: np.random.Generator) -> bytes:
    """The model with one number, text, node or list of it changed: a graph that is read well and makes no sense."""
    made = onnx.ModelProto.FromString(raw)
    graph = made.graph
    node, tensor = graph.node[rng.integers(len(graph.node))], graph.initializer[rng.integers(len(graph.initializer))]
    match rng.integers(8):
        case 0:
            node.op_type = str(rng.choice(TEXTS))
        case 1:
            node.input[rng.integers(len(node.input))] = str(rng.choice([n.output[0] for n in graph.node]))  # cycles too
        case 2:
            del node.input[rng.integers(len(node.input)) :]
        case 3 if node.attribute:
            attribute = node.attribute[rng.integers(len(node.attribute))]
            attribute.i = int(rng.choice(NUMBERS))
            for i in range(len(attribute.ints)):
                attribute.ints[i] = int(rng.choice(NUMBERS))
        case 4:
            tensor.dims[:] = [int(n) for n in rng.choice(NUMBERS, rng.integers(0, 5))]
        case 5:
            tensor.data_type = int(rng.integers(0, 30))
        case 6:
            for entry in tensor.external_data:
                entry.value = str(rng.choice([*TEXTS, *map(str, NUMBERS)]))
        case _:
            dims = graph.input[0].type.tensor_type.shape.dim
            dims[rng.integers(len(dims))].dim_value = int(rng.choice(NUMBERS))
    return made.SerializeToString()
