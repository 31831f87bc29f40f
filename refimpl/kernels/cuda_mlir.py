"""What `numba-cuda-mlir` lacks for our kernels, or compiles wrongly, and the dots of four bytes of `cuda_dot`."""

import operator

import numpy as np
from numba_cuda_mlir import cuda, types  # of that package, where this module is imported
from numba_cuda_mlir.cuda import experimental, libdevice
from numba_cuda_mlir.extending import lowering_registry, refresh_registries

plain = cuda.jit(device=True, experimental_ast_transforms=False)  # which it would turn on in a module that has them


@plain
def dot4(a, b, total):
    """Σᵢ aᵢ·bᵢ added to an int32."""
    return experimental.inline_ptx("dp4a.s32.s32 %0, %1, %2, %3;", "=r", np.int32(0), "r", a, "r", b, "r", total)


@plain
def dot4_unsigned(a, b, total):
    """The same with the bytes of b as 0 to 255."""
    return experimental.inline_ptx("dp4a.s32.u32 %0, %1, %2, %3;", "=r", np.int32(0), "r", a, "r", b, "r", total)


@plain
def divided(number, by):
    """Quotient, rounded down, and remainder."""
    quotient = number // by
    return quotient, number - quotient * by


@plain
def differ(a, b):
    """Are two numbers not equal? What is no number equals none, itself neither."""
    return not a == b


@plain
def holds(number):
    """Is a whole number another than 0?"""
    return number != 0


@plain
def fails(number):
    """Is a whole number 0?"""
    return number == 0


@plain
def nearest(value):
    """A float64 rounded to the nearest whole number, a half to the even one."""
    return np.int64(libdevice.rint(value))


@plain
def nearest_single(value):
    """The same of a float32."""
    return np.int64(libdevice.rintf(value))


def teach() -> None:
    """Let the package compile as Numba does what version 0.6 has not, or has wrong.

    It knows the types of `divmod` alone. Its `!=` of floats is false of NaN, its truth of the length of an axis, as in
    `if b.shape[0]`, is that of the lowest bit, and its `round` takes a half away from zero.
    """
    for known, kinds, function in (
        (divmod, (types.Integer, types.Integer), divided),
        (operator.ne, (types.Float, types.Float), differ),
        (bool, (types.Integer,), holds),
        (operator.not_, (types.Integer,), fails),
        (round, (types.float64,), nearest),
        (round, (types.float32,), nearest_single),
    ):
        lowering_registry.lower(known, *kinds)(_call(function))
    refresh_registries()


def _call(function):
    """How a call of something else becomes one of a function of the device."""

    def lowered(builder, target, arguments, keywords):
        builder.store_var(target, builder.build_user_defined_function_call(target, function, arguments, keywords))

    return lowered
