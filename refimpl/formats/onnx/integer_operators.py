"""Operators of ONNX that compute in whole numbers, as the layers of floats that they stand for between their numbers.

onnxruntime's quantizer writes them where it is asked for the form QOperator. Each becomes what it means,

    QLinearConv(x, w, b) → QuantizeLinear(Conv(DequantizeLinear(x), DequantizeLinear(w), DequantizeLinear(b)))

so that a model of them is read, and leaves, as one with these nodes around its layers. A bias is of the scale
x_scale·w_scale.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

MICROSOFT = "com.microsoft"
OPSET = 13  # the first in which weights have a scale a channel


def listed_tensors(count: int) -> Callable[[list[str]], tuple[list[tuple], None, None, tuple]]:
    """How a node of so many tensors, each with scale and zero point, lists its inputs."""

    def parts(names: list[str]) -> tuple[list[tuple], None, None, tuple]:
        each = [tuple(names[3 * i : 3 * i + 3]) for i in range(count)]
        return each, None, None, tuple(names[3 * count : 3 * count + 2])

    return parts


def listed_conv(names: list[str]) -> tuple[list[tuple], tuple, str | None, tuple]:
    """x, w, what y stands for, b."""
    return [tuple(names[:3])], tuple(names[3:6]), names[8] if len(names) > 8 else None, tuple(names[6:8])


def listed_gemm(names: list[str]) -> tuple[list[tuple], tuple, str | None, tuple]:
    """x, w, b, what y stands for."""
    return [tuple(names[:3])], tuple(names[3:6]), (names[6] if len(names) > 6 else None) or None, tuple(names[7:9])


def listed_concat(names: list[str]) -> tuple[list[tuple], None, None, tuple]:
    """What y stands for, then the tensors."""
    return [tuple(names[i : i + 3]) for i in range(2, len(names), 3)], None, None, tuple(names[:2])


MEANS: dict[tuple[str, str], tuple[str, Callable]] = {  # domain and operator → the layer, and how inputs are listed
    ("", "QLinearConv"): ("Conv", listed_conv),
    (MICROSOFT, "QGemm"): ("Gemm", listed_gemm),
    (MICROSOFT, "QLinearAdd"): ("Add", listed_tensors(2)),
    (MICROSOFT, "QLinearMul"): ("Mul", listed_tensors(2)),
    (MICROSOFT, "QLinearSigmoid"): ("Sigmoid", listed_tensors(1)),
    (MICROSOFT, "QLinearLeakyRelu"): ("LeakyRelu", listed_tensors(1)),
    (MICROSOFT, "QLinearSoftmax"): ("Softmax", listed_tensors(1)),
    (MICROSOFT, "QLinearAveragePool"): ("AveragePool", listed_tensors(1)),
    (MICROSOFT, "QLinearGlobalAveragePool"): ("GlobalAveragePool", listed_tensors(1)),
    (MICROSOFT, "QLinearConcat"): ("Concat", listed_concat),
}
LEFT_OUT = {"GlobalAveragePool": ("channels_last",), "Softmax": ("opset",)}  # attributes that the layer has not


def expanded(proto: Any, opset: int) -> Any:
    """A model whose operators on whole numbers are layers of floats; itself where it has none or is of an old opset."""
    from onnx import helper, numpy_helper

    if opset < OPSET or not any((node.domain, node.op_type) in MEANS for node in proto.graph.node):
        return proto
    constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    nodes: list[Any] = []
    for node in proto.graph.node:
        if (node.domain, node.op_type) not in MEANS:
            nodes.append(node)
            continue
        op, listed = MEANS[node.domain, node.op_type]
        tensors, w, b, y = listed(list(node.input))
        end, inputs = node.output[0], list[str]()

        def real(inputs: list[str], of: str, what: tuple, axis: int = 1, end: str = end) -> None:
            name = f"{end}.{of}"
            given = [n for n in what if n]
            nodes.append(helper.make_node("DequantizeLinear", given, [name], name=name, axis=axis))
            inputs.append(name)

        attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute if a.name not in LEFT_OUT.get(op, ())}
        for i, tensor in enumerate(tensors):
            real(inputs, f"x{i}", tensor)
        if w is not None:
            by_rows = op == "Conv" or attrs.get("transB", 0)
            real(inputs, "w", w, 0 if by_rows else 1)
            if b is not None and tensors[0][1] in constants and w[1] in constants:
                name = f"{end}.b_scale"
                value = constants[tensors[0][1]].reshape(-1)[0] * constants[w[1]]
                proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
                real(inputs, "b", (b, name), 0)
        if len(y) < 2 or not y[0]:  # it gives floats
            nodes.append(helper.make_node(op, inputs, [end], name=node.name, **attrs))
            continue
        nodes.append(helper.make_node(op, inputs, [f"{end}.real"], name=node.name, **attrs))
        nodes.append(helper.make_node("QuantizeLinear", [f"{end}.real", *y], [end], name=f"{end}.whole"))
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto
