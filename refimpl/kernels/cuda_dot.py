"""Dots of four bytes on a GPU (`dp4a`, compute capability 6.1 and later), for kernels of `numba-cuda`.

Bytes lie in a word of 32 bits, the first one lowest. `dot4(a, b, total)` adds Σᵢ aᵢ·bᵢ to an int32; `dot4_unsigned`
takes the bytes of b as 0 to 255. What the sum passes over 32 bits is lost, as everywhere in int32.
"""

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic


def _instruction(kinds: str):
    """The intrinsic of one of the PTX instructions, by the kinds of its factors."""

    def dot(typingctx, a, b, total):
        def codegen(context, builder, signature, arguments):
            words = [
                context.cast(builder, value, kind, types.int32)
                for value, kind in zip(arguments, signature.args, strict=True)
            ]
            word = words[0].type
            made = ir.InlineAsm(ir.FunctionType(word, [word] * 3), f"dp4a.{kinds} $0, $1, $2, $3;", "=r,r,r,r")
            return builder.call(made, words)

        return types.int32(a, b, total), codegen

    return intrinsic(dot)


dot4, dot4_unsigned = _instruction("s32.s32"), _instruction("s32.u32")
