"""Numbers that remember how they were computed, so that what derives a step also derives its formulas.

Shapes, settings and sizes of a step may be `Traced` in place of plain numbers: arithmetic then builds an expression
beside the value. A comparison is decided by the value and noted as a condition, for the formulas hold only where it
comes out the same. Expressions are any objects with arithmetic; costmodel uses SymPy's, which nothing here imports.
"""

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from numbers import Number


@dataclass
class Trace:
    """What the numbers of one derivation share.

    quotient: `(a, b)` → the expression of ⌊a/b⌋. named: `(function, arguments)` → the expression of an `opaque`
    function. conditions: `(relation, a, b)` of every comparison that a value decided, such as ("lt", a, b), as it
    came out.
    """

    quotient: Callable
    named: Callable
    conditions: list[tuple[str, object, object]] = field(default_factory=list)

    def number(self, value, expression):
        """`value` with its expression; the plain value where the expression is a number and not a formula."""
        return value if getattr(expression, "is_number", False) else Traced(self, value, expression)


class Traced:
    """A number with the expression that it was computed by. Not convertible: int() would lose the expression."""

    __slots__ = ("expression", "trace", "value")

    def __init__(self, trace: Trace, value, expression):
        self.trace, self.value, self.expression = trace, value, expression

    def __repr__(self) -> str:
        return f"{self.expression} [{self.value}]"

    def __hash__(self) -> int:
        return hash(self.value)

    def __neg__(self):
        return 0 - self

    def __bool__(self) -> bool:
        return self != 0


def expression(number):
    """The expression of a traced number; a plain number is its own."""
    return number.expression if isinstance(number, Traced) else number


def value(number):
    """The value of a number, traced or not."""
    return number.value if isinstance(number, Traced) else number


def _quotient(trace: Trace, a, b):
    return trace.quotient(a, b)


def _remainder(trace: Trace, a, b):
    return a - b * trace.quotient(a, b)


def _plain(name: str) -> Callable:
    of = getattr(operator, name)
    return lambda trace, a, b: of(a, b)


_ARITHMETIC = {name: _plain(name) for name in ("add", "sub", "mul", "truediv")}
_ARITHMETIC |= {"floordiv": _quotient, "mod": _remainder}
_OPPOSITE = {"lt": "ge", "ge": "lt", "gt": "le", "le": "gt", "eq": "ne", "ne": "eq"}


def _operation(name: str, build: Callable, reflected: bool) -> Callable:
    of = getattr(operator, name)

    def operation(self, other):
        a, b = (other, self) if reflected else (self, other)
        return self.trace.number(of(value(a), value(b)), build(self.trace, expression(a), expression(b)))

    return operation


def _comparison(name: str) -> Callable:
    of = getattr(operator, name)

    def comparison(self, other) -> bool:
        decided = of(self.value, value(other))
        if not isinstance(other, (Number, Traced)):
            return decided
        a, b = self.expression, expression(other)
        if a == b:  # the same formula: no condition
            return name in ("eq", "le", "ge")
        self.trace.conditions.append((name if decided else _OPPOSITE[name], a, b))
        return decided

    return comparison


for _name, _build in _ARITHMETIC.items():
    setattr(Traced, f"__{_name}__", _operation(_name, _build, reflected=False))
    setattr(Traced, f"__r{_name}__", _operation(_name, _build, reflected=True))
for _name in _OPPOSITE:
    setattr(Traced, f"__{_name}__", _comparison(_name))


def opaque(function: Callable, whole: bool = True) -> Callable:
    """Let `function` of numbers take traced ones: its expression is its name with the expressions of its arguments.

    whole: are its values whole numbers? They are positive.
    """

    @functools.wraps(function)
    def wrapper(*args):
        trace = next((a.trace for a in args if isinstance(a, Traced)), None)
        result = function(*map(value, args))
        return trace.number(result, trace.named(wrapper, [expression(a) for a in args])) if trace else result

    setattr(wrapper, "whole", whole)  # noqa: B010 - a function has no such attribute by its type
    return wrapper


@opaque
def larger(a, b):
    """The larger of two numbers."""
    return max(a, b)


@opaque
def nearest(a) -> int:
    """The nearest whole number, of two the even one."""
    return round(a)


def part(share: float, count: float) -> int:
    """A share of `count` things, to the nearest whole number (a half to the even one) and at least one."""
    return larger(1, nearest(share * count))
