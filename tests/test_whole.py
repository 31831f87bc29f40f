"""Quotients in normal form have the value of Python's, and equal sizes look alike."""

import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

from costmodel.formulas.whole import larger, quotient

H, K = sp.symbols("H K", positive=True, integer=True)


@given(
    steps=st.lists(st.tuples(st.integers(-9, 9), st.sampled_from((1, 2, 3, 4, 7, K))), max_size=5),
    h=st.integers(1, 300),
)
@pytest.mark.parametrize("sign", [1, -1])
def test_nested_quotients_have_the_value_of_whole_numbers(steps, sign, h):
    formula, number = sign * H, sign * h
    for add, divisor in steps:
        formula = quotient(formula + add, divisor)
        number = (number + add) // (3 if divisor is K else divisor)
    assert sp.sympify(formula).subs({H: h, K: 3}) == number


@given(a=st.integers(-30, 30), b=st.integers(-30, 30), n=st.integers(1, 9), h=st.integers(1, 99), k=st.integers(1, 99))
def test_a_quotient_of_two_letters(a, b, n, h, k):
    assert quotient(a * H + b * K + 5, n).subs({H: h, K: k}) == (a * h + b * k + 5) // n


def test_the_normal_form():
    half = quotient(H + 2 - 3, 2) + 1
    assert half == sp.ceiling(H / 2) == -quotient(-H, 2)
    assert quotient(half + 2 - 3, 2) + 1 == sp.ceiling(H / 4)
    assert quotient(6 * H, 3) == 2 * H and quotient(6 * H, 6 * H) == 1
    assert -quotient(-half, K) == sp.ceiling(H / (2 * K))
    assert quotient(quotient(H, 2), 2) == sp.floor(H / 4)


@given(a=st.integers(-9, 9), b=st.integers(-9, 9), n=st.integers(1, 5), m=st.integers(1, 5), h=st.integers(1, 60))
def test_the_larger_of_two(a, b, n, m, h):
    first, second = n * quotient(H + a, n) + b, m * quotient(H, m)
    found = larger(first, second)
    assert found.subs(H, h) == max(n * ((h + a) // n) + b, m * (h // m))
    assert larger(2 * sp.ceiling(H / 2) + 1 - H, 0) == 2 * sp.ceiling(H / 2) + 1 - H  # padding "same" at stride 2
    assert larger(first, first - 7) == first and larger(H, K) == sp.Max(H, K)
