import numpy as np
import pytest
from node_cases import check_net

import oracles
from checks import Case, Subject, apart, map_shape, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import norm_over


def case(pick):
    shape = map_shape(pick)
    x = apart(rng_of(pick), shape)
    attrs = {"over": (pick(0, 1), pick(0, 1), pick(0, 1))}
    return Case({"x": x}, attrs, dict(zip("HWC", shape[1:], strict=True)))


def by_torch(F, t, attrs):
    axes = oracles._axes(attrs)
    return t["x"].square().sum(axes, keepdim=True).sqrt() if axes else t["x"].abs()


subject = Subject("norm_over", case, oracles.norm_over, by_torch, oracles.absolute(oracles.norm_over))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    g = Graph("net", (6, 5), 3)
    x = g.add_spread(
        "both", g.conv2d("c", "input", 4, 3), g.norm_over("channels", g.conv2d("d", "input", 4, 3), (0, 0, 1))
    )
    g.linear("fc", g.flatten("flat", g.norm_over("places", g.conv2d("e", x, 5, 1))), 3)
    check_net(g, backend, "c.w", "d.w", "e.w")


def test_a_norm_of_0_has_no_gradient_as_torch():
    torch = pytest.importorskip("torch")
    x = np.zeros((1, 2, 2, 1))
    t = torch.tensor(x, requires_grad=True)
    torch.linalg.vector_norm(t, dim=(1, 2), keepdim=True).sum().backward()
    y = norm_over.forward(x)
    np.testing.assert_array_equal(norm_over.grad_x(np.ones((1, 1, 1, 1)), x, y), t.grad.numpy())


def test_refused():
    with pytest.raises(ShapeError, match=r"over must be 0 or 1 for rows, columns and channels, got \(2, 0, 0\)"):
        norm_over.forward(np.ones((1, 2, 2, 3)), over=(2, 0, 0))
