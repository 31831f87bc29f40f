"""Work of launches, rates fitted to it, and the calibration that measures both."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import NETS, RULES, step_for
from nets import STEPS as OPTIMIZERS

import refimpl as ri
from costmodel.device import calibration, kernels, rates
from costmodel.device.kernels import GROUP, Caches
from costmodel.device.rates import Rates, TimedLaunch
from refimpl import models

CACHES = Caches(fast=2**20, last=2**23)


def program(net="residual", rules=(), batch=5, **plan):
    step = step_for(rules, OPTIMIZERS["momentum"])
    return ri.compile(NETS[net](), ri.Plan(rules=rules, step=step, **plan), batch, threads=2)


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("net", NETS)
def test_every_launch_has_its_terms(net, rules, batch_norm):
    p = program(net, rules, batch_norm=batch_norm)
    for launch, terms in zip(p.order, kernels.work(p, CACHES), strict=True):
        assert terms["call"] == 1 and terms.keys() <= GROUP.keys(), launch.name
        assert all(v > 0 and math.isfinite(v) for v in terms.values())
        moved = sum(terms.get(level, 0.0) for level in kernels.LEVELS)
        assert moved == pytest.approx(sum(b.nbytes for b in launch.buffers)), launch.name


@pytest.mark.parametrize("emptied, level", [(2**21, "middle"), (2**25, "far")])
def test_what_was_emptied_is_not_near(emptied, level):
    p = program()
    caches = Caches(fast=2**20, last=2**40 if level == "middle" else 2**23)
    for terms in kernels.work(p, caches, emptied):
        assert terms["cold"] == 1
        assert {t.removesuffix("_weights") for t in kernels.LEVELS if t in terms} == {level}


def test_a_small_step_stays_in_the_fast_cache():
    assert not any(t.keys() & {"middle", "far", "cold"} for t in kernels.work(program(), CACHES))


def test_what_the_files_of_methods_state_is_among_the_terms():
    p = program("residual", (ri.ErrorMapPruning(0.5), ri.GradientFilter(2)))
    found = {}
    for launch, terms in zip(p.order, kernels.work(p, CACHES), strict=True):
        found.setdefault(kernels.kernel(launch), []).append((launch.covers and launch.covers[0].sizes, terms))
    for z, terms in found["error_map_pruning.rank"]:
        assert terms["pair"] == z["K"] ** 2
    for z, terms in found["error_map_pruning.keep"]:
        assert terms["pair"] == z["L"] * z["K"]
    for z, terms in found["gradient_filter.grad_w"] + found["gradient_filter.grad_x"]:
        wide = math.ceil(z["K"] / 16) * 16
        assert terms["mac"] == z["N"] * z["U"] * z["V"] * z["C"] * wide and terms["weight"] == z["C"] * z["K"]
    assert not any("pair" in t for name in found if not name.startswith("error_map_") for _, t in found[name])


def test_weights_that_outgrow_the_cache_are_read_again_by_every_tile():
    net = models.build("resnet18", classes=10, size=(224, 224))
    p = ri.compile(net, None, 4, threads=1)
    by_node = {launch.covers[0].node: t for launch, t in zip(p.order, kernels.work(p, CACHES), strict=True)}
    large, small = by_node["layer4.1.conv2"], by_node["layer1.0.conv1"]
    weights = 4 * 9 * 512 * 512
    assert large["middle"] + large.get("far", 0) + large["far_weights"] > 1.9 * weights
    assert 4 * 64 * 64 * 9 < CACHES.fast
    moved = sum(b.nbytes for b in next(q for q in p.order if q.covers[0].node == "layer1.0.conv1").buffers)
    assert sum(small.get(level, 0) for level in kernels.LEVELS) == pytest.approx(moved)


@given(n=st.integers(1, 6), side=st.integers(3, 20), c=st.integers(1, 5), k=st.integers(1, 3), stride=st.integers(1, 2))
def test_whole_vectors_make_just_the_products_of_the_convolution(n, side, c, k, stride):
    g = ri.Graph("one", (side, side), 16 * c)
    x = g.conv2d("before", "input", 16, 1)
    x = g.conv2d("conv", x, 16 * k, 3, stride, pad=1)
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    p = ri.compile(g, ri.Plan("all"), n, threads=1)
    z = next(call.sizes for call in p.step if call.node == "conv")
    products = z["N"] * z["P"] * z["Q"] * 9 * 16 * z["K"]
    for launch, terms in zip(p.order, kernels.work(p, CACHES), strict=True):
        if launch.covers and launch.covers[-1].node == "conv" and "turned" not in kernels.kernel(launch):
            assert terms["mac"] == products, launch.name


def test_the_busiest_of_two_threads_counts():
    sizes = {}
    for threads in (1, 2):
        g = ri.Graph("one", (4, 4), 16)
        g.linear("fc", g.global_avg_pool("mean", g.conv2d("conv", "input", 16, 3, pad=1)), 3)
        p = ri.compile(g, None, 1, threads=threads)
        sizes[threads] = kernels.work(p, CACHES)[0]["mac"]
    assert sizes[2] == 2 * sizes[1]  # one tile: the other thread waits


TRUE = {"call": 5e-6, "near": 2e-11, "mac": 1e-11}


def synthetic(count=80, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(count):
        terms = {"call": 1.0, "near": 10 ** rng.uniform(3, 7), "mac": 10 ** rng.uniform(4, 8), "gather": 1e3}
        seconds = sum(TRUE.get(t, 0.0) * v for t, v in terms.items()) * math.exp(noise * rng.normal())
        yield TimedLaunch("conv2d.forward gathered", terms, seconds, i)


def test_rates_are_found():
    found = rates.fit(synthetic())["conv2d.forward gathered"]
    for term, rate in TRUE.items():
        assert found[term] == pytest.approx(rate, rel=1e-3)


def test_a_slow_minute_does_not_count():
    samples = [
        TimedLaunch(s.kernel, s.terms, s.seconds * (3 if i % 6 == 0 else 1), s.case) for i, s in enumerate(synthetic())
    ]
    found = rates.fit(samples)["conv2d.forward gathered"]
    for term, rate in TRUE.items():
        assert found[term] == pytest.approx(rate, rel=0.05)


def test_no_rate_is_negative_and_memory_is_the_floor_of_far():
    found = rates.fit(synthetic(noise=0.3), memory=1e-10)
    assert all(r >= 0 for own in found.values() for r in own.values())
    assert all(own["far"] >= 1e-10 for own in found.values())


def test_an_unknown_kernel_is_predicted_by_what_all_have():
    model = Rates(rates.fit(synthetic()), 1.0)
    terms = {"call": 1.0, "near": 1e6, "mac": 1e7}
    known, unknown = model.seconds("conv2d.forward gathered", terms), model.seconds("something.new", terms)
    assert unknown == pytest.approx(known, rel=0.1)


def test_the_spread_grows_with_the_noise():
    calm, wild = (rates.spread(list(synthetic(noise=n))) for n in (0.02, 0.3))
    assert 1 <= calm < 1.1 < wild < 3


def test_scaled_by_groups():
    model = Rates({"a": {"call": 1.0, "mac": 2.0, "far": 3.0}}, 1.2)
    found = model.scaled({"compute": 10.0, "cache": 1.0, "memory": 2.0, "call": 5.0}, 2.5)
    assert found.by_kernel == {"a": {"call": 5.0, "mac": 20.0, "far": 6.0}} and found.factor == 2.5


def test_calibration_times_layers_and_fits_them(monkeypatch):
    layers = [
        (calibration.LayerCase("plain", 2, 8, 8, 16), (calibration.DENSE, None)),
        (calibration.LayerCase("depthwise", 2, 8, 8, 8), (calibration.DENSE,)),
        *((calibration.LayerCase("first", 2, n, 3, 8), (calibration.DENSE,)) for n in (6, 8, 10)),
    ]
    monkeypatch.setattr(calibration, "LAYERS", layers)
    told = []
    found, samples, steady = calibration.measure(1, CACHES, lambda *t: told.append(t), seconds=0, rounds=2)
    assert {"conv2d.forward in place", "depthwise.forward", kernels.HOST, rates.ANY} <= found.by_kernel.keys()
    assert all(s.seconds > 0 for s in samples) and found.factor >= 1
    assert steady["cases"] == 6 and steady["rounds"] == 2 and 0 <= steady["undisturbed_share"] <= 1
    assert len(steady["reference_seconds"]) == 3
    assert {t[2] for t in told} == {"compile", "round 1", "round 2"}
    p = ri.compile(layers[0][0].graph(), calibration.DENSE, 2, threads=1)
    assert sum(rates.steps(p, found, CACHES)) > 0


def test_every_layer_of_the_calibration_compiles():
    seen = set()
    for layer, plans in calibration.LAYERS:
        for plan in plans:
            p = layer.program(plan, 1)
            seen |= {kernels.kernel(launch) for launch in p.order}
            assert all(sum(terms.values()) >= 1 for terms in kernels.work(p, CACHES))
    for ways in ("forward gathered", "forward in place", "forward of one channel", "grad_w gathered", "grad_x turned"):
        assert f"conv2d.{ways}" in seen
    assert {"depthwise.backward", "pointwise.backward", "gradient_filter.grad_x", "max_pool.grad_x"} <= seen
    assert {"perturbation.summed", "quantized_perturbation.perturb", "quantized_perturbation.step"} <= seen
    whole = ("conv2d.dense", "conv2d.depthwise", "add.forward", "pools.mean", "pools.maximum")
    assert {"quantize.forward", *(f"quantized_{name}" for name in whole)} <= seen


def test_a_disturbed_row_does_not_count():
    rows = [(1.0, [5.0]), (1.05, [6.0]), (1.0, [7.0]), (2.0, [50.0])]
    assert calibration.undisturbed(rows, 1.1) == [6.0]
    assert calibration.undisturbed(rows, 0.5) == [6.0]  # never undisturbed: the least disturbed
    pieces = [
        (np.array([1.0, 9.0, 3.0]), [5.0]),
        (np.array([1.0, 9.0, 6.0]), [50.0]),
        (np.array([1.1, 9.0, 3.0]), [7.0]),
    ]
    assert calibration.undisturbed(pieces, np.array([1.2, 10.0, 3.5])) == [6.0]  # threads were slow to start once
