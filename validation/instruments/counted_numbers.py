"""Numbers that count the arithmetic done on them: the elements of counting arrays, and what a body makes of them.

What a float counts is `add` (+, − and the unary −), `mul`, `div`, `cmp` (a comparison, and abs), and a unit for each of
the functions that a body may call, of `math` or of `np`: `UNITS`. An integer that comes from an array counts

    iadd     +, − and the unary −         shift    << and >>
    imul     *                            logic    &, |, ^ and ~
    idiv     //, % and divmod             cmp      a comparison, and abs
    convert  to a float, and to an integer type that may not keep the value; float to integer, and rounding to a whole
             number

so that the product-accumulate `total += np.int32(a) * np.int32(b)` of int8 values is imul + iadd, one `imac`, just as a
multiply-add of floats is mul + add: a type that keeps every value is filled by the load, or by the product that widens.
Types combine as NumPy's do, with Python's integers in the type of the other. A branch on a number counts nothing, nor
does addressing: a counted integer that becomes an index, and all arithmetic on plain Python integers (t, shapes,
attributes). Values are those of a real computation on the arrays' constants; they only steer the body.
"""

import builtins
import math
import operator
import types
from collections.abc import Callable, MutableMapping

import numpy as np

Counts = MutableMapping[str, int]


class _Counted:
    __slots__ = ("value", "counts")
    __array_ufunc__ = None  # NumPy's scalars leave arithmetic with it to it, and NumPy's functions refuse it
    __hash__ = None

    def __bool__(self):
        return bool(self.value)


class Float(_Counted):
    """A float that counts."""

    __slots__ = ()

    def __init__(self, value: float, counts: Counts):
        self.value, self.counts = value, counts

    def __abs__(self):
        self.counts["cmp"] += 1
        return Float(abs(self.value), self.counts)

    def __neg__(self):
        self.counts["add"] += 1
        return Float(-self.value, self.counts)


class Integer(_Counted):
    """An integer of a NumPy type that counts."""

    __slots__ = ("dtype",)

    def __init__(self, value: int, dtype: np.dtype, counts: Counts):
        self.value, self.dtype, self.counts = value, dtype, counts

    def __index__(self):
        return self.value

    def __repr__(self):
        return str(self.value)

    def __abs__(self):
        return self._made("cmp", abs(self.value))

    def __neg__(self):
        return self._made("iadd", -self.value)

    def __invert__(self):
        return self._made("logic", ~self.value)

    def __divmod__(self, other):
        quotient = self // other
        return quotient, Integer(self.value - quotient.value * int(other), quotient.dtype, self.counts)

    def __truediv__(self, other):
        return as_float(self) / other

    def __rtruediv__(self, other):
        return other / as_float(self)

    def _made(self, unit: str, value: int, dtype: np.dtype | None = None) -> "Integer":
        self.counts[unit] += 1
        return Integer(value, dtype or self.dtype, self.counts)

    def common(self, other) -> np.dtype:
        """The integer type that it has together with another integer; TypeError where NumPy would take a float."""
        if not isinstance(other, (Integer, np.integer)):
            return self.dtype
        wider = np.result_type(self.dtype, other.dtype)
        if wider.kind == "f":
            raise TypeError(f"{self.dtype} and {other.dtype} have no common integer type: convert one of them")
        return wider


def as_float(number):
    """A number as a float; a plain one stays plain."""
    if not isinstance(number, Integer):
        return number if isinstance(number, Float) else float(number)
    number.counts["convert"] += 1
    return Float(float(number.value), number.counts)


def as_integer(number, dtype):
    """A number as an integer type; a plain one stays plain, as a scalar of NumPy's."""
    dtype = np.dtype(dtype)
    if not isinstance(number, _Counted):
        return dtype.type(number)
    if isinstance(number, Float) or not np.can_cast(number.dtype, dtype):
        number.counts["convert"] += 1
    value = int(number.value) if math.isfinite(number.value) else 0
    size = 1 << 8 * dtype.itemsize
    value %= size
    return Integer(value - size if dtype.kind == "i" and value >= size // 2 else value, dtype, number.counts)


def as_type(number, dtype):
    """A number as an element of an array of that type."""
    return as_float(number) if np.dtype(dtype).kind == "f" else as_integer(number, dtype)


def _float_operation(unit: str, function: Callable, made: Callable):
    """(forward, reflected) operators of a Float with any number."""

    def value(self, other):
        """What `other` stands for, None where it is no number."""
        if type(other) is not Float:  # the other case is by far the most frequent
            if not isinstance(other, (Integer, int, float, np.number)):
                return None
            other = as_float(other)
        self.counts[unit] += 1
        return other.value if type(other) is Float else other

    def forward(self, other):
        given = value(self, other)
        return NotImplemented if given is None else made(function(self.value, given), self.counts)

    def reflected(self, other):
        given = value(self, other)
        return NotImplemented if given is None else made(function(given, self.value), self.counts)

    return forward, reflected


def _integer_operation(name: str, make: Callable):
    """(forward, reflected) operators of an Integer: `make(self, other, first value, second value)` of two integers."""
    of_floats = getattr(operator, name, None)

    def forward(self, other):
        if isinstance(other, (Integer, int, np.integer)):
            return make(self, other, self.value, int(other))
        return of_floats(as_float(self), other) if isinstance(other, (float, np.floating)) else NotImplemented

    def reflected(self, other):
        if isinstance(other, (Integer, int, np.integer)):
            return make(self, other, int(other), self.value)
        return of_floats(other, as_float(self)) if isinstance(other, (float, np.floating)) else NotImplemented

    return forward, reflected


def _arithmetic(unit: str, function: Callable) -> Callable:
    return lambda self, other, a, b: self._made(unit, function(a, b), self.common(other))


def _compared(function: Callable) -> Callable:
    def compare(self, other, a, b):
        self.counts["cmp"] += 1
        return function(a, b)

    return compare


def _shifted(function: Callable) -> Callable:
    return lambda self, other, a, b: self._made("shift", function(a, min(max(b, 0), 64)))


def _divided(a, b):
    return a / b if b else math.inf


for _name, _unit, _function in (
    ("add", "add", operator.add), ("sub", "add", operator.sub), ("mul", "mul", operator.mul),
    ("truediv", "div", _divided),
):  # fmt: skip
    _forward, _reflected = _float_operation(_unit, _function, Float)
    setattr(Float, f"__{_name}__", _forward)
    setattr(Float, f"__r{_name}__", _reflected)
for _name, _make in (
    ("add", _arithmetic("iadd", operator.add)),
    ("sub", _arithmetic("iadd", operator.sub)),
    ("mul", _arithmetic("imul", operator.mul)),
    ("floordiv", _arithmetic("idiv", lambda a, b: a // b if b else 0)),
    ("mod", _arithmetic("idiv", lambda a, b: a % b if b else 0)),
    ("and", _arithmetic("logic", operator.and_)),
    ("or", _arithmetic("logic", operator.or_)),
    ("xor", _arithmetic("logic", operator.xor)),
    ("lshift", _shifted(operator.lshift)),
    ("rshift", _shifted(operator.rshift)),
):
    _forward, _reflected = _integer_operation(_name, _make)
    setattr(Integer, f"__{_name}__", _forward)
    setattr(Integer, f"__r{_name}__", _reflected)
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    _function = getattr(operator, _name)
    setattr(Float, f"__{_name}__", _float_operation("cmp", _function, lambda result, counts: result)[0])
    setattr(Integer, f"__{_name}__", _integer_operation(_name, _compared(_function))[0])


UNITS = {"exp": "exp", "expm1": "exp", "log": "log", "log1p": "log", "sqrt": "sqrt", "tanh": "tanh", "erf": "erf"}


def _function(name: str, plain: Callable) -> Callable:
    """A function of one float that counts where it meets a counted number."""

    def call(number, *rest):
        if not isinstance(number, _Counted):
            return plain(number, *rest)
        number = as_float(number)
        number.counts[UNITS[name]] += 1
        return Float(getattr(math, name)(number.value), number.counts)

    return call


def _uncounted(name: str, plain: Callable) -> Callable:
    """A function without a unit, which plain numbers alone may use."""

    def call(*numbers, **keywords):
        if any(isinstance(number, _Counted) for number in numbers):
            raise TypeError(f"{name} has no unit of cost: of what it reads a body may take {', '.join(UNITS)}")
        return plain(*numbers, **keywords)

    return call


def _functions(module: types.ModuleType) -> dict[str, Callable]:
    """The functions of numbers that a module has, counting."""
    made: dict[str, Callable] = {}
    for name, value in vars(module).items():
        if isinstance(value, (types.BuiltinFunctionType, np.ufunc)):
            made[name] = _function(name, value) if name in UNITS else _uncounted(f"{module.__name__}.{name}", value)
    return made


def _rounding(plain: Callable, function: Callable, whole: bool) -> Callable:
    """A rounding to a whole number, as an integer (`whole`) or as a float that holds one."""

    def call(number, *rest):
        if not isinstance(number, Float):
            return number if isinstance(number, Integer) else plain(number, *rest)
        rounded = Float(float(function(number.value)), number.counts)
        if whole:
            return as_integer(rounded, np.int64)
        number.counts["convert"] += 1
        return rounded

    return call


def _extreme(plain: Callable, beats: Callable) -> Callable:
    """`min` or `max`, whose result counts where one of the numbers does, whichever it is: a kernel's work goes on."""

    def call(*numbers, **keywords):
        counted = [number for number in numbers if isinstance(number, _Counted)]
        if not counted or len(numbers) < 2:
            return plain(*numbers, **keywords)
        chosen = numbers[0]
        for number in numbers[1:]:
            chosen = number if beats(number, chosen) else chosen
        if any(isinstance(number, (Float, float, np.floating)) for number in numbers):
            value = chosen.value if isinstance(chosen, _Counted) else chosen
            return Float(float(value), counted[0].counts)
        dtypes = [number.dtype for number in numbers if isinstance(number, (Integer, np.integer))]
        return Integer(int(chosen), np.result_type(*dtypes), counted[0].counts)

    return call


def _cast(dtype: type) -> Callable:
    return lambda number: as_type(number, dtype) if isinstance(number, _Counted) else dtype(number)


_CASTS = {name: _cast(getattr(np, name)) for name in (
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"
)}  # fmt: skip
_ROUNDINGS = {"floor": math.floor, "ceil": math.ceil, "trunc": math.trunc}
# function of a module → what counts in its place; each stays what it was for plain numbers
_OF_MATH = {**_functions(math), **{name: _rounding(plain, plain, True) for name, plain in _ROUNDINGS.items()}}
_OF_NUMPY = {**_functions(np), **_CASTS, **{
    name: _rounding(getattr(np, name), plain, False)
    for name, plain in {**_ROUNDINGS, "rint": round, "round": round}.items()
}}  # fmt: skip
NUMPY = types.SimpleNamespace(**{**vars(np), **_OF_NUMPY})
# what a body knows as a global → the same
STAND_INS = {
    **{id(getattr(m, name)): f for m, made in ((math, _OF_MATH), (np, _OF_NUMPY)) for name, f in made.items()},
    id(math): types.SimpleNamespace(**{**vars(math), **_OF_MATH}),
    id(np): NUMPY,
    id(int): lambda number=0: as_integer(number, np.int64) if isinstance(number, _Counted) else int(number),
    id(float): lambda number=0.0: as_float(number),
    id(round): _rounding(round, round, True),
    id(max): _extreme(max, operator.gt),
    id(min): _extreme(min, operator.lt),
}
_bodies: dict[Callable, Callable] = {}


def counting_body(function: Callable) -> Callable:
    """A body, or a helper that one calls, whose functions count and whose helpers are such bodies too."""
    if function not in _bodies:
        scope = dict(function.__globals__)
        own = types.FunctionType(
            function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
        )
        _bodies[function] = own
        for name in function.__code__.co_names:
            value = scope.get(name, getattr(builtins, name, None))
            if id(value) in STAND_INS:
                scope[name] = STAND_INS[id(value)]
            elif isinstance(value, types.FunctionType):
                scope[name] = counting_body(value)
    return _bodies[function]
