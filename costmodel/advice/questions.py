"""Questions that closed forms answer: how a cost grows, from which setting a method pays, how much fits.

form = closed_form.of(models.resnet18(10), Plan(4, rules=[GradientFilter(2)]))
leading(form.flops, form.symbols["patch"])
pays_from(form.flops, dense.flops, form.symbols["patch"], range(1, 15), form.given)
largest(arena(form) + form.memory["weights"], form.symbols["N"], 512 * 2**20, form.given)
"""

from collections.abc import Iterable, Mapping
from typing import Any

import sympy as sp

import refimpl as ri
from refimpl.kernels.traced import expression

from ..closed_form import ClosedForm, nearest
from ..formulas.cost import evaluator, taps


def smooth(formula: sp.Expr) -> sp.Expr:
    """The formula without rounding and with every padded tap counted: what it comes near to for large sizes."""
    formula = formula.replace(taps, lambda size, window, out, *rest: out * window)
    for rounded in (sp.ceiling, sp.floor, nearest):
        formula = formula.replace(rounded, lambda x: x)
    return formula.replace(
        lambda f: hasattr(f, "_imp_") and isinstance(f, sp.Function), lambda f: f.args[0]
    )  # channels rounded to multiples


def leading(formula: sp.Expr, symbol: sp.Symbol) -> sp.Expr:
    """The leading term of a formula as `symbol` grows: `c·symbol**n`, with c in the other symbols, without rounding.

    ValueError where the formula is not a sum of powers of the symbol.
    """
    by_power: dict = {}
    for term in sp.Add.make_args(sp.expand(smooth(formula))):
        share, power = term.as_independent(symbol, as_Add=False)
        base, exponent = power.as_base_exp()
        if power != 1 and (base != symbol or not exponent.is_number):
            raise ValueError(f"{term} is not a power of {symbol}")
        by_power.setdefault(exponent if power != 1 else sp.Integer(0), []).append(share)
    most = max(by_power)
    return sp.factor_terms(sp.Add(*by_power[most])) * symbol**most


def pays_from(
    formula: sp.Expr, other: sp.Expr, symbol: sp.Symbol, candidates: Iterable, given: Mapping[str, object]
) -> Any:
    """The first of `candidates` for `symbol` from which on `formula` stays below `other`; None where it never does.

    given: name → value of the other symbols.
    """
    names, difference = evaluator(sp.sympify(formula) - other)
    first = None
    for candidate in candidates:
        values = {**given, symbol.name: candidate}
        if difference(*(values[name] for name in names)) >= 0:
            first = None
        elif first is None:
            first = candidate
    return first


def largest(formula: sp.Expr, symbol: sp.Symbol, limit: float, given: Mapping[str, object]) -> int:
    """The largest whole number for `symbol` at which a formula that grows with it is at most `limit`; 0 for none."""
    names, function = evaluator(formula)
    if symbol.name not in names:
        raise ValueError(f"the formula does not depend on {symbol}; it has {', '.join(names)}")

    def fits(n: int) -> bool:
        return function(*({**given, symbol.name: n}[name] for name in names)) <= limit

    if not fits(1):
        return 0
    low = 1
    while fits(2 * low):
        low *= 2
    high = 2 * low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def arena(form: ClosedForm, backend: str = "fast", threads: int = 1) -> sp.Expr:
    """Bytes alive at once in a step that is compiled for a backend: the largest sum over its launches.

    Arrays of the step are formulas, scratch of the kernels is taken as it is at the given sizes. There the value is
    the program's `lower_bound`; near them it is close to `peak_bytes`, which only compiling tells to the byte.
    """
    program = ri.compile(form.graph, form.plan, form.given["N"], backend=backend, threads=threads)
    known = {b.name: b for b in form.program.lifetimes}
    alive = {
        frozenset(b for b, t in program.lifetimes.items() if t.first <= i <= t.last)
        for i in {t.first for t in program.lifetimes.values()}
    }
    most = [s for s in alive if not any(s < other for other in alive)]
    sums = (sp.Add(*(expression(known[b.name].nbytes) if b.name in known else b.nbytes for b in s)) for s in most)
    return sp.Max(*dict.fromkeys(sums), evaluate=False)
