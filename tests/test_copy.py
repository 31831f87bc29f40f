import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks import check_counts, check_threads, map_shape, rng_of
from refimpl.backends.cpu import copy as fast_copy
from refimpl.kernels.passes import ShapeError
from refimpl.ops import copy


@given(st.data())
def test_copy(data):
    pick = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    x = rng_of(pick).normal(size=map_shape(pick))
    y = copy.forward(x)
    assert np.array_equal(y, x) and not np.shares_memory(y, x)
    check_counts(copy.forward, {"x": x}, {}, {})
    check_threads(copy.forward, {"x": x}, {}, {})


@pytest.mark.parametrize("size", [1, 8191, 8192, 8193, 50_000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8])
def test_the_fast_kernel_copies_all_of_it_and_no_more(size, dtype):
    x = np.random.default_rng(size).integers(-100, 100, size).astype(dtype)
    y = np.full(size + 2, 99, dtype)
    fast_copy.forward(y[1:-1], x)
    assert np.array_equal(y[1:-1], x) and y[0] == y[-1] == 99


def test_refused():
    with pytest.raises(ShapeError, match=r"^x must be \(N, E\), but its shape is \(\)$"):
        copy.forward(np.ones(()))
