"""Costs are SymPy expressions, linear in unit symbols: `N*D*K*(2*load + mac)`.

Choosing a unit is a substitution, so the convention (MACs, FLOPs, accesses) shows where a number is read. Letters are
those of SHAPES; an attribute is a symbol per entry (`stride_0`, `pad_1_0`); `has("b")` is 1 where an optional array is
given, else 0.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import cache

import numpy as np
import sympy as sp
from sympy.printing.lambdarepr import LambdaPrinter
from sympy.printing.str import StrPrinter

from refimpl.kernels.geometry import inside

from .whole import quotient

# The first eight are of floats; cmp of floats or integers; iadd to logic (on bits) of integers that come from arrays;
# convert: between integers and floats, or to an integer type that may not keep the value. What counts as which:
# `validation.instruments.counted_numbers`.
UNITS = sp.symbols("add mul div sqrt exp log tanh erf cmp iadd imul idiv shift logic convert load store", positive=True)
add, mul, div, sqrt, exp, log, tanh, erf, cmp, iadd, imul, idiv, shift, logic, convert, load, store = UNITS
mac, imac = mul + add, imul + iadd
ARITHMETIC = ("add", "mul")  # what `flops` counts; the other units are listed beside it

N, H, W, C, K, R, S, P, Q, G, D, U, V = sp.symbols("N H W C K R S P Q G D U V", positive=True, integer=True)
E, B, L, J = sp.symbols("E B L J", positive=True, integer=True)  # merged elements, mask bytes, slices, all slices
M = sp.Symbol("M", positive=True, integer=True)  # chosen input channels; L of a method: kept output channels
A = sp.Symbol("A", positive=True, integer=True)  # channels of one of several inputs

COSTS: dict[tuple[str, str], sp.Expr] = {}


class taps(sp.Function):
    """Number of (window, tap) pairs that fall inside the map: `taps(H, R, P, stride, dilation, top, bottom)`.

    The nominal count, padded taps included, is P·R. `doit` gives a closed form.
    """

    @staticmethod
    def _imp_(*args):  # what SymPy's lambdify calls: on numbers or, for each element, on arrays
        if any(isinstance(a, np.ndarray) for a in args):
            return np.vectorize(taps._imp_, otypes=[np.int64])(*args)
        return count_taps(*(int(a) for a in args))

    @classmethod
    def eval(cls, *args):
        size, window, out, stride, _, before, after = args
        if all(a.is_Integer for a in args):
            return sp.Integer(count_taps(*(int(a) for a in args)))
        if window == 1 and before == after == 0 and out - 1 == quotient(size - 1, stride):
            return out

    def doit(self, **hints):
        """Closed form for a known window: a sum over its taps of the windows that find them inside the map."""
        size, window, out, stride, dilation, before, after = self.args
        if not window.is_Integer:
            return self
        end = quotient(size + before + after - dilation * (window - 1) - 1, stride)  # of windows that fit wholly
        pairs = []
        for r in range(int(window)):
            first = sp.Max(0, -quotient(r * dilation - before, stride))
            last = quotient(size - 1 + before - r * dilation, stride)
            if out - 1 == end:  # both are ⌊⌋ of one size plus a number, so the smaller number tells
                last = last if after >= (window - 1 - r) * dilation else end
            else:
                last = sp.Min(last, out - 1)
            pairs.append(sp.Max(0, last - first + 1))
        return sp.Add(*pairs)


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


def differs(name: str, value: int) -> sp.Expr:
    """1 where the attribute `name` is not `value`, else 0."""
    return sp.Piecewise((0, sp.Eq(attribute(name), value)), (1, True))


def register(operator: str, **costs: sp.Expr) -> None:
    """Record the cost of each pass of `operator`; a second record of a pass is a ValueError."""
    for name, cost in costs.items():
        if (operator, name) in COSTS:
            raise ValueError(f"{operator}.{name} already has a cost")
        COSTS[operator, name] = sp.sympify(cost)


def cost(operator: str, name: str) -> sp.Expr:
    """Cost of a pass; KeyError with its name where none is registered, never zero."""
    load_file(operator)
    if (operator, name) not in COSTS:
        home = f"costmodel/formulas/ops/{operator}.py"
        raise KeyError(f"{operator}.{name} has no cost: register one, of an operator of the library in {home}")
    return COSTS[operator, name]


ROOMS = ("costmodel.formulas.ops", "costmodel.formulas.methods")


@cache
def load_file(operator: str) -> None:
    """Import the file of formulas of an operator or method, where there is one."""
    for room in ROOMS:
        if importlib.util.find_spec(f"{room}.{operator}"):
            importlib.import_module(f"{room}.{operator}")


def load_formulas() -> None:
    """Import every file of formulas."""
    for room in ROOMS:
        for module in pkgutil.iter_modules(importlib.import_module(room).__path__):
            load_file(module.name)


def coefficients(operator: str, name: str) -> dict[str, sp.Expr]:
    """Cost of a pass by unit: unit name → formula, zeros left out; ValueError where it is not linear in the units."""
    expression = sp.expand(cost(operator, name))
    by_unit = {u: expression.diff(u) for u in UNITS}
    if sp.expand(expression - sum(c * u for u, c in by_unit.items())) != 0:
        raise ValueError(f"the cost of {operator}.{name} is not linear in the units")
    return {u.name: sp.factor_terms(c) for u, c in by_unit.items() if c != 0}


def show(operator: str, name: str) -> str:
    """The cost of a pass as text, a line for each unit; equal `mul` and `add` are one line, `mac`, integers `imac`."""
    by_unit = coefficients(operator, name)
    for both, one, other in (("imac", "imul", "iadd"), ("mac", "mul", "add")):
        if by_unit.get(one, 0) != 0 and sp.expand(by_unit[one] - by_unit.get(other, 0)) == 0:
            by_unit = {both: by_unit[one], **{u: c for u, c in by_unit.items() if u not in (one, other)}}
    width = max(6, *(len(u) + 1 for u in by_unit))
    return "\n".join([f"{operator}.{name}", *(f"  {u:{width}s}{_Text().doprint(c)}" for u, c in by_unit.items())])


class _Text(StrPrinter):
    """Formulas as people write them: `taps(H)`, the pairs along H; `has(b)`, `nonzero(a)`, `differs(a, 3)`: 1 or 0."""

    def _print_taps(self, expression):
        return f"taps({self._print(expression.args[0])})"

    def _print_Piecewise(self, expression):
        tested = expression.args[0][1]
        if expression == nonzero(str(tested.lhs)):
            return f"nonzero({tested.lhs})"
        return f"differs({tested.lhs}, {tested.rhs})"

    def _print_Symbol(self, symbol):
        return f"has({symbol.name[4:]})" if symbol.name.startswith("has_") else symbol.name


# One evaluation counts every unit: each unit stands for a power of DIGIT, and a count, which is far below it, is the
# digit in its place.
DIGIT = 1 << 96
_PLACES = {u.name: DIGIT**i for i, u in enumerate(UNITS)}


@cache
def _function(operator: str, name: str):
    return evaluator(cost(operator, name))


def evaluator(expression: sp.Expr):
    """`(names, f)`: f of the numbers that the names stand for gives the exact value of `expression`."""
    symbols = sorted(expression.free_symbols, key=lambda s: s.name)
    divisors = {s for p in expression.atoms(sp.Pow) if p.exp.is_negative for s in p.base.free_symbols}
    named = {type(f).__name__: f._imp_ for f in expression.atoms(sp.Function) if hasattr(f, "_imp_")}
    modules = [{**named, "Fraction": Fraction}, "math"]
    function = sp.lambdify(symbols, expression, modules=modules, printer=_Exact(PRINTED))
    kinds = [Fraction if s in divisors else _plain for s in symbols]  # no quotient is rounded
    return [s.name for s in symbols], lambda *values: function(*(k(v) for k, v in zip(kinds, values, strict=True)))


PRINTED = {"fully_qualified_modules": False, "allow_unknown_functions": True, "inline": True}


class _Exact(LambdaPrinter):
    """Python code whose fractions are not rounded."""

    def _print_Rational(self, expression):
        return f"Fraction({expression.p}, {expression.q})"


def _plain(value):
    return value if isinstance(value, float) else int(value)


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
    values = {**sizes, **dict(pair for a, v in attrs.items() for pair in flatten(a, v)), **_PLACES}
    values |= {f"has_{a}": 1 for a in present}
    names, function = _function(operator, name)
    rest = int(function(*(values.get(s, 0) if s.startswith("has_") else values[s] for s in names)))
    counted = {}
    for unit in UNITS:
        rest, n = divmod(rest, DIGIT)
        if n:
            counted[unit.name] = n
    return counted
