"""Exact quotients of whole numbers, in a normal form: one bracket for nested ones, so that equal sizes look alike."""

import math

import sympy as sp


def quotient(a, b) -> sp.Expr:
    """⌊a/b⌋ in a normal form: whole terms in front, one bracket for nested ones, ⌈m/n⌉ for ⌊(m + n − 1)/n⌋."""
    return floor(sp.expand(sp.sympify(a) / b))


def floor(x: sp.Expr) -> sp.Expr:
    """⌊x⌋ in the normal form; x expanded."""
    whole, rest = sp.sift(sp.Add.make_args(x), lambda t: bool(t.is_integer), binary=True)
    before, x = sp.Add(*whole), sp.Add(*rest)
    if x == 0:
        return before
    if x.could_extract_minus_sign():
        return before - ceiling(-x)
    constant, term = x.as_coeff_Add()
    share, inner = term.as_independent(sp.floor, sp.ceiling, as_Add=False)
    n = 1 / share
    if isinstance(inner, (sp.floor, sp.ceiling)) and n.is_integer and n.is_positive and (constant * n).is_integer:
        k, y = sp.expand(constant * n), inner.args[0]  # ⌊(⌊y⌋ + k)/n⌋ = ⌊(y + k)/n⌋, and ⌈⌉ is a ⌊⌋ of whole numbers
        if isinstance(inner, sp.floor):
            return before + floor(sp.expand((y + k) / n))
        return before + ceiling(sp.expand((y + k - n + 1) / n))
    n = _denominator(x)
    if (term * n).is_integer and n > 1:
        k = constant * n
        if k % n == n - 1:
            return before + sp.ceiling(term) + (k - n + 1) / n
        return before + sp.floor(term + sp.Rational(k % n, n)) + k // n
    return before + sp.floor(x)


def ceiling(x: sp.Expr) -> sp.Expr:
    """⌈x⌉ in the normal form; x expanded."""
    n = _denominator(x)
    if (x * n).is_integer:  # ⌈m/n⌉ = ⌊(m + n − 1)/n⌋
        return floor(sp.expand(x + 1 - sp.Rational(1, n)))
    constant, term = x.as_coeff_Add()
    share, inner = term.as_independent(sp.floor, sp.ceiling, as_Add=False)
    n = 1 / share
    if constant == 0 and isinstance(inner, sp.ceiling) and n.is_integer and n.is_positive:
        return sp.ceiling(inner.args[0] / n)
    return sp.ceiling(x)


def larger(a, b) -> sp.Expr:
    """The larger of two, without `Max` where ⌈x⌉ ≥ x and ⌊x⌋ ≤ x tell which one it is."""
    a, b = sp.sympify(a), sp.sympify(b)
    for one, other in ((a, b), (b, a)):
        least = sp.expand(_least(sp.expand(one - other)))
        if least.is_number and least >= 0:
            return one
    return sp.Max(a, b)


def _least(x: sp.Expr) -> sp.Expr:
    """A lower bound of a sum of whole multiples of brackets and other terms, without the brackets."""
    terms = []
    for t in sp.Add.make_args(x):
        share, inner = t.as_independent(sp.floor, sp.ceiling, as_Add=False)
        kind = type(inner)
        if kind not in (sp.floor, sp.ceiling) or not share.is_number:
            terms.append(t)
            continue
        tight = kind is (sp.ceiling if share > 0 else sp.floor)
        terms.append(share * inner.args[0] - (0 if tight else abs(share)))
    return sp.Add(*terms)


def _denominator(x: sp.Expr) -> int:
    return math.lcm(*(int(t.as_coeff_Mul()[0].q) for t in sp.Add.make_args(x)))
