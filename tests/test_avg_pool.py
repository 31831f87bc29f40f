import itertools

import numpy as np
import pytest

import oracles
import refimpl as ri
from checks import Case, Subject, nchw, nhwc, padding, rng_of, window_attrs
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import avg_pool
from refimpl.training.trainer import Runner


def case(pick):
    a = window_attrs(pick, dilation=False)
    x = rng_of(pick).normal(size=(pick(1, 2), *a.size, pick(1, 4)))
    attrs = {"window": a.window, "stride": a.stride, "pad": a.pad, "count_include_pad": bool(pick(0, 1))}
    return Case({"x": x}, attrs | {"overhang": tuple(pick(0, after) for _, after in a.pad)})


def torch_avg_pool(F, t, attrs):
    """PyTorch's own where it has such a padding, else the sum of a window by the number of its elements that count."""
    x, window, stride, include = nchw(t["x"]), attrs["window"], attrs["stride"], attrs["count_include_pad"]
    (top, bottom), (left, right) = attrs["pad"]
    half = top <= window[0] // 2 and left <= window[1] // 2
    if half and top == bottom and left == right and not any(attrs["overhang"]):
        return nhwc(F.avg_pool2d(x, window, stride, (top, left), count_include_pad=include))
    rows, columns = attrs["overhang"]
    counted = F.pad(x.detach() * 0 + 1, padding(attrs["pad"]), value=int(include))
    counted[:, :, counted.shape[2] - rows :] = 0
    counted[:, :, :, counted.shape[3] - columns :] = 0
    total, count = (
        F.avg_pool2d(of, window, stride, divisor_override=1) for of in (F.pad(x, padding(attrs["pad"])), counted)
    )
    return nhwc(total / count)


subject = Subject("avg_pool", case, oracles.avg_pool, torch_avg_pool, oracles.absolute(oracles.avg_pool))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize(
    ("attrs", "message", "torchs"),
    [
        ({"window": 0}, r"window must be at least 1, got \(0, 0\)", "kernel size should be greater than zero"),
        ({"stride": 0}, r"stride must be at least 1, got \(0, 0\)", "stride should not be zero"),
        ({"pad": 2}, r"pad must be less than the window, got pad \(2, 2\) for window 2", "at most half of"),
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


def net(size, **attrs):
    g = Graph("net", size, 1)
    g.avg_pool("y", "input", **attrs)
    return g


def result(g, x):
    """Output of a net without weights at x (H, W), once by each backend: they are equal."""
    runners = [Runner(ri.compile(g, None, 1, x.shape, backend=b, dtype=np.float64), {}) for b in ("reference", "fast")]
    for runner in runners:
        runner.write("input", 1, x[None, :, :, None])
        runner.run("forward", 1)
    first, second = (runner.read("output", 1)[0, :, :, 0] for runner in runners)
    np.testing.assert_allclose(first, second, rtol=1e-14)
    return first


def test_a_ceil_mode_as_told():
    """The values that PyTorch 2.13 gives: what lies beyond the padding does not count."""
    x = np.arange(1.0, 17.0).reshape(4, 4)
    y = result(net((4, 4), window=3, stride=2, pad=1, ceil=True), x)
    wanted = [[1.5556, 3.3333, 2.0], [6.3333, 11.0, 6.0], [4.5, 7.5, 4.0]]
    np.testing.assert_allclose(y, wanted, atol=5e-5)
    y = result(net((1, 5), window=(1, 2), stride=(1, 2), ceil=True), np.arange(1.0, 6.0)[None])
    np.testing.assert_array_equal(y, [[1.5, 3.5, 5.0]])


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_a_ceil_mode_for_every_geometry_as_torch(window, include):
    """The net is of another size: its padding is right for any."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(window)
    for stride, pad in itertools.product(range(1, 5), range(window // 2 + 1)):
        g = net((11, 12), window=window, stride=stride, pad=pad, ceil=True, count_include_pad=include)
        attrs = g.node("y").attrs
        for size in range(max(1, window - 2 * pad), 9):
            x = rng.normal(size=(1, size, size + 3, 1))
            theirs = torch.nn.functional.avg_pool2d(nchw(torch.tensor(x)), window, stride, pad, True, include)
            np.testing.assert_allclose(avg_pool.forward(x, **attrs), nhwc(theirs).numpy(), rtol=1e-12, atol=1e-12)


def test_what_cannot_be_is_refused():
    with pytest.raises(
        ShapeError, match=r"overhang must lie in the padding below and to the right, got .* \(2, 0\) for"
    ):
        avg_pool.forward(np.ones((1, 5, 5, 1)), window=3, pad=1, overhang=(2, 0))
    assert net((5, 5), window=2, pad="same", ceil=True).node("y").attrs["pad"] == "same"
    assert net((5, 5), window=2, pad="valid", ceil=True).node("y").attrs["pad"] == ((0, 1), (0, 1))
