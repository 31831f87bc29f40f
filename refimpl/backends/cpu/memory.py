"""Moving elements inside compiled kernels, a vector at a time: copy, add, clear, transpose, masks of one bit each.

Offsets are counted in elements from the start of a C-contiguous array of any rank. Nothing is checked. A mask holds
the element `8 j + i` of a sample in bit i of its byte j.
"""

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ...kernels.kernel import inline
from .shared import floats, shared

BYTE = ir.IntType(8)
_FEATURES = llvm.get_host_cpu_features()
# bytes of a vector register, and whether it is read and written in part
if _FEATURES.get("avx512f"):
    VECTOR, MASKS = 64, True
elif _FEATURES.get("avx"):
    VECTOR, MASKS = 32, True
else:
    VECTOR, MASKS = 16, False


def _pointer(context, builder, kind, array, offset, offset_kind):
    """Address of an element."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [context.cast(builder, offset, offset_kind, types.intp)])


def _vector(builder, context, kind, pointer):
    """The address as that of eight elements in a row, and the type of those."""
    eight = ir.VectorType(context.get_value_type(kind.dtype), 8)
    return builder.bitcast(pointer, eight.as_pointer()), eight


def masked(builder, name, vector, pointer, *rest):
    """Call of llvm.masked.load or llvm.masked.store."""
    width = 32 if vector.element == ir.FloatType() else 64
    lanes = f"v{vector.count}f{width}"
    function = f"llvm.masked.{name}.{lanes}.p0{lanes}"
    arguments = [pointer, *rest] if name == "load" else [rest[0], pointer, *rest[1:]]
    kind = ir.FunctionType(vector if name == "load" else ir.VoidType(), [x.type for x in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, function), arguments)


def _move(add):
    """Intrinsic that copies or adds elements a vector at a time: runs are short, and a call of memcpy costs as much."""

    @intrinsic
    def move(typing_context, target, target_offset, source, source_offset, count):
        def codegen(context, builder, signature, values):
            kinds = signature.args
            to = _pointer(context, builder, kinds[0], values[0], values[1], kinds[1])
            origin = _pointer(context, builder, kinds[2], values[2], values[3], kinds[3])
            count = context.cast(builder, values[4], kinds[4], types.intp)
            item = to.type.pointee
            size = context.get_abi_sizeof(item)
            lanes = VECTOR // size
            vector, i32, intp = ir.VectorType(item, lanes), ir.IntType(32), count.type
            zeros = ir.Constant(vector, None)

            def at(base, index):
                return builder.bitcast(builder.gep(base, [index]), vector.as_pointer())

            whole = builder.and_(count, intp(-lanes))
            with cgutils.for_range_slice(builder, intp(0), whole, intp(lanes)) as (index, _):
                moved = builder.load(at(origin, index), align=size)
                if add:
                    moved = builder.fadd(moved, builder.load(at(to, index), align=size))
                builder.store(moved, at(to, index), align=size)
            rest = builder.sub(count, whole)
            if MASKS:
                with builder.if_then(builder.icmp_signed(">", rest, intp(0))):
                    pick = ir.VectorType(i32, lanes)
                    wanted = builder.insert_element(ir.Constant(pick, ir.Undefined), builder.trunc(rest, i32), i32(0))
                    wanted = builder.shuffle_vector(wanted, ir.Constant(pick, ir.Undefined), ir.Constant(pick, None))
                    inside = builder.icmp_signed("<", ir.Constant(pick, list(range(lanes))), wanted)
                    moved = masked(builder, "load", vector, at(origin, whole), i32(size), inside, zeros)
                    if add:
                        old = masked(builder, "load", vector, at(to, whole), i32(size), inside, zeros)
                        moved = builder.fadd(moved, old)
                    masked(builder, "store", vector, at(to, whole), moved, i32(size), inside)
            else:
                with cgutils.for_range_slice(builder, whole, count, intp(1)) as (index, _):
                    moved = builder.load(builder.gep(origin, [index]))
                    if add:
                        moved = builder.fadd(moved, builder.load(builder.gep(to, [index])))
                    builder.store(moved, builder.gep(to, [index]))
            return context.get_dummy_value()

        return types.void(target, target_offset, source, source_offset, count), codegen

    return move


copy = _move(add=False)  # copy(target, target_offset, source, source_offset, count); the two do not overlap
accumulate = _move(add=True)  # target[target_offset + i] += source[source_offset + i]


def moved(count: int, itemsize: int) -> int:
    """Elements that `copy` and `accumulate` work on for `count` of them: whole vectors where these take a mask."""
    lanes = VECTOR // itemsize
    return -(-count // lanes) * lanes if MASKS else count


@intrinsic
def _transpose_8(typing_context, target, target_offset, target_row, source, source_offset, source_row):
    """Block of 8 × 8: target[target_offset + j·target_row + i] = source[source_offset + i·source_row + j]."""

    def codegen(context, builder, signature, values):
        kinds = signature.args
        to = _pointer(context, builder, kinds[0], values[0], values[1], kinds[1])
        origin = _pointer(context, builder, kinds[3], values[3], values[4], kinds[4])
        to_row = context.cast(builder, values[2], kinds[2], types.intp)
        from_row = context.cast(builder, values[5], kinds[5], types.intp)
        size = context.get_abi_sizeof(to.type.pointee)
        intp, i32 = to_row.type, ir.IntType(32)
        pick = ir.VectorType(i32, 8)
        rows = []
        for i in range(8):
            pointer, _ = _vector(builder, context, kinds[3], builder.gep(origin, [builder.mul(intp(i), from_row)]))
            rows.append(builder.load(pointer, align=size))
        for half in (1, 2, 4):  # exchange the blocks off the diagonal, of 1, 2 and 4 elements
            upper = ir.Constant(pick, [j if not j & half else 8 + j - half for j in range(8)])
            lower = ir.Constant(pick, [j + half if not j & half else 8 + j for j in range(8)])
            following = list(rows)
            for i in range(8):
                if not i & half:
                    following[i] = builder.shuffle_vector(rows[i], rows[i + half], upper)
                    following[i + half] = builder.shuffle_vector(rows[i], rows[i + half], lower)
            rows = following
        for i in range(8):
            pointer, _ = _vector(builder, context, kinds[0], builder.gep(to, [builder.mul(intp(i), to_row)]))
            builder.store(rows[i], pointer, align=size)
        return context.get_dummy_value()

    return types.void(target, target_offset, target_row, source, source_offset, source_row), codegen


@inline
def transpose(target, target_offset, target_row, source, source_offset, source_row, rows, columns):
    """target[target_offset + j·target_row + i] = source[source_offset + i·source_row + j], i < rows, j < columns."""
    for j0 in range(0, columns, 16):  # two blocks wide: whole cache lines of the source
        for i in range(0, rows, 8):
            for j in range(j0, min(j0 + 16, columns), 8):
                if i + 8 <= rows and j + 8 <= columns:
                    _transpose_8(target, target_offset + j * target_row + i, target_row,
                                 source, source_offset + i * source_row + j, source_row)  # fmt: skip
                else:
                    for row in range(i, min(i + 8, rows)):
                        for col in range(j, min(j + 8, columns)):
                            element = source[source_offset + row * source_row + col]
                            target[target_offset + col * target_row + row] = element


@shared
def turn(zero, target, target_offset, target_row, source, source_offset, source_row, rows, columns):
    """`transpose` for kernels."""
    target, source = floats(zero, target), floats(zero, source)
    transpose(target, target_offset, target_row, source, source_offset, source_row, rows, columns)


@intrinsic
def clear(typing_context, target, target_offset, count):
    """target[target_offset : + count] = 0."""

    def codegen(context, builder, signature, values):
        kinds = signature.args
        to = _pointer(context, builder, kinds[0], values[0], values[1], kinds[1])
        count = context.cast(builder, values[2], kinds[2], types.intp)
        size = builder.mul(count, count.type(context.get_abi_sizeof(to.type.pointee)))
        cgutils.memset(builder, to, size, 0)
        return context.get_dummy_value()

    return types.void(target, target_offset, count), codegen


@intrinsic
def _bits_between(typing_context, source, offset, low, high):
    """One byte: bit i tells whether low < source[offset + i] < high. A high of NaN is no bound, and NaN passes low."""

    def codegen(context, builder, signature, values):
        kinds = signature.args
        pointer = _pointer(context, builder, kinds[0], values[0], values[1], kinds[1])
        pointer, eight = _vector(builder, context, kinds[0], pointer)
        loaded = builder.load(pointer, align=1)

        def every(value, kind):
            bound = context.cast(builder, value, kind, kinds[0].dtype)
            vector = ir.Constant(eight, ir.Undefined)
            for i in range(8):
                vector = builder.insert_element(vector, bound, ir.IntType(32)(i))
            return vector

        low, high = every(values[2], kinds[2]), every(values[3], kinds[3])
        under = builder.or_(builder.fcmp_ordered("<", loaded, high), builder.fcmp_unordered("uno", high, high))
        between = builder.and_(builder.fcmp_unordered(">", loaded, low), under)
        return builder.bitcast(between, BYTE)

    return types.uint8(source, offset, low, high), codegen


@intrinsic
def _keep_bits(typing_context, target, target_offset, source, source_offset, byte):
    """target[target_offset + i] = source[source_offset + i] where bit i of byte is set, else 0, for i < 8."""

    def codegen(context, builder, signature, values):
        kinds = signature.args
        to = _pointer(context, builder, kinds[0], values[0], values[1], kinds[1])
        to, eight = _vector(builder, context, kinds[0], to)
        source = _pointer(context, builder, kinds[2], values[2], values[3], kinds[3])
        source, _ = _vector(builder, context, kinds[2], source)
        byte = context.cast(builder, values[4], kinds[4], types.uint8)
        chosen = builder.bitcast(byte, ir.VectorType(ir.IntType(1), 8))
        zero = ir.Constant(eight, None)
        builder.store(builder.select(chosen, builder.load(source, align=1), zero), to, align=1)
        return context.get_dummy_value()

    return types.void(target, target_offset, source, source_offset, byte), codegen


@inline
def write_bits(mask, byte, values, offset, count, low, high):
    """Mask bytes from `byte` (counted over the whole mask) on: is low < values[offset + i] < high, for i < count.

    A high of NaN is no bound, and NaN passes low. Bits after the last element are zero.
    """
    whole = count // 8
    for j in range(whole):
        mask[byte + j] = _bits_between(values, offset + 8 * j, low, high)
    if count > 8 * whole:
        last = np.uint8(0)
        for i in range(count - 8 * whole):
            value = values[offset + 8 * whole + i]
            if not value <= low and (value < high or high != high):
                last |= np.uint8(1 << i)
        mask[byte + whole] = last


@inline
def read_masked(target, target_offset, source, source_offset, count, mask, byte, first):
    """target[target_offset + i] = source[source_offset + i] where element `first + i` of the sample is set, else 0.

    byte: the first byte of the sample's mask, counted over the whole mask.
    """
    head = min(count, -first % 8)
    whole = (count - head) // 8
    for i in range(head):
        set_ = mask[byte + (first + i) // 8] >> ((first + i) % 8) & 1
        target[target_offset + i] = source[source_offset + i] if set_ else target.dtype.type(0)
    start = byte + (first + head) // 8
    for j in range(whole):
        i = head + 8 * j
        _keep_bits(target, target_offset + i, source, source_offset + i, mask[start + j])
    for i in range(head + 8 * whole, count):
        set_ = mask[byte + (first + i) // 8] >> ((first + i) % 8) & 1
        target[target_offset + i] = source[source_offset + i] if set_ else target.dtype.type(0)
