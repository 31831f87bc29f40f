"""Costs are SymPy expressions, linear in unit symbols: `N*D*K*(2*load + mac)`.

Choosing a unit is a substitution, so the convention (MACs, FLOPs, accesses) shows where a number is read. Letters are
those of SHAPES; an attribute is a symbol per entry (`stride_0`, `pad_1_0`); `has("b")` is 1 where an optional array is
given, else 0.
"""

import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cache

import numpy as np
import sympy as sp

from refimpl.geometry import inside

UNITS = sp.symbols("add mul div sqrt exp log cmp load store", positive=True)
add, mul, div, sqrt, exp, log, cmp, load, store = UNITS
mac = mul + add
ARITHMETIC = ("add", "mul")  # what `flops` counts; the other units are listed beside it

N, H, W, C, K, R, S, P, Q, G, D, U, V = sp.symbols("N H W C K R S P Q G D U V", positive=True, integer=True)
E, B, L, J = sp.symbols("E B L J", positive=True, integer=True)  # merged elements, mask bytes, slices, all slices

COSTS: dict[tuple[str, str], sp.Expr] = {}


class taps(sp.Function):
    """Number of (window, tap) pairs that fall inside the map: `taps(H, R, P, stride, dilation, top, bottom)`.

    The nominal count, padded taps included, is P·R.
    """

    @classmethod
    def eval(cls, *args):
        if all(a.is_Integer for a in args):
            return sp.Integer(count_taps(*(int(a) for a in args)))


@cache
def count_taps(size, window, out, stride, dilation, before, after) -> int:
    """`taps` on integers."""
    return int(np.count_nonzero(inside(size, window, out, stride, dilation, (before, after))))


def attribute(name: str) -> sp.Symbol:
    """Symbol of one entry of an attribute: `attribute("pad_0_1")`."""
    return sp.Symbol(name, integer=True)


def has(array: str) -> sp.Symbol:
    """1 where the optional `array` is given, else 0."""
    return sp.Symbol(f"has_{array}", integer=True, nonnegative=True)


def axis_taps(axis: int) -> sp.Expr:
    """`taps` of rows (axis 0) or columns (axis 1) in the letters of a convolution or pooling window."""
    size, window, out = ((H, R, P), (W, S, Q))[axis]
    names = (f"stride_{axis}", f"dilation_{axis}", f"pad_{axis}_0", f"pad_{axis}_1")
    return taps(size, window, out, *(attribute(a) for a in names))


def pool_taps(axis: int) -> sp.Expr:
    """`taps` of rows (axis 0) or columns (axis 1) of a pooling window."""
    size, out = ((H, P), (W, Q))[axis]
    window, stride, before, after = (
        attribute(a) for a in (f"window_{axis}", f"stride_{axis}", f"pad_{axis}_0", f"pad_{axis}_1")
    )
    return taps(size, window, out, stride, sp.Integer(1), before, after)


def nonzero(name: str) -> sp.Expr:
    """1 where the attribute `name` is not zero (or is True), else 0."""
    return sp.Piecewise((0, sp.Eq(sp.Symbol(name, real=True), 0)), (1, True))


def register(operator: str, **costs: sp.Expr) -> None:
    """Record the cost of each pass of `operator`; a second record of a pass is a ValueError."""
    for name, cost in costs.items():
        if (operator, name) in COSTS:
            raise ValueError(f"{operator}.{name} already has a cost")
        COSTS[operator, name] = sp.sympify(cost)


def cost(operator: str, name: str) -> sp.Expr:
    """Cost of a pass; KeyError with its name where none is registered, never zero."""
    load_formulas()
    if (operator, name) not in COSTS:
        raise KeyError(f"{operator}.{name} has no cost in costmodel: add it to costmodel/ops/{operator}.py")
    return COSTS[operator, name]


@cache
def load_formulas() -> None:
    """Import every file of formulas."""
    for room in ("ops", "methods"):
        package = importlib.import_module(f"costmodel.{room}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"costmodel.{room}.{module.name}")


@cache
def _function(operator: str, name: str):
    """Compiled (symbols, f): f of exact numbers gives the number of each unit, in the order of UNITS."""
    expression = sp.expand(cost(operator, name))
    coefficients = [expression.diff(u) for u in UNITS]
    if sp.expand(expression - sum(c * u for c, u in zip(coefficients, UNITS, strict=True))) != 0:
        raise ValueError(f"the cost of {operator}.{name} is not linear in the units")
    return evaluator(coefficients)


def evaluator(expressions: Sequence[sp.Expr]):
    """(names, f): f of the numbers that the names stand for gives the value of each expression."""
    symbols = sorted({s for e in expressions for s in e.free_symbols}, key=lambda s: s.name)
    return [s.name for s in symbols], sp.lambdify(symbols, expressions, modules=[{"taps": _taps_exact}, "math"])


def _taps_exact(*args):
    return count_taps(*(int(a) for a in args))


def flatten(name: str, value) -> Iterable[tuple[str, int]]:
    """(symbol name, value) of each entry of an attribute: `pad` ((1, 0), (2, 1)) gives `pad_0_0` 1, …"""
    if isinstance(value, tuple):
        for i, v in enumerate(value):
            yield from flatten(f"{name}_{i}", v)
    else:
        yield name, value


def counts(operator: str, name: str, sizes: Mapping, attrs: Mapping, present: Iterable[str] = ()) -> dict[str, int]:
    """Number of each unit in one call: unit name → count, exact, zeros left out.

    sizes: letter → integer; attrs: canonical attributes of the pass; present: optional arrays that are given.
    """
    values = {**sizes, **dict(pair for a, v in attrs.items() for pair in flatten(a, v))}
    values |= {f"has_{a}": 1 for a in present}
    names, function = _function(operator, name)
    found = function(*(Fraction(values.get(s, 0) if s.startswith("has_") else values[s]) for s in names))
    return {u.name: int(n) for u, n in zip(UNITS, found, strict=True) if n}
