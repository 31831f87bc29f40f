import numpy as np
import pytest
from node_cases import check_net

import oracles
from checks import Case, Subject, nchw, nhwc, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError


def case(pick):
    groups = pick(1, 3)
    shape = (pick(1, 3), pick(2, 4), pick(1, 4), groups * pick(1, 3))
    rng = rng_of(pick)
    arrays = {"x": rng.normal(size=shape), "gamma": rng.normal(size=shape[3]), "beta": rng.normal(size=shape[3])}
    return Case(arrays, {"groups": groups, "eps": (1e-5, 1e-3)[pick(0, 1)]})


def by_torch(F, t, attrs):
    return nhwc(F.group_norm(nchw(t["x"]), attrs["groups"], t["gamma"], t["beta"], attrs["eps"]))


def scale(a, attrs):
    """Gradients of two values a group nearly vanish: the size of what is taken from each other."""
    if "dy" not in a:
        return {}
    spread = oracles.group_norm(a, attrs)["inv_std"].repeat(a["x"].shape[3] // attrs["groups"], 1)[:, None, None]
    return {"dx": np.abs(a["dy"] * a["gamma"]) * spread}


subject = Subject("group_norm", case, oracles.group_norm, by_torch, scale)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_net_with_it(backend, groups):
    g = Graph("net", (6, 5), 3)
    x = g.relu("r", g.group_norm("norm", g.conv2d("c", "input", 4, 3), groups))
    g.linear("fc", g.flatten("flat", x), 3)
    check_net(g, backend, "c.w", "norm.gamma", "norm.beta", batch_norm="train")


def test_refused():
    with pytest.raises(ShapeError, match=r"node y \(group_norm\): C=3 is not a multiple of 2 groups"):
        Graph("net", (2, 2), 3).group_norm("y", "input", 2)
