import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
import refimpl as ri
from checks import Case, Subject, apart, map_shape, nchw, nhwc, rng_of
from refimpl.kernels.passes import ShapeError
from refimpl.ops import block_prune


def case(pick):
    shape = map_shape(pick)
    n = int(np.prod(shape))
    x = apart(rng_of(pick), shape)  # odd multiples of 3 / n in magnitude: a threshold of 6·k / n lies between them
    return Case({"x": x}, {"block": (pick(1, 4), pick(1, 3)), "threshold": 6.0 * pick(0, n // 2 + 1) / n})


def torch_block_prune(F, t, attrs):
    x = nchw(t["x"])
    rows, columns = attrs["block"]
    stays = F.max_pool2d(x.detach().abs(), attrs["block"], ceil_mode=True) >= attrs["threshold"]
    inside = stays.repeat_interleave(rows, 2).repeat_interleave(columns, 3)[:, :, : x.shape[2], : x.shape[3]]
    return nhwc(x * inside)


subject = Subject("block_prune", case, oracles.block_prune, torch_block_prune)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()

maps = st.builds(lambda seed, *shape: np.random.default_rng(seed).normal(size=shape), *[st.integers(1, 5)] * 5)
blocks = st.tuples(st.integers(1, 6), st.integers(1, 6))


def both(x, dy, **attrs):
    mask = block_prune.pack_mask(x, **attrs)
    shape = {"block": attrs["block"]}
    return block_prune.forward(x, mask, **shape), block_prune.grad_x(dy, mask, **shape)


@given(x=maps, block=blocks)
def test_threshold_0_is_the_identity(x, block):
    x[0, 0] = 0.0  # not even a block of zeros is pruned: its gradient passes
    y, dx = both(x, x + 1, block=block, threshold=0.0)
    assert np.array_equal(y, x) and np.array_equal(dx, x + 1)


@given(x=maps, block=blocks)
def test_a_huge_threshold_zeroes_everything(x, block):
    y, dx = both(x, x, block=block, threshold=1e30)
    assert not y.any() and not dx.any()


@given(x=maps, block=blocks)
def test_what_is_pruned_once_stays_as_it_is(x, block):
    """So the mask could be taken from y as well as from x."""
    y, _ = both(x, x, block=block, threshold=1.0)
    assert np.array_equal(block_prune.pack_mask(y, block=block, threshold=1.0),
                          block_prune.pack_mask(x, block=block, threshold=1.0))  # fmt: skip


def test_block_activation_pruning_small_means_below_the_threshold_and_nan_is_not_small():
    x = np.array([0.5, -0.5, 0.499, -0.499, np.nan, np.inf, -np.inf, 0.0]).reshape(1, 1, 8, 1)
    y, dx = both(x, np.ones_like(x), block=(1, 1), threshold=0.5)
    kept = np.array([1, 1, 0, 0, 1, 1, 1, 0]).reshape(x.shape)
    assert np.array_equal(dx, kept) and np.array_equal(y, np.where(kept, x, 0), equal_nan=True)


def test_block_activation_pruning_one_large_element_keeps_its_block_of_its_channel_alone():
    x = np.full((1, 5, 5, 2), 0.1)
    x[0, 3, 4, 1] = 2.0  # in the border block of rows 2 to 3 and column 4
    y, _ = both(x, x, block=(2, 2), threshold=1.0)
    assert np.argwhere(y).tolist() == [[0, 2, 4, 1], [0, 3, 4, 1]]


def test_block_activation_pruning_is_one_bit_a_block():
    mask = block_prune.pack_mask(np.ones((3, 5, 7, 2)), block=(2, 3), threshold=0.5)
    assert mask.dtype == np.uint8 and mask.shape == (3, 3)  # ⌈3·3·2 / 8⌉
    assert mask[0].tolist() == [255, 255, 3]


def test_backward_reads_neither_x_nor_y():
    assert block_prune.grad_x.reads == ["dy", "mask"]


def test_refused():
    x = np.ones((1, 4, 4, 1))
    with pytest.raises(ShapeError, match=r"block must be at least 1, got \(2, 0\)"):
        block_prune.pack_mask(x, block=(2, 0))
    for threshold in (-1.0, np.nan):
        with pytest.raises(ShapeError, match=f"threshold must be at least 0, got {threshold}"):
            block_prune.pack_mask(x, threshold=threshold)
    with pytest.raises(ShapeError, match="mask has B=2, but the operator gives B=1"):
        block_prune.grad_x(x, np.ones((1, 2), np.uint8))
    with pytest.raises(ShapeError, match=r"node prune \(block_prune\): block must be at least 1, got \(0, 0\)"):
        ri.Graph("net", (4, 4), 1).block_prune("prune", "input", 0, 0.1)
