"""Count what a tuned kernel executes by running its own body, in plain Python, on arrays and vectors that keep score.

This is what the statements of `compiler.executed` are checked against: nothing of them is used here. The body is the
one that Numba compiles, with every helper that it calls; only what has no Python body is stood in for: a vector
operation counts all its lanes, a register block of a product rows times lanes times depth, a product of BLAS m·n·k.
Elements of integer arrays count as in `counted_numbers`; those of arrays that the passes of a launch declare as
`indices` do not.
"""

import operator
import types
from collections import Counter
from collections.abc import Callable, Collection

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

from refimpl.backends.cpu import elementary, gemm, integers, matmul, memory, product, quantized_rounding, shared, simd
from refimpl.backends.cpu.simd import LANES
from refimpl.compiler.executed import Ops
from refimpl.compiler.ir import AtBatch, Buffer, Launch, Prefix

from . import counted_numbers
from .counted_numbers import Integer, as_integer

_tally: Counter = Counter()


def _count(mul: int = 0, add: int = 0) -> None:
    _tally.update(mul=mul, add=add)


def _operation(result, **ops):
    def run(self, other):
        _count(**ops)
        return result(self)

    return run


class _Scored:
    """What counts the additions and multiplications that it takes part in; `WIDTH` of each at a time."""

    WIDTH = 1

    def __init_subclass__(cls):
        same = staticmethod(lambda self: self).__func__
        for names, ops in ((("add", "sub"), {"add": cls.WIDTH}), (("mul",), {"mul": cls.WIDTH}), (("truediv",), {})):
            for name in names:
                setattr(cls, f"__{name}__", _operation(same, **ops))
                setattr(cls, f"__r{name}__", _operation(same, **ops))

    def __neg__(self):
        return self


class _Number(_Scored):
    """A float: 1.0, whatever is done to it."""

    def sqrt(self):
        return self

    def rint(self):
        return self

    def __abs__(self):
        return self

    def __float__(self):
        return 1.0

    def __int__(self):
        return 1


def _comparison(of: Callable) -> Callable:
    return lambda self, other: of(1.0, float(other))


for _of in (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne):
    setattr(_Number, f"__{_of.__name__}__", _comparison(_of))
_Number.__hash__ = None


class _Vector(_Scored):
    """LANES floats."""

    WIDTH = LANES


def _whole(**ops):
    def run(self, other):
        _tally.update({name: LANES * times for name, times in ops.items()})
        return self

    return run


class _WholeVector:
    """LANES int32."""

    __add__ = __sub__ = _whole(iadd=1)
    __mul__ = _whole(imul=1)


NUMBER, VECTOR, WHOLE = _Number(), _Vector(), _WholeVector()


class _Array:
    """A float array of which only the shape is kept; an element is a number that counts."""

    def __init__(self, outline: np.ndarray):
        self.outline, self.shape, self.size = outline, outline.shape, outline.size
        self.itemsize, self.ctypes = outline.dtype.itemsize, types.SimpleNamespace(data=0)
        self.dtype = types.SimpleNamespace(type=lambda value: NUMBER, itemsize=self.itemsize)

    def __getitem__(self, index):
        element = self.outline[index]
        return _Array(element) if isinstance(element, np.ndarray) else NUMBER

    def __setitem__(self, index, value):
        self.outline[index]  # an index outside is an error here

    def reshape(self, *shape):
        return _Array(self.outline.reshape(*shape))


class _Integers:
    """An integer array whose elements, as they are, count."""

    def __init__(self, array: np.ndarray):
        self.array, self.shape, self.size, self.itemsize = array, array.shape, array.size, array.itemsize
        self.dtype = types.SimpleNamespace(type=self._element, itemsize=array.itemsize)

    def _element(self, value):
        return as_integer(value if isinstance(value, Integer) else _integer(value, self.array.dtype), self.array.dtype)

    def __getitem__(self, index):
        element = self.array[index]
        return _Integers(element) if isinstance(element, np.ndarray) else _integer(element, self.array.dtype)

    def __setitem__(self, index, value):
        self.array[index] = self._element(value).value

    def reshape(self, *shape):
        return _Integers(self.array.reshape(*shape))


def _integer(value, dtype) -> Integer:
    return Integer(int(value), np.dtype(dtype), _tally)


class _Memory:
    """Memory behind an address: of no length, an element is `value`."""

    def __init__(self, value, given: bool = True, itemsize: int = 0):
        self.value, self.given, self.itemsize = value, given, itemsize
        self.dtype = types.SimpleNamespace(type=lambda value: NUMBER)

    def __getitem__(self, index):
        return self.value

    def __setitem__(self, index, value):
        pass


def _address(array) -> _Memory:
    if isinstance(array, _Memory):  # on the stack
        return array
    if isinstance(array, _Array):
        return _Memory(NUMBER, array.size > 0)
    of = array.array.dtype
    return _Memory(255 if of == np.uint8 else _integer(0, of), array.size > 0, array.itemsize)


def _stack(zero) -> _Memory:
    """An array on the stack: of integers where its zero is one."""
    element = _integer(0, zero.dtype) if isinstance(zero, np.integer) else NUMBER
    return _Memory(element, itemsize=_itemsize[0])


def _operands(like: _Memory) -> int:
    return 4 // like.itemsize


def _dot(total, a, b, like):
    _tally.update(imul=LANES * _operands(like), iadd=LANES * _operands(like))
    return total


def _as_whole(number):
    """A cast to int64: of a float, a whole number that counts."""
    return _integer(1, np.int64) if isinstance(number, _Number) else counted_numbers.NUMPY.int64(number)


def _as_float(number):
    """A cast to a float type: of what counts, a number that counts."""
    return NUMBER if isinstance(number, (_Number, Integer)) else float(number)


def _block(rows: int, vectors: int) -> Callable:
    def block(zero, a, a_row, a_k, b, ldb, c, ldc, depth, add, width):
        done = rows * vectors * (memory.VECTOR // _itemsize[0]) * int(depth)
        _count(done, done)

    return block


def _panel_block(rows, vectors, a, a_at, row, step, b, b_at, c, c_at, c_row, depth, n, add):
    cells = rows * vectors * LANES
    _count(cells * int(depth), cells * (int(depth) + bool(add)))


def _blas(trans_a, trans_b, m, n, k, *rest):
    _count(int(m) * int(n) * int(k), int(m) * int(n) * int(k))


def _accumulate_run(target, target_offset, source, source_offset, count):
    lanes = memory.VECTOR // _itemsize[0]
    whole, rest = divmod(int(count), lanes)
    _count(add=whole * lanes + (lanes if rest and memory.MASKS else rest))


def _rescaled(additions: int) -> Callable:
    def run(*_):
        _tally.update(imul=LANES, iadd=additions * LANES)
        return WHOLE

    return run


_itemsize = [4]  # bytes of the float dtype of the kernel that runs


def _nothing(*_):
    return None


_CASTS = {"float32": _as_float, "float64": _as_float, "int64": _as_whole}
# what has no body in Python → what stands in for it
STAND_INS = {
    id(of): by
    for of, by in (
        (np, types.SimpleNamespace(**vars(counted_numbers.NUMPY) | _CASTS)),
        (numba.prange, range),
        (numba.get_thread_id, lambda: 0),
        (numba, types.SimpleNamespace(get_thread_id=lambda: 0)),
        (simd.address, _address),
        (simd.given, lambda pointer: pointer.given),
        (simd.load, lambda pointer, index, n: VECTOR),
        (simd.splat, lambda like, scalar: VECTOR),
        (simd.clamp, lambda vector, lo, hi: VECTOR),
        (simd.keep, lambda vector, z, lo, hi: VECTOR),
        (simd.keep_bits, lambda vector, bits: VECTOR),
        (simd.chosen, lambda vector, a, b: VECTOR),
        (elementary.power_of_e, lambda vector: VECTOR),
        (simd.inside, lambda vector, lo, hi: 2**LANES - 1),
        (simd.accumulate, lambda pointer, index, vector, n: _count(add=LANES)),
        *((of, _nothing) for of in (simd.store, simd.stream, simd.prefetch, simd.prefetch_write)),
        *(
            (of, lambda *_: WHOLE)
            for of in (integers.widen, integers.every, integers.packed, integers.spread, integers.under)
        ),
        *((of, lambda *_: WHOLE) for of in (integers.join2, integers.join4)),
        *((of, lambda *_: WHOLE) for of in (integers.larger, integers.smaller)),
        (integers.rightwards, lambda shift: True),
        *((of, _rescaled(4)) for of in (integers.requantized_once, integers.requantized_right)),
        (integers.requantized_twice, _rescaled(6)),
        (integers.raised, lambda vector, bits: vector),
        (integers.as_floats, lambda vector, like: VECTOR),
        *((of, _nothing) for of in (integers.narrow, integers.move, integers.scatter)),
        (quantized_rounding.magnitude, lambda value: 0),
        (quantized_rounding.of_bits, lambda bits, like: NUMBER),
        (integers.operands, _operands),
        (integers.dot, _dot),
        (shared.floats, lambda zero, address: _Memory(NUMBER, itemsize=_itemsize[0])),
        (shared.bytes_, lambda address: _Memory(255)),
        (memory.accumulate, _accumulate_run),
        (memory._bits_between, lambda *_: 255),
        *((of, _nothing) for of in (memory.copy, memory.clear, memory._transpose_8, memory._keep_bits)),
        (matmul._address, lambda array: 0),
        *((getattr(matmul, f"_block_{v}"), _block(getattr(matmul, f"ROWS_{v}"), v)) for v in (4, 2, 1)),
        *((getattr(matmul, f"_row_{v}"), _block(1, v)) for v in (4, 2, 1)),
        (product.block, _panel_block),
        (gemm._call, _blas),
    )
}
_bodies: dict = {}  # compiled function → its body in Python, whose helpers are such bodies too


def _python(value):
    """What takes the place of a global of a body."""
    if id(value) in STAND_INS:
        return STAND_INS[id(value)]
    if isinstance(value, Dispatcher):
        return body(value.py_func)
    if isinstance(value, types.FunctionType) and value.__module__.startswith("refimpl."):  # a helper of bodies
        return body(value)
    if _of_shared(value, "array"):  # of `shared.stack`
        return _stack
    name = _shared_name(value)
    return _shared_helper(name) if name else value


def _of_shared(value, name: str) -> bool:
    """Is a value an intrinsic that a function of `backends.cpu.shared` defines under this name?"""
    define = getattr(value, "_defn", None)
    return define is not None and define.__module__ == shared.__name__ and define.__name__ == name


def _shared_name(value) -> str | None:
    """The symbol of a helper of `backends.cpu.shared`, of which kernels see an intrinsic."""
    if not _of_shared(value, "call"):
        return None
    define = value._defn
    return dict(zip(define.__code__.co_freevars, (c.cell_contents for c in define.__closure__), strict=True))["name"]


def _shared_helper(name: str) -> Callable:
    helper = next(h for h in shared.HELPERS if h.symbol("") == f"{name}_")
    run = body(helper.body)

    def call(*given):
        passed = [NUMBER]
        for value in given:
            if isinstance(value, tuple):
                passed += map(int, value)
            else:
                passed.append(0 if isinstance(value, (_Array, _Integers, _Memory, np.ndarray)) else int(value))
        if len(passed) != helper.arguments:
            raise TypeError(f"{name} takes {helper.arguments - 1} integers, got {len(passed) - 1}")
        run(*passed)

    return call


def body(function: Callable) -> Callable:
    """A compiled function's body, whose helpers are bodies too."""
    if function not in _bodies:
        scope = dict(function.__globals__)
        _bodies[function] = types.FunctionType(function.__code__, scope, function.__name__, function.__defaults__)
        for name in function.__code__.co_names:
            if name in scope:
                scope[name] = _python(scope[name])
    return _bodies[function]


def run(kernel: Callable, args: tuple, addresses: Collection[int] = ()) -> Ops:
    """What a fast kernel executes on arguments of these shapes; the elements of integer arrays must be usable.

    addresses: positions of the integer arrays whose elements are indices, arithmetic on which counts nothing.
    """
    kernel = getattr(kernel, "compiled", kernel)
    floats = [a for a in args if isinstance(a, np.ndarray) and a.dtype.kind == "f" and a.dtype.itemsize]
    if floats:
        _itemsize[0] = floats[0].dtype.itemsize
    _tally.clear()
    body(kernel.py_func)(*(a if i in addresses else _counted(a) for i, a in enumerate(args)))
    return Ops.of(_tally)


def _counted(argument):
    if not isinstance(argument, np.ndarray):
        return argument
    return _Array(argument) if argument.dtype.kind == "f" else _Integers(argument)


def arguments(launch: Launch, n: int) -> tuple:
    """A launch's arguments on n samples: arrays of the right shapes, every bit of a mask set, indices zero."""
    return tuple(_argument(a, n) for a in launch.args)


def _argument(value, n: int):
    if isinstance(value, AtBatch):
        return value.value(n)
    if isinstance(value, Prefix):
        return _filled((value.length(n), *value.buffer.shape[1:]), value.buffer.dtype)
    if isinstance(value, Buffer):
        return _filled((n * value.batched, *value.shape[1:]) if value.batched else value.shape, value.dtype)
    return value


def _filled(shape: tuple[int, ...], dtype) -> np.ndarray:
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return np.broadcast_to(np.zeros((), dtype), shape)
    return np.full(shape, 255 if dtype == np.uint8 else 0, dtype)


def launched(launch: Launch, n: int) -> Ops:
    """What the fast kernel of a launch executes on n samples."""
    indices = {call.arrays[a].root for call in launch.covers for a in call.passed.indices if a in call.arrays}
    addresses = [i for i, a in enumerate(launch.args) if _buffer(a) and _buffer(a).root in indices]
    return run(launch.function, arguments(launch, n), addresses)


def _buffer(argument) -> Buffer | None:
    plain = argument.buffer if isinstance(argument, Prefix) else argument
    return plain if isinstance(plain, Buffer) else None
