import numpy as np
import pytest

import oracles
from checks import Case, Subject, map_shape, rng_of
from costmodel import predict
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import gelu


def case(pick):
    shape = map_shape(pick) if pick(0, 1) else (pick(1, 3), pick(1, 20))  # maps and features alike
    return Case({"x": 2 * rng_of(pick).normal(size=shape)}, {"approximate": bool(pick(0, 1))})


def by_torch(F, t, attrs):
    return F.gelu(t["x"], approximate="tanh" if attrs["approximate"] else "none")


subject = Subject("gelu", case, oracles.gelu, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("approximate", [False, True])
def test_far_out_and_for_nan_as_torch(approximate, dtype):
    torch = pytest.importorskip("torch")
    x = np.array([[0.0, -0.0, np.nan, 5.0, -5.0, 12.0, -12.0, 300.0, -300.0]], dtype)
    dy = np.arange(1.0, 10.0, dtype=dtype)[None]
    t = torch.tensor(x, requires_grad=True)
    by_torch(torch.nn.functional, {"x": t}, {"approximate": approximate}).backward(torch.tensor(dy))
    y, dx = gelu.forward(x, approximate=approximate), gelu.grad_x(dy, x, approximate=approximate)
    assert y.dtype == dx.dtype == dtype
    wanted = by_torch(torch.nn.functional, {"x": t}, {"approximate": approximate}).detach().numpy()
    np.testing.assert_allclose(y, wanted, 1e-5, 1e-6)
    np.testing.assert_allclose(dx, t.grad.numpy(), 1e-5, 1e-6)


def test_both_forms_in_a_graph():
    g = Graph("net", (2, 3), 4)
    exact, other = g.gelu("exact", "input"), g.gelu("other", "input", approximate=True)
    assert g.shape(exact) == g.shape(other) == (1, 2, 3, 4)
    x = np.linspace(-4, 4, 801)[:, None]
    apart = np.abs(gelu.forward(x) - gelu.forward(x, approximate=True)).max()
    assert 1e-4 < apart < 5e-4  # what the approximation is off by


def test_refused():
    with pytest.raises(ShapeError, match="approximate must be True or False, got 'tanh'"):
        Graph("net", (2, 3), 4).gelu("a", "input", "tanh")


def test_of_floats_alone():
    assert not {"convert", "cmp"} & set(predict.counts("gelu", "grad_x", {"N": 1, "E": 2}, {"approximate": True}))
