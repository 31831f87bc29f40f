"""What `numba-cuda` compiled, kept on disk as the kernels of the CPU are: the machine code of a GPU's generation.

An entry belongs to the compute capability, the toolkit's and the package's version, the argument types and all the code
that the kernel can reach. Made in milliseconds from the disk, a kernel takes some tenths of a second to compile.
"""

from importlib.metadata import version

from numba.cuda.dispatcher import _Kernel  # of numba-cuda, where this module is imported

from .kernel_cache import KernelCache, Parts, tell


class CudaParts(Parts):
    """How `numba-cuda` takes a kernel apart and puts it together; the methods are private to it."""

    def reduce(self, kernel):
        """What of a kernel goes into its entry."""
        return kernel._reduce_states()

    def rebuild(self, target_context, payload):
        """The kernel that was taken apart; it is loaded when it is first launched."""
        return _Kernel._rebuild(**payload)

    def check_cachable(self, kernel):
        """Each can be kept."""
        return True


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


def keep(kernel) -> None:
    """Let a CUDA kernel, of `jit`, use the disk cache."""
    kernel._cache = CudaKernelCache(kernel.py_func, {**kernel.targetoptions, "package": version("numba-cuda")})
