import numpy as np
import pytest

import oracles
from checks import Case, Subject, nchw, nhwc, padding, rng_of, window_attrs
from refimpl.kernels.passes import ShapeError
from refimpl.ops import conv2d


def case(pick):
    a = window_attrs(pick)
    groups, depth, width = pick(1, 3), pick(1, 2), pick(1, 2)
    n, bias = pick(1, 2), pick(0, 1)
    rng = rng_of(pick)
    arrays = {
        "x": rng.normal(size=(n, *a.size, groups * depth)),
        "w": rng.normal(size=(*a.window, depth, groups * width)),
    }
    if bias:
        arrays["b"] = rng.normal(size=groups * width)
    return Case(arrays, {"stride": a.stride, "dilation": a.dilation, "pad": a.pad})


def torch_conv2d(F, t, attrs):
    x = F.pad(nchw(t["x"]), padding(attrs["pad"]))
    groups = t["x"].shape[3] // t["w"].shape[2]
    w = t["w"].permute(3, 2, 0, 1).contiguous()
    return nhwc(F.conv2d(x, w, t.get("b"), attrs["stride"], 0, attrs["dilation"], groups))


subject = Subject("conv2d", case, oracles.conv2d, torch_conv2d, oracles.absolute(oracles.conv2d))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize(
    ("change", "message", "torchs"),
    [
        ({"stride": 0}, r"stride must be at least 1, got \(0, 0\)", "non-positive stride is not supported"),
        ({"dilation": 0}, r"dilation must be at least 1, got \(0, 0\)", "dilation should be greater than zero"),
        ({"pad": -1}, r"pad must be at least 0, got \(\(-1, -1\), \(-1, -1\)\)", "negative padding is not supported"),
        (
            {"w": (6, 3, 4, 6)},
            "w has R=6 with dilation 1, which does not fit into x with H=5",
            "Kernel size can't be gr",
        ),
        ({"w": (3, 3, 3, 6)}, "w has C/G=3, which does not divide C=4 of x", "expected input"),
        ({"w": (3, 3, 2, 5), "b": (5,)}, "K=5 is not a multiple of G=2 groups", "expected weight|divisible"),
        ({"b": (5,)}, "b has K=5, but w has K=6", "expected bias"),
        ({"x": (5, 5)}, r"x must be \(N, H, W, C\), but its shape is \(5, 5\)", "Expected 3D .* or 4D"),
    ],
)
def test_refused_like_torch(change, message, torchs):
    shapes = {"x": (2, 5, 5, 4), "w": (3, 3, 4, 6), "b": (6,)}
    arrays = {a: np.ones(change.get(a, shape)) for a, shape in shapes.items()}
    attrs = {a: v for a, v in change.items() if a not in shapes}
    with pytest.raises(ShapeError, match=message):
        conv2d.forward(**arrays, **attrs)
    torch = pytest.importorskip("torch")
    x, w, b = (torch.tensor(v) for v in arrays.values())
    groups = 4 // w.shape[2]
    with pytest.raises(RuntimeError, match=torchs):
        torch.conv2d(
            nchw(x) if x.ndim == 4 else x,
            w.permute(3, 2, 0, 1),
            b,
            attrs.get("stride", 1),
            attrs.get("pad", 0),
            attrs.get("dilation", 1),
            groups,
        )


def test_attributes_are_whole_numbers():
    x, w = np.ones((1, 5, 5, 1)), np.ones((3, 3, 1, 1))
    with pytest.raises(ShapeError, match=r"stride must be a whole number like 1, got 1\.5"):
        conv2d.forward(x, w, stride=1.5)
    with pytest.raises(ShapeError, match="stride must be a number like 1, got 'two'"):
        conv2d.forward(x, w, stride="two")
    with pytest.raises(ShapeError, match=r"stride must have 2 entries like \(1, 1\), got \(1, 1, 1\)"):
        conv2d.forward(x, w, stride=(1, 1, 1))
