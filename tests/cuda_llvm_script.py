"""Run by test_cuda in a process of its own: what `numba-cuda-mlir` makes of kernels, run by this processor.

Its LLVM code of a reference kernel, for the one thread of the one block, is compiled for the host and has to give what
Numba's kernel of the CPU gives. Prints one line per kernel; the last line is `done`.
"""

import ctypes
import re
from types import SimpleNamespace
from unittest import mock

import llvmlite.binding as llvm
import numpy as np
from numba_cuda_mlir import compiler, linker, mlir_optimization, tools
from numba_cuda_mlir.numba_cuda.typing.typeof import typeof

from refimpl.compiler.two_stage import sliced
from refimpl.kernels import cuda
from refimpl.ops import conv2d, max_pool, mse, niti_input, softmax_cross_entropy

HERE = (10, 0)  # a capability for which the package's LLVM is as new as llvmlite's
PLACE = {"tid": 0, "ntid": 1, "ctaid": 0, "nctaid": 1}  # of the one thread


def llvm_of(function, signature):
    """Its name there, and the text."""
    here = mock.patch.object(tools, "get_gpu_compute_capability", lambda kind=str: HERE if kind is tuple else "sm_100")
    unlinked = mock.patch.object(linker.Linker, "complete", lambda self: SimpleNamespace(code=b""))
    with here, unlinked:
        made = compiler.compile_result(function, signature)
        return made.metadata["func_name"], mlir_optimization.get_llvmir(made, made.metadata["targetoptions"])


def of_host(text):
    """The same text for a processor."""
    for name, number in PLACE.items():
        text = text.replace(f"call i32 @llvm.nvvm.read.ptx.sreg.{name}.x()", f"add i32 0, {number}")
    text = text.replace("define ptx_kernel", "define").replace("common global", "global")
    return re.sub(r"^(target|!nvvm).*\n", "", text, flags=re.MULTILINE)


def numbers(value):
    """An argument as the package's kernels take it."""
    if isinstance(value, tuple):
        return [number for part in value for number in numbers(part)]
    if isinstance(value, np.ndarray):
        address, strides = ctypes.c_void_p(value.ctypes.data), [s // value.itemsize for s in value.strides]
        return [address, address, *map(ctypes.c_int64, (0, *value.shape, *strides))]
    return [{bool: ctypes.c_bool, float: ctypes.c_double}.get(type(value), ctypes.c_int64)(value)]


def check(kernel, *args):
    """Compare the first array of both forms of a kernel."""
    items, expected, found = args[0].size, args[0].copy(), args[0].copy()
    kernel.cpu(items, expected, *args[1:])
    name, text = llvm_of(cuda.grid_function(kernel.body), tuple(map(typeof, (items, *args))))
    for known, function in (("__nv_rint", "rint"), ("__nv_exp", "exp")):
        llvm.add_symbol(known, ctypes.cast(getattr(ctypes.CDLL("libm.so.6"), function), ctypes.c_void_p).value)
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(of_host(text)), machine)
    engine.finalize_object()
    given = numbers((items, found, *args[1:]))
    ctypes.CFUNCTYPE(None, *map(type, given))(engine.get_function_address(name))(*given)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12, err_msg=kernel.name)
    print("agrees", kernel.name)


llvm.initialize_native_target()
llvm.initialize_native_asmprinter()
rng = np.random.default_rng(0)
x, w, b = rng.random((2, 4, 5, 2)), rng.random((3, 3, 2, 4)), rng.random(4)
geometry = [value for value in conv2d.forward.attributes.values()]
check(conv2d.forward.kernel, np.zeros((2, 2, 3, 4)), x, w, b, *geometry)  # four biases: a length without a lowest bit
row, weights, labels = rng.random((3, 4)), rng.random(4), np.array([0, 1, 3])
check(
    softmax_cross_entropy.sample_losses.kernel, np.zeros(3), row, labels, np.log(np.exp(row).sum(1)), weights, 0.1, -1
)
halves = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, 0.49]])
check(niti_input.forward.kernel, np.zeros((1, 6), np.int8), halves, np.zeros(1, np.int32))
x[0, 1, 1] = np.nan
check(max_pool.forward.kernel, np.zeros((2, 2, 2, 2)), x, *max_pool.forward.attributes.values())
check(sliced(mse.sample_losses, "E"), np.zeros((3, 2)), rng.random((2, 5)), rng.random((2, 5)), 2, 2)  # the last of 1
print("done")
