"""A net of integers with a float classifier, for the tests of quantized parameters and tensors."""

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from own import narrow8, round8, scale8, weigh8, widen8

import refimpl as ri
from refimpl.graph import INPUT, Graph, Parameter, forget_operator, register_operator
from refimpl.kernels.quantized import Quantized

OWN = (scale8, widen8, round8, narrow8, weigh8)
H, W, C, N, CLASSES = 3, 2, 5, 4, 3
I8, I16, I32 = (np.dtype(name) for name in ("int8", "int16", "int32"))
STEP = ri.Backprop(ri.SGD(lr=0.02, momentum=0.9))


@contextmanager
def registered():
    """Let graphs use the operators while this is entered."""
    for module in OWN:
        register_operator(module)
    try:
        yield
    finally:
        for module in OWN:
            forget_operator(module.__name__.rpartition(".")[2])


def net(classes=CLASSES, size=(H, W), channels=C, bits=8, seed=3):
    """Whole maps and a layer that scales their channels in integers, and a float classifier, which alone trains."""
    g, dtype = Graph("whole"), np.dtype(f"int{bits}")
    g.add_parameter("x_scale", Parameter((1,), "ones"))
    g.add_parameter("x_zero", Parameter((1,), "zeros", dtype=I32))
    x = g.add_input(INPUT, (*size, channels), I8, Quantized("x_scale", "x_zero"))
    vector, single = Parameter((channels,), "zeros"), Parameter((1,), "zeros")
    params = {
        "w": Parameter((channels,), "he", channels, dtype=dtype, quantized=Quantized("w_scale", axis=0)),
        "w_scale": replace(vector, init="ones"), "b": vector, "multiplier": vector, "x_zero": "x_zero",
        "y_zero": single, "y_scale": replace(single, init="ones"),
    }  # fmt: skip
    scaled = g.add_node("own", "scale8", (x,), {"right": 3}, params, {"y": Quantized("y_scale", "y_zero")})
    flat = g.flatten("flat", scaled)
    q = g.tensors[flat].quantized
    wide = g.add_node("wide", "widen8", (flat,), {}, {"scale": q.scale, "zero": q.zero_point})
    g.linear("fc", wide, classes)
    rng = np.random.default_rng(seed)
    most = 127 if bits == 8 else 900
    g.weights = {
        "x_scale": np.array([0.05], np.float32), "x_zero": np.array([-9], np.int32),
        "own.w": rng.integers(-most, most, channels).astype(dtype),
        "own.w_scale": rng.uniform(0.5, 2, channels) / most,
        "own.b": rng.integers(-3000, 3000, channels, np.int32),
        "own.multiplier": rng.integers(2**29, 2**30, channels, np.int32) * 8 // most,
        "own.y_scale": np.array([0.04], np.float32), "own.y_zero": np.array([11], np.int32),
    }  # fmt: skip
    return g


def samples(n=N, seed=1):
    rng = np.random.default_rng(seed)
    return rng.integers(-128, 128, (n, H, W, C), np.int8), rng.integers(0, CLASSES, n)


def by_hand(g, x):
    """The features of the classifier, from plain integers."""
    w = g.weights
    found = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        k = index[-1]
        total = (int(x[index]) - int(w["x_zero"][0])) * int(w["own.w"][k]) + int(w["own.b"][k])
        y = (total * int(w["own.multiplier"][k]) + 2**33) // 2**34 + int(w["own.y_zero"][0])
        found[index] = float(w["own.y_scale"][0]) * (max(-128, min(127, y)) - int(w["own.y_zero"][0]))
    return found.reshape(len(x), -1)
