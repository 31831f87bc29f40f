"""Quantized ONNX models, put together node by node: QuantizeLinear and DequantizeLinear around each layer."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from refimpl.formats.int8_nets import DTYPES, PIXEL_SCALE, convolutions, read_structure


class Qdq:
    """A model that grows; its tensors are known by name.

    kind: dtype of maps; opset: of the model; torch: with constants as nodes, and with a Cast of what is quantized, as
    PyTorch's exporter writes it.
    """

    def __init__(self, shape, kind="int8", opset=17, torch=False):
        self.nodes, self.constants, self.shape, self.kind, self.opset = [], [], shape, np.dtype(kind), opset
        self.torch = torch

    def constant(self, name, array):
        tensor = numpy_helper.from_array(np.asarray(array), name)
        if self.torch:
            self.nodes.append(helper.make_node("Constant", [], [name], name=name, value=tensor))
        else:
            self.constants.append(tensor)
        return name

    def node(self, op, inputs, output, **attrs):
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attrs))
        return output

    def quantized(self, x, scale, zero=0, kind=None):
        """x through whole numbers of a scale; zero: as of int8, moved by 128 for uint8."""
        kind = self.kind if kind is None else np.dtype(kind)
        s = self.constant(f"{x}_scale", np.float32(scale))
        z = self.constant(f"{x}_zero", np.array(zero + (128 if kind == np.uint8 else 0), kind))
        q = self.node("QuantizeLinear", [x, s, z], f"{x}_q")
        if self.torch:
            q = self.node("Cast", [q], f"{x}_cast", to=helper.np_dtype_to_tensor_dtype(kind))
        return self.node("DequantizeLinear", [q, s, z], f"{x}_dq")

    def dequantized(self, name, q, scale, zero=None, axis=0):
        """A constant of whole numbers."""
        inputs = [self.constant(name, q), self.constant(f"{name}_scale", np.asarray(scale, np.float32))]
        if zero is not None:
            inputs.append(self.constant(f"{name}_zero", zero))
        return self.node("DequantizeLinear", inputs, f"{name}_dq", axis=axis)

    def layer(self, op, x, name, w, w_scale, b, b_scale, zero=None, **attrs):
        """A layer with weights (K, …) by channels and a bias."""
        inputs = [x, self.dequantized(f"{name}_w", w, w_scale, zero), self.dequantized(f"{name}_b", b, b_scale)]
        return self.node(op, inputs, name, **attrs)

    def model(self, output, rank=2):
        takes = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *self.shape])]
        gives = [helper.make_tensor_value_info(output, TensorProto.FLOAT, [None] * rank)]
        graph = helper.make_graph(self.nodes, "net", takes, gives, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)

    def save(self, path, output, rank=2):
        onnx.save(self.model(output, rank), path)
        return path


def of_int8(arrays, path, size=None, kind="int8"):
    """A stored microcontroller net (`refimpl.formats.int8_nets`) as an ONNX model of the same whole numbers."""
    structure = read_structure(arrays, "the net")
    entries = convolutions(structure)
    size = size or (structure["first_conv"]["in_shape"],) * 2
    net = Qdq((3, *size), kind)
    net.constant("nought", np.float32(0)), net.constant("six", np.float32(6))

    def layer(op, x, name, entry, **attrs):
        w, b, w_scale = (arrays[entry["params"][a]["array"]] for a in DTYPES)
        w = w if op == "Conv" else w.reshape(w.shape[:2])
        return net.layer(op, x, name, w, w_scale, b, np.float32(entry["params"]["x_scale"] * w_scale), **attrs)

    def conv(x, name, rectified):
        entry, p = entries[name], entries[name]["params"]
        pads = [n // 2 for n in entry["kernel_size"]] * 2
        attrs = {"strides": [entry["stride"]] * 2, "pads": pads, "group": entry["groups"]}
        y = layer("Conv", x, name, entry, **attrs)
        if rectified:
            y = net.node("Clip", [y, "nought", "six"], f"{name}_relu6")
        return net.quantized(y, p["y_scale"], p["y_zero"])

    x = conv(net.quantized("x", PIXEL_SCALE), "stem", True)
    for i, block in enumerate(structure["blocks"], start=1):
        shortcut = x
        if block["pointwise1"]:
            x = conv(x, f"block{i}.expand", True)
        x = conv(x, f"block{i}.depthwise", True)
        x = conv(x, f"block{i}.project", False)
        if block["residual"]:
            p = block["residual"]["params"]
            x = net.quantized(net.node("Add", [x, shortcut], f"block{i}.add"), p["y_scale"], p["y_zero"])
    fc = entries["fc"]["params"]
    x = net.quantized(net.node("GlobalAveragePool", [x], "mean"), fc["x_scale"], fc["x_zero"])
    x = net.node("Flatten", [x], "flat")
    y = layer("Gemm", x, "fc", entries["fc"], transB=1)
    return net.save(path, net.quantized(y, fc["y_scale"], fc["y_zero"]))
