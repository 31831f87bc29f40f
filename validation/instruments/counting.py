"""Count what a kernel body does by running it, in plain Python, on arrays that keep score.

No formula of `costmodel` is used here. Two declarations of a pass save work: items of one class along every letter of
its items are counted once and multiplied; a sum that each item runs over in full (`sums`) is counted at its lengths 1
and 2 and continued in a straight line. `every_item=True` runs every item in full, and a test proves the two equal.
"""

import itertools
import math
import types
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from refimpl.compiler.ir import Call
from refimpl.kernels.passes import Pass, dims, dtype_of, size_of


class _Number:
    """A float that counts the arithmetic done on it."""

    __slots__ = ("value", "counts")

    def __init__(self, value, counts):
        self.value, self.counts = value, counts

    def __float__(self):
        return float(self.value)

    def __bool__(self):
        return bool(self.value)

    def __abs__(self):
        self.counts["cmp"] += 1
        return _Number(abs(self.value), self.counts)


def _binary(unit, function):
    def forward(self, other):
        self.counts[unit] += 1
        return _Number(function(self.value, other.value if isinstance(other, _Number) else other), self.counts)

    def reflected(self, other):
        self.counts[unit] += 1
        return _Number(function(other, self.value), self.counts)

    return forward, reflected


def _compare(function):
    def compare(self, other):
        self.counts["cmp"] += 1
        return function(self.value, other.value if isinstance(other, _Number) else other)

    return compare


for _name, _unit, _function in (
    ("add", "add", lambda a, b: a + b),
    ("sub", "add", lambda a, b: a - b),
    ("mul", "mul", lambda a, b: a * b),
    ("truediv", "div", lambda a, b: a / b if b else math.inf),
):
    _forward, _reflected = _binary(_unit, _function)
    setattr(_Number, f"__{_name}__", _forward)
    setattr(_Number, f"__r{_name}__", _reflected)
for _name, _function in (
    ("lt", lambda a, b: a < b),
    ("le", lambda a, b: a <= b),
    ("gt", lambda a, b: a > b),
    ("ge", lambda a, b: a >= b),
    ("eq", lambda a, b: a == b),
    ("ne", lambda a, b: a != b),
):
    setattr(_Number, f"__{_name}__", _compare(_function))


def _counting_math():
    """A stand-in for `math` whose functions count when they meet a counted number."""

    def counted(unit, function):
        def call(number):
            if not isinstance(number, _Number):
                return function(number)
            number.counts[unit] += 1
            return _Number(function(number.value), number.counts)

        return call

    units = {"exp": "exp", "expm1": "exp", "log": "log", "log1p": "log", "sqrt": "sqrt"}
    overrides = {name: counted(unit, getattr(math, name)) for name, unit in units.items()}
    return types.SimpleNamespace(**{**vars(math), **overrides})


class _Array:
    """An array of a constant that counts its element reads and writes; integer elements are plain integers.

    values: an index array's elements, where the pass gives an example of them.
    """

    __slots__ = ("shape", "size", "ndim", "dtype", "value", "values", "counts")

    def __init__(self, shape, dtype, counts, values=None):
        self.shape, self.size, self.ndim, self.counts = shape, math.prod(shape), len(shape), counts
        self.values = values
        if np.issubdtype(dtype, np.floating):
            self.value = _Number(1.0, counts)
            self.dtype = types.SimpleNamespace(type=lambda value: _Number(float(value), counts))
        else:
            self.value = 0
            self.dtype = types.SimpleNamespace(type=int)

    def _check(self, index):
        index = index if isinstance(index, tuple) else (index,)
        for i, n in zip(index, self.shape, strict=True):
            if i < 0 or i >= n:
                raise IndexError(f"index {index} is outside an array of shape {self.shape}")

    def __getitem__(self, index):
        self._check(index)
        self.counts["load"] += 1
        return self.value if self.values is None else int(self.values[index])

    def __setitem__(self, index, number):
        self._check(index)
        self.counts["store"] += 1


def count(
    passed: Pass, sizes: Mapping[str, int], attrs: Mapping, present: Iterable[str] = (), every_item: bool = False
) -> dict[str, int]:
    """Number of each unit that one call of `passed` does: unit name → count, zeros left out.

    sizes: letter → integer, for all its letters; attrs: canonical attributes; present: optional arrays that are given.
    """
    present = tuple(present)
    if every_item:
        return _counted(passed, sizes, attrs, present, every_item=True)
    total: Counter = Counter()
    for lengths, weight in _lengths(passed, sizes):
        key = (passed, *sorted({**sizes, **lengths}.items()), repr(attrs), present)
        if key not in _known:
            _known[key] = _counted(passed, {**sizes, **lengths}, attrs, present, every_item=False)
        for unit, n in _known[key].items():
            total[unit] += n * weight
    return {unit: n for unit, n in sorted(total.items()) if n}


def count_call(call: Call, n: int) -> dict[str, int]:
    """`count` of a program's call on n samples."""
    return count(call.passed, call.sizes_at(n), call.attrs, call.present)


_known: dict = {}  # counts of short calls: many calls of a net differ only in the lengths of their sums


def _lengths(passed: Pass, sizes: Mapping[str, int]):
    """Short sizes to count instead of `sizes`, each with the weight of its count.

    Along each long sum of length m an affine function is (2 − m) times its value at 1 and (m − 1) times that at 2.
    """
    choices = []
    for d in passed.sums:
        over, _, under = d.partition("/")
        step = sizes[under] if under else 1
        m = sizes[over] // step
        choices.append([({over: step}, 2 - m), ({over: 2 * step}, m - 1)] if m > 2 else [({}, 1)])
    for chosen in itertools.product(*choices):
        yield {k: v for lengths, _ in chosen for k, v in lengths.items()}, math.prod(weight for _, weight in chosen)


def _counted(passed: Pass, sizes: Mapping[str, int], attrs: Mapping, present: tuple, every_item: bool) -> Counter:
    scope = {**passed.body.__globals__, "math": _counting_math()}
    body = types.FunctionType(passed.body.__code__, scope)
    tally: Counter = Counter()
    arrays = {}
    for a in passed.arrays:
        given = a not in passed.optional or a in present
        shape = passed.shape(a, sizes) if given else (0,) * len(dims(passed.shapes[a]))
        example = passed.examples[a](sizes) if a in passed.examples else None
        arrays[a] = _Array(shape, dtype_of(passed.shapes[a], np.float64), tally, example)
    args = [arrays[a] for a in passed.arrays] + [attrs[a] for a in passed.attributes]

    axes = []  # along each letter of the items: (index to run, how many indices it stands for)
    for d in passed.items:
        n = size_of(d, sizes)
        kinds = passed.alike[d](sizes, attrs) if d in passed.alike else np.zeros(n, int)
        if every_item:
            axes.append([(i, 1) for i in range(n)])
        else:
            _, first, times = np.unique(kinds, return_index=True, return_counts=True)
            axes.append(list(zip(first.tolist(), times.tolist(), strict=True)))
    lengths = [size_of(d, sizes) for d in passed.items]
    total: Counter = Counter()
    for chosen in itertools.product(*axes):
        t = 0
        for (index, _), n in zip(chosen, lengths, strict=True):
            t = t * n + index
        tally.clear()
        body(t, *args)
        times = math.prod(multiplicity for _, multiplicity in chosen)
        for unit, n in tally.items():
            total[unit] += n * times
    return total
