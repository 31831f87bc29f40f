import numpy as np
import pytest

import oracles
from checks import Case, Subject, nchw, nhwc, padding, rng_of, window_attrs
from refimpl.kernels.passes import ShapeError
from refimpl.ops import avg_pool


def case(pick):
    a = window_attrs(pick, dilation=False)
    x = rng_of(pick).normal(size=(pick(1, 2), *a.size, pick(1, 4)))
    attrs = {"window": a.window, "stride": a.stride, "pad": a.pad, "count_include_pad": bool(pick(0, 1))}
    return Case({"x": x}, attrs)


def torch_avg_pool(F, t, attrs):
    x, window, stride = nchw(t["x"]), attrs["window"], attrs["stride"]
    (top, bottom), (left, right) = attrs["pad"]
    if top == bottom and left == right:
        return nhwc(F.avg_pool2d(x, window, stride, (top, left), count_include_pad=attrs["count_include_pad"]))
    y = F.avg_pool2d(F.pad(x, padding(attrs["pad"])), window, stride)
    if not attrs["count_include_pad"]:
        y = y / F.avg_pool2d(F.pad(x.detach() * 0 + 1, padding(attrs["pad"])), window, stride)
    return nhwc(y)


subject = Subject("avg_pool", case, oracles.avg_pool, torch_avg_pool, oracles.absolute(oracles.avg_pool))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize(
    ("attrs", "message", "torchs"),
    [
        ({"window": 0}, r"window must be at least 1, got \(0, 0\)", "kernel size should be greater than zero"),
        ({"stride": 0}, r"stride must be at least 1, got \(0, 0\)", "stride should not be zero"),
        ({"pad": 2}, r"pad must be at most half of the window, got pad \(2, 2\) for window 2", "at most half of"),
        ({"window": 6}, "window 6 does not fit into x with H=5", "Output size is too small"),
    ],
)
def test_refused_like_torch(attrs, message, torchs):
    x = np.ones((1, 5, 5, 1))
    with pytest.raises(ShapeError, match=message):
        avg_pool.forward(x, **attrs)
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError, match=torchs):
        torch.nn.functional.avg_pool2d(
            nchw(torch.tensor(x)), attrs.get("window", 2), attrs.get("stride", 2), attrs.get("pad", 0)
        )
