"""Helpers that several fast kernels call: each is compiled once per dtype and called by address.

Numba compiles a helper again into every kernel, and into every layer between. A shared helper is a C function of its
own; its address is given to LLVM under a fixed name before the first kernel of its dtype runs, so kernels that call it
compile in a second or two and load from the disk cache.
"""

import inspect
from collections.abc import Callable
from types import SimpleNamespace

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.ccallback import CFunc
from numba.core.errors import TypingError
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from ...kernels.kernel import FASTMATH, KERNELS, cached, fast

HELPERS: list = []  # every shared helper, in the order of definition
OPTIONS = {"fastmath": FASTMATH, "error_model": "numpy"}
PREPARED: dict[str, int] = {}  # dtype (its character) → how many of the helpers have an address for it


class TileKernel:
    """A fast kernel that calls shared helpers: `kernel(*args)`, the first argument an array of the call's dtype."""

    def __init__(self, function: Callable):
        self.compiled = fast(function)
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__

    def compile(self, signature: tuple) -> None:
        """Compile for argument types, as a dispatcher does, or load from the disk cache."""
        kind = np.dtype(str(signature[0].dtype))
        if PREPARED.get(kind.char) != len(HELPERS):
            prepare(kind)
        self.compiled.compile(signature)

    def __call__(self, first, *args) -> None:
        """Run; TypeError where the arrays are neither float32 nor float64."""
        if PREPARED.get(first.dtype.char) != len(HELPERS):
            prepare(first.dtype)
        self.compiled(first, *args)


def prepare(dtype) -> None:
    """Compile the shared helpers for float32 or float64, or load them from the disk cache, and make them callable.

    Those that were imported since the last time are added.
    """
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"fast kernels compute in float32 or float64, not {dtype}")
    kind = numba.from_dtype(dtype)
    for helper in HELPERS[PREPARED.get(dtype.char, 0) :]:
        signature = types.void(kind, *[types.intp] * (helper.arguments - 1))
        compiled = CFunc(helper.body, (signature.args, signature.return_type), {}, OPTIONS)
        cached(compiled, helper.body, OPTIONS)
        compiled.compile()
        llvm.add_symbol(helper.symbol(kind), compiled.address)
        helper.compiled[kind] = compiled  # keeps the code alive
        helper.stats.cache_misses[kind] = 1 - compiled.cache_hits
    PREPARED[dtype.char] = len(HELPERS)


def shared(body: Callable) -> Callable:
    """Turn `body(zero, *integers)` into a helper that kernels call as `helper(*arguments)`, without `zero`.

    zero is 0 in the dtype of the first array of the call. An array is passed as the address of its first element
    (`floats` and `bytes_` give it back), a tuple as its entries, a flag as 0 or 1.
    """
    name = f"gradledger_{body.__module__.rsplit('.', 1)[-1]}_{body.__name__}"
    arguments = len(inspect.signature(body).parameters)
    compiled: dict = {}  # kind → code; also what `signatures` shows, as a dispatcher does
    HELPERS.append(
        SimpleNamespace(
            body=body,
            py_func=body,
            arguments=arguments,
            symbol=lambda kind: f"{name}_{kind}",
            compiled=compiled,
            signatures=compiled,
            stats=SimpleNamespace(cache_misses={}),
        )
    )
    KERNELS.append(HELPERS[-1])

    @intrinsic
    def call(typing_context, *given):
        arrays = [a for a in given if isinstance(a, types.Array) and isinstance(a.dtype, types.Float)]
        if not arrays or len({a.dtype for a in arrays}) > 1:
            raise TypingError(f"{name} needs float arrays of one dtype, got {arrays}")

        def codegen(context, builder, signature, values):
            intp, item = context.get_value_type(types.intp), context.get_value_type(arrays[0].dtype)
            passed = [ir.Constant(item, 0)]
            # var-args arrive as one tuple
            for i, kind in enumerate(given):
                value = builder.extract_value(values[0], i) if len(values) == 1 and len(given) > 1 else values[i]
                if isinstance(kind, types.Array):
                    passed.append(builder.ptrtoint(context.make_array(kind)(context, builder, value).data, intp))
                elif isinstance(kind, types.BaseTuple):
                    for entry, entry_kind in zip(cgutils.unpack_tuple(builder, value), kind, strict=True):
                        passed.append(context.cast(builder, entry, entry_kind, types.intp))
                else:
                    passed.append(context.cast(builder, value, kind, types.intp))
            if len(passed) != arguments:
                raise TypeError(f"{name} takes {arguments - 1} integers, got {len(passed) - 1}")
            kind = ir.FunctionType(ir.VoidType(), [x.type for x in passed])
            symbol = f"{name}_{arrays[0].dtype}"
            builder.call(cgutils.get_or_insert_function(builder.module, kind, symbol), passed)
            return context.get_dummy_value()

        return types.void(types.StarArgTuple(given)), codegen

    return call


def _array(kind, context, builder, pointer, count):
    """1-D array of unowned memory."""
    item = context.get_value_type(kind.dtype)
    array = context.make_array(kind)(context, builder)
    intp = context.get_value_type(types.intp)
    size = intp(context.get_abi_sizeof(item))
    populate_array(
        array, pointer, cgutils.pack_array(builder, [intp(count)]), cgutils.pack_array(builder, [size]), size, None
    )
    return array._getvalue()


@intrinsic
def floats(typing_context, zero, address):
    """The memory at an address as an array of the dtype of `zero`; its length is not known."""
    kind = types.Array(zero, 1, "C")

    def codegen(context, builder, signature, values):
        pointer = builder.inttoptr(values[1], context.get_value_type(zero).as_pointer())
        return _array(kind, context, builder, pointer, 0)

    return kind(zero, address), codegen


@intrinsic
def bytes_(typing_context, address):
    """The memory at an address as an array of uint8; its length is not known."""
    kind = types.Array(types.uint8, 1, "C")

    def codegen(context, builder, signature, values):
        return _array(kind, context, builder, builder.inttoptr(values[0], ir.IntType(8).as_pointer()), 0)

    return kind(address), codegen


def stack(count: int) -> Callable:
    """`array(zero)` in a helper: an array of `count` elements on the stack of the calling function."""

    @intrinsic
    def array(typing_context, zero):
        kind = types.Array(zero, 1, "C")

        def codegen(context, builder, signature, values):
            memory = cgutils.alloca_once(builder, context.get_value_type(zero), size=count)
            memory.align = 64
            return _array(kind, context, builder, memory, count)

        return kind(zero), codegen

    return array
