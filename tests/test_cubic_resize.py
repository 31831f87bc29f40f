import numpy as np
import pytest
from node_cases import check_net

import oracles
from checks import Case, Subject, map_shape, nchw, nhwc, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.kernels.resizing import resized
from refimpl.ops import cubic_resize


def case(pick):
    shape = map_shape(pick)
    attrs = {"size": (0, 0), "scale": ((pick(2, 6), pick(1, 3)), (pick(2, 6), pick(1, 3)))}
    if pick(0, 1) or any(n * a // b < 1 for n, (a, b) in zip(shape[1:3], attrs["scale"], strict=True)):
        attrs["size"] = (pick(1, 9), pick(1, 9))
    attrs |= {name: bool(pick(0, 1)) for name in ("cubic", "shrink", "exclude")}
    attrs |= {"grid": (pick(0, 2), pick(0, 2)), "bend": -pick(2, 3) / 4}
    letters = {"H": shape[1], "W": shape[2]}
    attrs["reach"] = cubic_resize.reaches(letters | resized(letters, attrs), attrs)
    return Case({"x": rng_of(pick).normal(size=shape)}, attrs, letters)


def by_torch(F, t, attrs):
    rows, columns = (t["x"].new_tensor(m) for m in oracles.filters(t["x"].shape, attrs))
    return (rows @ t["x"].permute(0, 3, 1, 2) @ columns.T).permute(0, 2, 3, 1)


subject = Subject("cubic_resize", case, oracles.cubic_resize, by_torch, oracles.absolute(oracles.cubic_resize))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (10, 4), (14, 21)])
@pytest.mark.parametrize("mode, attrs", [
    ("bicubic", {}), ("align_corners", {"grid": 1}), ("bicubic", {"shrink": True, "exclude": True, "bend": -0.5}),
    ("bilinear", {"shrink": True, "exclude": True, "cubic": False}),
])  # fmt: skip
def test_as_torch(size, mode, attrs):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, 7, 5, 3))
    t, corners = torch.tensor(x, requires_grad=True), mode == "align_corners"
    more = {"mode": "bicubic" if corners else mode, "align_corners": corners, "antialias": "shrink" in attrs}
    theirs = nhwc(torch.nn.functional.interpolate(nchw(t), size=size, **more))
    g = Graph("net", (7, 5), 3)
    g.cubic_resize("y", "input", size, **attrs)
    settings = dict(g.nodes[0].attrs)
    y = cubic_resize.forward(x, **settings)
    np.testing.assert_allclose(y, theirs.detach().numpy(), 1e-12, 1e-12)
    dy = np.random.default_rng(1).normal(size=y.shape)
    theirs.backward(torch.tensor(dy))
    np.testing.assert_allclose(cubic_resize.grad_x(dy, H=7, W=5, **settings), t.grad.numpy(), 1e-12, 1e-12)


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    g = Graph("net", (6, 5), 3)
    x = g.cubic_resize("larger", g.conv2d("c", "input", 4, 3), scale=((2, 1), (3, 2)))
    x = g.cubic_resize("smaller", g.conv2d("d", x, 4, 3), (3, 2), cubic=False, shrink=True)
    g.linear("fc", g.global_avg_pool("mean", g.conv2d("e", x, 5, 1)), 3)
    assert g.shape("larger") == (1, 8, 4, 4) and g.shape("smaller") == (1, 3, 2, 4)
    check_net(g, backend, "c.w", "d.w")


def test_refused():
    x = np.ones((1, 6, 4, 1))
    with pytest.raises(ShapeError, match=r"reach must be \(4, 2\) for H=6 and W=4, got \(2, 2\)"):
        cubic_resize.forward(x, size=(3, 4), shrink=True)
    with pytest.raises(ShapeError, match=r"grid must be 0 to 2, got \(3, 0\)"):
        cubic_resize.forward(x, size=(3, 4), grid=(3, 0))
