"""Closed forms of whole training steps: operations and bytes in N, H, W, width and the settings of the methods.

The formulas are not written down a second time. The step is derived as `refimpl.compile` derives it, on numbers that
remember how they were computed (`kernels.traced`), and each logical call's sizes go into its formula in `costmodel`:

    form = of("resnet18", Plan(4, rules=[GradientFilter(2)]))
    form.flops.subs(form.symbols["N"], 1), sympy.latex(form.flops), form.at(N=1, H=64, patch=4)

`symbolic` is `of(…).cost`, a SymPy expression like any other, linear in the units (`formulas.cost.UNITS`). Its symbols
are positive and mostly whole: take them from `form.symbols` or `free_symbols`, `sympy.Symbol("N")` is another one.

Symbols: N samples, H W rows and columns of the input, `width` of a net that has one, and the settings of the methods
that sizes depend on (`patch`, `keep`, `ratio`, `survival`, …), all named as the setting; where two methods have the
same, the second bears its method's name too. ⌈ ⌉ and ⌊ ⌋ are exact, `nearest` rounds halves to even, `taps` counts the
pairs of windows and taps inside the map (`nominal` puts all of them in its place).

What a value decided, such as whether a block has a shortcut, is fixed in a formula: `conditions` says what it assumes.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real

import sympy as sp

from refimpl import models
from refimpl.compiler.compose import derive
from refimpl.compiler.ir import Call
from refimpl.compiler.lower import lower
from refimpl.compiler.program import Program
from refimpl.graph import Graph
from refimpl.kernels import traced
from refimpl.kernels.traced import Trace, expression
from refimpl.plan.plan import Plan

from .formulas import cost as formulas
from .formulas.cost import UNITS, evaluator, flatten, taps
from .formulas.whole import larger, quotient

WIDTH = "width"
RELATIONS = {"lt": sp.Lt, "le": sp.Le, "gt": sp.Gt, "ge": sp.Ge, "eq": sp.Eq, "ne": sp.Ne}


class nearest(sp.Function):  # noqa: N801
    """The nearest whole number, of two the even one."""

    is_integer = True
    _imp_ = staticmethod(round)

    @classmethod
    def eval(cls, a):
        if a.is_number:
            return sp.Integer(round(float(a) if a.is_Float else a))

    def _latex(self, printer, exp=None):
        return _power(rf"\left\lfloor {printer._print(self.args[0])} \right\rceil", exp)


def _power(text: str, exponent: str | None) -> str:
    return rf"{{{text}}}^{{{exponent}}}" if exponent else text


NAMED: dict = {traced.larger: larger, traced.nearest: nearest}


def named(function, arguments):
    """The expression of a function that a formula names and does not open up: a SymPy function that calls it."""
    if function not in NAMED:

        def eval(cls, *args):
            if all(a.is_number for a in args):
                return sp.sympify(function(*(float(a) if a.is_Float else a for a in args)))

        def _latex(self, printer, exp=None):
            name = function.__name__.replace("_", r"\_")
            return _power(rf"\operatorname{{{name}}}\left({', '.join(map(printer._print, self.args))}\right)", exp)

        body = {"eval": classmethod(eval), "_imp_": staticmethod(function), "is_positive": True, "_latex": _latex}
        if function.whole:
            body["is_integer"] = True
        NAMED[function] = type(function.__name__, (sp.Function,), body)
    return NAMED[function](*arguments)


def nominal(formula: sp.Expr) -> sp.Expr:
    """The formula with every tap of a window counted, those in the padding too."""
    return formula.replace(taps, lambda size, window, out, *rest: out * window)


@dataclass(frozen=True)
class ClosedForm:
    """The closed forms of one training step.

    graph, plan: as they were given; program: the reference lowering on traced sizes; calls: the cost of each logical
    call, in units; symbols: name → symbol, with its value in `given`, for which all decisions were made.
    """

    graph: Graph
    plan: Plan
    program: Program
    calls: Mapping[Call, sp.Expr]
    symbols: Mapping[str, sp.Symbol]
    given: Mapping[str, object]
    trace: Trace

    @cached_property
    def cost(self) -> sp.Expr:
        """The whole step, linear in the units."""
        return sp.Add(*self.calls.values())

    @cached_property
    def _evaluate(self):
        return evaluator(self.cost)

    def at(self, **values: float) -> Counter:
        """Number of each unit for the values of some symbols, the others as given; exact where the values are whole.

        ValueError for an unknown name, a value that its symbol cannot have, and where a condition does not hold.
        """
        values = self._checked(values)
        names, function = self._evaluate
        units = {u.name: 0 for u in UNITS}
        return Counter({u: function(*({**values, **units, u: 1}[name] for name in names)) for u in units if u in names})

    def bytes_at(self, **values: float) -> dict[str, int]:
        """The terms of `memory` for the values of some symbols, the others as given; errors as for `at`."""
        values, found = self._checked(values), {}
        for term, formula in self.memory.items():
            names, function = evaluator(formula)
            found[term] = int(function(*(values[name] for name in names)))
        return found

    @cached_property
    def _holds(self) -> dict:
        return {c: evaluator(c) for c in self.conditions}

    def _checked(self, values: dict) -> dict:
        unknown = values.keys() - self.symbols.keys()
        if unknown:
            raise ValueError(f"there is no symbol {min(unknown)}; the formula has {', '.join(self.symbols)}")
        for name, value in values.items():
            _check_value(self.symbols[name], value)
        values = {**self.given, **values}
        for condition, (names, function) in self._holds.items():
            if not function(*(values[name] for name in names)):
                raise ValueError(f"the formula holds where {condition}, which it is not at {values}")
        return values

    @cached_property
    def sections(self) -> dict[str, sp.Expr]:
        """The cost of each section."""
        found = {s: [] for s in self.program.sections}
        for call, c in self.calls.items():
            found[call.section].append(c)
        return {s: sp.Add(*cs) for s, cs in found.items()}

    @property
    def flops(self) -> sp.Expr:
        """Multiplications and additions of the whole step, padded taps skipped."""
        return flops(self.cost)

    @cached_property
    def conditions(self) -> list[sp.Basic]:
        """What the formulas assume beyond their symbols being positive; a comparison that always holds is left out."""
        found = dict.fromkeys(RELATIONS[name](a, b) for name, a, b in self.trace.conditions)
        return [c for c in found if c != sp.true]

    @cached_property
    def memory(self) -> dict[str, sp.Expr]:
        """Bytes of a full batch: `weights`, `optimizer`, `gradients` of weights, `saved` from forward to backward.

        saved is that of the reference backend, the logical step's own.
        """
        step, p = self.program.step, self.program
        terms = {
            "weights": step.parameters.values(),
            "optimizer": step.state.values(),
            "gradients": step.gradients.values(),
            "saved": p.saved,
        }
        return {name: sp.Add(*(expression(b.nbytes) for b in buffers)) for name, buffers in terms.items()}


def _check_value(symbol: sp.Symbol, value) -> None:
    """ValueError where a symbol cannot have the value: sizes are whole, settings are shares, a width is any factor."""
    if symbol.is_integer:
        right, wanted = isinstance(value, Real) and value >= 1 and value % 1 == 0, "a whole number from 1 up"
    elif symbol.name == WIDTH:
        right, wanted = isinstance(value, Real) and 0 < value < math.inf, "a number above 0"
    else:
        right, wanted = isinstance(value, Real) and 0 < value <= 1, "a share above 0 and at most 1"
    if not right:
        raise ValueError(f"{symbol.name} must be {wanted}, got {value!r}")


def flops(formula: sp.Expr) -> sp.Expr:
    """Multiplications and additions of a cost in units."""
    return formula.xreplace({u: sp.Integer(u.name in formulas.ARITHMETIC) for u in UNITS})


def symbolic(model: Graph | str, plan: Plan) -> sp.Expr:
    """The operations of one training step as a SymPy expression, linear in the units; see `of`."""
    return of(model, plan).cost


def of(
    model: Graph | str, plan: Plan, batch: int = 8, fixed: Collection[str] = (), dtype: str = "float32"
) -> ClosedForm:
    """The closed forms of the training step of a model, a graph or the name of one, under a plan.

    Decisions are made for the graph's own size and width, the plan's settings and `batch`. fixed: names that are to be
    numbers and no symbols, as H, W and width where one net is looked at; that takes a fraction of the time. dtype: of
    floats. ValueError where the plan does not fit the model.
    """
    graph = models.build(model) if isinstance(model, str) else model
    plan = plan.for_net(graph, graph.size)
    trace = Trace(quotient, named)
    symbols: dict[str, sp.Symbol] = {}
    given: dict[str, object] = {}

    def symbol(name: str, value, whole: bool = True):
        if name in fixed:
            return value
        symbols[name] = sp.Symbol(name, positive=True, **{"integer" if whole else "real": True})
        given[name] = value
        return trace.number(value, symbols[name])

    def with_symbols(rule):
        found = {}
        for name in getattr(rule, "priced", ()):
            value, whole = getattr(rule, name), isinstance(getattr(type(rule), name), int)
            own = name if name not in symbols else f"{rule.method}_{name}".replace("-", "_")
            if isinstance(value, tuple) and len(set(value)) > 1:
                found[name] = tuple(symbol(f"{own}_{i}", v, whole) for i, v in enumerate(value))
            else:
                found[name] = symbol(own, value[0] if isinstance(value, tuple) else value, whole)
        return replace(rule, **found) if found else rule

    n, size = symbol("N", batch), (symbol("H", graph.size[0]), symbol("W", graph.size[1]))
    net = _with_width(graph, symbol)
    rules = tuple(with_symbols(r) for r in plan.rules)
    made = replace(plan, rules=rules, instances=with_symbols(plan.instances), depth=with_symbols(plan.depth))
    step = derive(net, made, n, size, dtype)
    p = Program(net, made, n, size, dtype, "reference", 1, step, lower(step, "reference", 1))
    turns, known = {turn.section: turn for turn in p.schedule(n)}, {}
    calls = {call: _cost(call, turns[call.section].samples, known) for call in step}
    calls = {call: c * expression(turns[call.section].occurs(call)) for call, c in calls.items()}
    return ClosedForm(graph, plan, p, calls, symbols, given, trace)


def _with_width(graph: Graph, symbol) -> Graph:
    """The graph built again with a symbol for its width, where it has one and is as it was built."""
    if "width" not in graph.options or graph.name not in models.MODELS:
        return graph
    options = {"classes": graph.shape(graph.output)[1], "size": graph.size, "channels": graph.channels}
    again = models.build(graph.name, **options, **graph.options)
    if again.nodes != graph.nodes or again.parameters != graph.parameters:
        return graph
    width = symbol(WIDTH, graph.options["width"], whole=False)
    return models.MODELS[graph.name](**options, **{**graph.options, "width": width})


def _cost(call: Call, samples, known: dict) -> sp.Expr:
    """The cost of a logical call; samples: of its section, where they are a mean of those of the whole numbers.

    known: the costs found so far, for many layers are alike.
    """
    values = {name: expression(v) for name, v in call.sizes.items()}
    values |= {name: expression(v) for a, v in call.attrs.items() for name, v in flatten(a, v)}
    values |= {f"has_{a}": int(a in call.present) for a in call.passed.optional}
    formula = formulas.cost(call.passed.operator, call.passed.name)
    letters = sorted(formula.free_symbols - set(UNITS), key=str)
    batched = next((b for b in call.arrays.values() if b.batched), None)
    if batched is not None and "N" in values:  # rows of a sample: N may stand for its pixels too
        rows = values["N"] * expression(batched.batched) / expression(batched.shape[0])

    def at(n) -> sp.Expr:
        if "N" in values and batched is not None:
            values["N"] = rows * n
        key = (call.passed, *(values[s.name] for s in letters))
        if key not in known:
            known[key] = formula.xreplace({s: _exact(values[s.name]) for s in letters})
        return known[key]

    mean = sp.sympify(expression(samples))
    if mean.is_integer:
        return at(mean)
    fixed = at(sp.Integer(0))
    return (at(sp.Integer(1)) - fixed) * mean + fixed * sp.Min(1, mean)  # costs are affine in the samples


def _exact(number) -> sp.Expr:
    """A number as a SymPy one, a float that is whole as an integer: SymPy's 0.0 is not 0."""
    whole = isinstance(number, bool) or (isinstance(number, float) and number.is_integer())
    return sp.Integer(int(number)) if whole else sp.sympify(number)
