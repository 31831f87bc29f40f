import numpy as np
import pytest
from node_cases import check_net

import oracles
from checks import Case, Subject, apart, map_shape, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import max_over


def case(pick):
    shape = map_shape(pick)
    x = apart(rng_of(pick), shape)
    attrs = {"over": (pick(0, 1), pick(0, 1), pick(0, 1))}
    return Case({"x": x}, attrs, dict(zip("HWC", shape[1:], strict=True)))


def by_torch(F, t, attrs):
    axes = oracles._axes(attrs)
    return t["x"].amax(axes, keepdim=True) if axes else t["x"] * 1


subject = Subject("max_over", case, oracles.max_over, by_torch, oracles.absolute(oracles.max_over))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    g = Graph("net", (6, 5), 3)
    x = g.add_spread(
        "both", g.conv2d("c", "input", 4, 3), g.max_over("channels", g.conv2d("d", "input", 4, 3), (0, 0, 1))
    )
    g.linear("fc", g.flatten("flat", g.max_over("places", g.conv2d("e", x, 5, 1))), 3)
    check_net(g, backend, "c.w", "d.w", "e.w")


def test_the_first_of_equals_and_nan():
    x = np.array([[3.0, 1.0], [3.0, 2.0]])[None, :, :, None]
    places = max_over.find(x)
    assert places.dtype == np.int32 and places.item() == 0
    assert max_over.grad_x(np.ones((1, 1, 1, 1)), places, H=2, W=2, C=1)[0, :, :, 0].tolist() == [[1, 0], [0, 0]]
    x[0, 1, 0] = np.nan
    assert np.isnan(max_over.forward(x)).all() and max_over.find(x).item() == 2


def test_refused():
    with pytest.raises(ShapeError, match=r"over must be 0 or 1 for rows, columns and channels, got \(2, 0, 0\)"):
        max_over.forward(np.ones((1, 2, 2, 3)), over=(2, 0, 0))
