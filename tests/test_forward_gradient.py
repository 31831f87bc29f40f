"""Forward gradients against their plain form in NumPy; their memory, bits and counts; what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from forward_gradient_oracle import TRAINED, Oracle, data, gradients, loss, net, normal
from nets import NETS
from test_stochastic_depth import blocks_of_convolutions

import refimpl as ri
from costmodel import predict
from gradledger import options, recipe
from refimpl.kernels import random
from refimpl.methods import forward_gradient
from refimpl.ops import perturbation
from validation.instruments import counting, measured

FG = ri.ForwardGradient
RATE = ri.SGD(lr=0.05)
EVERYTHING = FG(
    m=3, estimator="one-sided", distribution="signs", normalize="tensor", sharpness=0.02, sparse="magnitude", share=0.6,
    beta=0.7, backprop_last=1, clip_norm=0.5, optimizer=ri.SGD(lr=0.05, momentum=0.9),
)  # fmt: skip
METHODS = {
    "sign": FG(optimizer=RATE),
    "spsa": FG(m=2, estimator="spsa", optimizer=RATE),
    "one-sided": FG(m=4, estimator="one-sided", optimizer=RATE),
    "exact": FG(m=2, estimator="exact", optimizer=RATE),
    "exact with Adam": FG(m=1, estimator="exact", optimizer=ri.Adam(lr=0.01)),
    "exact above": FG(m=2, estimator="exact", sharpness=0.02, sparse="random", share=0.5, optimizer=RATE),
    "exact, classifier": FG(m=1, estimator="exact", backprop_last=0, optimizer=RATE),
    "exact everything": replace(EVERYTHING, estimator="exact", distribution="normal"),
    "signs": FG(m=1, distribution="signs", optimizer=RATE),
    "momentum": FG(m=1, optimizer=ri.SGD(lr=0.05, momentum=0.9)),
    "adam": FG(m=1, optimizer=ri.Adam(lr=0.01)),
    "clipped": FG(m=2, clip_norm=0.5, optimizer=RATE),
    "normalized": FG(m=2, normalize="tensor", optimizer=RATE),
    "ascended": FG(m=2, sharpness=0.02, optimizer=RATE),
    "largest": FG(m=1, sparse="magnitude", share=0.4, optimizer=RATE),
    "any": FG(m=1, sparse="random", share=0.5, optimizer=RATE),
    "above": FG(m=1, sparse="threshold", threshold=0.3, optimizer=RATE),
    "guided": FG(m=2, beta=0.6, alpha=0.3, optimizer=RATE),
    "classifier": FG(m=1, backprop_last=0, optimizer=RATE),
    "last": FG(m=1, backprop_last=1, optimizer=ri.SGD(lr=0.05, momentum=0.9)),
    "everything": EVERYTHING,
    "everything but": replace(
        EVERYTHING, estimator="sign", distribution="normal", sparse="random", backprop_last=None, optimizer=RATE
    ),
}

ON_HOST = ("fast", "reference", "rows")


def compiled(method, backend="reference", batch=6, dtype=np.float64, **plan):
    return ri.compile(net(), ri.Plan(step=method, **plan), batch, backend=backend, dtype=dtype, threads=1)


def changed_norm(trainer):
    """A norm that is not the identity, so that one that is left out is seen."""
    rng = np.random.default_rng(5)
    for name, low in (("gamma", 0.5), ("beta", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
        trainer.parameters[f"n1.{name}"][...] = low + rng.random(4)


def stepped(method, n=6, steps=3, backend="reference", **plan):
    """A trainer and the oracle after the same steps, of which each is compared."""
    t = ri.Trainer(compiled(method, backend, **plan), seed=7)
    changed_norm(t)
    oracle = Oracle(method, t.parameters, 7)
    for i in range(steps):
        x, y = data(n, i)
        lost = t.train_step(x, y, 10)
        assert lost == pytest.approx(oracle.step(x, y), rel=1e-9)
        for name, a in oracle.w.items():
            np.testing.assert_allclose(t.parameters[name], a, rtol=1e-9, atol=1e-9, err_msg=name)
    return t, oracle


@pytest.mark.parametrize("n", [6, 4])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_its_plain_form(name, n):
    t, _ = stepped(METHODS[name], n)
    assert t.updates[""][0] == 3


@pytest.mark.parametrize("name", ["sign", "ascended", "exact", "exact everything", "everything", "everything but"])
def test_the_fast_backend_makes_the_same_step(name):
    stepped(METHODS[name], backend="fast")


def test_eq_1_takes_the_slope_along_z_and_no_other():
    np.testing.assert_allclose(forward_gradient.exact(np.array([3.0, -1.0]), np.inf), [1.5, -0.5])
    p = compiled(FG(m=2, estimator="exact", optimizer=RATE))
    assert {turn.section: turn.times for turn in p.schedule(6)} == {"look": 2, "update": 1}
    assert not [call for call in p.step if call.passed is perturbation.perturb]  # no weight is moved to look at a loss


ENHANCED = {"normalize": "tensor", "sharpness": 0.01, "sparse": "random", "share": 0.5, "beta": 0.7}


@pytest.mark.parametrize("enhanced", [{}, *({name: ENHANCED[name]} for name in ("sharpness", "beta")), ENHANCED])
@pytest.mark.parametrize("plan", ["whole", "shared blocks", "blocks left out", "blocks and what follows", "hardest"])
def test_slopes_of_ever_smaller_looks_become_the_exact_one(plan, enhanced):
    """Steps of eq. (2) are those of eq. (1) where epsilon is small, whatever else a step does."""
    graph = blocks_of_convolutions(True) if plan == "shared blocks" else NETS["residual"]()
    settings = {
        "shared blocks": {"depth": ri.StochasticDepth(0.5)},
        "whole": {"train_bias": True},
        "blocks left out": {"depth": ri.StochasticDepth(0.5)},
        "blocks and what follows": {"depth": ri.StochasticDepth(0.5), "train_last": 2},
        "hardest": {"instances": ri.HardExamples(0.5)},
    }
    x, y = np.random.default_rng(0).normal(size=(5, *graph.size, 3)), np.arange(5) % 3
    trained = []
    for estimator in ("exact", "spsa"):
        step = FG(m=2, estimator=estimator, epsilon=1e-6, optimizer=ri.SGD(lr=0.001), **enhanced)
        p = ri.compile(graph, ri.Plan(step=step, **settings[plan]), 5, backend="reference", dtype=np.float64)
        t = ri.Trainer(p, seed=7)
        trained.append([t.parameters | {"loss": t.train_step(x, y, 6)} for _ in range(6)][-1])
    exact, looked = trained
    for name in exact:
        np.testing.assert_allclose(exact[name], looked[name], rtol=1e-6, atol=1e-6, err_msg=name)


def test_eq_2_is_the_slope_along_z():
    losses = np.array([[3.0, 1.0], [2.0, 2.5]])
    np.testing.assert_allclose(forward_gradient.spsa(losses, 0.25), [2.0, -0.5])
    a, w = np.diag([1.0, 2.0, 0.5, 3.0, 1.5]), np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    z = perturbation.estimate(np.zeros((40_000, 5)), np.array([3]), np.array([0]), np.array([1.0]))
    quadratic = lambda w: 0.5 * np.einsum("...i,ij,...j", w, a, w)  # noqa: E731
    pairs = np.stack([quadratic(w + 1e-3 * z), quadratic(w - 1e-3 * z)], 1)
    estimates = len(z) * forward_gradient.spsa(pairs, 1e-3)[:, None] * z
    error = estimates.std(0) / np.sqrt(len(z))
    assert (np.abs(estimates.mean(0) - a @ w) < 4 * error).all()  # the gradient, within four standard errors
    assert error.max() < 0.05 and np.abs(a @ w).max() > 4


def test_eq_3_counts_signs():
    losses = np.array([[3.0, 1.0], [2.0, 2.5], [1.0, 1.0]])
    np.testing.assert_allclose(forward_gradient.sign_spsa(losses, 0.25), [1 / 3, -1 / 3, 0])


def test_eq_4_moves_the_weights_by_the_rate_times_the_estimate():
    x, y = data(6)
    moved = []
    for lr in (0.05, 0.2):
        t = ri.Trainer(compiled(FG(m=2, estimator="spsa", optimizer=ri.SGD(lr=lr))), seed=3)
        before = {name: a.copy() for name, a in t.parameters.items()}
        t.train_step(x, y, 1)
        moved.append({name: (before[name] - t.parameters[name]) / lr for name in before})
    for name in TRAINED:
        assert moved[0][name].any()
        np.testing.assert_allclose(moved[0][name], moved[1][name], atol=1e-9)
    assert not any(moved[0][name].any() for name in moved[0] if name not in TRAINED)


def test_eq_9_moves_each_tensor_by_its_own_norm():
    t = ri.Trainer(compiled(FG(m=1, normalize="tensor", optimizer=RATE)), seed=3)
    t.parameters["fc.w"] *= 40
    before = {name: a.copy() for name, a in t.parameters.items()}
    t.train_step(*data(6), 1)
    for name in TRAINED[:3]:
        change = np.linalg.norm(t.parameters[name] - before[name])
        assert change == pytest.approx(0.05 * np.linalg.norm(before[name]), rel=1e-12)
    least = np.linalg.norm(t.parameters["fc.b"] - before["fc.b"])  # a bias of zero can move
    assert not before["fc.b"].any() and 0 < least < 0.05 * 1e-3 * 10


def test_momentum_guided_sampling_follows_the_last_draw():
    method = METHODS["guided"]
    t, oracle = stepped(method)
    for name in TRAINED:
        guide = t.runner.owned[t.program.step.state[f"{name}.guide"]]
        np.testing.assert_allclose(guide, oracle.guide[name], rtol=1e-12)
        assert np.abs(guide).max() > 0
    assert t.program.state_bytes == 2 * compiled(METHODS["sign"]).state_bytes  # an array of the size of the weights
    free, _ = stepped(replace(method, beta=1.0))
    assert not np.allclose(free.parameters["c1.w"], t.parameters["c1.w"])


def test_sharpness_aware_perturbation_looks_above_the_weights():
    plain, ascended = METHODS["sign"], replace(METHODS["sign"], sharpness=0.02)
    p, above = compiled(plain), compiled(ascended)
    assert p.sections == ("look", "update") and above.sections == ("look", "ascended", "update")
    assert {turn.section: turn.times for turn in above.schedule(6)} == {"look": 6, "ascended": 6, "update": 1}
    looks, more = (predict.estimate(program).sections for program in (p, above))
    assert more["look"] == looks["look"] and more["ascended"]["mul"] > looks["look"]["mul"]  # its g is drawn again


@pytest.mark.parametrize("sparse", ["magnitude", "random", "threshold"])
def test_sparse_perturbation_leaves_the_other_weights_alone(sparse):
    method = FG(m=1, sparse=sparse, share=0.25, threshold=0.5, optimizer=RATE)
    t = ri.Trainer(compiled(method), seed=3)
    before = {name: a.copy() for name, a in t.parameters.items()}
    t.train_step(*data(6), 1)
    oracle = Oracle(method, before, 3)
    for name in ("c1.w", "c2.w"):
        np.testing.assert_array_equal(t.parameters[name] != before[name], oracle.mask(name))
    moved = sum(np.count_nonzero(oracle.mask(name)) for name in ("c1.w", "c2.w"))
    assert 0 < moved < 20 and (sparse != "magnitude" or moved == 2 + 5)
    assert not any(b.dtype == np.uint8 for b in t.program.lifetimes)  # no mask is kept


def test_binomial_perturbation_moves_each_weight_equally_far():
    t = ri.Trainer(compiled(FG(m=1, distribution="signs", optimizer=RATE)), seed=3)
    before = {name: a.copy() for name, a in t.parameters.items()}
    t.train_step(*data(6), 1)
    for name in TRAINED:
        np.testing.assert_allclose(np.abs(t.parameters[name] - before[name]), 0.05, rtol=1e-9)


@pytest.mark.parametrize("backend", sorted(ON_HOST))
def test_no_look_writes_a_weight(backend):
    t = ri.Trainer(compiled(FG(optimizer=RATE), backend, dtype=np.float32), seed=3)
    before = {name: a.tobytes() for name, a in t.parameters.items()}
    x, y = data(6)
    t._batch = x.astype(np.float32)
    t.put(y)
    t.begin("", 6, 1)
    seen = set()
    for i in range(1000):
        t.again()
        t.runner.write("look_draws", 6, [i // 2])
        t.runner.write("look_coefficients", 6, [1e-3 if i % 2 else -1e-3])
        t.runner.run("look", 6)
        seen.add(float(t.runner.read("loss", 6)[0]))
    assert {name: a.tobytes() for name, a in t.parameters.items()} == before
    assert len(seen) > 900


@pytest.mark.parametrize("backend", sorted(ON_HOST))
@pytest.mark.parametrize(
    "name", ["sign", "one-sided", "exact", "exact everything", "last", "everything", "everything but"]
)
def test_what_is_predicted_is_done(name, backend):
    p = compiled(METHODS[name], backend)
    for n in (6, 4):
        for call in p.step:
            assert dict(predict.call_counts(call, n)) == counting.count_call(call, n), call.name
    x, y = data(12)
    t = ri.Trainer(p, seed=1)
    t.fit(x, y, 1)
    price = predict.estimate(p)
    assert measured.all_flops(p, t.made) == 2 * price.flops
    assert t.made[frozenset()] == {(turn.section, 6): 2 * turn.times for turn in p.schedule(6)}
    assert measured.touched_bytes(p, x, y, t.parameters) == p.peak_bytes


def wide(batch=4):
    """A net of few maps and many weights, and one of many maps and few weights."""
    for side, channels in ((2, 64), (16, 4)):
        g = ri.Graph("wide", (side, side), 2)
        x = g.relu("r", g.conv2d("c2", g.conv2d("c1", "input", channels, 3, pad=1), channels, 3, pad=1))
        g.linear("fc", g.global_avg_pool("mean", x), 3)
        yield g


def test_it_keeps_nothing_of_the_size_of_the_weights():
    few_maps, many_maps = wide()
    for g in (few_maps, many_maps):  # the second one's peak is that of its maps
        infers, learns = (ri.compile(g, plan, 4, backend="reference") for plan in (None, ri.Plan(step=FG())))
        most = max(b.nbytes for b in learns.lifetimes if b.name.endswith(".moved"))
        told = 64 * (len(learns.step.host_writes) + 1)
        assert learns.peak_bytes <= infers.peak_bytes + most + told
        assert learns.saved_bytes == 0 and learns.state_bytes == sum(
            b.nbytes for name, b in learns.step.parameters.items() if name.endswith((".w", "fc.b"))
        )
    back = ri.compile(many_maps, ri.Plan(), 4, backend="reference")
    assert learns.peak_bytes < 0.6 * back.peak_bytes


@pytest.mark.parametrize("backend", ["fast", "reference"])
@pytest.mark.parametrize("threads", [1, 2, 4, 16])
def test_a_backward_pass_takes_twice_the_arena_with_any_number_of_threads(threads, backend):
    graph, plans = ri.models.build("watch"), (None, ri.Plan(step=FG(m=1)), ri.Plan())
    infers, learns, back = (ri.compile(graph, p, 8, threads=threads, backend=backend).peak_bytes for p in plans)
    assert infers < learns < back / 2


def test_what_a_repeated_section_finds_lives_to_its_end():
    p = compiled(METHODS["everything"])
    end = sum(len(p.launches[section]) for section in ("prepare", "look", "ascended"))
    last = {b.name: life.last for b, life in p.lifetimes.items()}
    assert last["c1.w.ascended_scales"] == end - 1
    assert last["c1.w.update_scales"] >= end and last["ascended.c1.w.moved"] < end - 1


def test_threads_leave_the_bits_alone():
    results = []
    for threads in (1, 2):
        p = ri.compile(net(), ri.Plan(step=replace(EVERYTHING, backprop_last=None)), 6, threads=threads)
        t = ri.Trainer(p, seed=5)
        t.fit(*data(12), 2)
        results.append((t.losses, {name: a.tobytes() for name, a in t.parameters.items()}))
    assert results[0] == results[1]


@pytest.mark.parametrize("name", ["sign", "guided", "everything"])
def test_a_resumed_run_is_the_same_run(name):
    x, y = data(30)
    whole, part = (ri.Trainer(compiled(METHODS[name]), seed=5) for _ in range(2))
    whole.fit(x, y, 2)
    steps = part.steps(x, y, 2)
    for _ in range(4):
        next(steps)
    saved = part.state()
    for _ in steps:
        pass
    again = ri.Trainer(compiled(METHODS[name]), seed=5)
    again.restore(saved)
    list(again.steps(x, y, 2))
    for t in (part, again):
        assert t.losses == whole.losses
        assert all((a == whole.parameters[name]).all() for name, a in t.parameters.items())


def test_skipped_mini_batches_take_no_draws():
    skips = ri.Trainer(compiled(FG(m=1, optimizer=RATE), instances=ri.RandomSkip(0.5)), seed=3)
    plain = ri.Trainer(compiled(FG(m=1, optimizer=RATE)), seed=3)
    x, y = data(60)
    for i in range(10):
        before = int(skips.updates[""][0])
        skips.train_step(x[6 * i : 6 * i + 6], y[6 * i : 6 * i + 6], 10)
        if skips.updates[""][0] > before:
            plain.train_step(x[6 * i : 6 * i + 6], y[6 * i : 6 * i + 6], 10)
    assert 0 < plain.step < 10
    for name, a in plain.parameters.items():
        np.testing.assert_array_equal(skips.parameters[name], a)


@pytest.mark.parametrize("last", [None, 1])
def test_chosen_instances_are_looked_at(last):
    method = FG(m=1, backprop_last=last, optimizer=RATE)
    t = ri.Trainer(compiled(method, instances=ri.HardExamples(0.5)), seed=3)
    changed_norm(t)
    oracle = Oracle(method, t.parameters, 3)
    for i in range(3):
        x, y = data(6, i)
        each = [loss(oracle.w, x[j : j + 1], y[j : j + 1]) for j in range(6)]
        chosen = np.sort(np.argsort(each)[3:])
        t.train_step(x, y, 3)
        oracle.step(x[chosen], y[chosen])
        for name, a in oracle.w.items():
            np.testing.assert_allclose(t.parameters[name], a, rtol=1e-9, atol=1e-9)


def test_it_learns():
    x, y = data(64)
    y = (x.mean((1, 2, 3)) > 0).astype(np.int64) + (x[..., 0].mean((1, 2)) > 0.2)
    for name in ("sign", "one-sided", "guided", "last"):
        method = replace(METHODS[name], optimizer=ri.SGD(lr=0.02))
        t = ri.Trainer(compiled(method, batch=32), seed=1)
        t.fit(x, y, 60)
        assert np.mean(t.losses[-10:]) < 0.8 * np.mean(t.losses[:10]), name


def test_the_loss_and_the_layer_are_told_where_a_look_is_not_finite():
    t = ri.Trainer(compiled(FG(m=1, optimizer=RATE)), seed=3)
    x, y = data(6)
    t.parameters["c2.w"][...] = np.inf
    with pytest.raises(ri.NonFiniteError, match="the loss is nan at step 1, first in layer c2"):
        t.train_step(x, y, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"m": 0}, "m must be at least 1 draws a step, got 0"),
        ({"m": 1, "estimator": "one-sided"}, "m must be at least 2 draws a step, got 1: one-sided divides by"),
        ({"epsilon": 0.0}, "epsilon must be above 0 and finite, such as 0.001, got 0.0"),
        ({"epsilon": float("nan")}, "epsilon must be above 0 and finite"),
        ({"estimator": "exat"}, "estimator must be one of sign, spsa, one-sided, exact, got 'exat'"),
        ({"distribution": "uniform"}, "distribution must be one of normal, signs, got 'uniform'"),
        ({"normalize": "layer"}, "normalize must be one of none, tensor, got 'layer'"),
        ({"sparse": "some"}, "sparse must be one of none, magnitude, random, threshold, got 'some'"),
        ({"share": 0.0}, "share must be above 0 and at most 1, got 0.0"),
        ({"beta": 1.5}, "beta must be above 0 and at most 1, got 1.5"),
        ({"alpha": -0.1}, "alpha must be from 0 to 1, got -0.1"),
        ({"sharpness": -1.0}, "sharpness must be at least 0 and finite, got -1.0"),
        ({"backprop_last": -1}, "backprop_last must be a number of layers from 0 up, or None, got -1"),
        ({"clip_norm": 0.0}, "clip_norm must be a norm above 0, got 0.0"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        FG(**settings)


@pytest.mark.parametrize(
    ("settings", "plan", "message"),
    [
        ({}, {"batch_norm": "train"}, "^forward-gradient needs batch_norm='frozen': statistics of the batch"),
        (
            {"backprop_last": 1},
            {"train_last": 1},
            "where train_last is 1: it can be at most 0$",
        ),
        ({"backprop_last": 0}, {"train_last": 0}, "none, for the classifier alone trains$"),
        ({"backprop_last": 2}, {}, "^backprop_last=2 leaves forward-gradient nothing to train in small: fewer layers"),
        ({"backprop_last": 3}, {}, "^train_last is 3, but small has 2 convolutions$"),
        ({}, {"rules": (ri.GradientFilter(2),)}, "do not combine: a rule replaces gradients of back-propagation"),
    ],
)
def test_plans_that_it_cannot_do_are_refused(settings, plan, message):
    with pytest.raises(ValueError, match=message):
        compiled(FG(**settings), **plan)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_epsilon_that_is_lost_is_refused_with_one_that_is_not(dtype):
    tiny = float(np.finfo(dtype).eps) * 1e-3
    with pytest.raises(ValueError, match=r"is lost in \d+% of the weights, .* would move most of them$") as refused:
        ri.Trainer(compiled(FG(epsilon=tiny), dtype=dtype))
    works = float(str(refused.value).split("epsilon=")[-1].split(" ")[0])
    t = ri.Trainer(compiled(FG(epsilon=works), dtype=dtype))
    moved = [np.count_nonzero(t.parameters[n] + dtype(works) != t.parameters[n]) for n in TRAINED]
    assert sum(moved) > 0.5 * sum(t.parameters[n].size for n in TRAINED)


def test_what_a_command_makes_of_it():
    chosen = options.methods(["forward-gradient:m=2,estimator=spsa,backprop_last=0"])
    plan = options.plan(chosen, None, None, lr=recipe.rate(32, 0.0, options.rate_of(chosen)))
    assert plan.step == FG(m=2, estimator="spsa", backprop_last=0, optimizer=ri.SGD(lr=0.01))
    assert plan.methods == ["forward-gradient"] and "backprop_last=0" in chosen.text
    assert "None" not in options.methods(["forward-gradient"]).text
    assert options.methods([options.methods(["forward-gradient:m=5"]).text]).step == FG(m=5)
    assert recipe.reasons(plan, net(), 32)[0].endswith("times 0.1")
    with pytest.raises(options.Malformed, match="^method forward-gradient: m must be at least 1"):
        options.methods(["forward-gradient:m=0"])


def test_the_oracles_gradients_and_draws_are_right():
    x, y = data(5)
    w = {name: a.astype(float) for name, a in ri.Trainer(compiled(FG()), seed=1).parameters.items()}
    for name, g in gradients(w, x, y).items():
        d = np.random.default_rng(1).normal(size=g.shape)
        slope = (loss(w | {name: w[name] + 1e-6 * d}, x, y) - loss(w | {name: w[name] - 1e-6 * d}, x, y)) / 2e-6
        assert slope == pytest.approx(np.sum(g * d), rel=1e-5)
    z = normal(3, random.PERTURBATION, 0, (100_000,))
    assert abs(z.mean()) < 0.01 and abs(z.std() - 1) < 0.01 and np.abs(z).max() < 4.881
