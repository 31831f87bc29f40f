"""Matrix products inside compiled kernels: C ← α·op(A)·op(B) + β·C on row-major blocks of larger arrays.

The product is the `sgemm` or `dgemm` of SciPy's BLAS (`scipy.linalg.cython_blas`). Its address is given to LLVM under
a fixed name when this module is imported, so a kernel that calls it can be cached on disk and loaded by another
process. Run it single-threaded, inside `running.threads`, on tiles inside `prange`: two thread pools that take turns
cost milliseconds per switch.
"""

import importlib
import sys
from importlib import machinery, util
from pathlib import Path

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import get_cython_function_address, intrinsic

from ...kernels.kernel import inline

SYMBOLS = {types.float32: ("sgemm", "gradledger_sgemm"), types.float64: ("dgemm", "gradledger_dgemm")}

BLAS = "scipy.linalg.cython_blas"


def _load_blas() -> None:
    """Import SciPy's BLAS without the rest of `scipy.linalg`, which takes a third of the time to a first step."""
    folder = Path(util.find_spec("scipy").submodule_search_locations[0], "linalg")
    files = (folder / f"cython_blas{suffix}" for suffix in machinery.EXTENSION_SUFFIXES)
    library = next((f for f in files if f.is_file()), None)
    if BLAS in sys.modules or library is None:
        importlib.import_module(BLAS)
        return
    spec = util.spec_from_file_location(BLAS, library)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[BLAS] = module


_load_blas()
for _routine, _symbol in SYMBOLS.values():
    llvm.add_symbol(_symbol, get_cython_function_address(BLAS, _routine))


@intrinsic
def _call(typing_context, trans_a, trans_b, m, n, k, alpha, a, a_offset, lda, b, b_offset, ldb, beta, c, c_offset, ldc):
    """As `gemm`, on the data pointers. Every scalar goes through the stack, as Fortran wants; nothing is allocated."""
    arrays = (a, b, c)
    if not all(isinstance(x, types.Array) for x in arrays) or not a.dtype == b.dtype == c.dtype:
        raise TypingError(f"gemm needs three arrays of one dtype, got {a}, {b} and {c}")
    if c.dtype not in SYMBOLS:
        raise TypingError(f"gemm multiplies float32 or float64, got {c.dtype}")
    if not c.mutable:
        raise TypingError("gemm writes c, but c is read-only")
    dtype, symbol = c.dtype, SYMBOLS[c.dtype][1]
    arguments = (trans_a, trans_b, m, n, k, alpha, a, a_offset, lda, b, b_offset, ldb, beta, c, c_offset, ldc)

    def codegen(context, builder, signature, values):
        value = dict(zip(_NAMES, values, strict=True))
        kind = dict(zip(_NAMES, signature.args, strict=True))

        def cast(name, to):
            return context.cast(builder, value[name], kind[name], to)

        def by_reference(name, to):
            # in the entry block: a slot made where the call stands would grow the stack at each turn of a loop
            slot = cgutils.alloca_once(builder, context.get_value_type(to))
            builder.store(cast(name, to), slot)
            return slot

        def letter(name):
            slot = cgutils.alloca_once(builder, ir.IntType(8))
            chosen = cast(name, types.boolean)
            builder.store(
                builder.select(chosen, ir.Constant(ir.IntType(8), ord("T")), ir.Constant(ir.IntType(8), ord("N"))), slot
            )
            return slot

        def block(name):
            data = context.make_array(kind[name])(context, builder, value[name]).data
            return builder.gep(data, [cast(f"{name}_offset", types.intp)])

        # column-major BLAS sees each row-major matrix transposed, so it computes Cᵀ = op(B)ᵀ op(A)ᵀ
        passed = [
            letter("trans_b"), letter("trans_a"),
            *(by_reference(x, types.int32) for x in ("n", "m", "k")),
            by_reference("alpha", dtype),
            block("b"), by_reference("ldb", types.int32), block("a"), by_reference("lda", types.int32),
            by_reference("beta", dtype), block("c"), by_reference("ldc", types.int32),
        ]  # fmt: skip
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [x.type for x in passed]), symbol
        )
        builder.call(function, passed)
        return context.get_dummy_value()

    return types.void(*arguments), codegen


_NAMES = (
    "trans_a", "trans_b", "m", "n", "k", "alpha", "a", "a_offset", "lda", "b", "b_offset", "ldb",
    "beta", "c", "c_offset", "ldc",
)  # fmt: skip


@inline
def gemm(trans_a, trans_b, m, n, k, alpha, a, a_offset, lda, b, b_offset, ldb, beta, c, c_offset, ldc):
    """C (m, n) ← alpha · op(A) (m, k) · op(B) (k, n) + beta · C, for compiled callers only, also inside `prange`.

    Each matrix is a row-major block: `x_offset` is its first element, counted in elements from the start of the
    memory of the C-contiguous array `x` (of any rank), `ldx` the elements from one stored row to the next. op(A) is Aᵀ
    where trans_a is true: A is then stored (k, m), and B likewise (n, k). With beta 0 the old values of C, NaN
    included, do not matter. Arrays are float32 or float64, all alike. Nothing is checked: a block outside its array
    is an access outside memory. Sizes must fit into 32 bits.
    """
    if m > 0 and n > 0:  # BLAS refuses leading dimensions of zero, which empty blocks may have
        _call(trans_a, trans_b, m, n, k, alpha, a, a_offset, lda, b, b_offset, ldb, beta, c, c_offset, ldc)
