import numpy as np
import pytest
from node_cases import any_shape, check_net

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import channel_shuffle


def case(pick):
    *rows, each = any_shape(pick)
    groups = pick(1, 4)
    return Case({"x": rng_of(pick).normal(size=(*rows, groups * each))}, {"groups": groups})


def by_torch(F, t, attrs):
    x, groups = t["x"], attrs["groups"]
    flat = x.reshape(-1, x.shape[-1], 1, 1)
    return F.channel_shuffle(flat, groups).reshape(x.shape) if hasattr(F, "channel_shuffle") else (
        x.reshape(*x.shape[:-1], groups, -1).transpose(-1, -2).reshape(x.shape)
    )  # fmt: skip


subject = Subject("channel_shuffle", case, oracles.channel_shuffle, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_groups_are_dealt_out_and_picked_up_again():
    x = np.arange(6.0)[None]
    y = channel_shuffle.forward(x, groups=2)
    assert y.tolist() == [[0, 3, 1, 4, 2, 5]] and channel_shuffle.forward(y, groups=3).tolist() == x.tolist()


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    g = Graph("net", (6, 5), 3)
    x = g.channel_shuffle("shuffle", g.conv2d("c", "input", 6, 3), 3)
    g.linear("fc", g.flatten("flat", g.conv2d("d", x, 4, 2, groups=2)), 3)
    check_net(g, backend, "c.w", "d.w")


def test_refused():
    with pytest.raises(ShapeError, match="C=3 channels are no multiple of 2 groups"):
        Graph("net", (2, 2), 3).channel_shuffle("y", "input", 2)
