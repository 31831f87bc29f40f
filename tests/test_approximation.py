"""Errors of approximate gradients: limits, hand-made cases, Proposition 1 of arXiv 2301.00330, refusals."""

import re

import numpy as np
import pytest
from nets import NETS

import refimpl as ri
from refimpl.kernels import random
from refimpl.methods import gradient_filter as gf
from refimpl.ops import conv2d
from refimpl.training.trainer import initial
from validation.instruments import approximation
from validation.instruments.approximation import Comparison, gradient_errors


def pointwise(classes=3) -> ri.Graph:
    """Two 1×1 convolutions."""
    g = ri.Graph("pointwise", (5, 4), 3)
    x = g.relu("relu1", g.conv2d("conv1", "input", 6, 1))
    x = g.relu("relu2", g.conv2d("conv2", x, 4, 1))
    g.linear("fc", g.global_avg_pool("mean", x), classes)
    return g


def samples(graph, n=12, classes=3):
    rng = np.random.default_rng(3)
    return rng.normal(size=(n, *graph.size, graph.channels)).astype(np.float32), np.arange(n) % classes


def values(entry):
    """Every summary of an entry, by (view, array)."""
    return {(view, a): s for view in approximation.VIEWS for a, s in entry[view].items()}


@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_without_a_rule_every_error_is_exactly_zero(net):
    """Dropout is among the layers: both programs draw the same masks."""
    graph = NETS[net]()
    found = gradient_errors(graph, ri.Plan(), *samples(graph), batch=4, batches=3)
    assert [e["layer"] for e in found] == [n.name for n in graph.nodes if n.op == "conv2d"]
    for e in found:
        assert e["filter"] is None
        assert ("local", "dx") not in values(e) if e is found[0] else ("local", "dx") in values(e)
        for s in values(e).values():
            assert s["relative_error"] == s["bias"] == s["variance"] == 0
            assert s["cosine"] == pytest.approx(1, abs=1e-12)
            assert s["noise"] > 0


def test_patch_1_with_pointwise_kernels_is_exact_but_for_rounding():
    graph = pointwise()
    for e in gradient_errors(graph, ri.Plan(rules=[ri.GradientFilter(1)]), *samples(graph), batch=4, batches=3):
        assert e["filter"]["snr_dy"] is None and e["filter"]["energy_ratio"] is None
        assert e["filter"]["condition"] == 1
        for s in values(e).values():
            assert s["relative_error"] <= 1e-14 and s["bias"] <= 1e-14 and s["variance"] <= 1e-28
            assert s["cosine"] == pytest.approx(1, abs=1e-14)


def test_local_is_the_rule_on_exact_arrays_and_whole_is_the_network():
    graph = NETS["residual"]()
    plan = ri.Plan(rules=[ri.GradientFilter(2)])
    x, y = samples(graph, 4)
    exact, approximate = (
        ri.Trainer(ri.compile(graph, p, 4, backend="reference", dtype=np.float64)) for p in (ri.Plan(), plan)
    )
    true = approximation.gradients(exact, x, y, 0, 1)
    dy = {node: a for (node, array), a in true.items() if array == "dy"}
    local, whole = (
        approximation.gradients(approximate, x, y, 0, 1, dy),
        approximation.gradients(approximate, x, y, 0, 1),
    )

    mean = gf.pool_dy(dy["conv0"])
    x_sum = gf.pool_x(x.astype(np.float64), U=mean.shape[1], V=mean.shape[2])
    by_hand = np.broadcast_to(gf.patch_grad_w(mean, x_sum, G=1), true["conv0", "dw"].shape)
    np.testing.assert_allclose(local["conv0", "dw"], by_hand, rtol=1e-13, atol=1e-15)
    assert np.linalg.norm(whole["conv0", "dw"] - by_hand) > 1e-3 * np.linalg.norm(by_hand)

    summed = gf.sum_w(exact.parameters["conv1.w"])
    patch = gf.patch_grad(gf.pool_dy(dy["conv1"]), summed, G=1)
    height, width = true["conv1", "dx"].shape[1:3]
    by_hand = gf.expand(patch, H=height, W=width, stride=(2, 2))
    np.testing.assert_allclose(local["conv1", "dx"], by_hand, rtol=1e-13, atol=1e-15)

    for node in ("conv2", "down"):  # nothing approximate lies above them
        for a in ("dw", "dx"):
            np.testing.assert_array_equal(local[node, a], whole[node, a])


def filtered_conv2(batch=3, batches=2):
    """The entry of the residual net's conv2 under patches of 2, its weights, and dy and dx of each batch by hand."""
    graph = NETS["residual"]()
    x, y = samples(graph, 8)
    plan = ri.Plan(rules=[ri.GradientFilter(2)])
    found = gradient_errors(graph, plan, x, y, batch, batches, seed=1)
    trainer = ri.Trainer(ri.compile(graph, ri.Plan(), batch, backend="reference", dtype=np.float64), 1)
    order = random.permutation(1, random.SHUFFLE, 0, len(x))
    parts = []
    for i in range(batches):
        chosen = order[i * batch : (i + 1) * batch]
        true = approximation.gradients(trainer, x[chosen], y[chosen], i, batches)
        parts.append((true["conv2", "dy"], true["conv2", "dx"]))
    (entry,) = (e["filter"] for e in found if e["layer"] == "conv2")
    return entry, trainer.parameters["conv2.w"], parts


def test_eq_3_snr_of_dx_from_patch_sums_over_two_batches():
    """dx of the whole patch is Σ_k g̃·w̃: written out in NumPy, patch by patch."""
    entry, w, parts = filtered_conv2()
    signal = lost = 0.0
    for dy, dx in parts:
        patches = dy.reshape(len(dy), 2, 2, 2, 2, -1).mean((2, 4))  # (N, U, V, K) of a map of 4×4
        ours = np.einsum("nuvk,ck->nuvc", patches, w.sum((0, 1))).repeat(2, 1).repeat(2, 2)
        signal, lost = signal + np.sum(dx**2), lost + np.sum((dx - ours) ** 2)
    assert entry["snr_dx"] == pytest.approx(signal / lost, rel=1e-9)


def test_proposition_1_snr_of_an_entry_over_two_batches():
    entry, w, parts = filtered_conv2()
    signal = lost = kept = 0.0
    for dy, _ in parts:
        patches = dy.reshape(len(dy), 2, 2, 2, 2, -1)
        mean = patches.mean((2, 4), keepdims=True)
        signal, lost = signal + np.sum(dy**2), lost + np.sum((patches - mean) ** 2)
        kept += 7 / 16 * np.sum(patches.sum((2, 4)) ** 2) / 4  # (2r²−1)/r⁴·G²[0,0] of r = 2, ΣG² being 4·Σdy²
    assert entry["snr_dy"] == pytest.approx(signal / lost, rel=1e-9)
    assert entry["snr_dy_closed_form"] == pytest.approx(signal / (signal - kept), rel=1e-9)
    spectra = np.abs(np.fft.fft2(w, axes=(0, 1))).reshape(9, -1) ** 2
    assert entry["condition"] == np.mean(spectra[0] >= spectra[1:].max(0))


def test_the_exact_arrays_are_those_of_the_dense_passes():
    graph = NETS["residual"]()
    x, y = samples(graph, 4)
    trainer = ri.Trainer(ri.compile(graph, ri.Plan(), 4, backend="reference", dtype=np.float64))
    true = approximation.gradients(trainer, x, y, 0, 1)
    dw = conv2d.grad_w(true["conv0", "dy"], x.astype(np.float64), R=3, S=3, pad=1)
    np.testing.assert_allclose(true["conv0", "dw"], dw, rtol=1e-12, atol=1e-15)
    dx = conv2d.grad_x(true["conv2", "dy"], trainer.parameters["conv2.w"], H=4, W=4, pad=1)
    np.testing.assert_allclose(true["conv2", "dx"], dx, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("net", ["residual", "depthwise"])
@pytest.mark.parametrize("rule", [ri.ErrorMapPruning(1.0), ri.SparseUpdate(1.0)], ids=["keep 1", "ratio 1"])
def test_a_rule_that_leaves_nothing_out_is_exact_but_for_rounding(net, rule):
    """The dw of a sparse update lies in another order of channels; the depthwise net has groups."""
    graph = NETS[net]()
    for e in gradient_errors(graph, ri.Plan(rules=[rule]), *samples(graph), batch=4, batches=3):
        for s in values(e).values():
            assert s["relative_error"] <= 1e-13


def test_methods_that_combine_are_exact_where_each_leaves_nothing_out():
    graph = pointwise()
    rules = [ri.SparseUpdate(1.0), ri.ErrorMapPruning(1.0), ri.GradientFilter(1)]
    for e in gradient_errors(graph, ri.Plan(rules=rules), *samples(graph), batch=4, batches=2):
        assert e["filter"]["patch"] == [1, 1]
        for s in values(e).values():
            assert s["relative_error"] <= 1e-13
    rules = [ri.ErrorMapPruning(0.5), ri.GradientFilter(2)]
    for e in gradient_errors(graph, ri.Plan(rules=rules), *samples(graph), batch=4, batches=2):
        assert 0.1 < e["local"]["dw"]["relative_error"] < 1.5


def test_pruned_and_sparse_gradients_are_the_exact_ones_of_the_chosen_channels():
    graph = NETS["residual"]()
    x, y = samples(graph, 4)
    rules = {"exact": (), "pruned": (ri.ErrorMapPruning(0.5),), "sparse": (ri.SparseUpdate(0.4, fixed_first=0),)}
    trainers = {
        name: ri.Trainer(ri.compile(graph, ri.Plan(rules=r), 4, backend="reference", dtype=np.float64))
        for name, r in rules.items()
    }
    true = approximation.gradients(trainers["exact"], x, y, 1, 4)
    dy = {node: a for (node, array), a in true.items() if array == "dy"}
    pruned, sparse = (approximation.gradients(trainers[name], x, y, 1, 4, dy) for name in ("pruned", "sparse"))
    for name, g in dy.items():
        w, dw = trainers["exact"].parameters[f"{name}.w"], true[name, "dw"]
        scores = np.abs(g).sum((0, 1, 2)) + len(g) * np.abs(w).sum((0, 1, 2))
        lost = np.argsort(-scores, kind="stable")[round(0.5 * len(scores)) :]
        expected = dw.copy()
        expected[..., lost] = 0
        np.testing.assert_allclose(pruned[name, "dw"], expected, rtol=1e-12, atol=1e-15)

        count = max(1, round(0.4 * w.shape[2]))
        order = np.argsort(-np.square(w).sum((0, 1, 3)), kind="stable")
        left_out = [c for c in range(w.shape[2]) if c not in np.roll(order, -count)[:count]]  # step 1 is of block 1
        expected = dw.copy()
        expected[:, :, left_out] = 0
        np.testing.assert_allclose(sparse[name, "dw"], expected, rtol=1e-12, atol=1e-15)

        if (name, "dx") in true:
            np.testing.assert_allclose(sparse[name, "dx"], true[name, "dx"], rtol=1e-12, atol=1e-15)
    kept = dy["conv2"].copy()
    scores = np.abs(kept).sum((0, 1, 2)) + 4 * np.abs(trainers["exact"].parameters["conv2.w"]).sum((0, 1, 2))
    kept[..., np.argsort(-scores)[3:]] = 0
    dx = conv2d.grad_x(kept, trainers["exact"].parameters["conv2.w"], H=4, W=4, pad=1)
    np.testing.assert_allclose(pruned["conv2", "dx"], dx, rtol=1e-12, atol=1e-15)


def test_bias_and_variance_of_a_hand_made_case():
    """Exact (3, 4) each time, errors (0.3, 0.4) ± (0.8, −0.6): the bias is a tenth, the spread 1 of a norm of 5."""
    c = Comparison()
    for sign in (1, -1):
        c.add(np.array([3.3 + 0.8 * sign, 4.4 - 0.6 * sign]), np.array([3.0, 4.0]))
    found = c.summary()
    assert found["bias"] == pytest.approx(0.1)
    assert found["variance"] == pytest.approx(1 / 25)
    assert found["noise"] == 0
    assert found["relative_error"] == pytest.approx(np.sqrt(1.25) / 5)  # (0.3, 0.4) ⊥ (0.8, −0.6)
    assert found["cosine"] == pytest.approx(5.5 / np.sqrt(5.5**2 + 1))


def test_noise_is_the_variance_of_the_exact_gradient():
    c = Comparison()
    for g in ([2.0, 1.0], [2.0, -1.0]):
        c.add(np.array(g) / 2, np.array(g))
    assert c.summary() == pytest.approx({
        "cosine": 1, "relative_error": 0.5, "bias": 0.5, "variance": 0.25 / 4, "noise": 1 / 4,
    })  # fmt: skip


def test_samples_of_dx_are_draws():
    rng = np.random.default_rng(0)
    a, g = rng.normal(size=(2, 6, 3, 2))
    together, one_by_one = Comparison(), Comparison()
    together.add(a[:4], g[:4], per_sample=True)
    together.add(a[4:], g[4:], per_sample=True)
    for i in range(6):
        one_by_one.add(a[i], g[i])
    for key in ("bias", "variance", "noise"):
        assert together.summary()[key] == pytest.approx(one_by_one.summary()[key])


def test_quotients_over_zero():
    c = Comparison()
    c.add(np.ones(2), np.zeros(2))
    empty = {"cosine": None, "relative_error": None, "bias": None}
    assert c.summary() == empty | {"variance": 0, "noise": 0}
    c = Comparison()
    c.add(np.zeros(2), np.zeros(2))
    assert c.summary() == {"cosine": None, "relative_error": 0, "bias": 0, "variance": 0, "noise": 0}
    with pytest.raises(ValueError, match=r"^the approximate gradient has shape \(2,\), but the exact one has \(3,\)$"):
        c.add(np.zeros(2), np.zeros(3))


def test_batches_are_drawn_once_each_in_the_order_of_the_seed():
    graph = pointwise()
    x, y = samples(graph, 12)
    plan = ri.Plan(rules=[ri.GradientFilter(2)])
    graph.weights = initial(ri.compile(graph, plan, 4), 7)
    first, again, other = (gradient_errors(graph, plan, x, y, 4, 2, seed=s) for s in (0, 0, 1))
    assert first == again != other
    one = gradient_errors(graph, plan, x, y, 12, 1, seed=0)[-1]["whole"]["dw"]
    same = gradient_errors(graph, plan, x, y, 12, 1, seed=1)[-1]["whole"]["dw"]
    assert one["relative_error"] == pytest.approx(same["relative_error"])  # every sample once, in another order


@pytest.mark.parametrize("plan", [ri.Plan(), ri.Plan(rules=[ri.GradientFilter(2)])], ids=["dense", "patch 2"])
def test_fast_kernels_are_right_up_to_rounding(plan):
    graph = NETS["residual"]()
    found = approximation.kernel_errors(graph, plan, *samples(graph, 4))
    assert set(found) == {"conv0.w", "down.w", "conv1.w", "conv2.w", "fc.w", "fc.b"}
    assert 0 < max(found.values()) < 1e-5


def test_a_wrong_kernel_shows(monkeypatch):
    graph = pointwise()
    true = approximation.full_gradient

    def wrong(program, runner, parameter):
        return true(program, runner, parameter) * (1.01 if (program.backend, parameter) == ("fast", "conv1.w") else 1)

    monkeypatch.setattr(approximation, "full_gradient", wrong)
    found = approximation.kernel_errors(graph, ri.Plan(), *samples(graph, 4))
    assert found["conv1.w"] == pytest.approx(0.01, rel=1e-3)
    assert found["conv2.w"] < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 5, "batches": 3}, "3 batches of 5 need 15 samples, but there are 12: take fewer or smaller batches"),
        ({"batches": 0}, "batches must be at least 1, got 0"),
        ({"batch": -1}, "batch must be at least 1, got -1"),
        ({"plan": ri.Plan(0)}, "no convolution of pointwise trains its weights under this plan"),
        (
            {"plan": ri.Plan(instances=ri.InstanceFilter(pointwise(classes=2)))},
            "instance-filter chooses which samples enter, it approximates no layer's gradient: compare without it",
        ),
        ({"x": np.zeros((12, 5, 4, 2))}, "x must be (M, H, W, C) with H, W, C = (5, 4, 3) and M ≥ 1, but its shape is"),
        ({"y": np.full(12, 3)}, "labels must be from 0 to 2, but y has 3 to 3"),
    ],
)
def test_bad_input(change, message):
    graph = pointwise()
    x, y = samples(graph)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        gradient_errors(**{"graph": graph, "plan": ri.Plan(), "x": x, "y": y, "batch": 4, "batches": 3} | change)


def test_steps_that_leave_blocks_out_are_not_compared():
    graph = ri.models.resnet8(size=(8, 8), channels=3, classes=3)
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    message = "^stochastic-depth leaves blocks out of a step, what remains has its exact gradient: compare without it$"
    with pytest.raises(ValueError, match=message):
        gradient_errors(graph, ri.Plan(depth=ri.StochasticDepth()), x, np.arange(4) % 3, batch=4, batches=1)


def test_steps_without_a_backward_pass_are_not_compared():
    graph = pointwise()
    x, y = samples(graph)
    message = "^forward-gradient makes a step without the gradients of back-propagation: compare without it$"
    with pytest.raises(ValueError, match=message):
        gradient_errors(graph, ri.Plan(step=ri.ForwardGradient()), x, y, batch=4, batches=1)
