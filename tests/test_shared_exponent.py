"""Whole numbers that share an exponent: shifts, roundings and sums, against fractions."""

from fractions import Fraction

import niti_oracle
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.kernels import shared_exponent as kernels
from refimpl.kernels.passes import ShapeError
from refimpl.kernels.shared_exponent import ROUNDINGS, aligned, check_terms, length, shifted
from refimpl.ops import shared_exponent as op

INT32 = st.integers(-(2**31) + 1, 2**31 - 1)
ONE = np.ones(1, np.int32)


@given(st.integers(0, 2**31 - 1))
def test_the_bits_of_a_number(value):
    assert length(np.int32(value)) == value.bit_length()


@given(INT32, st.integers(0, 31), st.integers(0, 2**32 - 1), st.sampled_from(list(ROUNDINGS)))
def test_a_shift_rounds_to_a_neighbour_as_the_statement_says(value, shift, word, how):
    found = shifted(np.int64(value), shift, np.int64(word), **ROUNDINGS[how])
    assert found == niti_oracle.rounded(value, shift, how, word)
    assert (
        abs(found - Fraction(value, 2**shift)) < 1
        and shifted(np.int64(-value), shift, word, **ROUNDINGS[how]) == -found
    )


@pytest.mark.parametrize("shift", [1, 2, 5, 8])
def test_stochastic_rounding_takes_as_many_words_up_as_the_number_lies_above(shift):
    for low in range(2**shift):
        ups = [shifted(np.int64(3 * 2**shift + low), shift, np.int64(w), True, False) - 3 for w in range(2**shift)]
        assert sum(ups) == low


@pytest.mark.parametrize("shift", [2, 4, 6, 8])
def test_pseudo_stochastic_rounding_compares_the_two_halves_of_what_is_cut_off(shift):
    """Nothing is drawn, and over all numbers as many are rounded up as lie above, but for those with equal halves."""
    half = shift // 2
    ups = [int(shifted(np.int64(2**shift + low), shift, 0, False, True)) - 1 for low in range(2**shift)]
    assert ups == [int(low >> half > low & (2**half - 1)) for low in range(2**shift)]
    assert sum(ups) == 2**half * (2**half - 1) // 2
    exact, mean = sum(range(2**shift)) / 2**shift, sum(ups)
    assert exact - mean == (2**half - 1) / 2


def test_pseudo_stochastic_rounding_of_an_odd_shift():
    """Of three bits the higher two are compared with the lower one and a 0: 000 to 111."""
    ups = [int(shifted(np.int64(8 + low), 3, 0, False, True)) - 1 for low in range(8)]
    assert ups == [0, 0, 1, 0, 1, 0, 1, 1]


def test_nearest_takes_a_half_away_from_zero():
    found = [int(shifted(np.int64(v), 1, 0, False, False)) for v in (-3, -2, -1, 0, 1, 2, 3)]
    assert found == [-2, -1, -1, 0, 1, 1, 2]


@given(st.integers(-32767, 32767), st.integers(-70, 70), st.integers(-70, 70))
def test_a_number_in_another_exponent(value, exponent, wanted):
    exact = abs(value) * Fraction(2) ** max(-31, min(31, exponent - wanted))
    near = min(int(exact + Fraction(1, 2)), 2**30)
    assert aligned(np.int16(value), exponent, wanted) == (near if value > 0 else -near)


@given(st.lists(st.one_of(INT32, st.integers(-300, 300), st.just(0)), min_size=1, max_size=12), st.integers(-20, 20))
def test_range_by_the_highest_bit_brings_sums_to_eight_bits(values, exponent):
    """arXiv 2009.13108: the largest has 7 bits then, unless it had fewer, and the exponent tells by how much."""
    v, first = np.array([values], np.int32), np.array([exponent], np.int32)
    shift, made = op.settle(op.most(v), first)
    q = op.narrow(v, shift)
    wanted, e = niti_oracle.narrowed(v.astype(object), exponent)
    assert q.dtype == np.int8 and q.tolist() == wanted.tolist() and made[0] == e == exponent + shift[0]
    largest = max(map(abs, values))
    assert shift[0] == max(0, largest.bit_length() - 7) and (shift[0] == 0 or np.abs(q).max() >= 64)


def test_an_exponent_is_the_sum_of_those_that_are_given():
    one, two = np.array([3], np.int32), np.array([-5], np.int32)
    most = np.array([1000, 3], np.int32)
    for given_ones, point, wanted in (((), 0, 3), ((one,), 0, 6), ((one, two), 4, -3)):
        shift, exponent = op.settle(most, *given_ones, point=point)
        assert (shift[0], exponent[0]) == (3, wanted)


@given(st.integers(0, 2**32 - 1))
def test_a_sum_of_two_tensors_in_the_smaller_exponent(seed):
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(-127, 128, (2, 3)).astype(np.int8) for _ in range(2))
    a_e, b_e = (rng.integers(-25, 25, 1).astype(np.int32) for _ in range(2))
    base = op.common(a_e, b_e)
    wanted, e = niti_oracle.add(a.astype(object), int(a_e[0]), b.astype(object), int(b_e[0]))
    assert base[0] == e and op.align(a, b, a_e, b_e, base).tolist() == wanted.tolist()


def test_words_are_drawn_anew_for_each_step_and_stream():
    v, shift = np.full((1, 64), 1000, np.int32), np.array([5], np.int32)
    settings = {"stochastic": True, "seed": np.array([3])}
    draws = [op.narrow(v, shift, step=np.array([i]), stream=s, **settings) for i, s in ((1, 0), (2, 0), (1, 1))]
    assert all((d != draws[0]).any() for d in draws[1:]) and set(np.unique(draws)) == {31, 32}
    assert np.array_equal(op.narrow(v, shift, step=np.array([1]), stream=0, **settings), draws[0])


def test_a_sum_that_may_overflow_is_refused_with_the_most_that_fits():
    check_terms(133_144, "D")
    assert 133_144 * 127**2 < 2**31 <= 133_145 * 127**2
    with pytest.raises(ShapeError, match=r"^a sum of 133145 .* may overflow 32 bits: D must be at most 133144$"):
        check_terms(133_145, "D")
    with pytest.raises(ShapeError, match=r"at most 66572$"):
        check_terms(66_573, "D", kernels.LIMIT)
