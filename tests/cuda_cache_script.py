"""Run by test_cuda in a process of its own: compiles kernels of the GPU as a launch does, with nothing to launch on.

A stand-in for the driver tells the compute capability, the first argument, and loads nothing. With a second argument a
helper of `pool_x` is another than it was. Prints, for each kernel, whether it came from the disk and the digest of what
was compiled: its PTX, or the machine code where a kernel on the disk has no PTX.
"""

import hashlib
import json
import sys
from types import SimpleNamespace

import numpy as np

from refimpl.backends.cuda.convolution import FORWARD
from refimpl.backends.cuda.tile import TILES
from refimpl.kernels import cuda
from refimpl.kernels.kernel import helper
from refimpl.methods import gradient_filter
from refimpl.ops import relu
from validation.instruments import cuda_code

number = tuple(map(int, sys.argv[1].split(".")))


def stand_in_for_the_driver_of_numba_cuda():
    from numba.cuda import codegen, dispatcher
    from numba.cuda.cudadrv import devices

    device = SimpleNamespace(compute_capability=number, id=0)
    devices.get_context = lambda *_: SimpleNamespace(device=device)
    dispatcher.get_current_device = lambda: device

    def loaded(library):
        """In the place of machine code that is on the device."""
        library.get_asm_str()
        return SimpleNamespace(module=SimpleNamespace(initialized=True))

    codegen.CUDACodeLibrary.get_cufunc = loaded
    codegen.runtime.runtime.get_version = lambda: (12, 9)
    return lambda made: made._codelibrary.get_asm_str().encode()


def stand_in_for_the_driver_of_numba_cuda_mlir():
    from numba_cuda_mlir import tools

    tools._cached_cc = number
    return lambda made: made.metadata["cubin"]


stand_ins = {
    "numba_cuda": stand_in_for_the_driver_of_numba_cuda,
    "numba_cuda_mlir": stand_in_for_the_driver_of_numba_cuda_mlir,
}
code_of = stand_ins[cuda.package()]()

if len(sys.argv) > 2:

    def clip(index, size):
        """Another helper."""
        return index if index < size else size

    gradient_filter.clip = helper(clip)

signatures = {code.name: code.signature for code in cuda_code.every()}
kernels = {
    "relu.forward": cuda.grid_loop(relu.forward.kernel.body),
    "gradient_filter.pool_x": cuda.grid_loop(gradient_filter.pool_x.kernel.body),
    "forward on 64x64": FORWARD.make(TILES[0], np.float32),
}
told = {}
for name, kernel in kernels.items():
    made = kernel.compile(signatures[name])
    told[name] = [sum(kernel._cache_hits.values()) == 1, hashlib.sha256(code_of(made)).hexdigest()]
print(json.dumps(told))
