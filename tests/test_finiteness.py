"""Finite values are taken for finite, whatever their squares and sums are."""

import numpy as np
import pytest

import refimpl as ri
from checks import check_counts, check_threads
from refimpl.backends.cpu import finiteness as cpu_finite
from refimpl.backends.finite import all_finite
from refimpl.kernels.geometry import SLICE
from refimpl.methods.optim import Adam
from refimpl.ops import clip_norm, finiteness
from refimpl.training.trainer import Trainer

FLOATS = (np.float32, np.float64)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 2, 7, 8, 63, 64, 65, 4097])
def test_all_finite(size, dtype):
    a = np.full(size, np.finfo(dtype).max, dtype)
    a[::2] *= -1
    assert all_finite(a) and all_finite(a.reshape(1, -1)) and all_finite(a[::2])
    assert all_finite(np.full(size, np.finfo(dtype).smallest_subnormal, dtype))
    for bad in (np.nan, np.inf, -np.inf, -np.nan):
        for i in {0, size // 2, size - 1}:
            b = a.copy()
            b[i] = bad
            assert not all_finite(b), (bad, i)
            assert not all_finite(np.stack([a, b]).T)


def test_other_dtypes():
    for dtype in (np.float16, np.longdouble, np.dtype(">f4")):
        assert all_finite(np.ones(9, dtype)) and not all_finite(np.array([1, np.nan], dtype))
    assert all_finite(np.empty((0, 3), np.float32))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1, 7, 4095, 4096, 4097, 3 * 4096 + 5])
def test_each_slice_of_a_gradient_has_a_flag(size, dtype):
    """Of the pass and of the fast kernel; what is largest is finite, whatever its square is."""
    largest = np.finfo(dtype).max
    g = np.full(size, largest, dtype)
    g[::2] *= -1
    slices = -(-size // SLICE)

    def flags(gradient):
        found = np.full(slices, 7, np.uint8)
        cpu_finite.check(found, gradient, largest)
        np.testing.assert_array_equal(finiteness.check(gradient), found)
        return found.tolist()

    assert flags(g) == [0] * slices
    for bad in (np.nan, np.inf, -np.inf, -np.nan):
        for i in {0, size // 2, size - 1}:
            spoiled = g.copy()
            spoiled[i] = bad
            assert flags(spoiled) == [int(s == i // SLICE) for s in range(slices)], (bad, i)


def test_what_a_check_costs_is_what_its_body_does():
    g = np.ones((3, 1500), np.float32)
    check_threads(finiteness.check, {"dw": g}, {}, {})
    check_counts(finiteness.check, {"dw": g}, {}, {})


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("plan", [ri.Plan(), ri.Plan(instances=ri.InstanceFilter(keep=0.5))], ids=["all", "chosen"])
def test_every_gradient_is_checked_once_and_its_flags_have_their_place(backend, plan):
    program = ri.compile(ri.models.build("watch"), plan, 4, backend=backend)
    step = program.step
    checks = [call for call in step if call.passed is finiteness.check]
    assert [call.arrays["dw"].root for call in checks] == [g.root for g in step.gradients.values()]
    assert {call.phase for call in checks} == {"backward"} and step.flags.keys() == step.gradients.keys()
    for net in program.graphs:
        together = step.host_reads[f"{net}finite"]
        parts = [b for b in step.flags.values() if b.root is together]
        assert [b.start for b in parts] == [sum(p.nbytes for p in parts[:i]) for i in range(len(parts))]
        assert together.nbytes == sum(b.nbytes for b in parts)
        assert program.lifetimes[together].last == len(program.order)


def steep(optimizer=None, backend="fast", clip=None) -> Trainer:
    """A linear net; times its input, the gradient is as large as one likes while loss and activations are finite."""
    g = ri.Graph("steep", (1, 1), 1)
    g.linear("fc", g.flatten("flat", "input"), 2)
    g.weights = {"fc.w": np.zeros((1, 2)), "fc.b": np.zeros(2)}
    step = ri.Backprop(optimizer or ri.SGD(lr=1e-20), clip_norm=clip)
    return Trainer(ri.compile(g, ri.Plan(step=step), 2, backend=backend))


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("size", [7.6e19, 1e30, 1e38])
def test_a_gradient_whose_square_overflows_is_finite(size, backend):
    t = steep(backend=backend)
    x = np.full((2, 1, 1, 1), 2 * size, np.float32)
    t.train_step(x, np.zeros(2, int), 1)
    np.testing.assert_allclose(t.parameters["fc.w"], 1e-20 * np.array([[size, -size]]), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_is_still_refused(bad, monkeypatch):
    t = steep()
    launch = t.backend.launch

    def spoiling(calls):
        for function, args in calls:
            if function is cpu_finite.check:
                t.runner.array(t.program.step.gradients["fc.w"])[0, 1] = bad
            launch([(function, args)])

    monkeypatch.setattr(t.backend, "launch", spoiling)
    with pytest.raises(ri.NonFiniteError, match="^the gradient of fc.w is not finite at step 1"):
        t.train_step(np.ones((2, 1, 1, 1), np.float32), np.zeros(2, int), 1)


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("size", [1e-3, 1.0, 7.6e19, 1e38])
def test_clipping_a_gradient_whose_norm_overflows(size, backend):
    t = steep(ri.SGD(lr=1.0), backend, clip=0.5)
    x = np.full((2, 1, 1, 1), 2 * size, np.float32)
    t.train_step(x, np.zeros(2, int), 1)
    g = np.array([-size, size, -0.5, 0.5])
    g *= min(1, 0.5 / np.linalg.norm(g))
    np.testing.assert_allclose(t.parameters["fc.w"][0], -g[:2], rtol=1e-5)


def test_the_norm_of_large_values():
    g = np.full(10_000, 1e25, np.float32)
    partials = clip_norm.partial_squares(g)
    assert partials.dtype == np.float64 and np.isfinite(partials).all()
    assert np.sqrt(partials.sum()) == pytest.approx(1e27, rel=1e-6)


def test_samples_with_large_values_are_finite():
    t = steep()
    x = np.full((4, 1, 1, 1), 3e38, np.float32)
    t.check(x, np.zeros(4, int))
    x[2] = np.inf
    with pytest.raises(ValueError, match="^x has a NaN or infinite value in sample 2; remove or repair it$"):
        t.check(x, np.zeros(4, int))


def test_weights_that_are_large_are_kept(monkeypatch):
    """What is looked at before the last good weights return is every weight, not a norm of them."""
    t = steep(Adam(lr=1.0))
    t.parameters["fc.w"][...] = 3e38
    before = t.parameters["fc.w"].copy()
    with pytest.raises(ri.NonFiniteError):
        t.train_step(np.full((2, 1, 1, 1), 3e38, np.float32), np.zeros(2, int), 1)
    np.testing.assert_array_equal(t.parameters["fc.w"], before)


def test_flags_of_gradients_that_a_step_does_not_have_are_not_looked_at(monkeypatch):
    t = steep()
    x, y = np.ones((2, 1, 1, 1), np.float32), np.zeros(2, int)
    t.train_step(x, y, 1)
    t.runner.read("finite", 2)[...] = 1
    assert t.runner.not_finite("", t.trained[""], 2) == t.trained[""][0]
    monkeypatch.setattr(t.runner, "gradients", lambda net, names: [])
    assert t.runner.not_finite("", t.trained[""], 2) is None
