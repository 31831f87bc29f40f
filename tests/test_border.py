import numpy as np
import pytest
from node_cases import check_net

import oracles
from checks import Case, Subject, map_shape, rng_of
from oracles import BORDERS
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import border


def case(pick):
    attrs = {"sides": tuple((pick(0, 2), pick(0, 2)) for _ in range(3)), "value": pick(-2, 2) / 2, "mode": pick(0, 3)}
    return Case({"x": rng_of(pick).normal(size=map_shape(pick))}, attrs)


def by_torch(F, t, attrs):
    rows, columns, channels = attrs["sides"]
    if attrs["mode"]:  # which PyTorch has for narrower borders: by what NumPy reads
        x = t["x"]
        for axis, n in enumerate(x.shape[1:]):
            x = x[(slice(None),) * (axis + 1) + (np.pad(np.arange(n), attrs["sides"][axis], BORDERS[attrs["mode"]]),)]
        return x
    return F.pad(t["x"], (*channels, *columns, *rows), value=attrs["value"])


subject = Subject("border", case, oracles.border, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    g = Graph("net", (6, 5), 3)
    x = g.border("wider", g.conv2d("c", "input", 4, 3), ((1, 0), (0, 2)), (1, 0), 0.5)
    g.linear("fc", g.global_avg_pool("mean", g.max_pool("pool", g.conv2d("d", x, 5, 1), 2, 1)), 3)
    assert g.shape("wider") == (1, 5, 5, 5)
    check_net(g, backend, "c.w", "d.w")


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_a_net_whose_border_goes_on(mode):
    g = Graph("net", (6, 5), 3)
    x = g.border("wider", g.conv2d("c", "input", 4, 3), ((1, 2), (2, 1)), mode=mode)
    g.linear("fc", g.global_avg_pool("mean", g.max_pool("pool", g.conv2d("d", x, 5, 3), 2, 1)), 3)
    check_net(g, "fast", "c.w", "d.w")


def test_refused():
    with pytest.raises(ShapeError, match="sides must be at least 0 on every side"):
        border.forward(np.ones((1, 2, 2, 3)), sides=((0, -1), (0, 0), (0, 0)))
    with pytest.raises(ShapeError, match="mode must be 0 to 3, got 4"):
        border.forward(np.ones((1, 2, 2, 3)), mode=4)
