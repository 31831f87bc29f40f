"""A vector of LANES floats as a Numba type, so that fast kernels state their registers instead of hoping for them.

Channels are the last axis of every map, so LANES neighbouring channels are one load. A sum over pixels or taps is then
a loop over vectors whose accumulators are local variables; left to the compiler, such a loop with many accumulators
stays scalar. LLVM splits a vector into whatever registers the processor has (one of AVX-512, four of NEON).

    x = address(array)       where a contiguous array starts; null where it is empty
    given(x)                 is x not null?
    v = load(x, i, n)        elements i … i+n−1 of x; lanes n … are zero
    store(y, i, v, n)        the first n lanes
    splat(x, s)              s in every lane, in the dtype of x
    a + b, a − b, a · b      a product that is added at once may be rounded once (contracted)
    clamp(v, lo, hi)         min(max(v, lo), hi); NaN stays
    keep(v, z, lo, hi)       v where lo < z < hi or z is NaN, else 0
    inside(v, lo, hi)        bits of an integer: lo < v < hi, lane 0 the lowest; a hi of NaN is no bound, NaN passes lo
    keep_bits(v, bits)       v in the lanes whose bit of an integer is set, lane 0 the lowest, else 0
    prefetch(x, i)           ask for the cache line of element i (prefetch_write: to write it)
    accumulate(s, i, v, n)   s[i …] += v in the dtype of s

Helpers take addresses, not arrays: Numba counts references to an array at each call, and two threads that count on
the same array wait for each other.
"""

import operator

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.extending import intrinsic, models, register_model
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from ...kernels.kernel import FASTMATH

LANES = 16
FLAGS = tuple(sorted(FASTMATH))


class Vector(types.Type):
    """LANES elements of one dtype, floats or the int32 of `integers`."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"vector{LANES}({dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, ir.VectorType(dmm.lookup(fe_type.dtype).get_value_type(), LANES))


def _binary(function, emit, emit_integer=None):
    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                if emit_integer or isinstance(args[0].dtype, types.Float):
                    return signature(args[0], *args)

    @lower_builtin(function, Vector, Vector)
    def _lower(context, builder, sig, args):
        if isinstance(sig.return_type.dtype, types.Integer):
            return getattr(builder, emit_integer)(*args)
        return getattr(builder, emit)(*args, flags=FLAGS)


_binary(operator.add, "fadd", "add")
_binary(operator.sub, "fsub", "sub")
_binary(operator.mul, "fmul", "mul")
_binary(operator.truediv, "fdiv")


def spread(builder, scalar, vector):
    """Emit the scalar in every lane of a vector type."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


@intrinsic
def address(typingctx, array):
    """Address of the first element of a contiguous array; null where it has none."""
    if not (isinstance(array, types.Array) and array.layout == "C"):
        return None

    def generate(context, builder, sig, args):
        value = context.make_array(array)(context, builder, args[0])
        empty = builder.icmp_signed("==", value.nitems, ir.Constant(value.nitems.type, 0))
        return builder.select(empty, ir.Constant(value.data.type, None), value.data)

    return signature(types.CPointer(array.dtype), array), generate


@intrinsic
def given(typingctx, pointer):
    """False for the address of an empty array."""

    def generate(context, builder, sig, args):
        return builder.icmp_unsigned("!=", args[0], ir.Constant(args[0].type, None))

    return signature(types.boolean, pointer), generate


def _at(context, builder, pointer, index, vector):
    """(pointer to the vector at an index, alignment in bytes)."""
    size = context.get_abi_sizeof(vector.element)
    return builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer()), size


def _masked(builder, vector, n):
    """(mask of the first n lanes, name suffix of the masked intrinsics)."""
    lanes = ir.VectorType(ir.IntType(64), LANES)
    mask = builder.icmp_signed("<", ir.Constant(lanes, list(range(LANES))), spread(builder, n, lanes))
    bits = 32 if vector.element == ir.FloatType() else 64
    return mask, f"v{LANES}f{bits}.p0"


def load_lanes(context, builder, vector, args):
    """Emit the load of a vector type; args: address, index, number of lanes."""
    pointer, align = _at(context, builder, args[0], args[1], vector)
    result = cgutils.alloca_once(builder, vector)
    with builder.if_else(builder.icmp_signed(">=", args[2], ir.Constant(args[2].type, LANES))) as (whole, part):
        with whole:
            builder.store(builder.load(pointer, align=align), result)
        with part:
            mask, suffix = _masked(builder, vector, args[2])
            kind = ir.FunctionType(vector, [pointer.type, ir.IntType(32), mask.type, vector])
            call = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.load.{suffix}")
            zero = ir.Constant(vector, [0.0] * LANES)
            builder.store(builder.call(call, [pointer, ir.Constant(ir.IntType(32), align), mask, zero]), result)
    return builder.load(result)


def store_lanes(context, builder, args):
    """Emit a store; args: address, index, vector, number of lanes."""
    vector = args[2].type
    pointer, align = _at(context, builder, args[0], args[1], vector)
    with builder.if_else(builder.icmp_signed(">=", args[3], ir.Constant(args[3].type, LANES))) as (whole, part):
        with whole:
            builder.store(args[2], pointer, align=align)
        with part:
            mask, suffix = _masked(builder, vector, args[3])
            kind = ir.FunctionType(ir.VoidType(), [vector, pointer.type, ir.IntType(32), mask.type])
            call = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.{suffix}")
            builder.call(call, [args[2], pointer, ir.Constant(ir.IntType(32), align), mask])
    return context.get_dummy_value()


@intrinsic
def load(typingctx, pointer, index, n):
    """Elements index … index+n−1; lanes n … are zero."""
    if not isinstance(pointer, types.CPointer):
        return None

    def generate(context, builder, sig, args):
        return load_lanes(context, builder, context.get_value_type(sig.return_type), args)

    return signature(Vector(pointer.dtype), pointer, types.int64, types.int64), generate


@intrinsic
def store(typingctx, pointer, index, vector, n):
    """Write the first n lanes to elements index …"""
    if not (isinstance(pointer, types.CPointer) and vector == Vector(pointer.dtype)):
        return None

    def generate(context, builder, sig, args):
        return store_lanes(context, builder, args)

    return signature(types.none, pointer, types.int64, vector, types.int64), generate


@intrinsic
def stream(typingctx, pointer, index, vector):
    """Write all lanes to elements index … past the caches; the address must be a multiple of the vector's size."""
    if not (isinstance(pointer, types.CPointer) and vector == Vector(pointer.dtype)):
        return None

    def generate(context, builder, sig, args):
        kind = args[2].type
        to, _ = _at(context, builder, args[0], args[1], kind)
        written = builder.store(args[2], to, align=LANES * context.get_abi_sizeof(kind.element))
        written.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)]))
        return context.get_dummy_value()

    return signature(types.none, pointer, types.int64, vector), generate


@intrinsic
def accumulate(typingctx, pointer, index, vector, n):
    """Add the first n lanes to elements index …, in the dtype of the pointer."""
    if not (isinstance(pointer, types.CPointer) and isinstance(vector, Vector)):
        return None
    wide = Vector(pointer.dtype)

    def generate(context, builder, sig, args):
        pointer, index, value, n = args
        if wide != vector:
            value = builder.fpext(value, context.get_value_type(wide))
        old = load_lanes(context, builder, value.type, (pointer, index, n))
        return store_lanes(context, builder, (pointer, index, builder.fadd(old, value), n))

    return signature(types.none, pointer, types.int64, vector, types.int64), generate


def _prefetch(typingctx, pointer, write):
    if not isinstance(pointer, types.CPointer):
        return None

    def generate(context, builder, sig, args):
        where = builder.gep(args[0], [args[1]])
        number = ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [where.type, number, number, number]), "llvm.prefetch.p0"
        )
        builder.call(function, [where, *(ir.Constant(number, n) for n in (write, 2, 1))])
        return context.get_dummy_value()

    return signature(types.none, pointer, types.int64), generate


@intrinsic
def prefetch(typingctx, pointer, index):
    """Ask for the cache line of an element to read; an address that is not mapped does no harm."""
    return _prefetch(typingctx, pointer, 0)


@intrinsic
def prefetch_write(typingctx, pointer, index):
    """Ask for the cache line of an element to write; an address that is not mapped does no harm."""
    return _prefetch(typingctx, pointer, 1)


@intrinsic
def splat(typingctx, like, scalar):
    """The scalar in every lane, in the dtype of the address `like`."""
    if not isinstance(like, types.CPointer):
        return None

    def generate(context, builder, sig, args):
        vector = context.get_value_type(sig.return_type)
        return spread(builder, context.cast(builder, args[1], scalar, like.dtype), vector)

    return signature(Vector(like.dtype), like, scalar), generate


@intrinsic
def clamp(typingctx, vector, lo, hi):
    """min(max(v, lo), hi) lane by lane; NaN stays NaN."""
    if not isinstance(vector, Vector):
        return None

    def generate(context, builder, sig, args):
        v, lo, hi = args
        v = builder.select(builder.fcmp_ordered("<", v, lo), lo, v)
        return builder.select(builder.fcmp_ordered(">", v, hi), hi, v)

    return signature(vector, vector, vector, vector), generate


@intrinsic
def keep(typingctx, vector, z, lo, hi):
    """The vector where lo < z < hi, or z is NaN; 0 elsewhere."""
    if not isinstance(vector, Vector):
        return None

    def generate(context, builder, sig, args):
        v, z, lo, hi = args
        outside = builder.or_(builder.fcmp_ordered("<=", z, lo), builder.fcmp_ordered(">=", z, hi))
        return builder.select(outside, ir.Constant(v.type, [0.0] * LANES), v)

    return signature(vector, vector, vector, vector, vector), generate


@intrinsic
def inside(typingctx, vector, lo, hi):
    """Bits: is lo < v < hi, lane 0 the lowest. A hi of NaN is no bound, and NaN passes lo."""
    if not isinstance(vector, Vector):
        return None

    def generate(context, builder, sig, args):
        v, lo, hi = args
        under = builder.or_(builder.fcmp_ordered("<", v, hi), builder.fcmp_unordered("uno", hi, hi))
        between = builder.and_(builder.fcmp_unordered(">", v, lo), under)
        return builder.zext(builder.bitcast(between, ir.IntType(LANES)), ir.IntType(64))

    return signature(types.uint64, vector, vector, vector), generate


@intrinsic
def keep_bits(typingctx, vector, bits):
    """The vector in the lanes whose bit is set in an integer, lane 0 the lowest; 0 elsewhere."""
    if not (isinstance(vector, Vector) and isinstance(bits, types.Integer)):
        return None

    def generate(context, builder, sig, args):
        word = context.cast(builder, args[1], bits, types.uint64)
        chosen = builder.bitcast(builder.trunc(word, ir.IntType(LANES)), ir.VectorType(ir.IntType(1), LANES))
        return builder.select(chosen, args[0], ir.Constant(args[0].type, [0.0] * LANES))

    return signature(vector, vector, bits), generate


@intrinsic
def chosen(typingctx, vector, a, b):
    """a where v ≥ 0, b elsewhere and where v is NaN, lane by lane."""
    if not isinstance(vector, Vector):
        return None

    def generate(context, builder, sig, args):
        v, a, b = args
        return builder.select(builder.fcmp_ordered(">=", v, ir.Constant(v.type, [0.0] * LANES)), a, b)

    return signature(vector, vector, vector, vector), generate
