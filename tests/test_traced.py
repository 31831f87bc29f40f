"""Traced numbers have the value of plain ones, their formula, and note what a value decided."""

import operator

import pytest
import sympy as sp

from costmodel.formulas.whole import quotient
from refimpl.kernels import traced
from refimpl.kernels.traced import Trace, larger, nearest, part


def trace():
    return Trace(quotient, lambda function, arguments: sp.Function(function.__name__)(*arguments))


N, K = sp.symbols("N K", positive=True, integer=True)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "floordiv", "mod"])
@pytest.mark.parametrize("reflected", [False, True])
def test_arithmetic(name, reflected):
    t, of = trace(), getattr(operator, name)
    n = t.number(17, N)
    found = of(5, n) if reflected else of(n, 5)
    assert found.value == (of(5, 17) if reflected else of(17, 5))
    assert found.expression.subs(N, 17) == sp.sympify(of(sp.Integer(5), 17) if reflected else of(sp.Integer(17), 5))
    assert not t.conditions


def test_a_formula_without_letters_is_a_plain_number():
    n = trace().number(6, N)
    assert (n - n, n // n, (6 * n) % n) == (0, 1, 0)
    assert all(type(v) is int for v in (n - n, n // n, (6 * n) % n))


def test_comparisons_are_decided_by_the_value_and_noted():
    t = trace()
    n, k = t.number(4, N), t.number(9, K)
    assert n < k and not n >= k and n != k and 3 < n <= 4 and max(n, k) is k
    assert t.conditions == [
        ("lt", N, K), ("lt", N, K), ("ne", N, K), ("gt", N, 3), ("le", N, 4), ("gt", K, N),
    ]  # fmt: skip
    t.conditions.clear()
    assert n == t.number(4, N) and not n < t.number(4, N) and n >= t.number(4, N)  # the same formula
    assert n != None and n != "N" and n  # noqa: E711
    assert t.conditions == [("ne", N, 0)]


def test_a_formula_is_not_lost_in_a_conversion():
    n = trace().number(4, N)
    for convert in (int, float, round, range):
        with pytest.raises(TypeError):
            convert(n)


def test_named_functions():
    t = trace()
    k, keep = t.number(10, K), t.number(0.25, sp.Symbol("keep"))
    found = part(keep, k)
    assert found.value == part(0.25, 10) == 2
    assert str(found.expression) == "larger(1, nearest(K*keep))"
    assert (larger(2, 7), nearest(2.5), nearest(3.5)) == (7, 2, 4)
    assert traced.value(found) == 2 and traced.expression(3) == 3
