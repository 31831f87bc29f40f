"""What was compiled for GPUs, kept on disk as the kernels of the CPU are: the machine code of a GPU's generation.

An entry belongs to the compute capability, the toolkit's and the package's version, the argument types and all the code
that the kernel can reach. Made in milliseconds from the disk, a kernel takes some tenths of a second to compile.
The disk cache that a package has of its own goes by the date and size of the kernel's file alone, whatever lies in
others.
"""

from importlib import import_module
from importlib.metadata import version
from inspect import getsource

from .kernel_cache import KernelCache, Parts, tell


class CudaParts(Parts):
    """How `numba-cuda` takes a kernel apart and puts it together; the methods are private to it."""

    def reduce(self, kernel):
        """What of a kernel goes into its entry."""
        return kernel._reduce_states()

    def rebuild(self, target_context, payload):
        """The kernel that was taken apart; it is loaded when it is first launched."""
        return import_module("numba.cuda.dispatcher")._Kernel._rebuild(**payload)

    def check_cachable(self, kernel):
        """Each can be kept."""
        return True


class MlirParts(CudaParts):
    """The same of `numba-cuda-mlir`, but for the forms that the machine code was made of."""

    def reduce(self, kernel):
        """What of a kernel goes into its entry."""
        own = import_module("numba_cuda_mlir.caching").MLIRCacheImpl
        return own.reduce(self, kernel) | {"mlir_module_optimized": None, "ptx": None}

    def rebuild(self, target_context, payload):
        """The kernel that was taken apart."""
        return import_module("numba_cuda_mlir.caching").MLIRCacheImpl.rebuild(self, target_context, payload)


class CudaKernelCache(KernelCache):
    """In the place of the package's own disk cache, for the same reasons as the CPU's.

    What fails here, of whatever kind, costs a compilation: other versions of the package may take kernels apart
    otherwise.
    """

    _impl_class = CudaParts

    def load_overload(self, signature, target_context):
        """The compiled kernel, or None."""
        try:
            return super().load_overload(signature, target_context)
        except Exception as e:
            self._tell(e)
            return None

    def save_overload(self, signature, data):
        """Keep a compiled kernel, or say why not."""
        try:
            super().save_overload(signature, data)
        except Exception as e:
            self._tell(e)

    def _tell(self, e: Exception) -> None:
        if not KernelCache.failed:
            KernelCache.failed = True
            tell(f"compiled kernels of the GPU are not kept ({type(e).__name__}: {e})")


class MlirKernelCache(CudaKernelCache):
    """The same for `numba-cuda-mlir`."""

    _impl_class = MlirParts


def keep(kernel, package: str) -> None:
    """Let a CUDA kernel, of this package's `jit`, use the disk cache."""
    about = {**kernel.targetoptions, "package": f"{package} {version(package.replace('_', '-'))}"}
    if package == "numba_cuda_mlir":  # no name leads from a kernel to what the package is told there
        about["taught"] = getsource(import_module(".cuda_mlir", __package__))
    made = {"numba_cuda": CudaKernelCache, "numba_cuda_mlir": MlirKernelCache}[package]
    kernel._cache = made(kernel.py_func, about)
