import numpy as np
import pytest
from node_cases import check_net

import oracles
from checks import Case, Subject, map_shape, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import attach


def case(pick):
    shape, rng, count = map_shape(pick), rng_of(pick), pick(1, 4)
    arrays = {"x": rng.normal(size=shape), "w": rng.normal(size=(*shape[1:3], count))}
    return Case(arrays, {"after": bool(pick(0, 1))}, {"C": shape[3], "R": count, "K": shape[3] + count, "N": shape[0]})


def by_torch(F, t, attrs):
    import torch

    w = t["w"].expand(t["x"].shape[0], *t["w"].shape)
    return torch.cat((t["x"], w) if attrs["after"] else (w, t["x"]), -1)


subject = Subject("attach", case, oracles.attach, by_torch, oracles.absolute(oracles.attach))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def with_token() -> Graph:
    """A learned token before the tokens of a map, which alone is told from."""
    g = Graph("net", (2, 3), 3)
    x = g.reshape("tokens", g.conv2d("c", "input", 4, 1), (1, 1))
    x = g.reshape("all", g.attach("token", x, 4), (1, 7))
    shares = g.softmax("share", g.matmul("scores", x, x, True))
    g.linear("fc", g.global_avg_pool("mean", g.matmul("mixed", shares, x)), 3)
    return g


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_net(with_token(), backend, "c.w", "token.w")


def test_refused():
    with pytest.raises(ShapeError, match="y has K=4, where C \\+ R = 5 is needed"):
        attach.forward(np.ones((1, 1, 1, 3)), np.ones((1, 1, 2)), K=4)
    with pytest.raises(ValueError, match="count of y must be a whole number"):
        Graph("net", (2, 2), 3).attach("y", "input", 0)
