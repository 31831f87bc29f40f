"""Count what a kernel body does by running it, in plain Python, on arrays that keep score.

No formula of `costmodel` is used here. Units are those of `counted_numbers`; the elements of an array that a pass
declares as `indices` are addresses, and arithmetic on addresses counts nothing. Two declarations of a pass save work:
items of one class along every letter of its items are counted once and multiplied; a sum that each item runs over in
full (`sums`) is counted at its lengths 1 and 2 and continued in a straight line. `every_item=True` runs every item in
full, and a test proves the two equal.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from refimpl.compiler.ir import Call
from refimpl.kernels.passes import Pass, dims, dtype_of, dtypes_of, size_of

from .counted_numbers import Float, Integer, as_type, counting_body


class _Type:
    """The dtype of a counting array: what a body asks of it."""

    __slots__ = ("dtype", "itemsize", "counts")

    def __init__(self, dtype, counts):
        self.dtype, self.itemsize, self.counts = dtype, dtype.itemsize, counts

    def type(self, number):
        """A number, plain ones too, as a counted element."""
        counted = as_type(number, self.dtype)
        if isinstance(counted, (Float, Integer)):
            return counted
        return Float(counted, self.counts) if self.dtype.kind == "f" else Integer(int(counted), self.dtype, self.counts)


class _Array:
    """An array of a constant, 1.0 or 0, that counts its element reads and writes, and whose elements count.

    addresses: are its elements indices? Then they are plain integers, and arithmetic on them counts nothing.
    values: an integer array's elements, where the pass gives an example of them.
    """

    __slots__ = ("shape", "size", "ndim", "dtype", "addresses", "values", "counts", "constant")

    def __init__(self, shape, dtype, counts, addresses, values=None):
        self.shape, self.size, self.ndim, self.counts = shape, math.prod(shape), len(shape), counts
        self.addresses, self.values, self.dtype = addresses, values, _Type(dtype, counts)
        self.constant = self._element(1.0 if dtype.kind == "f" else 0)

    def _element(self, value):
        return value if self.addresses else self.dtype.type(value)

    def _check(self, index):
        index = index if isinstance(index, tuple) else (index,)
        for i, n in zip(index, self.shape, strict=True):
            if not 0 <= (i.value if type(i) is Integer else i) < n:
                raise IndexError(f"index {index} is outside an array of shape {self.shape}")

    def __getitem__(self, index):
        self._check(index)
        self.counts["load"] += 1
        return self.constant if self.values is None else self._element(int(self.values[index]))

    def __setitem__(self, index, number):
        self._check(index)
        self.counts["store"] += 1
        if not self.addresses and isinstance(number, (Float, Integer)):
            as_type(number, self.dtype.dtype)


def count(
    passed: Pass, sizes: Mapping[str, int], attrs: Mapping, present: Iterable[str] = (), every_item: bool = False,
    dtypes: Mapping[str, np.dtype] | None = None,
) -> dict[str, int]:  # fmt: skip
    """Number of each unit that one call of `passed` does: unit name → count, zeros left out.

    sizes: letter → integer, for all its letters; attrs: canonical attributes; present: optional arrays that are given;
    dtypes: of arrays that may be of several, default the first that each names.
    """
    present, dtypes = tuple(present), dtypes or {}
    if every_item:
        return _counted(passed, sizes, attrs, present, dtypes, every_item=True)
    total: Counter = Counter()
    for lengths, weight in _lengths(passed, sizes):
        key = (passed, *sorted({**sizes, **lengths}.items()), repr(attrs), present, *dtypes.items())
        if key not in _known:
            _known[key] = _counted(passed, {**sizes, **lengths}, attrs, present, dtypes, every_item=False)
        for unit, n in _known[key].items():
            total[unit] += n * weight
    return {unit: n for unit, n in sorted(total.items()) if n}


def count_call(call: Call, n: int) -> dict[str, int]:
    """`count` of a program's call on n samples."""
    return count(call.passed, call.sizes_at(n), call.attrs, call.present, dtypes=several(call))


def several(call: Call) -> dict[str, np.dtype]:
    """The dtypes of those arrays of a call that may be of several."""
    return {a: b.dtype for a, b in call.arrays.items() if len(dtypes_of(call.passed.shapes[a])) > 1}


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


def _counted(
    passed: Pass, sizes: Mapping[str, int], attrs: Mapping, present: tuple, dtypes: Mapping[str, np.dtype],
    every_item: bool,
) -> Counter:  # fmt: skip
    body = counting_body(passed.body)
    tally: Counter = Counter()
    arrays = {}
    for a in passed.arrays:
        given = a not in passed.optional or a in present
        shape = passed.shape(a, sizes) if given else (0,) * len(dims(passed.shapes[a]))
        example = passed.examples[a](sizes) if a in passed.examples else None
        dtype = dtypes.get(a) or dtype_of(passed.shapes[a], np.float64)
        arrays[a] = _Array(shape, dtype, tally, a in passed.indices, example)
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
