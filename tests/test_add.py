import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks import check_counts, check_threads, map_shape, rng_of
from refimpl.kernels.passes import ShapeError
from refimpl.ops import add


@given(st.data())
def test_sum(data):
    pick = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    shape = map_shape(pick)
    rng = rng_of(pick)
    arrays = {"a": rng.normal(size=shape), "b": rng.normal(size=shape)}
    assert np.array_equal(add.forward(**arrays), arrays["a"] + arrays["b"])
    check_counts(add.forward, arrays, {}, {})
    check_threads(add.forward, arrays, {}, {})


def test_refused():
    with pytest.raises(ShapeError, match=r"b has shape \(1, 2, 2, 1\), but a has \(1, 2, 2, 3\)"):
        add.forward(np.ones((1, 2, 2, 3)), np.ones((1, 2, 2, 1)))
