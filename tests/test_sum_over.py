import numpy as np
import pytest
from node_cases import check_net

import oracles
from checks import Case, Subject, map_shape, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import sum_over


def case(pick):
    shape = map_shape(pick)
    x = rng_of(pick).normal(size=shape)
    attrs = {"over": (pick(0, 1), pick(0, 1), pick(0, 1)), "mean": bool(pick(0, 1))}
    return Case({"x": x}, attrs, dict(zip("HWC", shape[1:], strict=True)))


def by_torch(F, t, attrs):
    axes = oracles._axes(attrs)
    return (t["x"].mean if attrs["mean"] else t["x"].sum)(axes, keepdim=True) if axes else t["x"] * 1


subject = Subject("sum_over", case, oracles.sum_over, by_torch, oracles.absolute(oracles.sum_over))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    g = Graph("net", (6, 5), 3)
    x = g.add_spread(
        "both", g.conv2d("c", "input", 4, 3), g.sum_over("channels", g.conv2d("d", "input", 4, 3), (0, 0, 1), True)
    )
    g.linear("fc", g.flatten("flat", g.sum_over("places", g.conv2d("e", x, 5, 1), mean=True)), 3)
    check_net(g, backend, "c.w", "d.w", "e.w")


def test_refused():
    with pytest.raises(ShapeError, match=r"over must be 0 or 1 for rows, columns and channels, got \(2, 0, 0\)"):
        sum_over.forward(np.ones((1, 2, 2, 3)), over=(2, 0, 0))
