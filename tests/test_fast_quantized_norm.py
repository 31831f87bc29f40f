"""Tuned kernels of range batch norm: the reference's ends to the row, its numbers in float64, and what they execute."""

import numba
import numpy as np
import pytest
from fast_oracles import LIMIT, assert_near, wide
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import NETS

import refimpl as ri
from refimpl.backends.cpu import batch_norm as fast_bn
from refimpl.backends.cpu import quantized_norm as fast
from refimpl.methods import quantized_norm
from refimpl.methods.quantized import QuantizedTraining
from refimpl.ops import batch_norm
from validation.instruments import drawn, measured

EPS, MOMENTUM = 1e-5, 0.1


@st.composite
def cases(draw):
    shape = draw(st.sampled_from([(2, 1, 1), (1, 3, 5), (3, 7, 6), (2, 33, 40), (2, 90, 91)]))
    return {
        "shape": (*shape, draw(st.sampled_from([1, 5, 16, 24, 70]))), "seed": draw(st.integers(0, 2**31)),
        "steps": draw(st.sampled_from([0, 1, 100])),  # a value is one of few where there are some, else any
    }  # fmt: skip


def run(case, dtype):
    """Everything that the kernels make of a map and of a gradient behind its norm, by name."""
    rng, shape, c = np.random.default_rng(case["seed"]), case["shape"], case["shape"][3]
    x = rng.standard_normal(shape) * rng.uniform(0.5, 2, c) + rng.standard_normal(c)
    if case["steps"]:
        x = np.round(x * case["steps"]) / case["steps"]
    x, dz = x.astype(dtype), rng.standard_normal(shape).astype(dtype)
    x[..., 0] = 1.5  # a constant channel
    gamma, beta, mean = (rng.standard_normal(c).astype(dtype) for _ in range(3))
    var, count = rng.uniform(0.5, 2, c).astype(dtype), x[..., 0].size
    found = {"x": x, "dz": dz, "gamma": gamma, "beta": beta, "mean": mean, "var": var}
    slices = fast_bn.slices(count, c)
    sums, ends = np.full((slices, c), np.nan), np.full((slices, 2, c), np.nan, dtype)
    runs = np.full((slices, 2, c), -1, np.int32)
    fast.statistics(sums, ends, runs, x)
    affine, moments = np.full((2, c), np.nan, dtype), np.full((3, c), np.nan)
    low, high = np.full((2, c), -1, np.int32)
    kept = mean.copy(), var.copy()
    fast.table(affine, moments, low, high, *kept, sums, ends, runs, x, gamma, beta, EPS, MOMENTUM)
    found |= {"affine": affine, "moments": moments, "low": low, "high": high, "new_mean": kept[0], "new_var": kept[1]}
    of_dz = np.full((slices, 2, c), np.nan)
    none = np.empty((0,) * 4, dtype)
    g = np.empty_like(dz)
    fast_bn.gradient(g, dz, none, x, affine, of_dz, none, np.empty((0, 0, 0)), 0)
    coef = np.full((2, c), np.nan, dtype)
    slope, dgamma, dbeta = np.full((3, c), np.nan, dtype)
    fast.gradient_table(coef, slope, dgamma, dbeta, of_dz, moments, gamma, count)
    dx = np.full_like(dz, np.nan)
    fast.apply_gradient(dx, dz, coef, slope, low, high)
    over = dz.copy()
    fast.apply_gradient(over, over, coef, slope, low, high)
    assert np.array_equal(over, dx)
    return found | {"slope": slope, "dgamma": dgamma, "dbeta": dbeta, "dx": dx}


@pytest.mark.parametrize("dtype", LIMIT)
@given(case=cases())
@settings(max_examples=35, deadline=None)
def test_against_the_reference(dtype, case):
    found = run(case, dtype)
    x, dz, gamma, beta = (wide(found[name]) for name in ("x", "dz", "gamma", "beta"))
    var, _, low, high = quantized_norm.ends(x)
    assert np.array_equal(found["low"], low) and np.array_equal(found["high"], high)  # of equal ones the first
    mean, inv_std = batch_norm.mean(x), batch_norm.inv_std(var)
    size = abs(x).mean((0, 1, 2))
    assert_near(found["moments"][0], mean, size, dtype, "mean")
    assert_near(found["moments"][2], np.sqrt(var), np.sqrt(var), dtype, "σ")
    assert_near(found["affine"][0], gamma * inv_std, gamma * inv_std, dtype, "a")
    shift = abs(beta) + abs(gamma * inv_std) * size
    assert_near(found["affine"][1], beta - gamma * inv_std * mean, shift, dtype, "b")
    old = wide(found["mean"]), wide(found["var"])
    for name, before, now in (("new_mean", old[0], mean), ("new_var", old[1], var)):
        assert_near(found[name], before + MOMENTUM * (now - before), abs(before) + 1, dtype, name)
    dgamma, dbeta = batch_norm.grad_gamma(dz, x, mean, inv_std), batch_norm.grad_beta(dz)
    terms = abs(dz).sum((0, 1, 2)), (abs(dz) * (abs(x) + abs(mean))).sum((0, 1, 2)) * inv_std
    assert_near(found["dbeta"], dbeta, terms[0], dtype, "dbeta")
    assert_near(found["dgamma"], dgamma, terms[1], dtype, "dgamma")
    slope = quantized_norm.slope(x, gamma, var, inv_std, dgamma)
    most = abs(quantized_norm.slope(x, abs(gamma), var, inv_std, terms[1]))
    assert_near(found["slope"], slope, most, dtype, "slope")
    assert found["slope"][0] == 0
    dx = quantized_norm.grad_x(dz, gamma, inv_std, dbeta, slope, low, high)
    even = abs(gamma * inv_std) * (abs(dz) + terms[0] / x[..., 0].size)
    at_ends = quantized_norm.grad_x(0 * dz, gamma, inv_std, 0 * dbeta, -most, low, high)
    assert_near(found["dx"], dx, even + abs(at_ends), dtype, "dx")


def test_same_bits_for_any_number_of_threads():
    case, before, found = {"shape": (2, 90, 91, 24), "seed": 2, "steps": 100}, numba.get_num_threads(), []
    for count in (1, 2):
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
        found.append(run(case, np.float32))
    numba.set_num_threads(before)
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_what_is_not_a_number_or_infinite_reaches_what_comes_out():
    for bad in (np.nan, np.inf, -np.inf):
        x = np.random.default_rng(0).standard_normal((2, 5, 5, 3)).astype(np.float32)
        x[1, 2, 2, 1] = bad
        sums, ends, runs = np.empty((1, 3)), np.empty((1, 2, 3), np.float32), np.empty((1, 2, 3), np.int32)
        fast.statistics(sums, ends, runs, x)
        affine, moments, (low, high) = np.empty((2, 3), np.float32), np.empty((3, 3)), np.empty((2, 3), np.int32)
        none, ones = np.empty(0, np.float32), np.ones(3, np.float32)
        fast.table(affine, moments, low, high, none, none, sums, ends, runs, x, ones, ones, EPS, 0.0)
        assert np.isfinite(affine).all(0).tolist() == [True, False, True]
        assert (0 <= low).all() and (high < 50).all()


@pytest.mark.parametrize("train_last", ["all", 1, 0])
@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_no_norm_of_a_step_is_left_to_the_reference(net, train_last):
    """Beside convolutions that train in whole numbers, and beside frozen ones of floats, which sum for other norms."""
    plan = ri.Plan(train_last, rules=[QuantizedTraining("banner")], batch_norm="train", step=ri.Backprop(ri.SGD(0.01)))
    programs = [ri.compile(NETS[net](), plan, 5, backend=b) for b in ("reference", "fast")]
    own = {batch_norm.mean, batch_norm.forward, quantized_norm.ends, quantized_norm.grad_x}
    slow = [a.name for a in programs[1].order if len(a.covers) == 1 and a.function is a.covers[0].passed.kernel.cpu]
    assert not [name for name in slow if "norm" in name]
    assert own <= {call.passed for launch in programs[1].order for call in launch.covers}
    x = np.random.default_rng(0).normal(size=(5, *programs[0].size, 3)).astype(np.float32)
    y, steps = np.arange(5) % 3, [ri.Trainer(p, seed=1) for p in programs]
    for t in steps:
        t.runner.block.fill(0xFF)
    losses = [t.train_step(x, y, 1) for t in steps]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name in steps[0].parameters:
        np.testing.assert_allclose(steps[0].parameters[name], steps[1].parameters[name], 2e-3, 2e-4, err_msg=name)
    for n in (5, 2):
        assert [str(k) for k in drawn.compare_kernels(programs[1], n) if not k.ok] == []
    assert measured.touched_bytes(programs[1], x, y, steps[1].parameters) == programs[1].peak_bytes
