"""Steps on nets of whole numbers: to the bit those of plain integers, counted, measured, and what is refused."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from forward_gradient_whole_oracle import Oracle
from test_quantize import BACKENDS, samples, with_weights

import refimpl as ri
from costmodel import predict
from refimpl.graph import INPUT
from refimpl.methods import forward_gradient_whole as whole
from refimpl.ops import quantized_perturbation as perturbation
from validation.instruments import counting, measured

FG = ri.ForwardGradient
COSINE = ri.Schedule("cosine")
TOTAL = 4  # mini-batches of a run


def small(outputs=3):
    """Convolutions, one of them depthwise, pools, a sum and a classifier."""
    g = ri.Graph("small", (4, 4), 2)
    a = g.relu6("a.relu6", g.batch_norm("a.bn", g.conv2d("a", INPUT, 4, 3, pad=1)))
    b = g.conv2d("b", a, 4, 1, bias=True)
    total = g.relu("sum.relu", g.add("sum", a, b))
    deep = g.relu("deep.relu", g.conv2d("deep", total, 4, 3, 1, 1, groups=4))
    pooled = g.avg_pool("mean", g.max_pool("largest", deep, 2), 1)
    g.linear("fc", g.global_avg_pool("global", pooled), outputs)
    return with_weights(g)


def quantized(bits=16, headroom=1.5, **settings):
    g = small()
    return ri.surgery.quantize(g, g.weights, samples(g), bits, headroom=headroom, **settings)


def labelled(n, seed=0):
    return samples(small(), n, seed), np.random.default_rng(seed).integers(0, 3, n)


def compiled(method, g=None, backend="reference", batch=4, **plan):
    plan = {"train_bias": True} | plan
    return ri.compile(g or quantized(), ri.Plan(step=method, **plan), batch, backend=backend, threads=1)


STEPS = {
    "16w8a": FG(m=2, optimizer=ri.SGD(0.01, schedule=COSINE)),
    "mean of 8 bits": FG(m=3, mean8=True, z_max=127 / 36, optimizer=ri.SGD(0.01)),
    "signs": FG(m=1, distribution="signs", optimizer=ri.SGD(0.02)),
    "to the ends": FG(m=1, epsilon=0.05, optimizer=ri.SGD(0.1)),
}
EIGHT = FG(m=2, epsilon=0.02, bits="8w8a", optimizer=ri.SGD(0.05))


def same_steps(method, bits, backend, n, steps=2, **settings):
    """A trainer and the oracle after the same steps, of which each is compared."""
    g = quantized(bits, 1.0 if method is STEPS["to the ends"] else 1.5, **settings)
    t = ri.Trainer(compiled(method, g, backend), seed=7)
    names = list(whole.perturbed(t.program))
    assert names == ["a.w", "a.b", "b.w", "b.b", "deep.w", "fc.w", "fc.b"]
    plain = Oracle(
        g, names, 7, method.m, method.epsilon, method.optimizer.lr, method.z_max, method.distribution == "signs",
        method.mean8,
    )  # fmt: skip
    start = {name: a.copy() for name, a in t.parameters.items()}
    for i in range(steps):
        x, y = labelled(n, i)
        losses = plain.step(x, y, method.optimizer.rate(i, TOTAL) / method.optimizer.lr)
        assert t.train_step(x, y, TOTAL) == pytest.approx(np.mean(losses), rel=1e-5)
        for name, a in plain.w.items():
            assert t.parameters[name].dtype == start[name].dtype
            np.testing.assert_array_equal(t.parameters[name], a.astype(np.int64), name)
    assert all((t.parameters[name] != start[name]).any() for name in ("a.w", "deep.w", "fc.w", "fc.b"))
    assert all((t.parameters[name] == a).all() for name, a in start.items() if name not in names)
    return plain


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_eq_6_to_8_a_step_is_that_of_plain_integers(name, backend, per_channel):
    """With one scale a parameter, and with one for each output channel."""
    n = 4 if name == "16w8a" else 3
    plain = same_steps(STEPS[name], 16, backend, n, per_channel=per_channel, zero_points=per_channel)
    assert name != "to the ends" or plain.met_ends > 10


def test_a_step_on_8_bits_is_that_of_plain_integers():
    same_steps(EIGHT, 8, "fast", 4)


def mixed():
    """Whole numbers up to the means of the maps, and a classifier of floats."""
    g = small()
    g.outputs = ("global",)
    q = ri.surgery.quantize(g, g.weights, samples(g), 16, headroom=1.5)
    q.linear("head", "global.real", 3)
    q.outputs = ("head",)
    q.weights |= {"head.w": np.full((4, 3), 0.1, np.float32), "head.b": np.zeros(3, np.float32)}
    return q


def test_floats_and_whole_numbers_train_in_one_step():
    """Each parameter by its dtype; both have the signs of the same losses."""
    t = ri.Trainer(compiled(FG(m=1, distribution="signs", optimizer=ri.SGD(0.02)), mixed()), seed=3)
    start = {name: a.copy() for name, a in t.parameters.items()}
    t.train_step(*labelled(4), TOTAL)
    np.testing.assert_allclose(abs(t.parameters["head.w"] - start["head.w"]), 0.02, rtol=1e-5)
    scale = float(t.parameters["deep.w_scale"][0])
    moved = abs(t.parameters["deep.w"].astype(int) - start["deep.w"])
    assert set((moved[abs(start["deep.w"]) < 20_000]).tolist()) == {round(0.02 * 36 * 3.5 / 127 / scale)}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("make", [quantized, mixed])
def test_what_is_predicted_is_done(make, backend):
    p = compiled(FG(m=2, optimizer=ri.SGD(0.01)), make(), backend)
    for n in (4, 3):
        for call in p.step:
            assert dict(predict.call_counts(call, n)) == counting.count_call(call, n), call.name
    x, y = labelled(8)
    t = ri.Trainer(p, seed=1)
    t.fit(x, y, 1)
    price = predict.estimate(p)
    assert measured.all_flops(p, t.made) == 2 * price.flops
    assert t.made[frozenset()] == {(turn.section, 4): 2 * turn.times for turn in p.schedule(4)}
    assert measured.touched_bytes(p, x, y, t.parameters) == p.peak_bytes
    assert (price.sections["update"].get("mul", 0) > 0) == (make is mixed)
    quotients = sum(call.sizes["M"] for call in p.step.calls["update"] if call.passed is perturbation.in_steps)
    assert price.sections["update"]["div"] == quotients == (7 if make is quantized else 5)  # of floats no more


def test_it_takes_the_memory_of_inference_and_one_parameter():
    g = quantized()
    infers, learns = (ri.compile(g, plan, 4) for plan in (None, ri.Plan(step=FG())))
    most = max(b.nbytes for b in learns.lifetimes if b.name.endswith(".moved"))
    told = 64 * (len(learns.step.host_writes) + 2)
    assert infers.peak_bytes < learns.peak_bytes <= infers.peak_bytes + most + told
    assert learns.saved_bytes == 0
    trained = whole.perturbed(learns)
    assert learns.state_bytes == sum(learns.step.parameters[name].nbytes for name in trained)


def test_whole_weights_have_gradients_of_no_kind():
    p = compiled(FG(m=1))
    assert not p.step.gradients and not p.step.state and "lr" not in p.step.host_writes
    assert {call.passed for call in p.step.calls["update"]} == {perturbation.in_steps, perturbation.step}
    products = {call.arrays["w"].dtype: call.attrs["wide"] for call in p.step if call.passed is perturbation.perturb}
    assert products == {np.dtype(np.int16): False, np.dtype(np.int32): True}  # those of biases take 64 bits


def test_a_resumed_run_is_the_same_run_and_threads_leave_the_bits_alone():
    x, y = labelled(12)
    p = compiled(FG(m=1, optimizer=ri.SGD(0.02, schedule=COSINE)))
    first, part = ri.Trainer(p, seed=5), ri.Trainer(p, seed=5)
    first.fit(x, y, 2)
    steps = part.steps(x, y, 2)
    for _ in range(4):
        next(steps)
    saved = part.state()
    again = ri.Trainer(replace_threads(p), seed=5)
    again.restore(saved)
    list(again.steps(x, y, 2))
    assert again.losses == first.losses
    assert all((a == first.parameters[name]).all() for name, a in again.parameters.items())


def replace_threads(p):
    return ri.compile(p.graph, p.plan, p.batch, threads=2)


def test_skipped_mini_batches_take_no_draws():
    method = FG(m=1, optimizer=ri.SGD(0.02))
    skips, plain = (ri.Trainer(compiled(method, **plan), seed=3) for plan in ({"instances": ri.RandomSkip(0.5)}, {}))
    x, y = labelled(40)
    for i in range(10):
        before, chosen = int(skips.updates[""][0]), slice(4 * i, 4 * i + 4)
        skips.train_step(x[chosen], y[chosen], 10)
        if skips.updates[""][0] > before:
            plain.train_step(x[chosen], y[chosen], 10)
    assert 0 < plain.step < 10
    for name, a in plain.parameters.items():
        np.testing.assert_array_equal(skips.parameters[name], a)


@dataclass(frozen=True)
class Unchecked(FG):
    """Without the refusal of what would move nothing."""

    def check_weights(self, program, parameters):
        """Nothing."""


def without_biases():
    """A net of 8-bit weights, of which no bias trains."""
    g = small()
    g.nodes[-1] = replace(g.nodes[-1], params={"w": "fc.w"})
    del g.parameters["fc.b"], g.weights["fc.b"]
    return ri.surgery.quantize(g, g.weights, samples(g), 8, headroom=1.5)


def test_8_bit_weights_stand_still_as_published():
    """ε_q is 0: both losses are one, and sign(0) = 0 moves nothing, whatever the rate."""
    p = compiled(Unchecked(m=3, optimizer=ri.SGD(0.5)), without_biases(), train_bias=False)
    t = ri.Trainer(p, seed=1)
    before = {name: a.copy() for name, a in t.parameters.items()}
    t.fit(*labelled(8), 2)
    assert all((t.parameters[name] == a).all() for name, a in before.items())
    t = ri.Trainer(compiled(Unchecked(m=3, epsilon=0.1, optimizer=ri.SGD(0.5)), p.graph, train_bias=False), seed=1)
    t.fit(*labelled(8), 2)
    assert any((t.parameters[name] != a).any() for name, a in before.items())


def told(refused, name):
    """The number that an error gives for a setting."""
    return float(str(refused.value).split(f"{name}=")[-1].split(" ")[0])


def test_an_epsilon_of_0_is_refused_with_one_that_is_not():
    g = quantized(8)
    with pytest.raises(
        ValueError, match=r"^epsilon=0.001 of forward-gradient is lost in 9\d% of the weights"
    ) as refused:
        ri.Trainer(compiled(FG(optimizer=ri.SGD(0.5)), g))
    works = told(refused, "epsilon")
    t = ri.Trainer(compiled(FG(epsilon=works, optimizer=ri.SGD(0.5)), g))
    each = {n: (t.parameters[n].size, in_steps(works, s)) for n, s in scales(t).items()}
    assert sum(n for n, e in each.values() if e) > 0.5 * sum(n for n, _ in each.values())
    assert any(in_steps(works / 2, s) == 0 for s in scales(t).values())


def scales(t):
    return whole.scales(t.program, t.parameters)


def in_steps(length, scale):
    """How many steps of one scale a length is."""
    return int(perturbation.in_steps(scale, np.array([length]))[0])


def test_a_rate_that_rounds_to_0_is_refused_with_one_that_does_not():
    with pytest.raises(
        ValueError, match=r"^lr=1e-06 of forward-gradient rounds to 0 in most updates of 9\d%"
    ) as refused:
        ri.Trainer(compiled(FG(m=1, optimizer=ri.SGD(1e-6))))
    works = told(refused, "lr")
    t = ri.Trainer(compiled(FG(m=1, optimizer=ri.SGD(works))), seed=2)
    before = {name: t.parameters[name].copy() for name in scales(t)}
    t.train_step(*labelled(4), TOTAL)
    moved = sum(np.count_nonzero(t.parameters[name] != a) for name, a in before.items())
    assert moved > 0.4 * sum(a.size for a in before.values())


@pytest.mark.parametrize(("setting", "method"), [
    ("lr", FG(m=1, optimizer=ri.SGD(1e9))), ("epsilon", FG(m=1, epsilon=1e6)),
])  # fmt: skip
def test_what_moves_weights_from_end_to_end_is_refused_with_what_does_not(setting, method):
    with pytest.raises(
        ValueError, match=rf"^{setting}=1e\+0. of forward-gradient moves most of the weights from end to end .* a tenth"
    ) as refused:
        ri.Trainer(compiled(method))
    works = told(refused, setting)
    given = {"epsilon": works} if setting == "epsilon" else {"optimizer": ri.SGD(works)}
    ri.Trainer(compiled(replace(method, **given)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"estimator": "spsa"}, "with estimator=spsa cannot train whole numbers, and a.w of small 16w8a holds int16: "),
        ({"m": 2, "estimator": "one-sided"}, "with estimator=one-sided cannot train whole numbers"),
        ({"normalize": "tensor"}, "with normalize=tensor cannot .*: norms are of floats$"),
        ({"sharpness": 0.1}, "with sharpness=0.1 cannot .*: an ascent by a share of a step of the weights is nothing$"),
        ({"sparse": "random"}, "with sparse=random cannot .*: a mask goes by magnitudes of floats$"),
        ({"beta": 0.5}, "with beta=0.5 cannot .*: a guide for the draws is of floats$"),
        ({"clip_norm": 1.0}, "with clip_norm=1.0 cannot .*: norms are of floats$"),
        ({"optimizer": ri.SGD(0.1, 0.9)}, "trains whole numbers by plain SGD without momentum and weight decay alone"),
        ({"optimizer": ri.SGD(0.1, weight_decay=0.1)}, "trains whole numbers by plain SGD without momentum"),
        ({"optimizer": ri.Adam(0.1)}, "trains whole numbers by plain SGD without momentum and weight decay alone"),
        ({"bits": "8w8a"}, r"bits=8w8a of .* trains weights of int8, but a.w of small 16w8a holds int16: surgery"),
    ],
)  # fmt: skip
def test_what_whole_numbers_cannot_do_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        compiled(FG(**settings))


def test_other_scales_and_floats_are_refused():
    g = quantized()
    g.parameters["a.w_scale"] = replace(g.parameters["a.w_scale"], dtype=np.dtype(np.int32))
    g.weights["a.w_scale"] = np.array([-12], np.int32)
    with pytest.raises(
        ValueError, match="^forward-gradient perturbs whole numbers in steps of scales .* a.w has others"
    ):
        compiled(FG(), g)
    with pytest.raises(ValueError, match="^bits=16w8a of .* a.w of small holds float32: surgery.quantize.*bits=16"):
        compiled(FG(bits="16w8a"), small())
    with pytest.raises(ValueError, match="^bits must be one of 16w8a, 8w8a, or None for the net as it is, got '4w8a'"):
        FG(bits="4w8a")
    with pytest.raises(ValueError, match="^z_max must be from 1 to 127"):
        FG(z_max=0.1)


def test_backprop_last_is_refused():
    with pytest.raises(ValueError, match="with backprop_last=0 cannot train whole numbers"):
        compiled(FG(backprop_last=0))


def test_it_learns_as_floats_do():
    x, y = labelled(64)
    y = (x.mean((1, 2, 3)) > 0).astype(np.int64) + (x[..., 0].mean((1, 2)) > 0.2)
    last = []
    for g in (small(), quantized()):
        t = ri.Trainer(compiled(FG(m=1, optimizer=ri.SGD(0.01, schedule=COSINE)), g, "fast", 32), seed=1)
        t.fit(x, y, 100)
        last.append(np.mean(t.losses[-10:]))
        assert last[-1] < np.mean(t.losses[:10]) - 0.2
    assert abs(last[0] - last[1]) < 0.02
