import numpy as np
import pytest
from node_cases import check_net

import oracles
from checks import Case, Subject, map_shape, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import scale_channels
from refimpl.surgery import prune


def case(pick):
    shape, rng = map_shape(pick), rng_of(pick)
    return Case({"x": rng.normal(size=shape), "s": rng.normal(size=(shape[0], shape[3]))})


def by_torch(F, t, attrs):
    return t["x"] * t["s"][:, None, None, :]


subject = Subject("scale_channels", case, oracles.scale_channels, by_torch, oracles.absolute(oracles.scale_channels))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def excited() -> Graph:
    """A squeeze-and-excitation block behind a convolution."""
    g = Graph("net", (6, 5), 3)
    x = g.conv2d("c", "input", 4, 3, pad=1)
    s = g.relu("relu", g.linear("squeeze", g.global_avg_pool("mean", x), 5))
    x = g.scale_channels("scale", x, g.sigmoid("gate", g.linear("excite", s, 4)))
    g.linear("fc", g.global_avg_pool("last", x), 3)
    return g


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_net(excited(), backend, "c.w", "squeeze.w", "excite.w")


def test_a_channel_is_pruned_with_its_factor():
    g = excited()
    weights = {name: np.random.default_rng(1).normal(size=p.shape) for name, p in g.parameters.items()}
    groups = {group.name: group for group in prune.groups(g) if not group.fixed}
    members = {m.parameter for m in groups["c.w axis 3"].members}
    assert members == {"c.w", "squeeze.w", "excite.w", "excite.b", "fc.w"}
    smaller = prune.remove(g, weights, {groups["c.w axis 3"]: [1]})
    assert smaller.shape("scale") == (1, 6, 5, 3) and smaller.shape("gate") == (1, 3)
    np.testing.assert_array_equal(smaller.weights["excite.w"], weights["excite.w"][:, [0, 2, 3]])


def test_refused():
    with pytest.raises(ShapeError, match="s has C=2, but x has C=3"):
        scale_channels.forward(np.ones((1, 2, 2, 3)), np.ones((1, 2)))
    g = Graph("net", (2, 2), 3)
    with pytest.raises(ShapeError, match=r"node y \(scale_channels\): s must be \(N, C\), but its shape is \(1, 2, 2,"):
        g.scale_channels("y", "input", "input")
