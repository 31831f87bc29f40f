import numpy as np
import pytest
from node_cases import any_shape, check_net

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.ops import softmax


def case(pick):
    return Case({"x": rng_of(pick).normal(size=any_shape(pick)) * 3})


def by_torch(F, t, attrs):
    return F.softmax(t["x"], -1)


def scale(a, attrs):
    y = oracles.softmax(a, attrs)["y"]
    dy = np.abs(a["dy"])
    return {"y": y, "dx": y * (dy + (dy * y).sum(-1, keepdims=True))}


subject = Subject("softmax", case, oracles.softmax, by_torch, scale)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_large_scores_do_not_overflow():
    x = np.array([[1e4, 1e4, -1e4], [-3e38, 0, 3e38]], np.float32)
    np.testing.assert_array_equal(softmax.forward(x, *softmax.scales(x)), [[0.5, 0.5, 0], [0, 0, 1]])


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    g = Graph("net", (6, 5), 3)
    x = g.softmax("map", g.conv2d("c", "input", 4, 3, pad=1))
    g.linear("fc", g.softmax("features", g.linear("hidden", g.global_avg_pool("mean", x), 6)), 3)
    check_net(g, backend, "c.w", "hidden.w")
