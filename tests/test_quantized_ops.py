"""The other operators in whole numbers, against Python's own integers."""

import math

import numpy as np
import pytest
import quantized_oracles as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from test_quantized_conv2d import draw

import refimpl as ri
from refimpl.graph import Graph, Parameter
from refimpl.kernels import requantize
from refimpl.kernels.passes import ShapeError
from refimpl.ops import (
    dequantize,
    quantize,
    quantized_add,
    quantized_avg_pool,
    quantized_concat,
    quantized_global_avg_pool,
    quantized_linear,
    quantized_max_pool,
)
from refimpl.training.runner import Runner
from refimpl.training.state import initial
from validation.instruments import drawn, drawn_passes

I8, I16, I32 = np.int8, np.int16, np.int32
NAMES = [
    name for name in drawn_passes.passes()
    if name.startswith("quantized_") and name.split(".")[0] not in ("quantized_conv2d", "quantized_perturbation")
] + ["quantize.forward", "dequantize.forward"]  # fmt: skip


def pair(data, least=2.0**-12, most=8.0):
    """Multiplier and shift of a factor."""
    return requantize.fixed(data.draw(st.floats(least, most)))


@settings(max_examples=60)
@given(data=st.data(), n=st.integers(1, 3), d=st.integers(1, 9), k=st.integers(1, 4), twice=st.booleans())
def test_a_linear_layer_is_exact(data, n, d, k, twice):
    x, w = draw(data, I8, (n, d)), draw(data, data.draw(st.sampled_from([I8, I16])), (d, k))
    b = data.draw(st.sampled_from([None, 2**29]))
    b = b and draw(data, I32, (k,), b)
    zero, y_zero, low = (data.draw(st.integers(-128, 127)) for _ in range(3))
    multiplier, shift = (np.array(column, I32) for column in zip(*(pair(data) for _ in range(k)), strict=True))
    found = quantized_linear.accumulate(x, w, b, x_zero=zero)
    expected = oracle.sums(x, w, b, zero)
    assert found.dtype == I32 and found.tolist() == expected.tolist()
    y = quantized_linear.forward(x, w, multiplier, shift, b, x_zero=zero, y_zero=y_zero, low=low, twice=twice)
    assert y.dtype == I8
    for (i, j), value in np.ndenumerate(y):
        whole = oracle.requantized(expected[i, j], multiplier[j], shift[j], twice) + y_zero
        assert value == oracle.clip(whole, low, 127)


@settings(max_examples=60)
@given(data=st.data(), e=st.integers(1, 30), twice=st.booleans())
def test_a_sum_is_exact_and_near_the_real_one(data, e, twice):
    a, b = draw(data, I8, (1, e)), draw(data, I8, (1, e))
    scales = [data.draw(st.floats(1e-3, 10)) for _ in range(2)]
    scales.append(max(scales) * data.draw(st.floats(0.01, 10)))
    zeros = [data.draw(st.integers(-128, 127)) for _ in range(3)]
    found = quantized_add.settings(*scales)
    given_ = found | {f"{name}_zero": zero for name, zero in zip("aby", zeros, strict=True)}
    y = quantized_add.forward(a, b, **given_, low=-120, high=100, twice=twice)
    pairs = [(found[f"{name}_multiplier"], found[f"{name}_shift"]) for name in "aby"]
    for i in range(e):
        parts = [
            oracle.requantized((int(v[0, i]) - zero) * 2**20, *given_pair, twice)
            for v, zero, given_pair in zip((a, b), zeros, pairs, strict=False)
        ]
        whole = oracle.requantized(sum(parts), *pairs[2], twice) + zeros[2]
        assert y[0, i] == oracle.clip(whole, -120, 100)
        real = (scales[0] * (int(a[0, i]) - zeros[0]) + scales[1] * (int(b[0, i]) - zeros[1])) / scales[2] + zeros[2]
        lost = found["y_multiplier"] * 2.0 ** (found["y_shift"] - 31) + 1e-6 * abs(real)  # of what both branches round
        assert abs(y[0, i] - min(max(real, -120), 100)) <= (0.75 if twice else 0.5) + lost


@settings(max_examples=40)
@given(data=st.data(), n=st.integers(1, 3), widths=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_each_input_of_a_concatenation_is_requantized(data, n, widths):
    xs = [draw(data, I8, (n, width)) for width in widths]
    twice, y_zero = data.draw(st.booleans()), data.draw(st.integers(-128, 127))
    zeros = draw(data, I32, (sum(widths),), 128)
    multiplier, shift = (np.array(c, I32) for c in zip(*(pair(data) for _ in range(sum(widths))), strict=True))
    y, start = np.zeros((n, sum(widths)), I8), 0
    for x, width in zip(xs, widths, strict=True):
        y = quantized_concat.forward(y, x, zeros, multiplier, shift, start=start, y_zero=y_zero, low=-100, twice=twice)
        start += width
    for (i, k), value in np.ndenumerate(np.concatenate(xs, 1)):
        whole = oracle.requantized(int(value) - int(zeros[k]), multiplier[k], shift[k], twice) + y_zero
        assert y[i, k] == oracle.clip(whole, -100, 127)


def test_a_concatenation_is_a_node_with_a_factor_for_each_channel():
    g = Graph("net")
    names = tuple(g.add_input(f"x{i}", (3, 2, width), "int8") for i, width in enumerate((2, 3)))
    params = {name: Parameter((5,), "zeros") for name in ("x_zero", "multiplier", "shift")}
    g.add_node("c", "quantized_concat", names, {"y_zero": 4}, params)
    assert g.shape("c") == (1, 3, 2, 5) and g.tensors["c"].dtype == I8
    g.weights = {"c.x_zero": np.array([1, 1, 0, 0, 0], I32), "c.shift": np.array([1, 1, 0, 0, 0], I32)}
    g.weights["c.multiplier"] = np.full(5, 2**30, I32)
    rng = np.random.default_rng(0)
    first, second = (rng.integers(-128, 128, (2, 3, 2, width), I8) for width in (2, 3))
    expected = np.concatenate([first.astype(int) - 1, (second.astype(int) + 1) >> 1], -1) + 4
    for backend in ("reference", "fast"):
        runner = Runner(p := ri.compile(g, None, 2, backend=backend), initial(p, 0))
        runner.write("x0", 2, first)
        runner.write("x1", 2, second)
        runner.run("forward", 2)
        np.testing.assert_array_equal(runner.read("output", 2), expected.clip(-128, 127))


@settings(max_examples=40)
@given(data=st.data())
def test_pools_are_exact(data):
    pick = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    window, stride = (pick(1, 3), pick(1, 3)), (pick(1, 3), pick(1, 3))
    pad = tuple((pick(0, k - 1), pick(0, k - 1)) for k in window)
    overhang = tuple(pick(0, after) for _, after in pad)
    size = [max(1, window[i] - sum(pad[i])) + pick(0, 3) for i in range(2)]
    x = draw(data, I8, (pick(1, 2), *size, pick(1, 2)))
    zero, low = pick(-128, 127), pick(-128, 10)
    attrs = {"window": window, "stride": stride, "pad": pad, "low": low, "high": 100}
    largest = quantized_max_pool.forward(x, **attrs)
    means = {
        inside: quantized_avg_pool.forward(x, **attrs, x_zero=zero, count_include_pad=not inside, overhang=overhang)
        for inside in (False, True)
    }
    for at, taps in oracle.windows(x, window, stride, pad):
        assert largest[at] == oracle.clip(max(taps), low, 100)
        assert means[True][at] == oracle.clip(oracle.half_away(oracle.Fraction(sum(taps), len(taps))), low, 100)
    for at, taps in oracle.windows(x, window, stride, pad, zero, overhang):
        assert means[False][at] == oracle.clip(oracle.half_away(oracle.Fraction(sum(taps), len(taps))), low, 100)


@settings(max_examples=40)
@given(data=st.data(), h=st.integers(1, 4), w=st.integers(1, 4), twice=st.booleans())
def test_a_mean_of_maps_is_exact(data, h, w, twice):
    x, (multiplier, shift) = draw(data, I8, (2, h, w, 2)), pair(data)
    zero, y_zero = (data.draw(st.integers(-128, 127)) for _ in range(2))
    attrs = {"x_zero": zero, "y_zero": y_zero, "multiplier": multiplier, "shift": shift, "twice": twice, "low": -99}
    y = quantized_global_avg_pool.forward(x, **attrs, pixels=h * w)
    for (n, c), value in np.ndenumerate(y):
        total = sum(int(v) - zero for v in x[n, :, :, c].reshape(-1))
        assert value == oracle.clip(oracle.requantized(total, multiplier, shift, twice) + y_zero, -99, 127)


def test_a_mean_of_other_maps_is_refused():
    with pytest.raises(ShapeError, match="^x has 2x3 pixels, but the factor was made for 4: quantize the net for maps"):
        quantized_global_avg_pool.forward(np.zeros((1, 2, 3, 1), I8), pixels=4)


@given(data=st.data(), zero=st.integers(-128, 127), dtype=st.sampled_from([np.float32, np.float64]))
def test_real_numbers_become_the_nearest_whole_ones_and_come_back(data, zero, dtype):
    values = data.draw(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=9))
    scale = dtype(data.draw(st.floats(2.0**-7, 2.0**7, width=32)))
    x = np.array([values], dtype)
    q = quantize.forward(x, np.array([scale]), zero=zero)
    assert q.dtype == I8
    for value, whole in zip(x[0], q[0], strict=True):
        assert whole == oracle.clip(round(float(dtype(value / scale))) + zero, -128, 127)
    back = dequantize.forward(q, np.full(len(values), scale, dtype), zero=zero)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back[0], [scale * dtype(int(v) - zero) for v in q[0]])


def test_what_is_no_number_and_what_is_infinite_have_their_places():
    x = np.array([[math.nan, math.inf, -math.inf, 0.5, 1.5, -0.5]], np.float32)
    assert quantize.forward(x, np.ones(1, np.float32)).tolist() == [[127, 127, -128, 0, 2, 0]]
    assert quantize.forward(x, np.ones(1, np.float32), zero=-128)[0, :3].tolist() == [127, 127, -128]


def test_sums_of_32_bits_have_a_scale_for_each_channel():
    x, scale = np.array([[1000, -(2**31)], [3, 2**31 - 1]], I32), np.array([0.5, 2.0])
    assert dequantize.forward(x, scale).tolist() == [[500, -(2.0**32)], [1.5, 2.0**32 - 2]]


@pytest.mark.parametrize("name", NAMES)
def test_each_is_counted(name):
    for seed in range(100, 125):
        found = drawn.compare_pass(name, seed)
        assert found.ok, str(found)
