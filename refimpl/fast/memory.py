"""Moving elements inside compiled kernels: copy, clear, and one bit per element (masks), eight elements at a time.

Offsets are counted in elements from the start of a C-contiguous array of any rank. Nothing is checked. A mask holds
the element `8 j + i` of a sample in bit i of its byte j.
"""

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from ..kernel import inline

BYTE = ir.IntType(8)


def _pointer(context, builder, kind, array, offset, offset_kind):
    """Address of an element."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [context.cast(builder, offset, offset_kind, types.intp)])


def _vector(builder, context, kind, pointer):
    """The address as that of eight elements in a row, and the type of those."""
    eight = ir.VectorType(context.get_value_type(kind.dtype), 8)
    return builder.bitcast(pointer, eight.as_pointer()), eight


@intrinsic
def copy(typing_context, target, target_offset, source, source_offset, count):
    """target[target_offset : + count] = source[source_offset : + count]; the two do not overlap."""

    def codegen(context, builder, signature, values):
        kinds = signature.args
        to = _pointer(context, builder, kinds[0], values[0], values[1], kinds[1])
        source = _pointer(context, builder, kinds[2], values[2], values[3], kinds[3])
        count = context.cast(builder, values[4], kinds[4], types.intp)
        cgutils.raw_memcpy(builder, to, source, count, context.get_abi_sizeof(to.type.pointee))
        return context.get_dummy_value()

    return types.void(target, target_offset, source, source_offset, count), codegen


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
    """One byte: bit i tells whether low < source[offset + i] < high; a high of NaN is no bound."""

    def codegen(context, builder, signature, values):
        kinds = signature.args
        pointer = _pointer(context, builder, kinds[0], values[0], values[1], kinds[1])
        pointer, eight = _vector(builder, context, kinds[0], pointer)
        loaded = builder.load(pointer, align=1)
        found = None
        comparisons = ((builder.fcmp_ordered, ">", 2), (builder.fcmp_unordered, "<", 3))
        for compare, order, i in comparisons:
            value, kind = values[i], kinds[i]
            bound = context.cast(builder, value, kind, kinds[0].dtype)
            every = ir.Constant(eight, ir.Undefined)
            for i in range(8):
                every = builder.insert_element(every, bound, ir.IntType(32)(i))
            true = compare(order, loaded, every)
            found = true if found is None else builder.and_(found, true)
        return builder.bitcast(found, BYTE)

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

    A high of NaN is no bound. Bits after the last element are zero.
    """
    mask_flat, flat = mask.reshape(-1), values.reshape(-1)
    whole = count // 8
    for j in range(whole):
        mask_flat[byte + j] = _bits_between(values, offset + 8 * j, low, high)
    if count > 8 * whole:
        last = np.uint8(0)
        for i in range(count - 8 * whole):
            v = flat[offset + 8 * whole + i]
            if low < v and not v >= high:
                last |= np.uint8(1 << i)
        mask_flat[byte + whole] = last


@inline
def read_masked(target, target_offset, source, source_offset, count, mask, byte, first):
    """target[target_offset + i] = source[source_offset + i] where element `first + i` of the sample is set, else 0.

    byte: the first byte of the sample's mask, counted over the whole mask.
    """
    target_flat, source_flat, mask_flat = target.reshape(-1), source.reshape(-1), mask.reshape(-1)
    head = min(count, -first % 8)
    whole = (count - head) // 8
    for i in range(head):
        set_ = mask_flat[byte + (first + i) // 8] >> ((first + i) % 8) & 1
        target_flat[target_offset + i] = source_flat[source_offset + i] if set_ else target.dtype.type(0)
    start = byte + (first + head) // 8
    for j in range(whole):
        i = head + 8 * j
        _keep_bits(target, target_offset + i, source, source_offset + i, mask_flat[start + j])
    for i in range(head + 8 * whole, count):
        set_ = mask_flat[byte + (first + i) // 8] >> ((first + i) % 8) & 1
        target_flat[target_offset + i] = source_flat[source_offset + i] if set_ else target.dtype.type(0)
