import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from checks import Case, Subject, apart, nchw, nhwc, padding, rng_of, window_attrs
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import max_pool


def case(pick):
    a = window_attrs(pick, dilation=False)
    shape = (pick(1, 2), *a.size, pick(1, 4))
    return Case({"x": apart(rng_of(pick), shape)}, {"window": a.window, "stride": a.stride, "pad": a.pad})


def torch_max_pool(F, t, attrs):
    x = F.pad(nchw(t["x"]), padding(attrs["pad"]), value=float("-inf"))
    return nhwc(F.max_pool2d(x, attrs["window"], attrs["stride"]))


subject = Subject("max_pool", case, oracles.max_pool, torch_max_pool)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@given(st.data())
def test_the_tangent_is_of_the_same_places_as_the_gradient(data):
    """Σ dy·ty = Σ dx·tx for every dy and tx: the one linear map is the other's transpose."""
    drawn = case(lambda low, high: data.draw(st.integers(low, high)))
    x, rng = drawn.arrays["x"], np.random.default_rng(0)
    argmax, tx = max_pool.argmax(x, **drawn.attrs), rng.normal(size=x.shape)
    ty = max_pool.tangent(tx, argmax, **drawn.attrs)
    dy = rng.normal(size=ty.shape)
    dx = max_pool.grad_x(dy, argmax, H=x.shape[1], W=x.shape[2], **drawn.attrs)
    np.testing.assert_allclose(np.vdot(dy, ty), np.vdot(dx, tx), rtol=1e-10, atol=1e-12)
    assert np.isin(ty, tx).all()


@pytest.mark.parametrize("special", [1.0, np.nan, -np.inf, np.inf])
def test_ties_and_special_values_as_torch(special):
    """Equal values: the first takes the gradient. NaN wins. A window of −∞ has a maximum too."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, 7, 7, 3)).astype(float)
    x[rng.random(x.shape) < 0.4] = special
    x[0, :4, :4] = special
    attrs = {"window": (3, 3), "stride": (2, 2), "pad": ((1, 1), (1, 1))}
    y = max_pool.forward(x, **attrs)
    dy = rng.normal(size=y.shape)
    dx = max_pool.grad_x(dy, max_pool.argmax(x, **attrs), H=7, W=7, **attrs)
    t = torch.tensor(x, requires_grad=True)
    torch_y = nhwc(torch.nn.functional.max_pool2d(nchw(t), 3, 2, 1))
    torch_y.backward(torch.tensor(dy))
    assert np.array_equal(y, torch_y.detach().numpy(), equal_nan=True)
    assert np.allclose(dx, t.grad.numpy(), atol=1e-14)


@pytest.mark.parametrize(
    ("attrs", "message", "torchs"),
    [
        ({"window": 0}, r"window must be at least 1, got \(0, 0\)", "kernel size should be greater than zero"),
        ({"stride": 0}, r"stride must be at least 1, got \(0, 0\)", "stride should not be zero"),
        ({"pad": -1}, "pad must be at least 0", "pad must be non-negative"),
        ({"pad": 2}, r"pad must be less than the window, got pad \(2, 2\) for window 2", "at most half of"),
        ({"window": 6}, "window 6 does not fit into x with H=5", "Output size is too small"),
    ],
)
def test_refused_like_torch(attrs, message, torchs):
    x = np.ones((1, 5, 5, 1))
    with pytest.raises(ShapeError, match=message):
        max_pool.forward(x, **attrs)
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError, match=torchs):
        torch.nn.functional.max_pool2d(
            nchw(torch.tensor(x)), attrs.get("window", 2), attrs.get("stride", 2), attrs.get("pad", 0)
        )


def test_a_window_beyond_one_byte_is_refused():
    with pytest.raises(ShapeError, match=r"window \(17, 16\) has 272 taps, but a maximum is kept in one byte: 256"):
        max_pool.argmax(np.ones((1, 20, 20, 1)), window=(17, 16))
    x = np.zeros((1, 16, 16, 1))
    x[0, 15, 15] = 1
    assert max_pool.argmax(x, window=16, stride=1).item() == 255


@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_a_ceil_mode_for_every_geometry_as_torch(window):
    """The net is of another size: its padding is right for any."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(window)
    for stride, pad in itertools.product(range(1, 5), range(window // 2 + 1)):
        g = Graph("net", (11, 12), 1)
        attrs = g.node(g.max_pool("y", "input", window, stride, pad, ceil=True)).attrs
        for size in range(max(1, window - 2 * pad), 9):
            x = rng.normal(size=(1, size, size + 3, 1))
            theirs = torch.nn.functional.max_pool2d(nchw(torch.tensor(x)), window, stride, pad, ceil_mode=True)
            np.testing.assert_array_equal(max_pool.forward(x, **attrs), nhwc(theirs).numpy())
