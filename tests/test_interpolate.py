import numpy as np
import pytest
from node_cases import check_net

import oracles
from checks import Case, Subject, check_counts, map_shape, nchw, nhwc, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import interpolate


def case(pick):
    shape = map_shape(pick)
    attrs = {"size": (0, 0), "scale": ((pick(2, 6), pick(1, 3)), (pick(2, 6), pick(1, 3)))}
    if pick(0, 1) or any(n * a // b < 1 for n, (a, b) in zip(shape[1:3], attrs["scale"], strict=True)):
        attrs["size"] = (pick(1, 9), pick(1, 9))
    attrs |= {"smooth": bool(pick(0, 1)), "grid": (pick(0, 2), pick(0, 2)), "rounding": pick(0, 3)}
    return Case({"x": rng_of(pick).normal(size=shape)}, attrs, {"H": shape[1], "W": shape[2]})


def by_torch(F, t, attrs):
    """By products with what each row and column takes: PyTorch has no grids for each axis."""
    rows, columns = (t["x"].new_tensor(m) for m in oracles.interpolation(t["x"].shape, attrs))
    return (rows @ t["x"].permute(0, 3, 1, 2) @ columns.T).permute(0, 2, 3, 1)


subject = Subject("interpolate", case, oracles.interpolate, by_torch, oracles.absolute(oracles.interpolate))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (10, 4), (14, 21)])
@pytest.mark.parametrize("mode, attrs", [
    ("nearest", {"grid": 2, "rounding": 2}), ("nearest-exact", {"grid": 0, "rounding": 1}),
    ("bilinear", {"smooth": True}), ("align_corners", {"smooth": True, "grid": 1}),
])  # fmt: skip
def test_as_torch(size, mode, attrs):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, 7, 5, 3))
    t, corners = torch.tensor(x, requires_grad=True), mode == "align_corners"
    more = {"mode": "bilinear" if corners else mode} | ({"align_corners": corners} if "near" not in mode else {})
    theirs = nhwc(torch.nn.functional.interpolate(nchw(t), size=size, **more))
    y = interpolate.forward(x, size=size, **attrs)
    np.testing.assert_allclose(y, theirs.detach().numpy(), 1e-12, 1e-12)
    dy = np.random.default_rng(1).normal(size=y.shape)
    theirs.backward(torch.tensor(dy))
    np.testing.assert_allclose(interpolate.grad_x(dy, H=7, W=5, size=size, **attrs), t.grad.numpy(), 1e-12, 1e-12)


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    g = Graph("net", (6, 5), 3)
    x = g.interpolate("larger", g.conv2d("c", "input", 4, 3), scale=((2, 1), (3, 2)), smooth=True)
    x = g.interpolate("nearest", g.conv2d("d", x, 4, 3), (3, 7))
    g.linear("fc", g.global_avg_pool("mean", g.conv2d("e", x, 5, 1)), 3)
    assert g.shape("larger") == (1, 8, 4, 4) and g.shape("nearest") == (1, 3, 7, 4)
    check_net(g, backend, "c.w", "d.w")


def test_refused():
    with pytest.raises(ShapeError, match="H=2 times 1/3 is less than 1"):
        Graph("net", (2, 2), 3).interpolate("y", "input", scale=((1, 3), (1, 1)))
    with pytest.raises(ShapeError, match="rounding must be 0 to 3, got 5"):
        Graph("net", (2, 2), 3).interpolate("y", "input", 4, rounding=5)


def test_counts_of_a_map_eight_times_as_large():
    """Several rows lie before the first one: they read the second one too, with a share of 0."""
    attrs = {"size": (0, 0), "scale": ((8, 1), (8, 1)), "smooth": True, "grid": (0, 0), "rounding": 0}
    check_counts(interpolate.grad_x, {"dy": np.ones((1, 24, 16, 2))}, attrs, {"H": 3, "W": 2})
