"""Copies of chosen channels and their scores on the fast kernels, against the reference passes and NumPy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checks import both_thread_counts, distance
from refimpl.backends.cpu import channels, tiles
from refimpl.methods import error_map_pruning as emp
from refimpl.methods import sparse_update as su

LIMIT = {"float32": 1e-5, "float64": 1e-12}
dtypes = st.sampled_from(list(LIMIT))
# rows around the border of a tile, single values along any axis, no sample at all
SHAPES = [(1, 1, 1, 1), (3, 5, 1, 7), (2, 16, 8, 3), (1, 257, 1, 4), (5, 8, 13, 6), (0, 4, 4, 5), (2, 0, 3, 4)]
shapes = st.sampled_from(SHAPES)


def chosen(width, share, seed):
    """Some channels in any order, and the rank of all."""
    order = np.random.default_rng(seed).permutation(width).astype(np.int32)
    return order[: max(1, math.ceil(share * width))], np.argsort(order).astype(np.int32)


@given(shapes, dtypes, st.floats(0, 1), st.integers(0, 99))
def test_take_is_the_reference_copy(shape, dtype, share, seed):
    x = np.random.default_rng(seed).normal(size=shape).astype(dtype)
    index, _ = chosen(shape[3], share, seed)

    def take():
        out = np.full((*shape[:3], len(index)), np.nan, dtype)
        channels.take(out, x, index)
        return out

    found = both_thread_counts(take)
    np.testing.assert_array_equal(found, x[..., index])
    if x.size:
        for passed in (emp.keep_dy, emp.keep_w, emp.keep_x, su.take_x):
            np.testing.assert_array_equal(found, passed(x, index, G=1) if passed is emp.keep_w else passed(x, index))


@given(shapes, dtypes, st.floats(0, 1), st.integers(0, 99))
def test_spread_is_the_reference_copy(shape, dtype, share, seed):
    index, rank = chosen(shape[3], share, seed)
    x = np.random.default_rng(seed).normal(size=(*shape[:3], len(index))).astype(dtype)

    def spread():
        out = np.full(shape, np.nan, dtype)
        channels.spread(out, np.full(len(index), -1, np.int32), x, rank)
        return out

    found = both_thread_counts(spread)
    expected = np.zeros(shape, dtype)
    expected[..., index] = x
    np.testing.assert_array_equal(found, expected)
    if x.size:
        np.testing.assert_array_equal(found, emp.spread_x(x, rank, C=shape[3]))
        np.testing.assert_array_equal(found, emp.spread_w(x, rank))


def test_spread_stays_inside_where_scores_are_not_numbers():
    """Every comparison with NaN is false, so that all ranks are 0: the run's own check then refuses the step."""
    rank = emp.rank(np.full(4, np.nan))
    kept = np.full(3, 10**9, np.int32)  # scratch holds anything
    channels.spread(np.empty((1, 2, 1, 4)), kept, np.ones((1, 2, 1, 3)), rank)
    assert rank.tolist() == [0, 0, 0, 0] and kept.tolist() == [3, 0, 0]


@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([(1, 1), (3, 5), (8, 7)]), st.integers(1, 9),
    st.sampled_from([(1, 1, 1), (3, 2, 4)]), dtypes, st.sampled_from([(1.0, 1.0), (0.0, 2.0), (0.5, 0.0)]),
)  # fmt: skip
def test_score_is_that_of_the_reference(planned, samples, size, width, kernel, dtype, gammas):
    """Also where fewer samples arrive than the slices of the partial sums were made for."""
    samples = min(samples, planned)
    rng = np.random.default_rng(planned * width)
    dy, w = (rng.normal(size=(*s, width)).astype(dtype) for s in ((samples, *size), kernel))
    slices = tiles.grad_b_partials({"N": planned, "P": size[0], "Q": size[1], "K": width})
    gammas = tuple(np.dtype(dtype).type(g) for g in gammas)

    def score():
        out, partials = np.full(width, np.nan, dtype), np.full(slices, np.nan, dtype)
        channels.score(out, partials, dy, w, *gammas)
        return out

    found = both_thread_counts(score)
    assert distance(found, emp.score(dy, w, gamma_w=gammas[0], gamma_dy=gammas[1])) <= LIMIT[dtype]
    exact = gammas[0] * samples * np.abs(w, dtype="float64").sum((0, 1, 2))
    exact = exact + gammas[1] * np.abs(dy, dtype="float64").sum((0, 1, 2))
    assert distance(found, exact) <= LIMIT[dtype]


@pytest.mark.parametrize("n", [1, 3, 8])
def test_score_ignores_the_samples_beyond_a_partial_batch(n):
    rng = np.random.default_rng(n)
    dy, w = rng.normal(size=(8, 6, 5, 9)), rng.normal(size=(3, 3, 2, 9))
    partials = np.full(tiles.grad_b_partials({"N": 8, "P": 6, "Q": 5, "K": 9}), np.nan)
    dy[n:] = np.nan
    found = np.full(9, np.nan)
    channels.score(found, partials, dy[:n], w, 1.0, 1.0)
    assert distance(found, n * np.abs(w).sum((0, 1, 2)) + np.abs(dy[:n]).sum((0, 1, 2))) <= 1e-12
