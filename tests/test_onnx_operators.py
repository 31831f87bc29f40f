"""Operators of ONNX: read as onnxruntime, or what ONNX says of itself, runs them."""

import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx_models import by_reference, by_runtime, floats, ours, saved  # noqa: E402

from tools.docs import official  # noqa: E402


def conv(**attrs):
    return "Conv", ["x", "w"], ["y"], attrs


W3, W1D, DEPTHWISE = floats(8, 4, 3, 3), floats(8, 4, 5), floats(8, 1, 3, 3)
NORM = {"s": floats(4), "b": floats(4), "m": floats(4), "v": np.abs(floats(4)) + 0.5}
LOW, HIGH = np.float32(0), np.float32(6)
CASES = {  # nodes, shape of the input, constants, opset
    "conv": ([conv()], (4, 9, 7), {"w": W3}, 17),
    "conv with everything": (
        [conv(pads=[1, 0, 2, 3], strides=[2, 1], dilations=[1, 2], kernel_shape=[3, 3])], (4, 11, 13), {"w": W3}, 17),
    "conv same upper": ([conv(auto_pad="SAME_UPPER", strides=[2, 2])], (4, 9, 8), {"w": W3}, 17),
    "conv same lower": ([conv(auto_pad="SAME_LOWER", strides=[2, 2])], (4, 8, 9), {"w": W3}, 17),
    "conv same lower, dilated": ([conv(auto_pad="SAME_LOWER", dilations=[2, 2])], (4, 8, 9), {"w": W3}, 17),
    "conv valid": ([conv(auto_pad="VALID")], (4, 8, 9), {"w": W3}, 17),
    "conv with bias": ([("Conv", ["x", "w", "b"], ["y"], {})], (4, 5, 5), {"w": W3, "b": floats(8)}, 17),
    "zeros before a conv": (
        [("Pad", ["x", "p"], ["t"], {}), ("Conv", ["t", "w"], ["y"], {"pads": [0, 1, 0, 0]})], (4, 5, 5),
        {"w": W3, "p": np.array([0, 0, 1, 2, 0, 0, 0, 3])}, 17),
    "zeros before a conv, by attributes": (
        [("Pad", ["x"], ["t"], {"pads": [0, 0, 1, 2, 0, 0, 0, 3]}),
         ("Conv", ["t", "w"], ["y"], {"auto_pad": "SAME_UPPER"})], (4, 5, 5), {"w": W3}, 9),
    "a linear layer on a map of one pixel": (
        [("Conv", ["x", "w"], ["t"], {}), ("Squeeze", ["t", "a"], ["f"], {}), ("Gemm", ["f", "v"], ["y"], {})],
        (4, 3, 3), {"w": W3, "a": np.array([2, 3]), "v": floats(8, 3)}, 17),
    "a map of one pixel that ends as features": (
        [("Conv", ["x", "w"], ["t"], {}), ("Flatten", ["t"], ["y"], {})], (4, 3, 3), {"w": W3}, 17),
    "depthwise": ([conv(group=4, pads=[1, 1, 1, 1])], (4, 5, 5), {"w": DEPTHWISE}, 17),
    "groups": ([conv(group=2)], (4, 5, 5), {"w": floats(6, 2, 3, 3)}, 17),
    "conv of a sequence": ([conv(pads=[2, 1], strides=[2])], (4, 20), {"w": W1D}, 17),
    "linear": ([("Gemm", ["x", "w", "b"], ["y"], {})], (5,), {"w": floats(5, 3), "b": floats(3)}, 17),
    "linear, transposed": ([("Gemm", ["x", "w"], ["y"], {"transB": 1})], (5,), {"w": floats(3, 5)}, 17),
    "linear, scaled": (
        [("Gemm", ["x", "w", "b"], ["y"], {"alpha": 0.5, "beta": -2.0})], (5,),
        {"w": floats(5, 3), "b": floats(3)}, 17),
    "linear, with one number": (
        [("Gemm", ["x", "w", "b"], ["y"], {"beta": 0.5})], (5,), {"w": floats(5, 3), "b": np.float32(2)}, 17),
    "matmul and add": (
        [("MatMul", ["x", "w"], ["t"], {}), ("Add", ["b", "t"], ["y"], {})], (5,),
        {"w": floats(5, 3), "b": floats(3)}, 17),
    **{f"a stack of weights {shape} of {own}": ([("MatMul", ["x", "w"], ["y"], {})], own, {"w": floats(*shape)}, 17)
       for own, shape in (
           ((4, 5, 6), (4, 6, 3)), ((4, 5, 6), (1, 4, 6, 3)), ((1, 5, 6), (4, 6, 3)), ((4, 5, 6), (1, 1, 6, 3)),
           ((4, 5, 6), (1, 6, 3)), ((5, 6), (1, 6, 3)), ((4, 5, 6), (6,)), ((5, 6), (6,)))},
    **{f"weights {shape} from the left of {own}": (
        [("MatMul", ["w", "x"], ["t"], {}), ("Relu", ["t"], ["y"], {})], own, {"w": floats(*shape)}, 17)
       for own, shape in (
           ((4, 5, 6), (4, 3, 5)), ((1, 5, 6), (4, 3, 5)), ((4, 5, 6), (3, 5)), ((5, 6), (3, 5)), ((5, 6), (5,)),
           ((4, 5, 6), (5,)))},
    "a stack of heads": (
        [("Reshape", ["x", "s"], ["a"], {}), ("Transpose", ["a"], ["b"], {"perm": [0, 3, 1, 2, 4]}),
         ("MatMul", ["b", "w"], ["c"], {}), ("Tanh", ["c"], ["y"], {})], (4, 5, 6),
        {"s": np.array([0, 4, 5, 2, 3]), "w": floats(2, 1, 3, 2)}, 17),
    "batch norm": (
        [("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], {"epsilon": 1e-3})], (4, 5, 6), NORM, 17),
    "batch norm of features": ([("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], {})], (4,), NORM, 17),
    "a clip": ([("Clip", ["x", "l", "h"], ["y"], {})], (4, 5, 6), {"l": np.float32(-1), "h": np.float32(2)}, 17),
    "silu": ([("Sigmoid", ["x"], ["s"], {}), ("Mul", ["x", "s"], ["y"], {})], (4, 5, 6), {}, 17),
    "sum with 0": (
        [("Relu", ["x"], ["r"], {}), ("Add", ["zero", "r"], ["y"], {})], (4, 5, 6), {"zero": np.float32(0)}, 17),
    "gelu as exports write it": (
        [("Div", ["x", "root"], ["d"], {}), ("Erf", ["d"], ["e"], {}), ("Add", ["e", "one"], ["a"], {}),
         ("Mul", ["x", "a"], ["m"], {}), ("Mul", ["m", "half"], ["y"], {})], (4, 5, 6),
        {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}, 17),
    "gelu of a half of its input": (
        [("Mul", ["half", "x"], ["h"], {}), ("Mul", ["x", "root"], ["d"], {}), ("Erf", ["d"], ["e"], {}),
         ("Add", ["one", "e"], ["a"], {}), ("Mul", ["h", "a"], ["y"], {})], (4, 5, 6),
        {"root": np.float32(0.5**0.5), "one": np.float32(1), "half": np.float32(0.5)}, 17),
    "gelu of a half of its factor": (
        [("Div", ["x", "root"], ["d"], {}), ("Erf", ["d"], ["e"], {}), ("Add", ["e", "one"], ["a"], {}),
         ("Div", ["a", "two"], ["h"], {}), ("Mul", ["x", "h"], ["y"], {})], (4, 5, 6),
        {"root": np.float32(2**0.5), "one": np.float32(1), "two": np.float32(2)}, 17),
    "an error function alone": (
        [("Mul", ["x", "root"], ["d"], {}), ("Erf", ["d"], ["y"], {})], (4, 5, 6), {"root": np.float32(0.5**0.5)}, 17),
    "numbers": (
        [("Mul", ["x", "a"], ["p"], {}), ("Add", ["b", "p"], ["q"], {}), ("Sub", ["a", "q"], ["r"], {}),
         ("Sub", ["r", "b"], ["s"], {}), ("Div", ["s", "b"], ["y"], {})], (4, 5, 6),
        {"a": np.float32(0.3), "b": np.array([[[1.7]]], np.float32)}, 17),
    "pixels by mean and deviation": (
        [("Sub", ["x", "m"], ["c"], {}), ("Div", ["c", "d"], ["s"], {}), ("Conv", ["s", "w"], ["y"], {})], (4, 5, 6),
        {"m": floats(1, 4, 1, 1), "d": 1 + np.abs(floats(4, 1, 1)), "w": W3}, 17),
    "weights of each channel, row, column and element": (
        [("Mul", ["c", "x"], ["p"], {}), ("Add", ["p", "r"], ["q"], {}), ("Mul", ["q", "l"], ["s"], {}),
         ("Sub", ["s", "e"], ["t"], {}), ("Sub", ["r", "t"], ["u"], {}), ("Div", ["u", "k"], ["y"], {})], (4, 5, 6),
        {"c": floats(4, 1, 1), "r": floats(5, 1), "l": floats(1, 1, 1, 6), "e": floats(4, 5, 6),
         "k": 1 + np.abs(floats(1, 4, 5, 1))}, 17),
    "weights of features and of a sequence": (
        [("Mul", ["x", "c"], ["m"], {}), ("GlobalAveragePool", ["m"], ["g"], {}), ("Flatten", ["g"], ["f"], {}),
         ("Add", ["f", "b"], ["a"], {}), ("Mul", ["a", "s"], ["y"], {})], (4, 9),
        {"c": floats(4, 9), "b": floats(4), "s": floats(1, 4)}, 17),
    "weights of a flattened map": (
        [("Flatten", ["x"], ["f"], {}), ("Add", ["f", "b"], ["a"], {}), ("Gemm", ["a", "w"], ["y"], {})], (4, 3, 2),
        {"b": floats(24), "w": floats(24, 3)}, 17),
    "a bias apart": (
        [("Conv", ["x", "w"], ["c"], {}), ("Add", ["b", "c"], ["y"], {})], (4, 5, 5),
        {"w": W3, "b": floats(8, 1, 1)}, 17),
    "a constant by a tensor": (
        [("Exp", ["x"], ["e"], {}), ("Div", ["one", "e"], ["r"], {}), ("Div", ["c", "r"], ["y"], {})], (4, 5, 6),
        {"one": np.float32(2), "c": floats(4, 1, 1)}, 17),
    "a quotient of tensors": ([("Exp", ["x"], ["e"], {}), ("Div", ["x", "e"], ["y"], {})], (4, 5, 6), {}, 17),
    "tensors spread along channels and along places": (
        [("GlobalAveragePool", ["x"], ["g"], {}), ("Add", ["g", "x"], ["a"], {}), ("Sub", ["g", "a"], ["b"], {}),
         ("Conv", ["b", "w"], ["c"], {}), ("Mul", ["c", "b"], ["m"], {}), ("Sub", ["m", "c"], ["s"], {}),
         ("Exp", ["c"], ["e"], {}), ("Div", ["s", "e"], ["d"], {}), ("Div", ["e", "d"], ["y"], {})], (4, 5, 6),
        {"w": floats(1, 4, 1, 1)}, 17),
    "means and a map of one pixel": (
        [("GlobalAveragePool", ["x"], ["g"], {}), ("Conv", ["g", "w"], ["c"], {}), ("Add", ["g", "c"], ["y"], {})],
        (4, 5, 6), {"w": floats(4, 4, 1, 1)}, 17),
    "powers": (
        [(op, [x, f"p{i}"], [y], {}) for i, (op, x, y) in enumerate([
            ("Pow", "x", "a"), ("Add", "a", "b"), ("Pow", "b", "c"), ("Pow", "c", "d"), ("Pow", "d", "y")])],
        (4, 5, 6), {"p0": np.float32(2), "p1": np.float32(0.5), "p2": np.float32(-0.5), "p3": np.float32(3),
                    "p4": np.float32(-2)}, 17),
    "one bound of a clip": ([("Clip", ["x", "l"], ["y"], {})], (4, 5, 6), {"l": np.float32(-1)}, 17),
    "the other bound of a clip": ([("Clip", ["x", "", "h"], ["y"], {})], (4, 5, 6), {"h": np.float32(1)}, 17),
    "prelu": ([("PRelu", ["x", "s"], ["y"], {})], (4, 5, 6), {"s": floats(4, 1, 1)}, 17),
    "prelu of one slope": ([("PRelu", ["x", "s"], ["y"], {})], (4, 5, 6), {"s": floats(1)}, 17),
    "Abs": ([("Abs", ["x"], ["y"], {})], (4, 5, 6), {}, 18),
    "Celu": ([("Celu", ["x"], ["y"], {"alpha": 0.7})], (4, 5, 6), {}, 18),
    "Elu": ([("Elu", ["x"], ["y"], {"alpha": 1.3})], (4, 5, 6), {}, 18),
    "Exp": ([("Exp", ["x"], ["y"], {})], (4, 5, 6), {}, 18),
    "Mish": ([("Mish", ["x"], ["y"], {})], (4, 5, 6), {}, 18),
    "Neg": ([("Neg", ["x"], ["y"], {})], (4, 5, 6), {}, 18),
    "Reciprocal": ([("Reciprocal", ["x"], ["y"], {})], (4, 5, 6), {}, 18),
    "Selu": ([("Selu", ["x"], ["y"], {})], (4, 5, 6), {}, 18),
    "Softplus": ([("Softplus", ["x"], ["y"], {})], (4, 5, 6), {}, 18),
    "Softsign": ([("Softsign", ["x"], ["y"], {})], (4, 5, 6), {}, 18),
    "logarithm of a root": (
        [("Exp", ["x"], ["e"], {}), ("Sqrt", ["e"], ["r"], {}), ("Log", ["r"], ["y"], {})], (4, 5, 6), {}, 17),
    "upsampled": ([("Upsample", ["x", "f"], ["y"], {})], (4, 5, 6), {"f": np.array([1, 1, 2, 3], np.float32)}, 9),
    "resized of an old opset": (
        [("Resize", ["x", "f"], ["y"], {})], (4, 5, 6), {"f": np.array([1, 1, 1.5, 2], np.float32)}, 10),
    "a sequence resized": (
        [("Resize", ["x", "", "f"], ["y"], {"mode": "linear"})], (4, 9), {"f": np.array([1, 1, 1.7], np.float32)}, 13),
    "zeros before a pool": (
        [("Pad", ["x", "p"], ["t"], {}), ("MaxPool", ["t"], ["y"], {"kernel_shape": [3, 3]})], (4, 5, 5),
        {"p": np.array([0, 0, 1, 2, 0, 0, 0, 3])}, 17),
    "a border and channels": (
        [("Pad", ["x", "p", "v"], ["y"], {})], (4, 5, 5),
        {"p": np.array([0, 1, 1, 2, 0, 2, 0, 3]), "v": np.float32(1.5)}, 17),
    "zeros before a conv that another reads": (
        [("Pad", ["x", "p"], ["t"], {}), ("Conv", ["t", "w"], ["c"], {}),
         ("ReduceMax", ["t"], ["m"], {"axes": [1, 2, 3]}), ("Mul", ["c", "m"], ["y"], {})], (4, 5, 5),
        {"w": W3, "p": np.array([0, 0, 1, 2, 0, 0, 0, 3])}, 17),
    **{f"a border by {mode}": (
        [("Pad", ["x", "p"], ["y"], {"mode": mode})], (4, 5, 6), {"p": np.array([0, 0, 2, 3, 0, 0, 4, 1])}, 19)
       for mode in ("reflect", "edge", "wrap")},
    **{f"to the power {n:g}": (
        [("Exp", ["x"], ["e"], {}), ("Pow", ["e", "n"], ["y"], {})], (4, 5, 6), {"n": np.float32(n)}, 17)
       for n in (0, 0.3, -0.7, 1.5, 7, -3)},
    "logarithm of a softmax": (
        [("LogSoftmax", ["x"], ["a"], {"axis": 1}), ("Neg", ["a"], ["y"], {})], (4, 5, 6), {}, 17),
    "logarithm of a softmax of features": (
        [("LogSoftmax", ["x"], ["a"], {}), ("Neg", ["a"], ["y"], {})], (7,), {}, 17),
    "swish": ([("Swish", ["x"], ["y"], {"alpha": 1.5})], (4, 5, 6), {}, 24),
    "channels backwards": (
        [("Slice", ["x", "s", "e", "a", "m"], ["y"], {})], (4, 5, 6),
        {"s": np.array([-1]), "e": np.array([-9]), "a": np.array([1]), "m": np.array([-1])}, 17),
    "channels in any order": (
        [("Gather", ["x", "i"], ["y"], {"axis": 1})], (4, 5, 6), {"i": np.array([2, 0, 1, 0])}, 17),
    "rows in any order": (
        [("Gather", ["x", "i"], ["y"], {"axis": 2})], (4, 5, 6), {"i": np.array([[4, 0], [1, 2]])}, 17),
    "a product that is spread": (
        [("ReduceMax", ["x", "a"], ["m"], {}), ("Transpose", ["m"], ["t"], {"perm": [0, 1, 3, 2]}),
         ("MatMul", ["x", "t"], ["y"], {})], (4, 5, 6), {"a": np.array([1])}, 18),
    "a size that keeps the ratio": (
        [("Resize", ["x", "", "", "c"], ["y"], {"keep_aspect_ratio_policy": "not_larger", "axes": [2, 3]})], (4, 5, 6),
        {"c": np.array([10, 13])}, 19),
    "zeros around a sequence": (
        [("Pad", ["x", "p"], ["t"], {}), ("Relu", ["t"], ["y"], {})], (4, 5), {"p": np.array([0, 0, 1, 0, 0, 2])}, 17),
    "global maximum": ([("GlobalMaxPool", ["x"], ["y"], {})], (4, 6, 7), {}, 17),
    "mean over channels": ([("ReduceMean", ["x"], ["y"], {"axes": [1]})], (4, 6, 7), {}, 17),
    "mean over all but samples": (
        [("ReduceMean", ["x", "a"], ["y"], {"keepdims": 0})], (4, 6, 7), {"a": np.array([1, 2, 3])}, 18),
    "sum over rows, left out": (
        [("ReduceSum", ["x", "a"], ["y"], {"keepdims": 0})], (4, 6, 7), {"a": np.array([2])}, 17),
    "sum over a map as features": (
        [("ReduceSum", ["x", "a"], ["f"], {"keepdims": 0}), ("Gemm", ["f", "w"], ["y"], {})], (4, 6, 7),
        {"a": np.array([2, 3]), "w": floats(4, 3)}, 17),
    "norm of channels that divides": (
        [("ReduceL2", ["x"], ["n"], {"axes": [2, 3]}), ("ReduceMean", ["n"], ["m"], {"axes": [1]}),
         ("Add", ["m", "e"], ["a"], {}), ("Div", ["n", "a"], ["d"], {}), ("Mul", ["x", "d"], ["y"], {})], (4, 6, 7),
        {"e": np.float32(1e-6)}, 17),
    "norm of features": ([("ReduceL2", ["x", "a"], ["y"], {})], (9,), {"a": np.array([-1])}, 18),
    "maximum over channels": ([("ReduceMax", ["x", "a"], ["y"], {})], (4, 6, 7), {"a": np.array([1])}, 18),
    "minimum over columns of a sequence": ([("ReduceMin", ["x", "a"], ["y"], {})], (4, 7), {"a": np.array([2])}, 18),
    "sum of squares": ([("ReduceSumSquare", ["x", "a"], ["y"], {})], (4, 6, 7), {"a": np.array([1, 3])}, 18),
    "instance norm": (
        [("InstanceNormalization", ["x", "s", "b"], ["y"], {"epsilon": 1e-3})], (4, 5, 6),
        {"s": floats(4), "b": floats(4)}, 17),
    "group norm": (
        [("GroupNormalization", ["x", "s", "b"], ["y"], {"num_groups": 2})], (4, 5, 6),
        {"s": floats(4), "b": floats(4)}, 21),
    "some channels": (
        [("Slice", ["x", "s", "e", "a"], ["y"], {})], (6, 4, 5),
        {"s": np.array([1]), "e": np.array([-2]), "a": np.array([1])}, 17),
    "channels in parts": (
        [("Split", ["x", "n"], ["p", "q"], {"axis": 1}), ("Relu", ["q"], ["r"], {}),
         ("Concat", ["r", "p"], ["y"], {"axis": 1})], (6, 4, 5), {"n": np.array([4, 2])}, 17),
    "channels in equal parts": (
        [("Split", ["x"], ["p", "q"], {"axis": 1, "num_outputs": 2}), ("Sub", ["q", "p"], ["y"], {})],
        (6, 4, 5), {}, 18),
    "channels of groups in turn": (
        [("Reshape", ["x", "a"], ["r"], {}), ("Transpose", ["r"], ["t"], {"perm": [0, 2, 1, 3, 4]}),
         ("Reshape", ["t", "b"], ["y"], {})], (6, 4, 5),
        {"a": np.array([0, 2, 3, 4, 5]), "b": np.array([0, 6, 4, 5])}, 17),
    "product of branches": ([("Relu", ["x"], ["r"], {}), ("Mul", ["x", "r"], ["y"], {})], (4, 5, 6), {}, 17),
    "factors of channels": (
        [("GlobalAveragePool", ["x"], ["g"], {}), ("Conv", ["g", "w"], ["c"], {}), ("Sigmoid", ["c"], ["s"], {}),
         ("Mul", ["s", "x"], ["y"], {})], (4, 5, 6), {"w": floats(4, 4, 1, 1)}, 17),
    "sigmoid": ([("Sigmoid", ["x"], ["y"], {})], (4, 5, 6), {}, 17),
    "hard sigmoid": ([("HardSigmoid", ["x"], ["y"], {})], (4, 5, 6), {}, 17),
    "hard sigmoid of PyTorch": ([("HardSigmoid", ["x"], ["y"], {"alpha": 1 / 6})], (4, 5, 6), {}, 17),
    "hard swish": ([("HardSwish", ["x"], ["y"], {})], (4, 5, 6), {}, 17),
    "leaky relu": ([("LeakyRelu", ["x"], ["y"], {"alpha": 0.2})], (4, 5, 6), {}, 17),
    "tanh": ([("Tanh", ["x"], ["y"], {})], (7,), {}, 17),
    "relu6 by inputs": ([("Clip", ["x", "l", "h"], ["y"], {})], (4, 5, 6), {"l": LOW, "h": HIGH}, 17),
    "relu6 by attributes": ([("Clip", ["x"], ["y"], {"min": 0.0, "max": 6.0})], (4, 5, 6), {}, 10),
    "relu by a clip": ([("Clip", ["x", "l"], ["y"], {})], (4, 5, 6), {"l": LOW}, 17),
    "gelu": ([("Gelu", ["x"], ["y"], {"approximate": "tanh"})], (4, 5, 6), {}, 20),
    "max pool": ([("MaxPool", ["x"], ["y"], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]})],
                 (4, 9, 8), {}, 17),
    "max pool of a sequence": ([("MaxPool", ["x"], ["y"], {"kernel_shape": [2], "strides": [2]})], (4, 9), {}, 17),
    "max pool over the edge": (
        [("MaxPool", ["x"], ["y"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})], (4, 8, 7), {}, 17),
    "average pool over the edge": (
        [("AveragePool", ["x"], ["y"], {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1})],
        (4, 8, 6), {}, 19),
    "average pool": (
        [("AveragePool", ["x"], ["y"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})], (4, 6, 7), {}, 17),
    "average pool with padding counted": (
        [("AveragePool", ["x"], ["y"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1})],
        (4, 6, 7), {}, 17),
    "global mean of what is no map of ours": (
        [("MatMul", ["w", "x"], ["t"], {}), ("GlobalAveragePool", ["t"], ["y"], {})], (4, 6, 7), {"w": floats(3, 6)},
        17),
    "global mean": ([("GlobalAveragePool", ["x"], ["y"], {})], (4, 6, 7), {}, 17),
    "mean of axes": ([("ReduceMean", ["x"], ["y"], {"axes": [2, 3], "keepdims": 0})], (4, 6, 7), {}, 17),
    "mean of axes by an input": ([("ReduceMean", ["x", "a"], ["y"], {})], (4, 6, 7), {"a": np.array([-1, -2])}, 18),
    "sum of branches": ([("Relu", ["x"], ["r"], {}), ("Add", ["x", "r"], ["y"], {})], (4, 6, 7), {}, 17),
    "channels side by side": (
        [("Relu", ["x"], ["r"], {}), ("Concat", ["r", "x"], ["y"], {"axis": 1})], (4, 6, 7), {}, 17),
    "a mean as a map again": (
        [("ReduceMean", ["x"], ["m"], {"axes": [2, 3]}), ("Conv", ["m", "w"], ["y"], {})], (4, 6, 7),
        {"w": floats(3, 4, 1, 1)}, 17),
    "maps behind a transpose": (
        [("Transpose", ["x"], ["t"], {"perm": [0, 3, 1, 2]}), ("Conv", ["t", "w"], ["y"], {})], (9, 7, 4),
        {"w": W3}, 17),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_operator_gives_what_onnxruntime_gives(tmp_path, case):
    nodes, shape, constants, opset = CASES[case]
    path = saved(tmp_path / "a.onnx", nodes, ("batch", *shape), opset, constants=constants)
    x = (3 * np.random.default_rng(1).normal(size=(2, *shape))).astype(np.float32)  # the same in whatever order
    lacks = "dilated" in case or case == "swish"  # which the runtime has not
    wanted = by_reference(path, x) if lacks else by_runtime(path, x)
    y = ours(path, x, nodes[0][0] == "Transpose")
    assert y.shape == wanted.shape
    np.testing.assert_allclose(y, wanted, 3e-4, 1e-5)  # quotients of sums that nearly vanish among them


GRIDS = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
RESIZED = [{"mode": m, "coordinate_transformation_mode": t} for m in ("nearest", "linear") for t in GRIDS]
RESIZED += [{"mode": "cubic", "coordinate_transformation_mode": t} for t in GRIDS]
RESIZED += [{"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1}]
RESIZED += [{"mode": mode, "antialias": 1} for mode in ("linear", "cubic")]
RESIZED += [{"nearest_mode": m} for m in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")]
RESIZED += [{"axes": [2, 3], "mode": "linear"}, {"coordinate_transformation_mode": "half_pixel_symmetric"}]


@pytest.mark.parametrize("attrs", RESIZED, ids=lambda attrs: " ".join(map(str, attrs.values())))
@pytest.mark.parametrize("size", [(8, 4), (1, 13), (10, 3), (5, 1)])
def test_a_map_is_resized_as_onnxruntime_does(tmp_path, attrs, size):
    for given, constant in (("scales", (size[0] / 5, size[1] / 6)), ("sizes", size)):
        whole = constant if "axes" in attrs else (1, 4 if given == "sizes" else 1, *constant)
        inputs = ["x", "", "c"] if given == "scales" else ["x", "", "", "c"]
        constants = {"c": np.array(whole, np.float32 if given == "scales" else np.int64)}
        nodes, x = [("Resize", inputs, ["y"], attrs)], floats(1, 4, 5, 6)
        path = saved(tmp_path / "a.onnx", nodes, (1, 4, 5, 6), 19, constants=constants)
        np.testing.assert_allclose(ours(path, x), by_runtime(path, x), 1e-4, 1e-5, err_msg=given)


def test_the_record_of_the_official_tests_is_that_of_the_code():
    found, kept = official.made(), json.loads(official.RESULT.read_text(encoding="utf-8"))
    if onnx.__version__ != kept["onnx"]:
        pytest.skip(f"onnx {onnx.__version__} has other cases than {kept['onnx']}, of which the record is")
    assert found == kept["measured"], "run python -m tools.docs.official"
    assert kept["passed"] == sum(said == official.PASSED for of in found.values() for said in of.values()) > 350
    assert kept["cases"] == sum(map(len, found.values()))
    assert sum(said == official.OTHER for of in found.values() for said in of.values()) == 0
