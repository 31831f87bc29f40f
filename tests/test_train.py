import numpy as np
import pytest
from nets import NETS, RULES, step_for

import refimpl as ri
from refimpl.kernels.running import threads
from refimpl.training.trainer import GUARD, Runner, Trainer, new_block
from validation.instruments import measured, snapshot

BACKENDS = ("reference", "fast")


def small_net() -> ri.Graph:
    """Every kind of node that the watch net has, and a residual branch, in a few thousand operations."""
    g = ri.Graph("small", (6, 9), 3)
    x = g.relu("relu1", g.batch_norm("bn1", g.conv2d("conv1", "input", 8, 3, pad=1)))
    y = g.max_pool("pool1", x, 2)
    z = g.relu("relu2", g.batch_norm("bn2", g.conv2d("conv2", y, 8, (1, 3), pad=((0, 0), (1, 1)))))
    x = g.relu("relu3", g.add("sum", y, z))
    x = g.conv2d("conv3", x, 5, 1, bias=True)
    return g if g.linear("fc", g.global_avg_pool("mean", x), 4) else g


def samples(count=20, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, 6, 9, 3)).astype(np.float32), rng.integers(0, 4, count)


def program(rules=(), backend="fast", batch=8, threads=None, dtype=np.float32, **plan):
    step = step_for(rules, ri.Backprop(ri.SGD(lr=0.05, momentum=0.9)))
    return ri.compile(
        small_net(), ri.Plan(rules=rules, step=step, **plan), batch, backend=backend, threads=threads, dtype=dtype
    )


def bits(trainer: Trainer) -> bytes:
    """Everything that kernels change from step to step."""
    arrays = trainer.resume_arrays().items()
    return b"".join(a.tobytes() for name, a in arrays if not name.startswith(("updates/", "begun")))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_training_lowers_the_loss_and_two_threads_give_the_bits_of_one(rules, backend):
    x, y = samples()
    found = set()
    for count in (1, 2, 1, 2):
        trainer = Trainer(program(rules, backend, threads=count), seed=3)
        losses = trainer.fit(x, y, epochs=12)
        found.add(bits(trainer))
    assert len(found) == 1
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    assert trainer.step == len(losses) == 12 * 3  # 20 samples in batches of 8: the last one is partial


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_a_step_touches_exactly_the_predicted_bytes(rules, backend):
    p = program(rules, backend)
    x, y = samples()
    trainer = Trainer(p)
    assert measured.touched_bytes(p, x, y, trainer.parameters) == p.peak_bytes


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_nan_in_dead_buffers_changes_no_bit(rules, backend):
    x, y = samples(8)
    check_poison(program(rules, backend), x, y)


def check_poison(p: ri.Program, x, y):
    """Every arena byte that no live buffer owns is poisoned before each launch, and no bit of the result changes."""
    plain, poisoned = Trainer(p), Trainer(p)
    plain.train_step(x, y, 1)
    runner, n = poisoned.runner, len(x)
    poisoned.fill(runner, x)
    runner.host("labels", n)[...] = y
    for name, value in p.step.scalars.items():
        runner.host(name, n)[0] = value(0, 1, 0)
    index = 0
    with threads(1):
        for section in p.launches:
            for function, args in runner.prepared(section, n):
                dead = np.ones(p.peak_bytes, bool)
                for b, life in p.lifetimes.items():
                    if life.first <= index <= life.last:
                        dead[p.offsets[b] : p.offsets[b] + b.nbytes] = False
                runner.block[GUARD : GUARD + runner.program.peak_bytes][dead] = 0xFF  # NaN in float32 and float64
                function(*args)
                index += 1
    assert bits(plain) == bits(poisoned)


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("rules", ["dense", "patch 2", "keep", "ratio", "keep, ratio", "keep, ratio, patch"])
@pytest.mark.parametrize("net", NETS)
def test_the_arena_of_fused_launches(net, rules, batch_norm):
    """As the tests above for every net: bytes touched, dead bytes poisoned at a full and a partial batch, threads."""
    graph = NETS[net]()
    rules_name, rules = rules, RULES[rules]
    step = step_for(rules, ri.Backprop(ri.SGD(lr=0.05, momentum=0.9)))
    plan = ri.Plan(rules=rules, step=step, batch_norm=batch_norm, train_bias=True)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(8, *graph.size, graph.channels)).astype(np.float32)
    y = rng.integers(0, 3, 8)
    p = ri.compile(graph, plan, 8)
    touched = measured.touched_bytes(p, x, y, Trainer(p).parameters)
    if not snapshot.avx512() and (net, rules_name, batch_norm) == ("residual", "keep, ratio, patch", "train"):
        assert touched <= p.peak_bytes  # its peak is scratch of which blocks without AVX-512 leave a part untouched
    else:
        assert touched == p.peak_bytes
    check_poison(p, x, y)
    check_poison(p, x[:5], y[:5])
    found = set()
    for count in (1, 2):
        trainer = Trainer(ri.compile(graph, plan, 8, threads=count))
        trainer.fit(x, y, 2)
        found.add(bits(trainer))
    assert len(found) == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_partial_batch_equals_a_program_of_that_batch(backend):
    x, y = samples(5)
    large, small = Trainer(program(batch=8, backend=backend)), Trainer(program(batch=5, backend=backend))
    assert large.train_step(x, y, 1) == pytest.approx(small.train_step(x, y, 1), rel=1e-6)
    for name, a in large.parameters.items():
        np.testing.assert_allclose(a, small.parameters[name], rtol=1e-5, atol=1e-7)


def test_resuming_gives_the_bits_of_an_uninterrupted_run():
    x, y = samples()
    whole, first, second = (Trainer(program(), seed=1) for _ in range(3))
    whole.fit(x, y, epochs=4)
    for progress in first.steps(x, y, epochs=4):
        if progress.step == 5:  # in the middle of an epoch
            break
    second.resume({n: a.copy() for n, a in first.resume_arrays().items()}, first.step, first.losses)
    list(second.steps(x, y, epochs=4))
    assert bits(second) == bits(whole)
    assert second.losses == whole.losses


def test_frozen_layers_do_not_change_and_backward_stops_before_them():
    p = program(train_last=1)
    x, y = samples()
    trainer = Trainer(p)
    before = {n: a.copy() for n, a in trainer.parameters.items()}
    trainer.fit(x, y, epochs=1)
    changed = {n for n, a in trainer.parameters.items() if (a != before[n]).any()}
    assert changed == {"conv3.w", "fc.w", "fc.b"}
    assert {c.node for c in p.step.calls["backward"]} == {"loss", "fc", "mean", "conv3", "conv3.w", "fc.w", "fc.b"}


def test_an_exploding_loss_stops_and_keeps_finite_weights():
    step = ri.Backprop(ri.SGD(lr=1e12))
    trainer = Trainer(ri.compile(small_net(), ri.Plan(step=step), 8))
    x, y = samples()
    message = r"at step \d+( \(it was .+ before\))?, first in layer \w+; .*; the weights of step \d+ are kept"
    with pytest.raises(ri.NonFiniteError, match=message):
        trainer.fit(x, y, epochs=20)
    assert all(np.isfinite(a).all() for a in trainer.parameters.values())


def test_weights_that_became_infinite_go_back_to_those_before_the_epoch():
    trainer = Trainer(ri.compile(small_net(), ri.Plan(step=ri.Backprop(ri.SGD(lr=3e38))), 8))
    start = {name: a.copy() for name, a in trainer.parameters.items()}
    x, y = samples()
    with pytest.raises(ri.NonFiniteError, match="the weights of step 0 are kept"):
        trainer.fit(1000 * x, y, epochs=1)
    assert all((a == start[name]).all() for name, a in trainer.parameters.items())


def test_bad_data_are_refused_in_a_sentence():
    trainer = Trainer(program())
    x, y = samples()
    with pytest.raises(ValueError, match=r"x must be \(M, H, W, C\) with H, W, C = \(6, 9, 3\)"):
        trainer.fit(x[:, :5], y, 1)
    with pytest.raises(ValueError, match="x has 20 samples, but y has 19"):
        trainer.fit(x, y[:19], 1)
    with pytest.raises(ValueError, match="labels must be from 0 to 3, but y has 0 to 4"):
        trainer.fit(x, np.where(np.arange(20) == 7, 4, np.minimum(y, 3) * 0), 1)
    x[11, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite value in sample 11"):
        trainer.fit(x, y, 1)


@pytest.mark.parametrize("spoil, message", [
    (lambda x, y: (x, y + 0.5), r"y must be \(M,\) class numbers of an integer type, but its shape is \(20,\) "),
    (lambda x, y: (x, np.where(y == 1, np.nan, y)), "and its type float64"),
    (lambda x, y: (x, y[:, None]), r"but its shape is \(20, 1\)"),
    (lambda x, y: (x, list(y)), "y must be a NumPy array, but it is of list"),
    (lambda x, y: (x.tolist(), y), "x must be an array of real numbers, such as float32, but it is of list"),
    (lambda x, y: (x.astype(complex), y), "but it is of complex128"),
    (lambda x, y: (x.astype(str), y), "x must be an array of real numbers"),
])  # fmt: skip
def test_data_that_no_kernel_may_see(spoil, message):
    x, y = samples()
    trainer = Trainer(program())
    for use in (lambda x, y: trainer.fit(x, y, 1), trainer.evaluate):
        with pytest.raises(ValueError, match=message):
            use(*spoil(x, y))
    assert trainer.step == 0


@pytest.mark.parametrize("label", [4, 500, -4])
def test_a_step_takes_no_label_that_would_index_outside(label):
    x, y = samples(8)
    trainer = Trainer(program())
    y[3] = label
    with threads(1), pytest.raises(ValueError, match="labels must be from 0 to 3, but y has"):
        trainer.train_step(x, y, 10)


@pytest.mark.parametrize("epochs", [-1, 1.5, True, "3"])
def test_epochs_are_whole(epochs):
    with pytest.raises(ValueError, match=f"epochs must be a whole number from 0 up, got {epochs!r}"):
        Trainer(program()).fit(*samples(), epochs)


def test_each_fit_trains_more_and_steps_finish_the_run_at_hand():
    """At a constant rate, two calls give the bits of one of as many passes."""
    one, two, (x, y) = Trainer(program()), Trainer(program()), samples()
    one.fit(x, y, 3)
    first = list(two.fit(x, y, 1))
    assert not list(two.steps(x, y, 1))
    assert two.fit(x, y, 2)[: len(first)] == first
    assert bits(one) == bits(two) and one.losses == two.losses and two.step == 3 * len(first)
    assert [p.step for p in two.steps(x, y, 3)] == [*range(3 * len(first) + 1, 4 * len(first) + 1)]  # a third pass
    before = two.step
    two.fit(x[:9], y[:9], 1)  # other samples: whole passes over them
    assert two.step == before + 2


@pytest.mark.parametrize("instances", [None, ri.RandomSkip(0.5)], ids=["every", "skip"])
def test_a_schedule_begins_anew_with_each_fit_and_a_resumed_one_goes_on(instances):
    optimizer = ri.Adam(lr=0.1, schedule=ri.Schedule("cosine", warmup=2))
    p = ri.compile(small_net(), ri.Plan(step=ri.Backprop(optimizer), instances=instances), 8)
    trainer, (x, y) = Trainer(p), samples()
    rates = []
    for epochs in (3, 2):
        planned = trainer.strategy.updates(trainer.step + epochs * 3, 0) - int(trainer.updates[""][0])
        trainer.restart()
        for progress in trainer.steps(x, y, epochs):
            if progress.step == 12:  # in the middle of the second run
                half = trainer.state()
            rates.append(float(trainer.runner.host("lr", 1)[0]))
        made = int(trainer.updates[""][0] - trainer.before[""][0])
        assert made == planned and rates[-1] == pytest.approx(optimizer.rate(made - 1, planned))
    assert pytest.approx(0.05) in rates[9:]  # the first update of the second run: half of its warm-up
    resumed = Trainer(p)
    resumed.restore(half)
    assert resumed.step == 12 and len(list(resumed.steps(x, y, 2))) == 3
    assert bits(resumed) == bits(trainer) and resumed.losses == trainer.losses


def test_a_state_without_the_beginning_of_its_run_is_of_one_run_and_a_wrong_one_is_refused():
    first, second, (x, y) = Trainer(program()), Trainer(program()), samples()
    first.fit(x, y, 2)
    arrays = {name: a.copy() for name, a in first.resume_arrays().items()}
    second.restart()
    second.resume({name: a for name, a in arrays.items() if not name.startswith("begun")}, first.step, first.losses)
    assert not second.begun[0] and not second.before[""][0] and not list(second.steps(x, y, 2))
    for name in ("begun", "begun/"):
        with pytest.raises(ValueError, match=f"^the saved run says 7 in {name}, but it has made 6$"):
            second.resume(arrays | {name: np.array([7])}, first.step, first.losses)


@pytest.mark.parametrize("weights, message", [
    ({"fc.weight": np.zeros((40, 4))}, "dropped has no parameter 'fc.weight'; it has fc.w, fc.b"),
    ({"fc.w": np.zeros((4, 40))}, r"the weights 'fc.w' of dropped must be of shape \(40, 4\), got \(4, 40\)"),
    ({"fc.w": np.zeros(160)}, r"must be of shape \(40, 4\), got \(160,\)"),
])  # fmt: skip
def test_weights_of_another_name_or_layout_are_refused(weights, message):
    g = ri.Graph("dropped", (1, 1), 40)
    g.linear("fc", g.flatten("flat", "input"), 4)
    g.weights = weights
    with pytest.raises(ValueError, match=message):
        Trainer(ri.compile(g, ri.Plan(), 4))


def test_memory_limit_is_enforced_when_compiling():
    p = program()
    need = p.peak_bytes + p.state_bytes
    ri.compile(small_net(), p.plan, 8, memory_limit=need)
    with pytest.raises(ri.MemoryLimitError, match=f"the smallest limit that this compiler can place is {need:,} bytes"):
        ri.compile(small_net(), p.plan, 8, memory_limit=need - 1)


def test_guards_are_watched():
    """A program whose arena is declared one byte too small must be found out."""
    p = program()
    p.offsets  # noqa: B018  places the buffers
    p.__dict__["_placement"] = (p.offsets, p.peak_bytes - 4)
    x, y = samples()
    trainer = Trainer(program())
    with pytest.raises((AssertionError, ValueError)):
        measured.touched_bytes(p, x, y, trainer.parameters)


def test_a_runner_needs_no_trainer():
    p = program()
    parameters = Trainer(p).parameters
    runner = Runner(p, parameters, new_block(p.peak_bytes))
    runner.host("input", 8)[...] = samples(8)[0]
    runner.host("labels", 8)[...] = 0
    runner.run("forward", 8)
    assert np.isfinite(runner.host("loss", 8)[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_follows_the_seed_of_the_trainer(backend):
    g = ri.Graph("dropped", (1, 1), 40)
    g.linear("fc", g.dropout("drop", g.flatten("flat", "input"), 0.5), 4)
    weights = {"fc.w": np.ones((40, 4)), "fc.b": np.zeros(4)}
    g.weights = weights
    p = ri.compile(g, ri.Plan(), 4, backend=backend)
    x, y = np.random.default_rng(0).normal(size=(4, 1, 1, 40)).astype(np.float32), np.arange(4)
    outputs = []
    for seed in (1, 1, 2):
        trainer = Trainer(p, seed)
        with threads(1):
            trainer.train_step(x, y, 10)
        outputs.append(trainer.parameters["fc.w"].tobytes())
    assert outputs[0] == outputs[1] != outputs[2]


def test_a_last_batch_of_one_value_a_channel_is_refused():
    g = ri.Graph("thin", (3, 3), 2)
    x = g.relu("relu", g.batch_norm("bn", g.conv2d("conv", "input", 4, 3)))
    g.linear("fc", g.global_avg_pool("mean", x), 2)
    x, y = np.ones((9, 3, 3, 2), np.float32), np.zeros(9, int)
    trainer = Trainer(ri.compile(g, ri.Plan(batch_norm="train"), 4))
    with pytest.raises(ValueError, match="last batch of 9 samples in batches of 4 is a single one, which gives bn one"):
        trainer.fit(x, y, 1)
    assert trainer.step == 0
    trainer.fit(x[:8], y[:8], 1)
    Trainer(ri.compile(g, ri.Plan(), 4)).fit(x, y, 1)  # running statistics need no second value
    chosen = ri.Plan(batch_norm="train", instances=ri.HardExamples(0.25))
    with pytest.raises(ValueError, match="batches of 4 trains on a single one under hard-examples, which gives bn one"):
        Trainer(ri.compile(g, chosen, 4)).fit(x[:8], y[:8], 1)
    Trainer(ri.compile(g, chosen, 8)).fit(x[:8], y[:8], 1)
