import numpy as np
import pytest

import oracles
import refimpl as ri
from checks import Case, Subject, map_shape, rng_of
from costmodel import closed_form, predict
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import gelu
from validation.instruments import approximation, counting


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


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("approximate", [False, True])
def test_a_net_with_it_trains_and_is_priced(approximate, backend):
    g = Graph("net", (6, 5), 3)
    x = g.gelu("a", g.batch_norm("bn", g.conv2d("c", "input", 4, 3, pad=1)), approximate)
    g.linear("fc", g.gelu("b", g.linear("hidden", g.global_avg_pool("mean", x), 6), approximate), 3)
    p = ri.compile(g, ri.Plan(step=ri.Backprop(ri.SGD(lr=0.1))), 8, backend=backend)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(8, 6, 5, 3)).astype(np.float32), rng.integers(0, 3, 8)
    trainer = ri.Trainer(p, seed=1)
    first, *_, last = (trainer.train_step(x, y, 40) for _ in range(40))
    assert last < 0.8 * first
    for call in p.step:
        assert dict(predict.call_counts(call, 5)) == counting.count_call(call, 5), call.name
    units = closed_form.of(g, ri.Plan()).at(N=8)
    elements = 8 * (6 * 5 * 4 + 6)
    assert units["tanh" if approximate else "erf"] == 2 * elements and units["erf" if approximate else "tanh"] == 0
    assert units == predict.estimate(p).units
    gaps = approximation.slopes(g, ri.Plan(), x, y, h=1e-6)
    assert gaps.keys() >= {"c.w", "hidden.w"} and max(gaps.values()) < 1e-6


def test_refused():
    with pytest.raises(ShapeError, match="approximate must be True or False, got 'tanh'"):
        Graph("net", (2, 3), 4).gelu("a", "input", "tanh")
