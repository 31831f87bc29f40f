"""NITI: one whole step to the bit against Python's own integers, what it trains, what it costs, and what is refused."""

import niti_oracle
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refimpl as ri
from costmodel import closed_form, estimate, predict
from refimpl.backends.cpu import niti as fast
from refimpl.compiler.executed import executed
from refimpl.kernels import random
from refimpl.kernels.passes import ShapeError
from refimpl.methods.niti import WORDS, Niti, rate_bits
from refimpl.surgery.for_step import made_for, outlined_for
from refimpl.surgery.share_exponents import exponent_of, share_exponents
from refimpl.training.state import initial
from validation.instruments import counting, executing, measured

BACKENDS = ("reference", "fast")


def residual(depthwise=True):
    """A small net of every operator that takes part: groups, a residual sum, both pools, two linear layers."""
    g = ri.Graph("residual", (8, 6), 2)
    x = g.relu("relu1", g.conv2d("conv1", "input", 6, 3, pad=1, bias=True))
    y = g.conv2d("conv2", x, 6, 3, pad=1, groups=6 if depthwise else 1)
    y = g.conv2d("conv3", g.relu("relu2", y), 6, 1, groups=2, bias=True)
    x = g.relu("relu3", g.add("sum", x, y))
    x = g.max_pool("pool", x, 2)
    x = g.avg_pool("mean", x, (2, 1), 1)
    x = g.relu("relu4", g.linear("fc1", g.flatten("flat", x), 5))
    g.linear("fc2", x, 3)
    return g


def whole(graph, x, step, seed=0):
    """The net in whole numbers, with drawn weights."""
    return made_for(step, graph, x, seed)


def plan_of(step):
    return ri.Plan(step=step, train_bias=True)


# One whole step.


class Drawn:
    """A net with drawn whole numbers, samples, labels, and the settings of a step, from a seed."""

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        pick = lambda low, high: int(rng.integers(low, high + 1))  # noqa: E731
        self.how, self.seed, self.rate = WORDS[pick(0, 2)], pick(0, 2**40), 2.0 ** pick(-7, 0)
        size, channels = (pick(4, 6), pick(4, 6)), pick(1, 3)
        g = ri.Graph("drawn", size, channels)
        x = "input"
        for i in range(pick(1, 2)):
            x = self.convolution(g, pick, f"conv{i}", x)
            if pick(0, 1):
                x = g.relu(f"relu{i}", x)
        if pick(0, 1):
            y = self.convolution(g, pick, "branch", x, same=True)
            x = g.add("sum", y, x) if pick(0, 1) else g.add("sum", x, g.add("twice", y, x))
        rows, columns = g.shape(x)[1:3]
        window = (min(2, rows), min(2, columns))
        x = g.max_pool("pool", x, window) if pick(0, 1) else g.avg_pool("mean", x, window, pick(1, 2))
        x = g.flatten("flat", x) if pick(0, 1) else g.global_avg_pool("global", x)
        if pick(0, 1):
            x = g.relu("hidden_relu", g.linear("hidden", x, pick(1, 4)))
        g.linear("classes", x, pick(2, 4) if pick(0, 9) else 1)  # of one class there is no error
        self.graph = share_exponents(g)
        self.weights(rng, pick)
        n, classes = pick(1, 3), self.graph.shape(self.graph.output)[1]
        scale = 2.0 ** int(self.graph.weights["input.exponent"][0])
        ends = [(-200, 200), (-127, 127), (0, 1), (0, 0)][pick(0, 3)]
        self.x = (scale * rng.integers(*ends, (n, *size, channels), endpoint=True)).astype(np.float32)
        if ends[1]:  # halves too, which are rounded
            self.x += np.float32(scale / 2) * rng.integers(0, 2, self.x.shape).astype(np.float32)
        self.labels = rng.integers(0, classes, n)

    @staticmethod
    def convolution(g, pick, name, x, same=False):
        channels, (rows, columns) = g.shape(x)[3], g.shape(x)[1:3]
        groups = (1, channels)[pick(0, 1)]
        if same:
            return g.conv2d(name, x, channels, 3, pad=1, groups=groups, bias=bool(pick(0, 1)))
        window = (pick(1, min(3, rows)), pick(1, min(3, columns)))
        width = groups * pick(1, 2)
        return g.conv2d(name, x, width, window, pick(1, 2), pad=pick(0, 1), groups=groups, bias=bool(pick(0, 1)))

    def weights(self, rng, pick):
        """Extremes, small numbers and zeros; any exponents."""
        for name, parameter in self.graph.parameters.items():
            if name.endswith("exponent"):
                values = np.array([pick(-18, 2)])
            else:
                most = np.iinfo(parameter.dtype).max
                kind = pick(0, 9)
                least = (most, most // 2, most // 8, 3, 0)[min(kind // 2, 4)] if kind != 9 else most
                values = rng.integers(-least, least + 1, parameter.shape)
                if kind == 7:
                    values = rng.choice([-most, most], parameter.shape)
            self.graph.weights[name] = values.astype(parameter.dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@given(st.integers(0, 2**32 - 1).map(Drawn))
@settings(max_examples=100)
def test_integer_only_step_is_that_of_plain_integers(backend, drawn):
    step = Niti(drawn.how, ri.SGD(lr=drawn.rate))
    t = ri.Trainer(ri.compile(drawn.graph, plan_of(step), len(drawn.x), backend=backend), drawn.seed)
    logits, _, wanted = niti_oracle.step(
        drawn.graph, drawn.x, drawn.labels, drawn.how, rate_bits(drawn.rate), drawn.seed, 1
    )
    found = t.predict(drawn.x)
    assert found.dtype == np.int8 and found.tolist() == logits.tolist()
    t.train_step(drawn.x, drawn.labels, 1)
    for name, values in wanted.items():
        assert t.parameters[name].dtype == values.dtype and np.array_equal(t.parameters[name], values), name


def test_the_drawn_steps_meet_saturation_zeros_and_every_operator():
    """What the drawn cases have to be of use: weights at both ends, tensors of zeros, all operators, all roundings."""
    cases = [Drawn(seed) for seed in range(200)]
    ops = {node.op for d in cases for node in d.graph.nodes}
    assert {f"niti_{name}" for name in ("conv2d", "linear", "relu", "max_pool", "avg_pool", "add", "fork")} <= ops
    assert {d.how for d in cases} == set(WORDS)
    tensors = [a for d in cases for name, a in d.graph.weights.items() if name.endswith(".w")]
    assert any((abs(a) == 127).all() and a.min() < 0 < a.max() for a in tensors) and any(not a.any() for a in tensors)
    assert any(not d.x.any() for d in cases)
    moved = [niti_oracle.step(d.graph, d.x, d.labels, d.how, 7, d.seed, 1)[2] for d in cases[:40]]
    ends = [np.abs(a).max() for one in moved for name, a in one.items() if name.endswith(".w")]
    assert max(ends) == 127


# What it trains.


def samples(n=32, size=(8, 6), channels=2, classes=3):
    """Samples (n, H, W, C) whose mean tells their class."""
    rng, y = np.random.default_rng(3), np.arange(n) % classes
    return (rng.normal(size=(n, *size, channels)) / 2 + (y - 1)[:, None, None, None]).astype(np.float32), y


@pytest.mark.parametrize("rounding", WORDS)
def test_it_learns_and_trains_weights_of_whole_numbers(rounding):
    x, y = samples()
    step = Niti(rounding, ri.SGD(lr=0.06))
    t = ri.Trainer(ri.compile(whole(residual(), x, step), plan_of(step), 8), seed=1)
    before = {name: a.copy() for name, a in t.parameters.items()}
    assert t.evaluate(x, y) < 0.7
    losses = t.fit(x, y, 20)
    assert t.evaluate(x, y) > 0.9 and losses[-1] < 0.5 * losses[0]
    for name, a in t.parameters.items():
        assert a.dtype.kind == "i" and (name.endswith("exponent") or (a != before[name]).any()), name
        assert np.array_equal(a, before[name]) or not name.endswith("exponent"), name


def test_a_resumed_run_goes_on_to_the_bit():
    from refimpl.training import state

    x, y = samples()
    step = Niti("stochastic", ri.SGD(lr=0.06))
    p = ri.compile(whole(residual(), x, step), plan_of(step), 8)
    one, other = ri.Trainer(p, seed=2), ri.Trainer(p, seed=2)
    one.fit(x, y, 2)
    other.fit(x, y, 1)
    again = ri.Trainer(p, seed=2)
    kept = {name: np.array(a) for name, a in state.arrays(other).items()}
    state.check(again, kept, other.step)
    state.put(again, state.State(kept, other.step, other.losses))
    list(again.steps(x, y, 2))
    assert all(np.array_equal(a, again.parameters[name]) for name, a in one.parameters.items())
    assert again.losses == one.losses


def test_no_pass_between_input_and_update_computes_with_floats():
    x, _ = samples()
    step = Niti()
    p = ri.compile(whole(residual(), x, step), plan_of(step), 8, backend="reference")
    of_floats = {c.name for c in p.step if any(b.dtype.kind == "f" for b in c.arrays.values())}
    assert of_floats == {
        "whole niti_input.forward", "loss niti_cross_entropy.sample_losses", "loss niti_cross_entropy.mean_loss"
    }  # fmt: skip
    read = {b.root for c in p.step for b in c.reads if c.passed.name != "mean_loss"}
    losses = [b for c in p.step for b in c.writes if c.passed.name in ("sample_losses", "mean_loss")]
    assert losses and not [b.name for b in losses if b.root in read]
    assert set(p.step.parameters) == set(p.step.gradients) | {n for n in p.step.parameters if n.endswith("exponent")}
    assert {b.dtype for b in p.step.gradients.values()} == {np.dtype(np.int32)}


def test_the_net_of_whole_numbers_is_close_to_that_of_floats():
    """The logits of pre-trained weights, and which class is the largest: as eight bits allow."""
    x, y = samples(64)
    g = residual()
    t = ri.Trainer(ri.compile(g, ri.Plan(step=ri.Backprop(ri.SGD(lr=0.02, momentum=0.9)), train_bias=True), 8), seed=1)
    t.fit(x, y, 20)
    g.weights = dict(t.parameters)
    q = whole(g, x, Niti())
    infer = ri.Trainer(ri.compile(q, None, 64))
    logits, wanted = infer.predict(x), t.predict(x)
    real = logits * (wanted * logits).sum() / (logits.astype(float) ** 2).sum()  # in the one scale that they share
    assert np.linalg.norm(real - wanted) < 0.1 * np.linalg.norm(wanted)
    assert (logits.argmax(1) == wanted.argmax(1)).mean() > 0.95
    step = Niti(optimizer=ri.SGD(lr=0.02))
    trained = ri.Trainer(ri.compile(q, plan_of(step), 8), seed=1)
    assert trained.evaluate(x, y) > 0.9
    trained.fit(x, y, 3)
    assert trained.evaluate(x, y) > 0.9


# Costs.


@pytest.mark.parametrize("rounding", WORDS)
def test_every_call_does_what_is_priced_in_closed_form_too(rounding):
    step = Niti(rounding)
    q = outlined_for(step, residual())
    p = ri.compile(q, plan_of(step), 4, backend="reference")
    for n in (4, 1):
        for call in p.step:
            assert dict(predict.call_counts(call, n)) == counting.count_call(call, n), call.name
    form, units = closed_form.of(q, plan_of(step)).at(N=4), estimate(p).units
    for unit in ("imul", "iadd", "shift", "logic", "cmp", "idiv", "convert"):
        assert form[unit] == units[unit], unit
    assert units["imul"] > 10_000 and units["imul"] > 50 * units["mul"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_byte_is_where_it_was_placed(backend):
    x, y = samples(8)
    step = Niti("stochastic")
    p = ri.compile(whole(residual(), x, step), plan_of(step), 8, backend=backend)
    t = ri.Trainer(p, seed=1)
    assert measured.touched_bytes(p, x, y, t.parameters) == p.peak_bytes
    parameters = p.graph.parameters
    trained = {n: q for n, q in parameters.items() if not n.endswith("exponent")}
    assert p.state_bytes == sum(q.nbytes(np.float32) for q in trained.values())
    assert p.constant_bytes == 4 * (len(parameters) - len(trained))
    assert {b.dtype for b in p.saved if b.name in p.graph.tensors} <= {np.dtype(np.int8)}


def test_tuned_products_execute_what_they_say_and_take_layers_of_one_group():
    step = Niti()
    q = outlined_for(step, residual(depthwise=False))
    p = ri.compile(q, plan_of(step), 3)
    tuned = [launch for launch in p.order if launch.function in (fast.sums, fast.grad_x, fast.grad_w)]
    assert {launch.covers[0].node for launch in tuned} == {"conv1", "conv2", "fc1", "fc2"}
    for launch in tuned:
        for n in (3, 2):
            said = executed(launch, n, lambda call, n: {})
            assert said == executing.run(launch.function, executing.arguments(launch, n)), launch.name
            ours = counting.count_call(launch.covers[0], n)
            assert said.imul == ours["imul"]
    own = {c.node for launch in p.order for c in launch.covers if launch not in tuned and "accumulate" in c.name}
    assert own == {"conv3", "mean"}


def test_words_of_each_node_and_update_are_its_own():
    step = Niti("stochastic")
    p = ri.compile(outlined_for(step, residual()), plan_of(step), 4, backend="reference")
    drawn = [c for c in p.step if c.attrs.get("stochastic")]
    streams = [c.attrs["stream"] for c in drawn]
    assert len(drawn) > 12 and len(set(streams)) == len(streams)
    assert all(random.ROUNDING <= s < random.PERTURBATION for s in streams)


# What is refused.


def test_sums_that_may_overflow_are_refused_before_the_run():
    step = Niti()
    g = ri.Graph("long", (40, 40), 1)
    g.linear("fc", g.flatten("flat", g.conv2d("conv", "input", 2, 3)), 2)
    q = outlined_for(step, g)
    most = 133_144 // 38**2
    ri.compile(q, plan_of(step), most)
    with pytest.raises(ShapeError, match=r"^node conv .* N·P·Q, the pixels of a mini-batch, must be at most 133144$"):
        ri.compile(q, plan_of(step), most + 1)
    wide = ri.Graph("wide")
    wide.add_input("input", (260, 257, 1))
    wide.linear("fc", wide.flatten("flat", "input"), 2)
    with pytest.raises(ShapeError, match=r"a sum of 66820 products .* D must be at most 66572$"):
        ri.compile(outlined_for(step, wide), plan_of(step), 2)
    assert 66_572 * 127**2 + 2**30 < 2**31 <= 66_573 * 127**2 + 2**30


def test_a_rate_that_rounds_every_update_to_zero_is_refused_with_the_least_that_moves():
    with pytest.raises(ValueError, match=r"^at a learning rate of 0\.005 niti .* to the nearest is 0\.0056$"):
        ri.Plan(step=Niti("nearest", ri.SGD(lr=0.005)))
    ri.Plan(step=Niti("nearest", ri.SGD(lr=0.0056)))
    ri.Plan(step=Niti("stochastic", ri.SGD(lr=0.005)))
    assert [rate_bits(r) for r in (1.0, 0.5, 2**-7, 0.0056, 0.0055, 0.0, 1e-30)] == [7, 6, 0, 0, -1, -24, -24]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_norm": "train"}, "^niti has no form of batch_norm='train' in whole numbers$"),
        ({"label_smoothing": 0.1}, "^niti has no form of label_smoothing=0.1 in whole numbers$"),
        ({"loss": "mse"}, "^niti has no form of loss='mse' in whole numbers$"),
        ({"class_weights": (1.0, 2.0)}, "^niti has no form of class_weights="),
        ({"rules": [ri.GradientFilter()]}, "^gradient-filter and niti do not combine: a rule replaces"),
        ({"bias_only": True}, "^bias-only and niti do not combine: biases alone"),
    ],
)
def test_other_settings_of_a_plan_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ri.Plan(step=Niti(), **settings)


def test_other_settings_and_nets_are_refused():
    with pytest.raises(ValueError, match=r"^rounding must be one of nearest, .*, got 'up'$"):
        Niti("up")
    for optimizer in (ri.SGD(lr=0.1, momentum=0.9), ri.SGD(lr=0.1, weight_decay=0.1), ri.Adam(lr=0.1)):
        with pytest.raises(ValueError, match=r"^niti needs plain SGD without momentum and weight decay: "):
            ri.Plan(step=Niti(optimizer=optimizer))
    with pytest.raises(ValueError, match=r"^niti trains whole numbers that share exponents, and residual gives none: "):
        ri.compile(residual(), plan_of(Niti()), 4)
    g = ri.Graph("normed", (4, 4), 1)
    g.linear("fc", g.flatten("flat", g.batch_norm("bn", g.conv2d("conv", "input", 2, 3))), 2)
    with pytest.raises(ValueError, match=r"^node bn \(batch_norm\) of normed has no form in whole numbers that share "):
        share_exponents(g)
    g = residual()
    weights = initial(ri.compile(g, None, 1), 0)
    weights["fc1.w"][0, 0] = np.nan
    with pytest.raises(ValueError, match=r"^fc1\.w of residual is not finite: it has no exponent$"):
        share_exponents(g, weights)
    rows = ri.Graph("rows")
    rows.add_input("input", (3, 4))
    rows.linear("fc", "input", 2)
    with pytest.raises(ValueError, match=r"^node fc \(linear\) of rows .* more than two axes: flatten its input$"):
        share_exponents(rows)


def test_windows_that_overlap_are_refused():
    g = ri.Graph("overlapping", (6, 6), 1)
    g.linear("fc", g.flatten("flat", g.max_pool("pool", g.conv2d("conv", "input", 2, 1), 3, 2)), 2)
    with pytest.raises(ShapeError, match=r"a stride of at least \(3, 3\) would do$"):
        share_exponents(g)


def test_exponents_are_the_smallest_that_hold_the_largest_number():
    for most, wanted in ((1.0, -7), (1.01, -6), (0.99, -7), (2.0, -6), (0.0, -7), (127.0, 0), (1e-30, -62)):
        assert exponent_of(most) == wanted
        assert most <= 2.0 ** (wanted + 7) and (most == 0 or wanted == -62 or most > 2.0 ** (wanted + 6))
    x, _ = samples()
    g = residual()
    weights = initial(ri.compile(g, None, 1), 0)
    q = share_exponents(g, weights, x)
    for name in ("conv1.w", "fc1.w", "fc1.b"):
        scale = 2.0 ** float(q.weights[f"{name[:-2]}.w_exponent"][0])
        lost = np.abs(q.weights[name] * scale - weights[name])
        assert (lost <= scale / 2).all() and np.abs(q.weights[name]).max() >= 63 * name.endswith(".w")
    assert q.weights["input.exponent"] == exponent_of(float(np.abs(x).max()))


def test_a_last_mini_batch_that_is_partial_is_the_same_on_both_backends():
    x, y = samples(11)
    step = Niti("stochastic", ri.SGD(lr=0.06))
    q = whole(residual(depthwise=False), x, step)
    found = []
    for backend in BACKENDS:
        t = ri.Trainer(ri.compile(q, plan_of(step), 4, backend=backend), seed=1)
        t.fit(x, y, 3)
        found.append((t.losses, t.parameters))
    (losses, parameters), (others, theirs) = found
    assert losses == others and all(np.array_equal(a, theirs[name]) for name, a in parameters.items())
