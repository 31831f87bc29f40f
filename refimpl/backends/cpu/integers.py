"""Vectors of LANES int32, and products of 8 and 16 bits that are summed in them.

    v = widen(x, i, n)   elements i … i+n−1 of int8, int16 or int32 x; lanes n … are zero
    narrow(y, i, v, n)   the low bits of the first n lanes to elements i … of int8, int16 or int32 y
    move(y, j, x, i, n)  elements i … i+n−1 of x to elements j … of y, whose dtype may be wider
    a + b, a − b, a · b  modulo 2³²
    every(s)             the int32 s in every lane; raised(v, n): v·2ⁿ
    b = packed(w, i)     from element i of w on, in each lane: 4 int8 or 2 int16
    a = spread(x, i)     in every lane the same 4 int8, each with OFFSET added, or the same 2 int16
    a = under(x, i, j, k, l, n)   in each of the first n lanes the int8 from four places on, each with OFFSET added
    s = dot(s, a, b, x)  s + Σ of the 4 products of int8 x, or the 2 of int16 x, in each lane
    larger(a, b)         lane by lane; smaller(a, b)
    as_floats(v, x)      the numbers as floats of the dtype of x, as `simd` has them
    scatter(y, i, step, v, n)   the words of the first n lanes, as `packed` reads them, to elements i, i + step … of y
    requantized_once(v, m, s, zero, low, high), requantized_twice: as `kernels.requantize`, plus zero, saturated
    requantized_right: as requantized_once, for shifts all of which are below 0, as `rightwards` tells
    join4(a, b, c, d)    in each lane four int8, the low bytes of four vectors; join2(a, b): two int16

Sums are exact modulo 2³², so whatever comes in between, the end is right where it fits into an int32.
DOT4: has the processor an instruction for 4 (AVX-512 VNNI, AVX-VNNI, or the dot product of ARMv8.2)? Where it has
none, bytes are widened to 16 bits. x86 multiplies unsigned by signed bytes: hence OFFSET, 128
there and 0 elsewhere; a sum over a spread x is too large by OFFSET·Σ b.
"""

from llvmlite import ir
from numba.core import cgutils, codegen, config, types
from numba.core.extending import intrinsic

from .simd import LANES, Vector
from .simd import spread as spread_lanes

INT32 = Vector(types.int32)
_STATED = config.CPU_FEATURES  # what NUMBA_CPU_FEATURES says
FEATURES = frozenset((codegen.get_host_cpu_features() if _STATED is None else _STATED).split(","))
VNNI = next((bits for bits, name in ((512, "+avx512vnni"), (256, "+avxvnni")) if name in FEATURES), 0)
DOT4 = bool(VNNI) or "+dotprod" in FEATURES
OFFSET = 128 if VNNI else 0
PAIRED = "+sse4.1" in FEATURES  # x86 multiplies every second lane of 32 bits to 64, ARM lanes that lie together


def _integers(bits: int, lanes: int = LANES) -> ir.VectorType:
    return ir.VectorType(ir.IntType(bits), lanes)


WIDE, EIGHT = _integers(32), _integers(64, LANES // 2)


def _masked(builder, kind, pointer, n, value=None):
    """Emit the masked load of a vector type, or the masked store of a value."""
    bits = kind.element.width
    numbers = _integers(64)
    mask = builder.icmp_signed("<", ir.Constant(numbers, list(range(LANES))), spread_lanes(builder, n, numbers))
    align = ir.Constant(ir.IntType(32), bits // 8)
    if value is None:
        form = ir.FunctionType(kind, [pointer.type, ir.IntType(32), mask.type, kind])
        function = cgutils.get_or_insert_function(builder.module, form, f"llvm.masked.load.v{LANES}i{bits}.p0")
        return builder.call(function, [pointer, align, mask, ir.Constant(kind, [0] * LANES)])
    form = ir.FunctionType(ir.VoidType(), [kind, pointer.type, ir.IntType(32), mask.type])
    function = cgutils.get_or_insert_function(builder.module, form, f"llvm.masked.store.v{LANES}i{bits}.p0")
    return builder.call(function, [value, pointer, align, mask])


def _whole(pointer) -> bool:
    return isinstance(pointer, types.CPointer) and pointer.dtype in (types.int8, types.int16, types.int32)


@intrinsic
def widen(typingctx, pointer, index, n):
    """Elements index … index+n−1 as int32; lanes n … are zero."""
    if not _whole(pointer):
        return None
    bits = pointer.dtype.bitwidth

    def generate(context, builder, sig, args):
        kind = _integers(bits)
        where = builder.bitcast(builder.gep(args[0], [args[1]]), kind.as_pointer())
        result = cgutils.alloca_once(builder, kind)
        with builder.if_else(builder.icmp_signed(">=", args[2], ir.Constant(args[2].type, LANES))) as (full, part):
            with full:
                builder.store(builder.load(where, align=bits // 8), result)
            with part:
                builder.store(_masked(builder, kind, where, args[2]), result)
        narrow_ones = builder.load(result)
        return narrow_ones if bits == 32 else builder.sext(narrow_ones, WIDE)

    return INT32(pointer, types.int64, types.int64), generate


@intrinsic
def narrow(typingctx, pointer, index, vector, n):
    """Write the low bits of the first n lanes to elements index …"""
    if not (_whole(pointer) and vector == INT32):
        return None
    bits = pointer.dtype.bitwidth

    def generate(context, builder, sig, args):
        kind = _integers(bits)
        where = builder.bitcast(builder.gep(args[0], [args[1]]), kind.as_pointer())
        value = args[2] if bits == 32 else builder.trunc(args[2], kind)
        with builder.if_else(builder.icmp_signed(">=", args[3], ir.Constant(args[3].type, LANES))) as (full, part):
            with full:
                builder.store(value, where, align=bits // 8)
            with part:
                _masked(builder, kind, where, args[3], value)
        return context.get_dummy_value()

    return types.none(pointer, types.int64, vector, types.int64), generate


@intrinsic
def move(typingctx, to, place, pointer, index, n):
    """Write the first n of LANES elements from index on to those from place on, whose integers are no narrower."""
    if not (_whole(to) and _whole(pointer) and to.dtype.bitwidth >= pointer.dtype.bitwidth):
        return None
    kinds = tuple(_integers(p.dtype.bitwidth) for p in (to, pointer))

    def generate(context, builder, sig, args):
        written, read = (
            builder.bitcast(builder.gep(start, [at]), kind.as_pointer())
            for start, at, kind in zip(args[0:4:2], args[1:4:2], kinds, strict=True)
        )

        def widened(value):
            return value if kinds[0] == kinds[1] else builder.sext(value, kinds[0])

        with builder.if_else(builder.icmp_signed(">=", args[4], ir.Constant(args[4].type, LANES))) as (full, part):
            with full:
                loaded = builder.load(read, align=kinds[1].element.width // 8)
                builder.store(widened(loaded), written, align=kinds[0].element.width // 8)
            with part:
                _masked(builder, kinds[0], written, args[4], widened(_masked(builder, kinds[1], read, args[4])))
        return context.get_dummy_value()

    return types.none(to, types.int64, pointer, types.int64, types.int64), generate


@intrinsic
def as_floats(typingctx, vector, like):
    """The number of each lane as a float, rounded where it has more digits; like: an address of such floats."""
    if not (vector == INT32 and isinstance(like, types.CPointer) and isinstance(like.dtype, types.Float)):
        return None
    kind = Vector(like.dtype)

    def generate(context, builder, sig, args):
        return builder.sitofp(args[0], context.get_value_type(kind))

    return kind(vector, like), generate


@intrinsic
def scatter(typingctx, pointer, index, step, vector, n):
    """Write the 32 bits of the first n lanes, each to the bytes from element index, index + step … on."""
    if not (_whole(pointer) and vector == INT32):
        return None

    def generate(context, builder, sig, args):
        word = ir.IntType(32)

        def put(lane):
            place = builder.add(args[1], builder.mul(args[2], ir.Constant(args[2].type, lane)))
            where = builder.bitcast(builder.gep(args[0], [place]), word.as_pointer())
            builder.store(builder.extract_element(args[3], ir.Constant(word, lane)), where, align=1)

        with builder.if_else(builder.icmp_signed(">=", args[4], ir.Constant(args[4].type, LANES))) as (full, part):
            with full:
                for lane in range(LANES):
                    put(lane)
            with part:
                for lane in range(LANES - 1):
                    with builder.if_then(builder.icmp_signed(">", args[4], ir.Constant(args[4].type, lane))):
                        put(lane)
        return context.get_dummy_value()

    return types.none(pointer, types.int64, types.int64, vector, types.int64), generate


@intrinsic
def every(typingctx, scalar):
    """The number in every lane, as int32."""

    def generate(context, builder, sig, args):
        return spread_lanes(builder, context.cast(builder, args[0], scalar, types.int32), WIDE)

    return INT32(scalar), generate


@intrinsic
def raised(typingctx, vector, bits):
    """v·2^bits, modulo 2³²."""
    if vector != INT32:
        return None

    def generate(context, builder, sig, args):
        number = context.cast(builder, args[1], bits, types.int32)
        return builder.shl(args[0], spread_lanes(builder, number, WIDE))

    return INT32(vector, bits), generate


@intrinsic
def packed(typingctx, pointer, index):
    """The 64 bytes from element index on: in each lane 4 int8 or 2 int16."""
    if not _whole(pointer):
        return None

    def generate(context, builder, sig, args):
        where = builder.bitcast(builder.gep(args[0], [args[1]]), WIDE.as_pointer())
        return builder.load(where, align=1)

    return INT32(pointer, types.int64), generate


@intrinsic
def spread(typingctx, pointer, index):
    """In every lane the 4 bytes from element index on: 4 int8, each with OFFSET added, or 2 int16."""
    if not _whole(pointer):
        return None

    def generate(context, builder, sig, args):
        word = ir.IntType(32)
        where = builder.bitcast(builder.gep(args[0], [args[1]]), word.as_pointer())
        value = builder.load(where, align=1)
        if pointer.dtype == types.int8 and OFFSET:  # to add 128 to a byte is to turn its highest bit
            value = builder.xor(value, ir.Constant(word, -0x7F7F7F80))
        return spread_lanes(builder, value, WIDE)

    return INT32(pointer, types.int64), generate


@intrinsic
def under(typingctx, pointer, first, second, third, fourth, n):
    """In each of the first n lanes four int8, an element of the runs from four places on, each with OFFSET added.

    The first is the lowest byte, as `join4` has it; lanes n … are of zeros.
    """
    if not (_whole(pointer) and pointer.dtype == types.int8):
        return None

    def generate(context, builder, sig, args):
        run = _integers(8)
        places = [builder.bitcast(builder.gep(args[0], [at]), run.as_pointer()) for at in args[1:5]]
        result = cgutils.alloca_once(builder, WIDE)
        with builder.if_else(builder.icmp_signed(">=", args[5], ir.Constant(args[5].type, LANES))) as (full, part):
            with full:
                builder.store(_woven(builder, [builder.load(where, align=1) for where in places]), result)
            with part:
                builder.store(_woven(builder, [_masked(builder, run, where, args[5]) for where in places]), result)
        value = builder.load(result)
        return builder.xor(value, ir.Constant(WIDE, [-0x7F7F7F80] * LANES)) if OFFSET else value

    at = types.int64
    return INT32(pointer, at, at, at, at, at), generate


def _woven(builder, runs):
    """Four vectors of bytes as one of words: byte k of word i is element i of vector k."""
    if not PAIRED:  # ARM weaves two vectors at a time
        pairs = [_zipped(builder, *pair) for pair in (runs[:2], runs[2:])]
        return builder.bitcast(_zipped(builder, *(builder.bitcast(p, _integers(16)) for p in pairs)), WIDE)
    both = ir.Constant(_integers(32, 2 * LANES), list(range(2 * LANES)))
    low, high = (builder.shuffle_vector(*pair, both) for pair in (runs[:2], runs[2:]))
    order = ir.Constant(_integers(32, 4 * LANES), [LANES * k + i for i in range(LANES) for k in range(4)])
    return builder.bitcast(builder.shuffle_vector(low, high, order), WIDE)


def _zipped(builder, a, b):
    """Elements of two vectors in turns."""
    order = ir.Constant(_integers(32, 2 * LANES), [LANES * k + i for i in range(LANES) for k in range(2)])
    return builder.shuffle_vector(a, b, order)


def _by_parts(builder, total, a, b, lanes, emit):
    """Emit `emit(total, a, b)` on parts of so many lanes and put the results side by side."""
    parts, word = [], ir.IntType(32)
    for first in range(0, LANES, lanes):
        chosen = ir.Constant(_integers(32, lanes), list(range(first, first + lanes)))
        parts.append(emit(*(builder.shuffle_vector(v, ir.Constant(WIDE, ir.Undefined), chosen) for v in (total, a, b))))
    while len(parts) > 1:
        length = 2 * parts[0].type.count
        chosen = ir.Constant(ir.VectorType(word, length), list(range(length)))
        parts = [builder.shuffle_vector(x, y, chosen) for x, y in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _call(builder, name, result, *args):
    form = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, form, name), args)


def _emit4(builder, total, a, b):
    if VNNI:
        lanes = VNNI // 32
        name = f"llvm.x86.avx512.vpdpbusd.{VNNI}"
        return _by_parts(builder, total, a, b, lanes, lambda s, x, y: _call(builder, name, s.type, s, x, y))
    if DOT4:
        octets, name = _integers(8, 16), "llvm.aarch64.neon.sdot.v4i32.v16i8"
        return _by_parts(
            builder, total, a, b, 4,
            lambda s, x, y: _call(builder, name, s.type, s, builder.bitcast(x, octets), builder.bitcast(y, octets)),
        )  # fmt: skip
    return _products(builder, total, a, b, 8)


def _emit2(builder, total, a, b):
    if VNNI:
        name = f"llvm.x86.avx512.vpdpwssd.{VNNI}"
        return _by_parts(builder, total, a, b, VNNI // 32, lambda s, x, y: _call(builder, name, s.type, s, x, y))
    for lanes, feature, name in (
        (16, "+avx512bw", "llvm.x86.avx512.pmaddw.d.512"),
        (8, "+avx2", "llvm.x86.avx2.pmadd.wd"),
    ):
        if feature in FEATURES:
            halves = _integers(16, 2 * lanes)

            def emit(s, x, y, name=name, halves=halves):
                return builder.add(
                    s, _call(builder, name, s.type, builder.bitcast(x, halves), builder.bitcast(y, halves))
                )

            return _by_parts(builder, total, a, b, lanes, emit)
    return _products(builder, total, a, b, 16)


def _products(builder, total, a, b, bits):
    """The same without an instruction for it: shifts bring each number of a lane to its end."""
    for place in range(32 // bits):
        up, down = ir.Constant(WIDE, [32 - bits - place * bits] * LANES), ir.Constant(WIDE, [32 - bits] * LANES)
        x, y = (builder.ashr(builder.shl(v, up), down) for v in (a, b))
        total = builder.add(total, builder.mul(x, y))
    return total


@intrinsic
def operands(typingctx, like):
    """How many products `dot` sums in a lane: 4 where `like` is an address of int8, 2 of int16."""
    if not _whole(like):
        return None
    number = 4 if like.dtype == types.int8 else 2
    return types.int64(like), lambda context, builder, sig, args: ir.Constant(ir.IntType(64), number)


@intrinsic
def dot(typingctx, total, a, b, like):
    """total + Σ of the products in each lane, 4 where `like` is an address of int8, 2 where it is one of int16.

    Of bytes a is `spread`, so that the sum is too large by OFFSET·Σ b.
    """
    if not (total == a == b == INT32 and _whole(like)):
        return None
    emit = _emit4 if like.dtype == types.int8 else _emit2
    return INT32(total, a, b, like), lambda context, builder, sig, args: emit(builder, *args[:3])


def _joined(typingctx, rows, bits):
    if any(row != INT32 for row in rows):
        return None

    def generate(context, builder, sig, args):
        low, word = ir.Constant(WIDE, [(1 << bits) - 1] * LANES), None
        for place, row in enumerate(args):
            own = builder.shl(builder.and_(row, low), ir.Constant(WIDE, [place * bits] * LANES))
            word = own if word is None else builder.or_(word, own)
        return word

    return INT32(*rows), generate


@intrinsic
def join4(typingctx, a, b, c, d):
    """In each lane the low bytes of four vectors, that of `a` the lowest: what `packed` gives back."""
    return _joined(typingctx, (a, b, c, d), 8)


@intrinsic
def join2(typingctx, a, b):
    """In each lane the low halves of two vectors, that of `a` the lower."""
    return _joined(typingctx, (a, b), 16)


def _chosen(typingctx, a, b, order):
    if not a == b == INT32:
        return None

    def generate(context, builder, sig, args):
        return builder.select(builder.icmp_signed(order, *args), *args)

    return INT32(a, b), generate


@intrinsic
def larger(typingctx, a, b):
    """The larger number of each lane."""
    return _chosen(typingctx, a, b, ">")


@intrinsic
def smaller(typingctx, a, b):
    """The smaller number of each lane."""
    return _chosen(typingctx, a, b, "<")


def _long(builder, vector):
    return builder.sext(vector, _integers(64))


def _number(value):
    return ir.Constant(_integers(64), [value] * LANES)


def _between(builder, value, low, high):
    value = builder.select(builder.icmp_signed("<", value, low), low, value)
    return builder.select(builder.icmp_signed(">", value, high), high, value)


def _once(builder, value, multiplier, shift):
    """`kernels.requantize.single` of each lane, in 64 bits, saturated."""
    right = builder.sub(_number(31), _long(builder, shift))
    half = builder.shl(_number(1), builder.sub(right, _number(1)))
    product = builder.mul(_long(builder, value), _long(builder, multiplier))
    return _saturated(builder, builder.ashr(builder.add(product, half), right))


def _right(builder, value, multiplier, shift):
    """The same where every shift is below 0: the lower 32 bits of a product then matter for nothing but rounding."""
    one, pairs = ir.Constant(EIGHT, [1] * EIGHT.count), []
    for v, m, s in zip(*(_split(builder, vector) for vector in (value, multiplier, shift)), strict=True):
        half = builder.shl(one, builder.sub(ir.Constant(EIGHT, [30] * EIGHT.count), s))
        pairs.append(builder.bitcast(builder.add(builder.mul(v, m), half), WIDE))
    word = [i + 1 if i % 2 == 0 else LANES + i for i in range(LANES)] if PAIRED else range(1, 2 * LANES, 2)
    high = builder.shuffle_vector(*pairs, ir.Constant(WIDE, list(word)))
    return builder.ashr(high, builder.sub(ir.Constant(WIDE, [-1] * LANES), shift))


def _split(builder, vector):
    """The lanes as two vectors of 64 bits: the even ones and the odd ones where PAIRED, else the first and the last."""
    if PAIRED:
        words, half = builder.bitcast(vector, EIGHT), ir.Constant(EIGHT, [32] * EIGHT.count)
        return builder.ashr(builder.shl(words, half), half), builder.ashr(words, half)
    undefined, halves = ir.Constant(WIDE, ir.Undefined), (range(LANES // 2), range(LANES // 2, LANES))
    chosen = (ir.Constant(_integers(32, LANES // 2), list(half)) for half in halves)
    return tuple(builder.sext(builder.shuffle_vector(vector, undefined, lanes), EIGHT) for lanes in chosen)


def _twice(builder, value, multiplier, shift):
    """`kernels.requantize.double` of each lane, in 64 bits, saturated."""
    shift, zero = _long(builder, shift), _number(0)
    left = builder.select(builder.icmp_signed(">", shift, zero), shift, zero)
    right = builder.sub(left, shift)
    shifted = _between(builder, builder.shl(_long(builder, value), left), _number(-(2**31)), _number(2**31 - 1))
    short = builder.trunc(shifted, WIDE)  # products of 32 bits are what processors have
    product = builder.mul(_long(builder, short), _long(builder, multiplier))
    high = builder.ashr(builder.add(product, _number(1 << 30)), _number(31))
    high = builder.select(builder.icmp_signed(">", high, _number(2**31 - 1)), _number(2**31 - 1), high)
    mask = builder.sub(builder.shl(_number(1), right), _number(1))
    negative = builder.zext(builder.icmp_signed("<", high, zero), _integers(64))
    threshold = builder.add(builder.lshr(mask, _number(1)), negative)
    up = builder.zext(builder.icmp_signed(">", builder.and_(high, mask), threshold), _integers(64))
    return _saturated(builder, builder.add(builder.ashr(high, right), up))


def _saturated(builder, value):
    """Lanes of 64 bits as int32, saturated, which processors do at once; what follows takes half the vectors."""
    return builder.trunc(_between(builder, value, _number(-(2**31)), _number(2**31 - 1)), WIDE)


def _requantized(typingctx, value, multiplier, shift, rounded):
    if not value == multiplier == shift == INT32:
        return None

    def generate(context, builder, sig, args):
        zero, low, high = (
            spread_lanes(builder, context.cast(builder, a, kind, types.int32), WIDE)
            for a, kind in zip(args[3:], sig.args[3:], strict=True)
        )
        short = rounded(builder, *args[:3])
        low, high = builder.sub(low, zero), builder.sub(high, zero)
        return builder.add(_between(builder, short, low, high), zero)

    return generate


@intrinsic
def requantized_once(typingctx, value, multiplier, shift, zero, low, high):
    """`kernels.requantize`: single, plus zero, saturated at low and high, lane by lane."""
    generate = _requantized(typingctx, value, multiplier, shift, _once)
    return generate and (INT32(value, multiplier, shift, zero, low, high), generate)


@intrinsic
def requantized_right(typingctx, value, multiplier, shift, zero, low, high):
    """The same, and faster, where all shifts are `rightwards`."""
    generate = _requantized(typingctx, value, multiplier, shift, _right)
    return generate and (INT32(value, multiplier, shift, zero, low, high), generate)


@intrinsic
def rightwards(typingctx, shift):
    """Is every lane below 0?"""
    if shift != INT32:
        return None

    def generate(context, builder, sig, args):
        other, none = ir.Constant(WIDE, [0] * LANES), ir.Constant(ir.IntType(LANES), 0)
        left = builder.icmp_signed(">=", args[0], other)
        return builder.icmp_unsigned("==", builder.bitcast(left, none.type), none)

    return types.boolean(shift), generate


@intrinsic
def requantized_twice(typingctx, value, multiplier, shift, zero, low, high):
    """The same rounded as `double` does."""
    generate = _requantized(typingctx, value, multiplier, shift, _twice)
    return generate and (INT32(value, multiplier, shift, zero, low, high), generate)
