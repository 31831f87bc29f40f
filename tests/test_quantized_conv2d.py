"""The convolution in whole numbers: against Python's integers, a published vector, and what it refuses."""

import numpy as np
import pytest
import quantized_oracles as oracle
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.graph import Graph, Parameter
from refimpl.kernels import requantize
from refimpl.ops import quantized_conv2d
from validation.instruments import drawn

I8, I16, I32 = np.int8, np.int16, np.int32


def draw(data, dtype, shape, most=None):
    """Whole numbers of all sizes, the ends of the dtype among them."""
    ends = np.iinfo(dtype)
    low, high = (ends.min, ends.max) if most is None else (-most, most)
    found = np.random.default_rng(data.draw(st.integers(0, 2**32))).integers(low, high, shape, dtype, endpoint=True)
    if data.draw(st.booleans()):
        found.reshape(-1)[:: data.draw(st.integers(1, 5))] = data.draw(st.sampled_from([low, high, 0]))
    return found


@settings(max_examples=60)
@given(data=st.data())
def test_it_is_exact(data):
    pick = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    groups, depth, each = pick(1, 3), pick(1, 3), pick(1, 3)
    r, s, stride, dilation = pick(1, 3), pick(1, 3), (pick(1, 3), pick(1, 3)), (pick(1, 2), pick(1, 2))
    pad = tuple((pick(0, 2), pick(0, 2)) for _ in range(2))
    h, w = (max(1, (k - 1) * d + 1 - sum(p)) + pick(0, 3) for k, d, p in zip((r, s), dilation, pad, strict=True))
    x = draw(data, I8, (pick(1, 2), h, w, groups * depth))
    weights = draw(data, data.draw(st.sampled_from([I8, I16])), (r, s, depth, groups * each))
    b = data.draw(st.sampled_from([None, 2**10, 2**29]))
    b = b and draw(data, I32, (groups * each,), b)
    low = pick(-128, 20)
    multiplier = draw(data, I32, groups * each, 2**30 - 1) // 2 + 3 * 2**29
    shift = draw(data, I32, groups * each, 30)
    shift = np.minimum(shift, 12) if pick(0, 1) else -abs(shift) // 2
    attrs = {
        "stride": stride, "dilation": dilation, "pad": pad, "x_zero": pick(-128, 127), "y_zero": pick(-128, 127),
        "low": low, "high": pick(low, 127), "twice": data.draw(st.booleans()),
    }  # fmt: skip
    y = quantized_conv2d.forward(x, weights, multiplier, shift, b, **attrs)
    assert y.dtype == I8
    np.testing.assert_array_equal(y, oracle.conv2d(x, weights, b, multiplier, shift, **attrs))


PUBLISHED = np.array([  # TestData/stride2pad1 of CMSIS-NN: 7×7, made with TensorFlow Lite as reference
    27, 70, -117, 45, 99, 100, 107, -24, 5, 75, 106, -19, -70, -123, 30, 55, 24, -49, 71, 36, -35, -46, -96, -102, -15,
    -127, 121, 37, -37, -10, -115, 82, 53, -60, -74, 38, -109, 4, 53, -95, 120, 5, -122, -71, -117, 6, 39, 61, 88,
], I8).reshape(1, 7, 7, 1)  # fmt: skip


def test_a_published_vector():
    w = np.array([85, 77, -30, 10, -12, 97, 34, 127, -4], I8).reshape(3, 3, 1, 1)
    b, multiplier, shift = (np.array([v], I32) for v in (4318, 1373179967, -8))
    attrs = {"stride": 2, "pad": 1, "x_zero": -128, "y_zero": -128, "twice": True}
    y = quantized_conv2d.forward(PUBLISHED, w, multiplier, shift, b, **attrs)
    expected = [-42, 3, -11, -112, -42, -38, -8, -29, -26, -19, -72, 31, -73, -68, -47, -41]
    assert y.reshape(-1).tolist() == expected


def test_eq_10_products_of_16_and_8_bits_are_summed_in_32_and_shifted():
    """arXiv 2411.04036 eq. (10): (·)·M >> k, M/2^k ≈ Δz; exact at the ends of what 32 bits hold."""
    x, w = np.full((1, 1, 1, 511), -128, I8), np.full((1, 1, 511, 2), -32767, I16)
    w[..., 1] = 32767
    total = 511 * 128 * 32767
    assert total < 2**31 <= total * 513 // 511
    multiplier, shift = requantize.fixed_each([3.5 / 127 / 2**22] * 2)
    y = quantized_conv2d.forward(x, w, multiplier, shift)
    exact = total * int(multiplier[0]) / 2.0 ** (31 - int(shift[0]))
    assert y.reshape(-1).tolist() == [round(exact), -round(exact)] and abs(exact - total * 3.5 / 127 / 2**22) < 1e-6


def test_a_depthwise_one_is_a_group_for_each_channel():
    rng = np.random.default_rng(2)
    x, w = rng.integers(-128, 128, (2, 5, 4, 6), I8), rng.integers(-128, 128, (3, 3, 1, 6), I8)
    multiplier, shift = requantize.fixed_each(rng.uniform(1e-3, 1e-1, 6))
    y = quantized_conv2d.forward(x, w, multiplier, shift, pad=1)
    for c in range(6):
        alone = quantized_conv2d.forward(
            x[..., c : c + 1], np.ascontiguousarray(w[..., c : c + 1]), multiplier[c : c + 1], shift[c : c + 1], pad=1
        )
        np.testing.assert_array_equal(y[..., c : c + 1], alone)


def test_it_is_counted():
    for seed in range(100, 130):
        found = drawn.compare_pass("quantized_conv2d.forward", seed)
        assert found.ok, str(found)


def test_other_dtypes_are_refused():
    g = Graph("net")
    x = g.add_input("input", (4, 4, 2), "int8")
    params = {n: Parameter((3,), "zeros") for n in ("multiplier", "shift")}
    with pytest.raises(ValueError, match=r"^node c \(quantized_conv2d\): w must be of int8 or int16, got int32$"):
        g.add_node("c", "quantized_conv2d", (x,), {}, {"w": Parameter((3, 3, 2, 3), "zeros", dtype=I32), **params})
