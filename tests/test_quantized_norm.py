"""Range batch norm: NumPy, slopes and PyTorch, and its place in a step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import NETS

import refimpl as ri
from checks import torch_or_none
from costmodel import predict
from refimpl.kernels.passes import ShapeError
from refimpl.methods import quantized_norm
from refimpl.methods.quantized import QuantizedTraining
from refimpl.ops import batch_norm
from validation.instruments.counting import count_call

EPS = 1e-5


def forward(x, gamma, beta):
    """Arxiv 1805.11046 in NumPy: the range over 2·√(2·ln M) in place of the deviation, ε as in batch norm."""
    values = x.shape[0] * x.shape[1] * x.shape[2]
    deviation = np.ptp(x, (0, 1, 2)) / (2 * np.sqrt(2 * np.log(values)))
    return gamma * (x - x.mean((0, 1, 2))) / np.sqrt(deviation**2 + EPS) + beta


def ours(x, gamma, beta, dy):
    """Output and gradients by the passes of a step."""
    mean = batch_norm.mean(x)
    var, _, low, high = quantized_norm.ends(x)
    inv_std = batch_norm.inv_std(var)
    dgamma, dbeta = batch_norm.grad_gamma(dy, x, mean, inv_std), batch_norm.grad_beta(dy)
    slope = quantized_norm.slope(x, gamma, var, inv_std, dgamma)
    dx = quantized_norm.grad_x(dy, gamma, inv_std, dbeta, slope, low, high)
    return {"y": batch_norm.forward(x, gamma, beta, mean, inv_std), "dx": dx, "dgamma": dgamma, "dbeta": dbeta}


def drawn(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    shape = (*rng.integers(1, 4, 3), rng.integers(1, 5))
    shape = (shape[0] + 1, *shape[1:])
    gamma, beta = rng.normal(size=(2, shape[3]))
    arrays = (rng.normal(size=shape) * 2 + 1, gamma, beta, rng.normal(size=shape))
    return [a.astype(dtype) for a in arrays]


@given(st.integers(0, 2**32 - 1))
def test_range_batch_norm_has_these_outputs_and_slopes(seed):
    x, gamma, beta, dy = drawn(seed)
    found, rng = ours(x, gamma, beta, dy), np.random.default_rng(seed)
    np.testing.assert_allclose(found["y"], forward(x, gamma, beta), rtol=1e-10, atol=1e-10)
    given_ = {"x": x, "gamma": gamma, "beta": beta}
    for name, a in given_.items():
        to, step = rng.normal(size=a.shape), 1e-7  # small, for the ends must stay where they are
        apart = [np.sort(x.reshape(-1, x.shape[3]), 0)[[1, -1]] - np.sort(x.reshape(-1, x.shape[3]), 0)[[0, -2]]]
        if np.min(apart) < 1e-4:
            continue
        up, down = (forward(**(given_ | {name: a + sign * step * to})) for sign in (1, -1))
        slope, scale = ((up - down) * dy).sum() / (2 * step), np.abs(dy * (up - down)).sum() / (2 * step)
        assert abs((found[f"d{name}"] * to).sum() - slope) <= 1e-5 * max(scale, 1)


@pytest.mark.parametrize("dtype, bound", [(np.float64, 1e-10), (np.float32, 2e-4)])
@given(seed=st.integers(0, 2**32 - 1))
def test_torch_gives_the_same_gradients(dtype, bound, seed):
    torch = torch_or_none()
    if torch is None:
        pytest.skip("PyTorch is not installed")
    arrays = drawn(seed, dtype)
    x, gamma, beta = (torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays[:3])
    values = x[..., 0].numel()
    deviation = (x.amax((0, 1, 2)) - x.amin((0, 1, 2))) / (2 * np.sqrt(2 * np.log(values)))
    y = gamma * (x - x.mean((0, 1, 2))) / (deviation**2 + EPS).sqrt() + beta
    y.backward(torch.tensor(arrays[3], dtype=torch.float64))
    found = ours(*arrays)
    for name, theirs in {"y": y, "dx": x.grad, "dgamma": gamma.grad, "dbeta": beta.grad}.items():
        wanted = theirs.detach().numpy()
        assert found[name].dtype == dtype
        assert np.abs(found[name] - wanted).max() <= bound * max(1, np.abs(wanted).max())


def test_ends_equal_values_and_a_constant_channel():
    x = np.array([3.0, -1, 3, -1, 2, 2]).reshape(6, 1, 1, 1)
    var, unbiased, low, high = quantized_norm.ends(x)
    assert (low.item(), high.item()) == (1, 0) and var == unbiased  # of equal ones the first
    assert var.item() == pytest.approx((4 / (2 * np.sqrt(2 * np.log(6)))) ** 2)
    one = np.ones((3, 1, 1, 1))
    found = ours(one, np.ones(1), np.zeros(1), np.array([1.0, 2, 4]).reshape(one.shape))
    assert not found["y"].any() and np.isfinite(found["dx"]).all()
    with pytest.raises(ShapeError, match="expected more than 1 value per channel when training, but x has N·H·W = 1"):
        quantized_norm.ends(np.ones((1, 1, 1, 2)))


def test_range_batch_norm_of_a_normal_variable_is_near_its_deviation():
    """2·√(2·ln M) deviations are what a normal variable spans in the limit; 4,096 values span a tenth less."""
    x = np.random.default_rng(0).normal(size=(64, 8, 8, 16))
    found = np.sqrt(quantized_norm.ends(x)[0])
    assert 0.85 < found.mean() < 0.95 and (np.abs(found - 0.9) < 0.15).all()


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_in_a_step_it_stands_for_the_norms_that_train(net, backend):
    def of(scheme, **settings):
        plan = ri.Plan(rules=[QuantizedTraining(scheme)], step=ri.Backprop(ri.SGD(0.05)), **settings)
        return ri.compile(NETS[net](), plan, 5, backend=backend)

    names = lambda p: {str(c.passed) for c in p.step if "norm" in c.passed.operator}  # noqa: E731
    p, frozen, psq = of("banner", batch_norm="train"), of("banner"), of("psq", batch_norm="train")
    own = {"quantized_norm.ends", "quantized_norm.slope", "quantized_norm.grad_x"}
    assert own <= names(p) and not {"batch_norm.var", "batch_norm.grad_x"} & names(p)
    assert not own & (names(frozen) | names(psq))
    trainer = ri.Trainer(p, seed=1)
    node = next(n for n in p.graph.nodes if n.operator.trains == "statistics")
    before = trainer.parameters[node.params["running_var"]].copy()
    x = np.random.default_rng(0).normal(size=(12, *p.size, 3)).astype(np.float32)
    losses = trainer.fit(x, np.arange(12) % 3, epochs=6)
    assert np.isfinite(losses).all() and losses[-1] < losses[0]
    assert (trainer.parameters[node.params["running_var"]] != before).all()
    for n in (5, 2):
        for call in p.step:
            assert dict(predict.call_counts(call, n)) == count_call(call, n), call.name


@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_both_backends_compute_the_same(net):
    plan = ri.Plan(rules=[QuantizedTraining("banner")], batch_norm="train", step=ri.Backprop(ri.SGD(0.01)))
    programs = [ri.compile(NETS[net](), plan, 5, backend=b) for b in ("reference", "fast")]
    x = np.random.default_rng(0).normal(size=(5, *programs[0].size, 3)).astype(np.float32)
    steps = [ri.Trainer(p, seed=1) for p in programs]
    losses = [t.train_step(x, np.arange(5) % 3, 1) for t in steps]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name in steps[0].parameters:
        np.testing.assert_allclose(steps[0].parameters[name], steps[1].parameters[name], rtol=2e-3, atol=2e-4)
