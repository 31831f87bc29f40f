"""A machine that runs PTX without a GPU, one thread after the other, and finds what Numba's simulator cannot.

It runs what the compiler made: whole numbers have their widths, float32 is rounded as float32, tiles are a GPU's. It
stops at the first access to memory that is

- outside of every array that the launch was given, or not at a multiple of its size;
- at a place of global or shared memory that another thread writes, or reads where this one writes, with no barrier
  between the two (threads of two blocks have none);
- a read of shared memory that nobody of the block has written;

and where threads of a block wait at different barriers. Between two barriers threads run one after the other, so that
the first who read a place and the last who wrote it are all that has to be kept to find each conflict.

A register has 64 bits, of which an instruction reads as many as its type says. What a GPU only estimates (`.approx`) is
computed to the last bit here. Source: NVIDIA, PTX ISA 8.8.
"""

import math  # noqa: F401 (statements of operations use it)
from collections import Counter
from collections.abc import Iterator
from functools import cache

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from refimpl.kernels.kernel import cached

from .assembly import BARRIER, BRANCH, EXIT, FIRST_BYTE, PART, UNLESS, Assembled, PtxError

VIEWS = {  # an operand's type → view of the registers, and how many such there are in one
    "s8": ("I8", 8), "s16": ("I16", 4), "s32": ("I32", 2), "s64": ("I64", 1),
    "u8": ("U8", 8), "u16": ("U16", 4), "u32": ("U32", 2), "u64": ("U64", 1),
    "b8": ("U8", 8), "b16": ("U16", 4), "b32": ("U32", 2), "b64": ("U64", 1),
    "pred": ("I64", 1), "f32": ("F32", 2), "f64": ("F64", 1),
}  # fmt: skip
DTYPES = {
    "I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64, "U8": np.uint8, "U16": np.uint16,
    "U32": np.uint32, "U64": np.uint64, "F32": np.float32, "F64": np.float64,
}  # fmt: skip
WHOLE = ("s16", "s32", "s64", "u16", "u32", "u64")
FLOATS = ("f32", "f64")
LOCAL, SHARED = 1 << 60, 1 << 61  # where these spaces begin among the addresses of any
GARBAGE = 0x7FF8DEAD7FC0DEAD  # of registers that nobody has written: no number in either width
MOST = 1 << 31  # instructions of a thread between two barriers, beyond which it is said to loop for ever

FAULTS = (
    "", "outside of every array", "not at a multiple of its size",
    "another thread writes here without a barrier between", "another thread reads here without a barrier between",
    "shared memory that nobody has written",
    "threads wait at different barriers", "it does not end", "division by zero", "an exception is raised",
)  # fmt: skip
OUTSIDE, CROOKED, WRITE_RACE, READ_RACE, UNWRITTEN, DIVERGED, ENDLESS, DIVIDED, RAISED = range(1, len(FAULTS))


@intrinsic
def _fma(typingctx, a, b, c):
    def codegen(context, builder, signature, arguments):
        return builder.fma(*arguments)

    return a(a, b, c), codegen


@intrinsic
def _least(typingctx, a, b):
    """The lesser; where one is not a number the other, as PTX has it."""

    def codegen(context, builder, signature, arguments):
        kind = arguments[0].type
        name = f"llvm.minnum.{'f32' if signature.return_type == types.float32 else 'f64'}"
        function = builder.module.declare_intrinsic(name, [], ir.FunctionType(kind, [kind, kind]))
        return builder.call(function, arguments)

    return a(a, b), codegen


@njit(error_model="numpy")
def _down(exact, rounded):
    """float32 of a float64, towards minus infinity."""
    return np.nextafter(rounded, np.float32(-np.inf)) if rounded > exact else rounded


@njit(error_model="numpy")
def _cut(exact, rounded):
    """float32 of a float64, towards zero."""
    return np.nextafter(rounded, np.float32(0)) if abs(rounded) > abs(exact) else rounded


@njit(error_model="numpy")
def _whole(value, low, high, of_nothing):
    """A whole number in float64 as int64, held between the ends; `of_nothing` where it is no number."""
    if value != value:
        return np.int64(of_nothing)
    return low if value <= np.float64(low) else high if value >= np.float64(high) else np.int64(value)


@njit
def _divided(a, b):
    """The quotient, cut."""
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


@njit
def _high(a, b):
    """The upper 64 bits of a product of two times 64."""
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    crossed, other = (a >> half) * (b & low), (a & low) * (b >> half)
    carried = (((a & low) * (b & low)) >> half) + (crossed & low) + (other & low)
    return (a >> half) * (b >> half) + (crossed >> half) + (other >> half) + (carried >> half)


@njit
def _high_signed(a, b):
    """The same of numbers with a sign."""
    return np.int64(_high(np.uint64(a), np.uint64(b))) - (b if a < 0 else 0) - (a if b < 0 else 0)


@njit
def _permuted(a, b, selector):
    """`prmt.b32`: four of the eight bytes of two words."""
    both, found = np.uint64(a) | (np.uint64(b) << np.uint64(32)), np.uint32(0)
    for i in range(4):
        pick = (selector >> np.uint32(4 * i)) & np.uint32(15)
        byte = np.uint32((both >> np.uint64(8 * (pick & np.uint32(7)))) & np.uint64(255))
        if pick & np.uint32(8):
            byte = np.uint32(255) if byte & np.uint32(128) else np.uint32(0)
        found |= byte << np.uint32(8 * i)
    return found


@njit
def _part(word, bits, i, signed):
    """Part i of a word, of so many bits."""
    part = (np.int64(word) >> (bits * i)) & ((1 << bits) - 1)
    return part - (1 << bits) if signed and part >> (bits - 1) else part


@njit
def _dots(a, b, bits, first, signed_a, signed_b):
    """Σ aᵢ·bᵢ of all parts of a, of so many bits, and as many bytes of b from byte `first` on."""
    total = np.int64(0)
    for i in range(32 // bits):
        total += _part(a, bits, i, signed_a) * _part(b, 8, first + i, signed_b)
    return total


def operations() -> Iterator[tuple[str, str]]:
    """Each operation that the machine knows, and the statements that run it.

    d is the register written, a, b and c are those read, n the instruction's own number.
    """
    yield from _arithmetic()
    yield from _floating()
    yield from _bits()
    yield from _comparisons()
    yield from _conversions()
    yield from _memory()


def _of(kind: str, register: str) -> str:
    """A register in the view of a type."""
    view, each = VIEWS[kind]
    return f"{view}[{register}]" if each == 1 else f"{view}[{each} * {register}]"


def _made(kind: str, statements: str, to: str = "") -> str:
    """Statements with `{d}`, `{a}`, `{b}`, `{c}` in the view of a type; to: another one of what is written."""
    return statements.format(d=_of(to or kind, "d"), a=_of(kind, "a"), b=_of(kind, "b"), c=_of(kind, "c"))


def _arithmetic():
    for kind in WHOLE:
        size, signed = int(kind[1:]), kind[0] == "s"
        for name, statement in {
            "add": "{d} = {a} + {b}", "sub": "{d} = {a} - {b}", "mul.lo": "{d} = {a} * {b}",
            "mad.lo": "{d} = {a} * {b} + {c}", "min": "{d} = min({a}, {b})", "max": "{d} = max({a}, {b})",
            "div": "{d} = _divided({a}, {b})" if signed else "{d} = {a} // {b}",
            "rem": "{d} = {a} - _divided({a}, {b}) * {b}" if signed else "{d} = {a} % {b}",
            **({"neg": "{d} = -{a}", "abs": "{d} = abs({a})"} if signed else {}),
        }.items():  # fmt: skip
            divides = name in ("div", "rem")
            view = f"s{size}" if name in ("add", "sub", "mul.lo", "mad.lo") else kind  # the same bits
            guarded = f"if {{b}} == 0:\n    fault = DIVIDED\nelse:\n    {statement}" if divides else statement
            yield f"{name}.{kind}", _made(view, guarded)
        if size < 64:
            wide, cast = f"{kind[0]}{2 * size}", "np.int64" if signed else "np.uint64"
            product = f"{cast}({{a}}) * {cast}({{b}})"
            yield f"mul.wide.{kind}", _made(kind, f"{{d}} = {product}", wide)
            yield f"mad.wide.{kind}", _made(kind, f"{{d}} = {product} + {_of(wide, 'c')}", wide)
            yield f"mul.hi.{kind}", _made(kind, f"{{d}} = ({product}) >> {cast}({size})")
        else:
            yield f"mul.hi.{kind}", _made(kind, f"{{d}} = {'_high_signed' if signed else '_high'}({{a}}, {{b}})")
    for kinds in ("s32.s32", "s32.u32", "u32.s32", "u32.u32"):
        signs = ", ".join(str(kind[0] == "s") for kind in kinds.split("."))
        for name, bits, first in (("dp4a", 8, 0), ("dp2a.lo", 16, 0), ("dp2a.hi", 16, 2)):
            dots = f"_dots({{a}}, {{b}}, {bits}, {first}, {signs})"
            yield f"{name}.{kinds}", _made("u32", f"{{d}} = {dots} + {_of('s32', 'c')}", "s32")


def _floating():
    for kind in FLOATS:
        one = "np.float32(1)" if kind == "f32" else "1.0"
        for name, value in {
            "add": "{a} + {b}", "sub": "{a} - {b}", "mul": "{a} * {b}", "fma": "_fma({a}, {b}, {c})",
            "div": "{a} / {b}", "sqrt": "math.sqrt({a})", "rcp": f"{one} / {{a}}", "rsqrt": f"{one} / math.sqrt({{a}})",
        }.items():  # fmt: skip
            for rounded in ("", ".rn", ".approx", ".approx.ftz", ".full"):
                yield f"{name}{rounded}.{kind}", _made(kind, f"{{d}} = {value}")
        for name, value in {
            "neg": "-{a}", "abs": "abs({a})", "min": "_least({a}, {b})", "max": "-_least(-{a}, -{b})",
            "copysign": "math.copysign({b}, {a})",
        }.items():  # fmt: skip
            yield f"{name}.{kind}", _made(kind, f"{{d}} = {value}")
    for op, exact in (("add", "np.float64({a}) + np.float64({b})"), ("fma", "np.float64({a}) * np.float64({b}) + {c}")):
        for towards, rounded in (("rm", "_down"), ("rz", "_cut")):
            yield f"{op}.{towards}.f32", _made("f32", f"{{d}} = {rounded}({exact}, np.float32({exact}))")
    for name, value in {
        "ex2": "2.0 ** np.float64({a})", "lg2": "math.log2(np.float64({a}))", "tanh": "math.tanh(np.float64({a}))",
        "sin": "math.sin(np.float64({a}))", "cos": "math.cos(np.float64({a}))",
    }.items():  # fmt: skip
        for ftz in ("", ".ftz"):
            yield f"{name}.approx{ftz}.f32", _made("f32", f"{{d}} = {value}")


def _bits():
    yield "mov.pred", _compared("pred", "{a} != 0")  # -1 stands for true
    for kind in ("b16", "b32", "b64", *WHOLE, *FLOATS):
        yield f"mov.{kind}", COPY
        yield f"selp.{kind}", "I64[d] = I64[a] if I64[c] != 0 else I64[b]"
    yield "cvta.to.global.u64", COPY
    yield "cvta.global.u64", COPY
    for space in ("shared", "local"):  # between a place in a space and an address of any
        yield f"cvta.{space}.u64", f"I64[d] = I64[a] + {space.upper()}"
        yield f"cvta.to.{space}.u64", f"I64[d] = I64[a] - {space.upper()}"
    for kind in ("b16", "b32", "b64", "pred"):
        for op, sign in (("and", "&"), ("or", "|"), ("xor", "^")):
            yield f"{op}.{kind}", _made(kind, f"{{d}} = {{a}} {sign} {{b}}")
        yield f"not.{kind}", _made(kind, "{d} = 1 - {a}" if kind == "pred" else "{d} = ~{a}")
    for kind in ("b16", "b32", "b64", *WHOLE):
        size, unit = int(kind[1:]), np.dtype(DTYPES[VIEWS[kind][0]]).name
        name, sign = ("shl", "<<") if kind[0] == "b" else ("shr", ">>")
        beyond = f"{{a}} >> np.{unit}({size - 1})" if kind[0] == "s" else "0"
        shifted = f"{{d}} = {{a}} {sign} np.{unit}(U32[2 * b])"
        yield f"{name}.{kind}", _made(kind, f"if U32[2 * b] < {size}:\n    {shifted}\nelse:\n    {{d}} = {beyond}")
    for size in (32, 64):  # so many of a's low bits in the place of b's from bit c on; the machine's own number is n's
        unit, kind = f"np.uint{size}", f"b{size}"
        ones = f"ones{size} = {unit}({(1 << size) - 1}) >> {unit}({size} - I64[n])"
        put = f"(({{a}} & ones{size}) << {unit}(U32[2 * c]))"
        kept = f"({{b}} & ~(ones{size} << {unit}(U32[2 * c])))"
        yield f"bfi.{kind}", _made(kind, f"{ones}\n{{d}} = {kept} | {put}")
    yield "atom.global.cas.b32", "fault = RAISED"  # which is all that it is used for
    yield "prmt.b32", _made("b32", "{d} = _permuted({a}, {b}, {c})")
    for size in (32, 64):  # of halves a whole, and back
        half, whole, unit = f"b{size // 2}", f"b{size}", f"np.uint{size}"
        yield f"join.{size}", _made(half, f"{{d}} = {unit}({{a}}) | ({unit}({{b}}) << {unit}({size // 2}))", whole)
        for part in (0, 1):
            each = VIEWS[half][1]
            yield f"half.{size}.{part}", f"{_of(half, 'd')} = {VIEWS[half][0]}[{each} * a + {part}]"


def _comparisons():
    signs = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
    number, nothing = "{a} == {a} and {b} == {b}", "{a} != {a} or {b} != {b}"
    for name, sign in signs.items():
        for kind in (*WHOLE, "b16", "b32", "b64"):
            view = f"s{kind[1:]}" if name in ("eq", "ne") else kind  # the same bits
            yield f"setp.{name}.{kind}", _compared(view, f"{{a}} {sign} {{b}}")
        for kind in FLOATS:
            ordered = f"{number} and {{a}} != {{b}}" if name == "ne" else f"{{a}} {sign} {{b}}"
            yield f"setp.{name}.{kind}", _compared(kind, ordered)
            yield f"setp.{name}u.{kind}", _compared(kind, f"{nothing} or {{a}} {sign} {{b}}")
    for kind in FLOATS:
        yield f"setp.num.{kind}", _compared(kind, number)
        yield f"setp.nan.{kind}", _compared(kind, nothing)


def _compared(kind: str, test: str) -> str:
    return _made(kind, f"I64[d] = 1 if {test} else 0")


def _conversions():
    kinds = ("s8", "u8", *WHOLE)
    for kind in kinds:
        for to in kinds:  # as wide as a register, so that it fits whatever reads it
            yield f"cvt.{to}.{kind}", _made(kind, "{d} = {a}", f"{kind[0]}64")
        for to in FLOATS:
            yield f"cvt.rn.{to}.{kind}", _made(kind, "{d} = {a}", to)
    for kind in FLOATS:
        for name, function in {"rni": "rint", "rmi": "floor", "rpi": "ceil", "rzi": "trunc"}.items():
            value = f"np.{function}(np.float64({{a}}))"
            yield f"cvt.{name}.{kind}.{kind}", _made(kind, f"{{d}} = {value}")
            for to in ("s32", "s64", "u32"):
                size = int(to[1:])
                low, high = (-(1 << size - 1), (1 << size - 1) - 1) if to[0] == "s" else (0, (1 << size) - 1)
                nothing = 0 if kind == "f32" and size < 64 else -(1 << size - 1)
                yield (
                    f"cvt.{name}.{to}.{kind}",
                    _made(kind, f"{{d}} = _whole({value}, {low}, {high}, {nothing})", "s64"),
                )
        for to in FLOATS:
            for rounded in ("", ".rn"):
                yield f"cvt{rounded}.{to}.{kind}", _made(kind, "{d} = {a}", to)
    zero, one = "np.float32(0)", "np.float32(1)"
    yield "cvt.sat.f32.f32", _made("f32", f"{{d}} = min(max({{a}}, {zero}), {one}) if {{a}} == {{a}} else {zero}")


def _memory():
    """Loads and stores; those of no named space find it by the address, for each space has a window of its own."""
    for size in (2, 4, 8, 16, 32):
        yield f"aligned.{size}", f"at = I64[a] + n\nfault = CROOKED if at % {size} else 0"
    for kind, (_, each) in VIEWS.items():
        if kind == "pred":
            continue
        for op in ("ld", "st"):
            found = {space: _moved(op, space, kind, 8 // each) for space in CHECKED}
            for space, statements in found.items():
                yield f"{op}.{space}.{kind}", f"at = I64[a] + n\n{statements}"
            yield f"{op}.global.nc.{kind}", f"at = I64[a] + n\n{found['global']}"
            lines = ["at = I64[a] + n"]
            for test, space in (("if at >= SHARED", "shared"), ("elif at >= LOCAL", "local"), ("else", "global")):
                down = [] if space == "global" else [f"at -= {space.upper()}"]
                lines += [f"{test}:", *(f"    {line}" for line in (*down, *found[space].split("\n")))]
            yield f"{op}.{kind}", "\n".join(lines)


def _moved(op: str, space: str, kind: str, size: int) -> str:
    """An access at `at`, checked. Floats and whole numbers are moved as what they are, bits."""
    bits = f"u{8 * size}"
    wide = ("s64", f"s{8 * size}") if kind[0] == "s" and size < 8 else ("u64", bits)
    own = {"local": " + t * local_bytes", "global": " - base"}.get(space, "")
    at = f"[(at{own}) // {size}]"
    read, written = f"{space}_{VIEWS[wide[1]][0]}{at}", f"{space}_{VIEWS[bits][0]}{at}"
    moved = f"{_of(wide[0], 'd')} = {read}" if op == "ld" else f"{written} = {_of(bits, 'b')}"
    fault = CHECKED[space].format(size=size, writes=op == "st")
    return f"fault = {fault}\nif fault == 0:\n    {moved}"


COPY = "I64[d] = I64[a]"
CHECKED = {  # memory space → how an access at `at` is checked
    "global": "_global_fault(at, {size}, {writes}, ranges, global_read, global_written, base, me)",
    "shared": "_shared_fault(at, {size}, {writes}, shared_bytes, shared_read, shared_written, me)",
    "local": "OUTSIDE if at < FIRST_BYTE or at + {size} > local_bytes else CROOKED if at % {size} else 0",
}
OPERATIONS = dict(operations())
CASES = list(dict.fromkeys(OPERATIONS.values()))  # many operations move or compute the same bits
NUMBERS = {op: UNLESS + 1 + CASES.index(statements) for op, statements in OPERATIONS.items()}


@njit
def _unordered(other, me):
    """May two accesses happen at the same time? Both are `_access`."""
    same_launch, same_block = other >> 43 == me >> 43, other >> 23 == me >> 23
    return same_launch and (not same_block or (other >> 13 != me >> 13 and other & 8191 == me & 8191))


@njit
def _race(at, writes, read, written, me):
    """The fault of an access that another thread's conflicts with, else 0; it is kept for those to come."""
    if _unordered(written[at], me):
        return WRITE_RACE
    if writes:
        if _unordered(read[at], me):
            return READ_RACE
        written[at] = me
    elif read[at] >> 43 != me >> 43 or (read[at] >> 23 == me >> 23 and read[at] & 8191 != me & 8191):
        read[at] = me
    return 0


@njit
def _global_fault(at, size, writes, ranges, read, written, base, me):
    if at % size:
        return CROOKED
    for i in range(ranges.shape[0]):
        if ranges[i, 0] <= at and at + size <= ranges[i, 1]:
            return _race(at - base, writes, read, written, me)
    return OUTSIDE


@njit
def _shared_fault(at, size, writes, nbytes, read, written, me):
    if at < FIRST_BYTE or at + size > nbytes:
        return OUTSIDE
    if at % size:
        return CROOKED
    if not writes and written[at] == 0:
        return UNWRITTEN
    return _race(at, writes, read, written, me)


def _source() -> str:
    """The machine: it runs each block's threads, one after the other, from barrier to barrier."""
    views = ", ".join(DTYPES)
    memories = ", ".join(f"{space}_{view}" for space in CHECKED for view in DTYPES)
    lines = [
        "def run(code, blocks, threads, launch, fixed, special, registers, pc, ranges, counts, fault_at,",
        f"        {views}, {memories},",
        "        global_read, global_written, base, shared_read, shared_written, shared_bytes, local_bytes):",
        "    many, width = threads[0] * threads[1] * threads[2], registers.shape[1]",
        "    for block in range(blocks[0] * blocks[1] * blocks[2]):",
        "        start(registers, pc, block, blocks, threads, fixed, special)",
        "        shared_read[:] = 0",
        "        shared_written[:] = 0",
        "        epoch, left = 0, many",
        "        while left:",
        "            for t in range(many):",
        "                p, o, steps = pc[t], t * width, 0",
        "                if p < 0:",
        "                    continue",
        "                me = (launch << 43) | (block << 23) | (t << 13) | (epoch & 8191)",
        "                fault, at = 0, 0",
        "                while True:",
        "                    op, d, a, b, c, n = code[p]",
        "                    d, a, b, c = d + o, a + o, b + o, c + o",
        "                    counts[p] += 1",
        "                    p += 1",
        f"                    if op in ({EXIT}, {BARRIER}):",
        f"                        p = p if op == {BARRIER} else -1",
        "                        break",
    ]
    lines += _chosen([JUMPS, JUMPS, *CASES], BRANCH, 20)
    lines += [
        "                    if fault != 0:",
        "                        fault_at[:] = np.array((fault, p - 1, block, t, at))",
        "                        return",
        "                pc[t] = p",
        "            left, place = 0, -1",
        "            for t in range(many):",
        "                if pc[t] >= 0:",
        "                    left += 1",
        "                    if place >= 0 and pc[t] != place:",
        "                        fault_at[:] = np.array((DIVERGED, place - 1, block, t, 0))",
        "                        return",
        "                    place = pc[t]",
        "            epoch += 1",
        "",
    ]
    return "\n".join(lines)


JUMPS = f"""if (I64[a] != 0) == (op == {BRANCH}):
    p = n
    steps += 1
    if steps > MOST:
        fault = ENDLESS"""


def _chosen(cases: list[str], first: int, indent: int) -> list[str]:
    """Lines that run the case of number `op`, found in halves: Numba follows no chain of hundreds of tests."""
    space = " " * indent
    if len(cases) == 1:
        return [space + line for line in cases[0].split("\n")]
    half = len(cases) // 2
    below, above = _chosen(cases[:half], first, indent + 1), _chosen(cases[half:], first + half, indent + 1)
    return [f"{space}if op < {first + half}:", *below, f"{space}else:", *above]


@njit
def _start(registers, pc, block, blocks, threads, fixed, special):
    """The registers of a block's threads as they are before the first instruction."""
    registers[...] = GARBAGE
    x, y = block % blocks[0], block // blocks[0] % blocks[1]
    places = np.array((0, 0, 0, *threads, x, y, block // blocks[0] // blocks[1], *blocks))
    for t in range(pc.shape[0]):
        pc[t] = 0
        places[0], places[1] = t % threads[0], t // threads[0] % threads[1]
        places[2] = t // threads[0] // threads[1]
        for i in range(fixed.shape[0]):
            registers[t, fixed[i, 0]] = fixed[i, 1]
        for i in range(special.shape[0]):
            registers[t, special[i, 0]] = places[special[i, 1]]


@cache
def _machine():
    """Compiled once, in half a minute, and kept on disk."""
    scope = globals() | {"start": _start}
    exec(compile(_source(), __file__, "exec"), scope)
    compiled = njit(error_model="numpy")(scope["run"])
    cached(compiled, scope["run"], compiled.targetoptions)
    return compiled


class Machine:
    """Memory of a GPU that is none, and runs of kernels on it.

    memory (nbytes,) uint8: all of it, from the address `base` on. Arrays that a kernel is given are parts of it.
    """

    def __init__(self, nbytes: int = 1 << 26):
        held = np.zeros(nbytes + 256, np.uint8)
        self.memory = held[-held.ctypes.data % 256 :][:nbytes]
        self.base = self.memory.ctypes.data
        self.read, self.written = np.zeros((2, nbytes), np.int64)
        self.launches = 0

    def run(self, kernel: Assembled, blocks: tuple, threads: tuple, arguments: list[int], ranges: list) -> Counter[str]:
        """Run a kernel to its end; instructions that all threads executed, by operation. PtxError with the first fault.

        arguments: the 64 bits of each parameter; ranges: start and end of the memory that it may touch.
        """
        if len(arguments) != len(kernel.parameters):
            raise PtxError(f"{kernel.name} takes {len(kernel.parameters)} arguments and was given {len(arguments)}")
        self.launches += 1
        many = int(np.prod(threads))
        registers = np.empty((many, kernel.registers), np.int64)
        shared, local = np.zeros(-(-kernel.shared // 8) * 8, np.uint8), np.zeros(many * kernel.local, np.uint8)
        given = [(register, bits) for (register, _), bits in zip(kernel.parameters, arguments, strict=True)]
        fixed = np.array([*kernel.constants, *given], np.int64)
        counts, fault = np.zeros(len(kernel.code), np.int64), np.zeros(5, np.int64)
        places = [
            a.reshape(-1).view(dtype) for a in (registers, self.memory, shared, local) for dtype in DTYPES.values()
        ]
        _machine()(
            kernel.code, blocks, threads, self.launches, fixed.reshape(-1, 2),
            np.array(kernel.special, np.int64).reshape(-1, 2), registers, np.zeros(many, np.int64),
            np.array(ranges, np.int64).reshape(-1, 2), counts, fault, *places, self.read, self.written, self.base,
            *np.zeros((2, kernel.shared), np.int64), kernel.shared, kernel.local,
        )  # fmt: skip
        if fault[0]:
            number, place, block, thread, at = fault.tolist()
            where = f"thread {thread} of block {block}" + (f", address {at}" if at else "")
            raise PtxError(f"{kernel.name}: {FAULTS[number]} ({where}): {kernel.text[place]}")
        found: Counter[str] = Counter()
        for text, count in zip(kernel.text, counts.tolist(), strict=True):
            if not text.startswith(PART):
                found[text.split()[0]] += count
        return found
