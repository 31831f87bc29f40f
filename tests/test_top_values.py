import numpy as np
import pytest
from node_cases import any_shape, check_net

import oracles
from checks import Case, Subject, apart, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import top_values


def case(pick):
    shape = any_shape(pick)
    return Case({"x": apart(rng_of(pick), shape)}, {"count": pick(1, shape[-1]), "smallest": bool(pick(0, 1))})


def by_torch(F, t, attrs):
    return t["x"].topk(attrs["count"], -1, largest=not attrs["smallest"]).values


subject = Subject("top_values", case, oracles.top_values, by_torch, oracles.absolute(oracles.top_values))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    g = Graph("net", (6, 5), 3)
    x = g.top_values("channels", g.conv2d("c", "input", 6, 3, pad=1), 4)
    x = g.top_values("features", g.linear("hidden", g.global_avg_pool("mean", x), 6), 5, True)
    g.linear("fc", x, 3)
    check_net(g, backend, "c.w", "hidden.w")


def test_of_equal_ones_the_first_comes_first():
    x = np.array([[2.0, 5.0, 2.0, 5.0]])
    assert top_values.find(x).tolist() == [[2, 0, 3, 1]] and top_values.find(x, smallest=True).tolist() == [
        [0, 2, 1, 3]
    ]


def test_more_than_there_are_is_refused():
    g = Graph("net", (6, 5), 3)
    with pytest.raises(ShapeError, match="count must be from 1 to the C=3 elements of a row, got 4"):
        g.top_values("a", "input", 4)
