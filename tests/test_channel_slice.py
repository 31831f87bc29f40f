import numpy as np
import pytest
from node_cases import any_shape, check_net

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import channel_slice


def case(pick):
    *rows, count = any_shape(pick)
    before, behind = pick(0, 3), pick(0, 3)
    x = rng_of(pick).normal(size=(*rows, before + count + behind))
    return Case({"x": x}, {"start": before, "count": count})


def by_torch(F, t, attrs):
    return t["x"][..., attrs["start"] : attrs["start"] + attrs["count"]]


subject = Subject("channel_slice", case, oracles.channel_slice, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    """Two slices of one tensor, the second beside the first: both reach the layer before them."""
    g = Graph("net", (6, 5), 3)
    x = g.conv2d("c", "input", 6, 3)
    a, b = g.channel_slice("left", x, 0, 4), g.channel_slice("right", x, 2, 4)
    g.linear("fc", g.flatten("flat", g.add("sum", a, b)), 3)
    check_net(g, backend, "c.w")


def test_refused():
    with pytest.raises(ShapeError, match="channels 3 to 5 are not among 5"):
        channel_slice.forward(np.ones((2, 5)), start=3, count=3)
    with pytest.raises(ShapeError, match="channels -1 to 0 are not among"):
        Graph("net", (2, 2), 3).channel_slice("y", "input", -1, 2)
