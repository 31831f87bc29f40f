import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks import check_counts, check_threads, rng_of
from refimpl.kernels.passes import ShapeError
from refimpl.ops import concat


@given(st.data())
def test_each_call_copies_the_part_of_one_input(data):
    pick = lambda low, high: data.draw(st.integers(low, high))  # noqa: E731
    rows, widths = tuple(pick(1, 4) for _ in range(pick(1, 3))), [pick(1, 5) for _ in range(pick(1, 3))]
    rng = rng_of(pick)
    inputs = [rng.normal(size=(*rows, width)) for width in widths]
    y, start = np.full((*rows, sum(widths)), np.nan), 0
    bound = concat.bind(inputs)
    assert bound.sizes == {"K": sum(widths)} and len(bound.passes) == 2 * len(inputs) == 2 * len(bound.tangent)
    tangents = np.zeros_like(y)
    for i, x in enumerate(inputs):
        ahead, back = bound.passes[2 * i : 2 * i + 2]
        assert (ahead.passed, ahead.attrs, back.attrs) == (concat.forward, {"start": start}, {"start": start})
        y = concat.forward(y, x, start=start)
        np.testing.assert_array_equal(concat.grad_x(y, start=start, A=widths[i]), x)
        check_counts(concat.forward, {"y": y, "x": x}, {"start": start}, {})
        check_threads(concat.forward, {"y": y, "x": x}, {"start": start}, {})
        check_counts(concat.grad_x, {"dy": y}, {"start": start}, {"A": widths[i]})
        assert (bound.tangent[i].passed, bound.tangent[i].attrs) == (concat.tangent, {"start": start})
        tangents += concat.tangent(x, start=start, K=sum(widths))
        check_counts(concat.tangent, {"tx": x}, {"start": start}, {"K": sum(widths)})
        check_threads(concat.tangent, {"tx": x}, {"start": start}, {"K": sum(widths)})
        start += widths[i]
    np.testing.assert_array_equal(y, np.concatenate(inputs, -1))
    np.testing.assert_array_equal(tangents, y)


def test_a_part_outside_is_refused():
    x = np.ones((2, 3, 4))
    whole = concat.forward(np.zeros((2, 3, 7)), x, start=2)
    np.testing.assert_array_equal(whole[..., 2:6], x)
    assert not whole[..., :2].any() and not whole[..., 6:].any()
    with pytest.raises(ShapeError, match="channels 5 to 8 are not among 7"):
        concat.forward(np.zeros((2, 3, 7)), x, start=5)
