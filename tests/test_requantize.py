"""Requantization against plain Python integers, and published vectors."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.kernels import requantize
from refimpl.kernels.passes import declare
from validation.instruments.counting import count

LOW, HIGH = -(2**31), 2**31 - 1
SHAPES = {"y": "int64: E", "x": "int32: E", "multiplier": "int32: E", "shift": "int32: E"}
ENDS = [LOW, LOW + 1, -(2**30) - 1, -(2**30), -3, -2, -1, 0, 1, 2, 3, 2**30, HIGH - 1, HIGH]
values = st.one_of(st.integers(LOW, HIGH), st.sampled_from(ENDS), st.integers(-(2**12), 2**12))
multipliers = st.one_of(st.integers(2**30, HIGH), st.sampled_from([2**30, 2**30 + 1, 3 * 2**29, HIGH]))
shifts = st.integers(-30, 30)


@declare(SHAPES, items="E", writes="y")
def each(t, y, x, multiplier, shift, twice=False):
    """Y (E,), each of x (E,) requantized."""
    y[t] = requantize.requantized(x[t], multiplier[t], shift[t], twice)


HALF = Fraction(1, 2)


def by_hand(value, multiplier, shift, twice):
    """Both roundings in Python's integers and fractions."""
    if not twice:
        return math.floor(Fraction(value * multiplier, 2 ** (31 - shift)) + HALF)
    value = min(max(value * 2 ** max(shift, 0), LOW), HIGH)
    high = min(math.floor(Fraction(value * multiplier, 2**31) + HALF), HIGH)
    if shift >= 0:
        return high
    away = math.floor(Fraction(abs(high), 2**-shift) + HALF)
    return -away if high < 0 else away


@given(value=values, multiplier=multipliers, shift=shifts)
def test_both_roundings_are_exact(value, multiplier, shift):
    for twice, helper in ((False, requantize.single), (True, requantize.double)):
        expected = by_hand(value, multiplier, shift, twice)
        assert int(helper(np.int32(value), np.int32(multiplier), np.int32(shift))) == expected
        assert int(helper(value, multiplier, shift)) == expected


@given(st.lists(st.tuples(values, multipliers, shifts), min_size=1, max_size=20))
def test_compiled_ones_are_the_same(cases):
    x, m, s = (np.array(column, np.int32) for column in zip(*cases, strict=True))
    for twice in (False, True):
        assert each(x, m, s, twice=twice).tolist() == [by_hand(*case, twice) for case in cases]


def test_every_tie_goes_where_it_is_said():
    half = (2**30, 0)  # the factor 1/2
    assert [requantize.single(v, *half) for v in (-3, -1, 1, 3)] == [-1, 0, 1, 2]
    assert [requantize.double(v, *half) for v in (-3, -1, 1, 3)] == [-1, 0, 1, 2]
    quarter = (2**30, -1)  # the high multiply halves, the shift rounds: −2 is −1 and then −0.5
    assert [requantize.single(v, *quarter) for v in (-6, -2, 2, 6)] == [-1, 0, 1, 2]
    assert [requantize.double(v, *quarter) for v in (-6, -2, 2, 6)] == [-2, -1, 1, 2]


def test_the_published_vector_tells_the_two_apart():
    """TensorFlow #25087."""
    assert requantize.double(7984, 1583594044, -9) == 12
    assert requantize.single(7984, 1583594044, -9) == 11


@pytest.mark.parametrize(
    "factor, pair",
    [
        (0.25, (1073741824, -1)),
        (0.50 - 5e-9, (2147483627, -1)),
        (0.50 - 1e-10, (1073741824, 0)),
        (0.75, (1610612736, 0)),
        (1 - 1e-9, (2147483646, 0)),
        (1 + 1e-11, (1073741824, 1)),
        (1.75, (1879048192, 1)),
        (2 - 1e-9, (2147483647, 1)),
        (2 - 1e-11, (1073741824, 2)),
        (2.0**-31, (1073741824, -30)),
    ],
)
def test_factors_of_tensorflow_lite(factor, pair):
    """The values of tensorflow/lite/kernels/internal/quantization_util_test.cc."""
    assert requantize.fixed(factor) == pair


@pytest.mark.parametrize(
    "value, factor, expected",
    [(0, 0.1, 0), (10000, 0.00097656, 10), (-10000, 0.00097656, -10), (LOW, 0.00001, -21475), (HIGH, 0.00001, 21475)],
)
def test_products_of_tensorflow_lite(value, factor, expected):
    """The values of the same file, which hold for both roundings."""
    for helper in (requantize.single, requantize.double):
        assert helper(value, *requantize.fixed(factor)) == expected


@given(st.floats(2.0**-31, 2.0**30 * (1 - 2**-40)))
def test_a_factor_comes_back_within_half_of_the_last_bit(factor):
    if factor >= 2.0**30 * (1 - 2**-33):
        return
    multiplier, shift = requantize.fixed(factor)
    assert 2**30 <= multiplier <= HIGH and abs(shift) <= 30
    assert abs(requantize.factor(multiplier, shift) / factor - 1) <= 2.0**-31
    assert requantize.fixed(requantize.factor(multiplier, shift)) == (multiplier, shift)


def test_several_factors_are_int32_arrays():
    multiplier, shift = requantize.fixed_each([0.25, 1.75])
    assert multiplier.dtype == shift.dtype == np.int32
    assert multiplier.tolist() == [1073741824, 1879048192] and shift.tolist() == [-1, 1]
    assert [a.shape for a in requantize.fixed_each([])] == [(0,), (0,)]


@pytest.mark.parametrize(
    "factor, message",
    [
        (0.0, "^a factor of requantization must be above 0 and finite, got 0.0$"),
        (-0.5, "above 0 and finite, got -0.5$"),
        (math.inf, "above 0 and finite, got inf$"),
        (math.nan, "above 0 and finite, got nan$"),
        (2.0**30, r"^a factor of 1.07e\+09 would be shifted by 31 bits: it must be from 4.66e-10 to below 1.07e\+09$"),
        (2.0**-32, "^a factor of 2.33e-10 would be shifted by -31 bits: it must be from 4.66e-10 to below"),
    ],
)
def test_what_needs_a_shift_of_31_is_refused(factor, message):
    with pytest.raises(ValueError, match=message):
        requantize.fixed(factor)


def test_what_they_count():
    once, twice = (count(each, {"E": 1}, {"twice": t}, every_item=True) for t in (False, True))
    assert once == {"load": 3, "store": 1, "imul": 1, "iadd": 3, "shift": 2}
    assert twice == {
        "load": 3, "store": 1, "imul": 1, "iadd": 5, "shift": 5, "cmp": 7, "logic": 1,
    }  # fmt: skip
