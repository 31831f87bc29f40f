import numpy as np
import pytest
from node_cases import check_net, whole_or_one

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import spread_out


def case(pick):
    shape, own = whole_or_one(pick)
    return Case({"x": rng_of(pick).normal(size=own)}, {"size": shape[1:]})


def by_torch(F, t, attrs):
    return t["x"].expand(-1, *attrs["size"])


subject = Subject("spread_out", case, oracles.spread_out, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    g = Graph("net", (6, 5), 3)
    x = g.spread_out("wide", g.conv2d("c", "input", 1, (6, 1), pad=0), (4, 5, 2))
    g.linear("fc", g.flatten("flat", g.mul("m", x, g.conv2d("d", "input", 2, (3, 1)))), 3)
    check_net(g, backend, "c.w", "d.w")


def test_refused():
    with pytest.raises(ShapeError, match="V must be 1 or W=3, got V=2"):
        spread_out.forward(np.ones((1, 1, 2, 1)), size=(4, 3, 2))
