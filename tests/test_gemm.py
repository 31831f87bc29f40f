"""gemm against NumPy, and that kernels that call it are cached on disk and allocate nothing."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit, prange
from numba.core.errors import TypingError
from threadpoolctl import threadpool_info

from refimpl.backends.cpu.gemm import gemm
from refimpl.kernels.kernel import fast
from refimpl.kernels.running import single_threaded_blas


@njit
def product(trans_a, trans_b, m, n, k, alpha, a, a_offset, lda, b, b_offset, ldb, beta, c, c_offset, ldc):
    gemm(trans_a, trans_b, m, n, k, alpha, a, a_offset, lda, b, b_offset, ldb, beta, c, c_offset, ldc)


@fast
def product_by_rows(a, b, c, rows):
    for t in prange(-(-a.shape[0] // rows)):
        first = np.int64(t) * rows
        m = min(rows, a.shape[0] - first)
        k, n = b.shape
        gemm(False, False, m, n, k, 1.0, a, first * k, k, b, 0, n, 0.0, c, first * n, n)


def error(ours, theirs):
    return np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-30)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.booleans(), st.booleans(),
    st.sampled_from([1.0, -0.5]), st.sampled_from([0.0, 1.0, 0.25]), st.sampled_from(["float32", "float64"]),
    st.tuples(*[st.integers(0, 3)] * 6), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_blocks_of_larger_arrays(m, n, k, trans_a, trans_b, alpha, beta, dtype, margins, seed):
    rng = np.random.default_rng(seed)
    left_a, left_b, left_c, right_a, right_b, right_c = margins
    shape_a, shape_b = ((k, m) if trans_a else (m, k)), ((n, k) if trans_b else (k, n))

    def framed(shape, left, right):
        return rng.standard_normal((shape[0] + 1, left + shape[1] + right)).astype(dtype)

    a, b = framed(shape_a, left_a, right_a), framed(shape_b, left_b, right_b)
    c = framed((m, n), left_c, right_c)
    block_a = a[1:, left_a : left_a + shape_a[1]].astype("float64")
    block_b = b[1:, left_b : left_b + shape_b[1]].astype("float64")
    product_ab = (block_a.T if trans_a else block_a) @ (block_b.T if trans_b else block_b)
    expected = c.astype("float64")
    expected[1:, left_c : left_c + n] = alpha * product_ab + beta * expected[1:, left_c : left_c + n]
    if beta == 0:
        c[1:, left_c : left_c + n] = np.nan
    lda, ldb, ldc = a.shape[1], b.shape[1], c.shape[1]
    product(
        trans_a, trans_b, m, n, k, alpha, a, lda + left_a, lda, b, ldb + left_b, ldb, beta, c, ldc + left_c, ldc
    )  # fmt: skip
    assert error(c, expected) <= (1e-14 if dtype == "float64" else 1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_inside_prange(dtype):
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((101, 33)).astype(dtype), rng.standard_normal((33, 17)).astype(dtype)
    c = np.full((101, 17), np.nan, dtype)
    product_by_rows(a, b, c, 8)
    assert error(c, a.astype("float64") @ b.astype("float64")) <= (1e-14 if dtype == "float64" else 1e-6)


def test_refuses_other_dtypes():
    half, single = np.zeros((2, 2), "int32"), np.zeros((2, 2), "float32")
    with pytest.raises(TypingError, match="gemm multiplies float32 or float64, got int32"):
        product(False, False, 2, 2, 2, 1.0, half, 0, 2, half, 0, 2, 0.0, half, 0, 2)
    with pytest.raises(TypingError, match="three arrays of one dtype"):
        product(False, False, 2, 2, 2, 1.0, half, 0, 2, single, 0, 2, 0.0, single, 0, 2)


def test_single_threaded_blas_restores():
    def threads():
        return [x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"]

    before = threads()
    with single_threaded_blas():
        assert threads() and set(threads()) == {1}
    assert threads() == before


SCRIPT = """
import sys
import numpy as np
from numba.core.runtime import rtsys
from refimpl.kernels.running import single_threaded_blas
from refimpl.kernels.kernel import cache_misses
from test_gemm import product_by_rows

def allocations(rows, tile):
    a = np.ones((rows, 64), np.float32)
    b, c = np.ones((64, 32), np.float32), np.empty((rows, 32), np.float32)
    product_by_rows(a, b, c, tile)
    before = rtsys.get_allocation_stats().alloc
    product_by_rows(a, b, c, tile)
    assert (c == 64).all()
    return rtsys.get_allocation_stats().alloc - before

print(cache_misses(), allocations(64, 64), allocations(4096, 16), cache_misses())
"""


def test_cached_across_processes_and_allocates_nothing(tmp_path):
    environment = os.environ | {
        "GRADLEDGER_CACHE": str(tmp_path),
        "NUMBA_NRT_STATS": "1",
        "PYTHONPATH": os.pathsep.join([".", "tests"]),
    }
    outputs = []
    for _ in range(2):
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=300
        )
        assert run.returncode == 0, run.stderr
        outputs.append([int(x) for x in run.stdout.split()])
    (_, small, large, compiled), (_, _, _, second) = outputs
    assert compiled > 0 and second == 0
    assert small == large  # one launch of one tile and one of 256 tiles
