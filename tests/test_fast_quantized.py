"""Tuned kernels in whole numbers: the same numbers as the reference's, and what they say that they execute."""

import numpy as np
import pytest

import refimpl as ri
from refimpl.backends.cpu import dequantize, quantized_add, quantized_pools, quantized_taps
from refimpl.backends.cpu import quantized_conv2d as fast
from refimpl.backends.cpu.quantized_product import COLUMNS, NARROW_ROWS, each
from refimpl.compiler.executed import executed
from refimpl.graph import Graph, Parameter
from refimpl.ops import quantized_add as op
from validation.instruments import executing

TUNED = (
    fast.dense,
    fast.depthwise,
    quantized_taps.forward,
    quantized_add.forward,
    quantized_pools.maximum,
    quantized_pools.mean,
)
KINDS = ("dense", "in groups", "depthwise", "pointwise")


def drawn(rng, shape, dtype, most=None):
    ends = np.iinfo(dtype)
    found = rng.integers(*((ends.min, ends.max) if most is None else (-most, most)), shape, endpoint=True)
    return found.astype(dtype)


def convolution(rng, kind, dtype, large=False):
    """A net of one convolution with drawn weights, and samples."""
    pick = lambda low, high: int(rng.integers(low, high + 1))  # noqa: E731
    g = 1 if kind in ("dense", "pointwise") else pick(2, 3)
    c, k = (g * pick(1, 70 if large else 8), g * pick(1, 90 if large else 40))
    if kind == "depthwise":
        g = c = k = pick(2, 40)
    r, s, stride, dilation, pad = (
        (1, 1, 1, 1, 0) if kind == "pointwise" else (pick(1, 3), pick(1, 3), pick(1, 2), pick(1, 2), pick(0, 2))
    )
    if kind == "pointwise" and pick(0, 3):
        c = 4 * c  # whole words, which are read as they lie
    net = Graph("one layer")
    net.add_input("input", (pick(5, 12), pick(5, 12), c), np.dtype(np.int8))
    attrs = {
        "stride": stride, "dilation": dilation, "pad": pad, "x_zero": pick(-128, 127), "y_zero": pick(-20, 20),
        "low": pick(-128, 0), "high": pick(1, 127), "twice": bool(pick(0, 1)),
    }  # fmt: skip
    _add(net, "quantized_conv2d", rng, attrs, (r, s, c // g, k), k, dtype)
    n = pick(1, 6)
    return net, drawn(rng, (n, *net.tensors["input"].shape[1:]), np.int8)


def linear(rng, dtype, sums):
    """A net of one linear layer, of whose two outputs one is read, and samples."""
    pick = lambda low, high: int(rng.integers(low, high + 1))  # noqa: E731
    d, k, rows = pick(1, 300), pick(1, 80), pick(0, 3)
    net = Graph("one layer")
    net.add_input("input", (rows, d) if rows else (d,), np.dtype(np.int8))
    attrs = {"x_zero": pick(-128, 127), "y_zero": pick(-20, 20), "twice": bool(pick(0, 1))}
    _add(net, "quantized_linear", rng, attrs, (d, k), k, dtype)
    if sums:
        net.outputs = ("layer.sums",)
    return net, drawn(rng, (pick(1, 9), *net.tensors["input"].shape[1:]), np.int8)


def _add(net, operator, rng, attrs, shape, k, dtype):
    params = {"w": Parameter(shape, "zeros", dtype=np.dtype(dtype))}
    of = {"multiplier": drawn(rng, k, np.int32, 2**29) + 3 * 2**29, "shift": rng.integers(-14, -4, k)}
    if rng.random() < 0.8:
        of["b"] = drawn(rng, k, np.int32, 10_000)
    params |= {name: Parameter((k,), "zeros", dtype=np.dtype(np.int32)) for name in of}
    net.add_node("layer", operator, ("input",), attrs, params)
    net.weights = {f"layer.{name}": a.astype(np.int32) for name, a in of.items()}
    net.weights["layer.w"] = drawn(rng, shape, dtype, 127 if dtype is np.int8 else 3000)


def assert_the_same(net, x, threads=2):
    found = {}
    for backend in ("reference", "fast"):
        program = ri.compile(net, None, len(x), backend=backend, threads=threads)
        found[backend] = ri.Trainer(program).predict(x)
    assert found["fast"].dtype == found["reference"].dtype
    np.testing.assert_array_equal(found["fast"], found["reference"])
    for n in {len(x), max(1, len(x) - 1)}:
        (launch,) = program.order
        assert launch.function in TUNED
        assert executing.launched(launch, n) == executed(launch, n, None)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_convolutions(kind, dtype, seed):
    rng = np.random.default_rng([seed, KINDS.index(kind), np.dtype(dtype).itemsize])
    assert_the_same(*convolution(rng, kind, dtype))


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("sums", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_linear_layers(sums, dtype, seed):
    assert_the_same(*linear(np.random.default_rng([seed, sums]), dtype, sums))


@pytest.mark.parametrize("seed", range(6))
def test_sums(seed):
    rng = np.random.default_rng(seed)
    pick = lambda low, high: int(rng.integers(low, high + 1))  # noqa: E731
    net = Graph("one sum")
    net.add_input("input", (pick(1, 9), pick(1, 9), pick(1, 40)), np.dtype(np.int8))
    attrs = op.settings(*rng.uniform(0.5, 2, 3)) | {f"{name}_zero": pick(-128, 127) for name in "aby"}
    net.add_node("layer", "quantized_add", ("input", "input"), attrs | {"low": -100, "twice": bool(pick(0, 1))}, {})
    assert_the_same(net, drawn(rng, (pick(1, 9), *net.tensors["input"].shape[1:]), np.int8))


@pytest.mark.parametrize("scales", [1, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_whole_numbers_are_made_real(scales, dtype):
    rng = np.random.default_rng(scales)
    net = Graph("dequantize")
    net.add_input("input", (7, 5), np.dtype(np.int8))
    net.add_node("layer", "dequantize", ("input",), {"zero": -3}, {"scale": Parameter((scales,), "zeros")})
    net.weights = {"layer.scale": rng.uniform(0.01, 1, scales).astype(np.float32)}
    x, found = drawn(rng, (4, 7, 5), np.int8), []
    for backend in ("reference", "fast"):
        program = ri.compile(net, None, len(x), backend=backend, threads=2, dtype=dtype)
        found.append(ri.Trainer(program).predict(x))
    np.testing.assert_array_equal(*found)
    (launch,) = program.order
    assert launch.function is dequantize.forward and found[0].dtype == dtype
    assert executing.launched(launch, 3) == executed(launch, 3, None)


@pytest.mark.parametrize("shift", [-3, 0, 4])
def test_sums_by_any_factors(shift):
    """Factors that `settings` never gives take another way."""
    rng = np.random.default_rng(9)
    net = Graph("one sum")
    net.add_input("input", (3, 5, 7), np.dtype(np.int8))
    attrs = {f"{name}_multiplier": (1 << 30) + 12345 for name in "aby"} | {"a_shift": shift, "y_shift": -18 - shift}
    net.add_node("layer", "quantized_add", ("input", "input"), attrs, {})
    assert_the_same(net, drawn(rng, (4, 3, 5, 7), np.int8))


@pytest.mark.parametrize("seed", range(8))
def test_poolings(seed):
    rng = np.random.default_rng(seed)
    pick = lambda low, high: int(rng.integers(low, high + 1))  # noqa: E731
    net = Graph("one pooling")
    net.add_input("input", (pick(3, 9), pick(3, 9), pick(1, 40)), np.dtype(np.int8))
    if seed % 2:
        attrs = {"window": pick(2, 3), "stride": pick(1, 2), "pad": pick(0, 1), "low": -90, "high": 100}
        net.add_node("layer", "quantized_max_pool", ("input",), attrs, {})
    else:
        attrs = {"multiplier": pick(2**30, 2**31 - 1), "shift": -4, "x_zero": pick(-128, 127), "y_zero": pick(-9, 9)}
        net.add_node("layer", "quantized_global_avg_pool", ("input",), attrs | {"twice": bool(pick(0, 1))}, {})
    assert_the_same(net, drawn(rng, (pick(1, 9), *net.tensors["input"].shape[1:]), np.int8))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_real_numbers_are_made_whole(dtype):
    rng = np.random.default_rng(3)
    net = Graph("quantize")
    net.add_input("input", (7, 5))
    net.add_node("layer", "quantize", ("input",), {"zero": -3}, {"scale": Parameter((1,), "ones")})
    x = np.concatenate([rng.normal(size=(200, 7, 5)) * 100, np.arange(-70, 70).reshape(4, 7, 5) / 2])
    x[0, 0] = [np.inf, -np.inf, 1e30, -0.0, 0.5]
    found = []
    for backend in ("reference", "fast"):
        program = ri.compile(net, None, len(x), backend=backend, threads=2, dtype=dtype)
        runner = ri.Trainer(program).evaluator.runner
        runner.host("input", len(x))[...] = x
        runner.run("forward", len(x))
        found.append(runner.read("output", len(x)).copy())
    assert found[0].dtype == np.int8 and np.unique(found[0]).size > 100
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(
    ("size", "kernel", "attrs", "tuned"),
    [
        ((5, 150, 20), (3, 3), {"pad": 1}, True),  # a row is more than one strip
        ((6, 70, 17), (7, 7), {"pad": 3}, True),
        ((9, 30, 40), (5, 5), {"stride": 2, "pad": 2}, True),
        ((3, 9, 33), (5, 3), {"pad": (3, 1)}, True),  # rows of outputs that no tap reaches
        ((4, 40, 16), (2, 9), {"dilation": (1, 4), "pad": 4}, True),
        ((3, 60, 16), (3, 4), {"dilation": (1, 42), "pad": (1, 63)}, False),  # too wide for the stack
        ((18, 18, 9), (17, 17), {"pad": 8}, False),  # too many weights for it
    ],
)
def test_depthwise_kernels_of_any_size(size, kernel, attrs, tuned):
    rng = np.random.default_rng(size)
    net = Graph("one layer")
    net.add_input("input", size, np.dtype(np.int8))
    c = size[2]
    attrs = attrs | {"x_zero": -77, "y_zero": 5, "low": -120, "high": 110, "twice": False}
    _add(net, "quantized_conv2d", rng, attrs, (*kernel, 1, c), c, np.int8)
    net.weights["layer.shift"][::2] = 2  # to the left, as no net has it
    x = drawn(rng, (2, *size), np.int8)
    assert_the_same(net, x)
    (launch,) = ri.compile(net, None, 2, backend="fast", threads=2).order
    if each(np.int8) == 4:
        assert launch.function is (quantized_taps.forward if tuned else fast.depthwise)


def test_many_channels_and_rows():
    for seed, kind in enumerate(("dense", "pointwise", "in groups")):
        net, x = convolution(np.random.default_rng([seed, 9]), kind, np.int8, large=True)
        assert_the_same(net, x)


def test_few_rows_are_shared_by_panels():
    """A linear layer on one row: one tile, whose panels are items of their own."""
    sizes = dict.fromkeys("NHWPQRSG", 1) | {"C": 64, "K": 10 * COLUMNS}
    assert fast.cut(sizes, np.int8)[1] < fast.panels_of(sizes) == 10
    assert fast.cut(sizes | {"N": 4096}, np.int8)[1] == 10
    assert fast.cut(sizes | {"R": 9, "S": 9, "C": 999}, np.int8)[0] == NARROW_ROWS


def test_one_thread_gives_the_same():
    rng = np.random.default_rng(5)
    net, x = convolution(rng, "dense", np.int8)
    assert_the_same(net, x, threads=1)
