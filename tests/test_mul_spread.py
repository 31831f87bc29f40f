import numpy as np
import pytest
from node_cases import check_net, whole_or_one

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import mul_spread


def case(pick):
    shape, own = whole_or_one(pick)
    rng = rng_of(pick)
    return Case({"x": rng.normal(size=shape), "s": rng.normal(size=own)})


def by_torch(F, t, attrs):
    return t["x"] * t["s"]


subject = Subject("mul_spread", case, oracles.mul_spread, by_torch, oracles.absolute(oracles.mul_spread))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def net() -> Graph:
    """A map with one row for each place, one number for each channel, and features with one number."""
    g = Graph("net", (6, 5), 3)
    x = g.mul_spread("places", g.conv2d("a", "input", 4, 3), g.sigmoid("gate", g.conv2d("b", "input", 1, 3)))
    factor = g.sigmoid("factor", g.linear("c", g.global_avg_pool("mean", x), 4))
    g.linear("fc", g.flatten("flat", g.mul_spread("channels", x, g.as_map("map", factor))), 3)
    return g


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_net(net(), backend, "a.w", "b.w", "c.w")


def test_refused():
    with pytest.raises(ShapeError, match="D must be 1 or C=3, got D=2"):
        mul_spread.forward(np.ones((1, 2, 2, 3)), np.ones((1, 1, 1, 2)))
    with pytest.raises(ShapeError, match=r"node y \(mul_spread\): s must be \(N, U, V, D\), but its shape is \(1, 3\)"):
        g = Graph("net", (2, 2), 3)
        g.mul_spread("y", "input", g.global_avg_pool("mean", "input"))
