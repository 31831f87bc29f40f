"""Steps under way on a device that runs beside the host: as where each is looked at, with few waits."""

from dataclasses import replace

import numpy as np
import pytest
from own import remote

import refimpl as ri
from costmodel.advice import budget
from costmodel.device import process
from costmodel.device.device import find
from gradledger.adapt import Adaptation
from refimpl.compiler.lower import BACKENDS, register_backend
from refimpl.kernels.random import SHUFFLE, permutation
from refimpl.recipes.course import Event
from refimpl.recipes.rehearsed import Rehearsed
from refimpl.recipes.watched import Watched
from refimpl.saved.fitting import Epochs

SGD = ri.SGD(lr=0.05, momentum=0.9, schedule=ri.Schedule("cosine"))
PLANS = {
    "backprop": ri.Plan(step=ri.Backprop(SGD, clip_norm=1.0), batch_norm="train"),
    "adam": ri.Plan(2, step=ri.Backprop(ri.Adam(lr=0.01)), train_bias=True),
    "learnt": ri.Plan(rules=[ri.SparseUpdate(0.5, order="gradient")]),
    "skipped": ri.Plan(instances=ri.RandomSkip(0.5)),
    "depth": ri.Plan(depth=ri.StochasticDepth(0.5)),
    "waits": ri.Plan(instances=ri.InstanceFilter(keep=0.4)),
}
BAD = 7  # a step, of ten an epoch


@pytest.fixture
def beside():
    found = remote.Beside()
    register_backend("beside", found)
    yield found
    del BACKENDS["beside"]


def data(n=20, seed=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 8, 8, 3)).astype(np.float32), rng.integers(0, 4, n)


def trainer(plan, backend):
    graph = ri.models.build("resnet8", classes=4, size=(8, 8))
    return ri.Trainer(ri.compile(graph, plan, 2, backend=backend, threads=1), seed=2)


def ends(t):
    """All that a run leaves, as bytes."""
    return t.losses, t.step, t.skipped, {name: a.tobytes() for name, a in t.resume_arrays().items()}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_it_trains_to_the_bits_of_reading_each_step(plan, beside):
    mine, theirs = trainer(plan, "beside"), trainer(plan, "reference")
    for t in (mine, theirs):
        t.fit(*data(), 2)
        t.train_step(*(part[:2] for part in data()), 100)
    assert ends(mine) == ends(theirs)
    np.testing.assert_array_equal(mine.predict(data()[0]), theirs.predict(data()[0]))


def test_a_run_waits_once_in_several_steps(beside):
    t = trainer(PLANS["adam"], "beside")
    steps = t.steps(*data(80), 1)  # forty
    for _ in range(5):
        next(steps)  # kernels are made, the first loss is read
    before, copied = beside.waited, len(beside.copied)
    for _ in range(32):
        next(steps)
    assert beside.waited - before == 32 // beside.ahead
    out = [shape for way, shape in beside.copied[copied:] if way == "out"]
    assert out.count((1,)) == 32 and len(out) == 2 * 32  # the loss and the flags
    given = {shape for way, shape in beside.copied[copied:] if way == "in"}
    assert (2, 8, 8, 3) in given and given <= {(2, 8, 8, 3), (2,), (1,)}  # the batch, its labels and scalars


def test_a_host_reads_each_step():
    t = trainer(PLANS["adam"], "reference")
    for made, progress in enumerate(t.steps(*data(), 1), 1):
        assert t.under_way == 0 and t.known == t.losses and len(t.known) == made and progress.loss == t.known[-1]


def test_progress_tells_the_last_loss_that_is_known(beside):
    mine, theirs = trainer(PLANS["backprop"], "beside"), trainer(PLANS["backprop"], "reference")
    losses = theirs.fit(*data(), 1)
    told = [(p.step, p.loss, mine.under_way) for p in mine.steps(*data(), 1)]
    late = [0, 1, 2, 3, 0, 1, 2, 3, 0, 0]
    assert told == [(s, losses[s - 1 - b], b) for s, b in enumerate(late, 1)]


def test_whoever_asks_in_the_middle_has_it_all(beside):
    mine, theirs = trainer(PLANS["depth"], "beside"), trainer(PLANS["depth"], "reference")
    for t in (mine, theirs):
        steps = t.steps(*data(), 1)
        for _ in range(BAD):
            next(steps)
    assert mine.under_way == 2 and ends(mine) == ends(theirs) and mine.under_way == 0
    list(mine.steps(*data(), 1))
    other = trainer(PLANS["depth"], "beside")
    other.restore(theirs.state())
    list(other.steps(*data(), 1))
    assert ends(mine) == ends(other)


def spoilt(most):
    """Samples of which those of step BAD are near `most`, and labels."""
    x, y = data()
    chosen = permutation(2, SHUFFLE, 0, len(x))[2 * BAD - 2 : 2 * BAD]
    x[chosen] = np.sign(x[chosen]) * np.float32(most)
    return x, y


def diverged(backend, plan, most):
    t = trainer(PLANS[plan], backend)
    with pytest.raises(ri.NonFiniteError) as told:
        t.fit(*spoilt(most), 2)
    return (str(told.value), told.value.step, *ends(t))


@pytest.mark.parametrize(
    "plan, most, words, kept",
    [
        ("learnt", 3e38, "the loss is nan at step 7", BAD - 1),
        ("depth", 3e38, "the loss is nan at step 7", BAD - 1),
        ("depth", 1e25, "the loss is nan at step 8", BAD),
        ("backprop", 1e37, "the gradient of bn1.gamma is not finite at step 7", BAD - 1),
    ],
)
def test_what_is_not_finite_is_told_as_on_the_host(plan, most, words, kept, beside):
    theirs = diverged("reference", plan, most)
    assert theirs[0].startswith(words) and theirs[3] == kept
    assert diverged("beside", plan, most) == theirs


def test_weights_that_overflow_are_put_back_to_those_of_the_epoch(beside):
    found = []
    for backend in ("beside", "reference"):
        plan = ri.Plan("all", step=ri.Backprop(ri.SGD(lr=1e-3, weight_decay=10)))
        t = trainer(plan, backend)
        t.fit(*data(), 1)
        with pytest.raises(ri.NonFiniteError, match="the weights of step 10 are kept") as told:
            for progress in t.steps(*data(), 3):
                t.factor = 3.4e41 if progress.step == 15 else 1.0  # the largest rate that float32 holds
        found.append((str(told.value), *ends(t)))
    assert found[0] == found[1]


def test_flags_that_tell_nothing_cost_time_alone(beside, monkeypatch):
    mine, theirs = trainer(PLANS["backprop"], "beside"), trainer(PLANS["backprop"], "reference")
    monkeypatch.setattr(mine, "_good", lambda findings, dropped: False)
    for t in (mine, theirs):
        t.fit(*data(), 1)
    assert ends(mine) == ends(theirs)
    assert sum(mine.made[frozenset()].values()) > sum(theirs.made[frozenset()].values())


def test_a_batch_that_cannot_be_drawn_leaves_the_steps_before_it(beside):
    mine, theirs = trainer(PLANS["backprop"], "beside"), trainer(PLANS["backprop"], "reference")
    for t in (mine, theirs):
        steps = t.steps(*data(), 1)
        for _ in range(BAD):
            next(steps)
        t._drawn = None
        with pytest.raises(TypeError):
            next(steps)
        del t._drawn
    assert ends(mine) == ends(theirs)


def test_labels_are_checked_without_reading_them_back(beside):
    t = trainer(PLANS["backprop"], "beside")
    x, y = data()
    t.fit(x, y, 1)
    y[-1] = 4
    t.check = lambda *given: None
    with pytest.raises(ValueError, match="labels must hold indices from 0 to 3, but it holds"):
        t.fit(x, y, 1)


def test_a_watched_run_counts_and_keeps_what_the_host_does(beside):
    found = []
    for backend in ("beside", "reference"):
        t, history = trainer(PLANS["learnt"], backend), {}
        watched = Watched(t, *spoilt(3e38), *data(6, 5), 2)
        Epochs(10, history).follow(watched)
        found.append((watched.told(), watched.sizes(), history, *ends(t)))
    assert found[0] == found[1]
    assert any(loss is None for probe in found[0][0]["probed"] for _, loss, _ in probe)


def test_a_watched_run_is_saved_within_steps_under_way(beside):
    found = []
    for backend in ("beside", "reference"):
        t = trainer(PLANS["learnt"], backend)
        watched = Watched(t, *spoilt(3e38), *data(6, 5), 2)
        run = watched.run()
        while t.step < BAD - 1:
            next(run)
        if backend == "beside":
            next(run)  # the one that is bad is under way
            assert t.under_way
        arrays, course = watched.saved()
        found.append((course, {name: a.tobytes() for name, a in arrays.items()}, *ends(t)))
    assert found[0] == found[1]


def test_steps_under_way_together_share_their_seconds(beside):
    """`adapt` records seconds of each step: those that only queue a step would tell of no step."""
    run = Adaptation.__new__(Adaptation)

    class Course:
        def __init__(self, t):
            self.t = t

        def run(self):
            for p in self.t.steps(*data(), 1):
                yield Event(p.step, p.steps, p.loss, None)

    class Job:
        trainer = trainer(PLANS["adam"], "beside")

    class Never:
        asked = False

        def check(self):
            pass

    run.job, run.step_seconds, run.save_seconds, run.stop = Job(), [], 0.0, Never()
    run.job.course = Course(run.job.trainer)
    run.show, run.save_if_possible = lambda event: None, lambda: None
    run.train()
    s = run.step_seconds
    assert len(s) == 10 and s[1] == s[2] == s[4] != s[5] and s[5] == s[8] != s[9]


def test_a_rehearsed_run_counts_what_the_host_does(beside):
    found = []
    for backend in ("beside", "reference"):
        t = trainer(ri.Plan(), backend)
        x, y = data()
        run = Rehearsed(t, (x[:14], y[:14]), (x[14:], y[14:]), (x, y), 2)
        saved = []
        for event in run.run():
            if run.again.made in (5, 11) and not event.part:
                saved.append((run.saved()[1], t.step))
            if run.again.made == 12:  # from here on it diverges
                run.watched.course.factor = 1e37
        found.append((saved, run.told(), run.sizes(), *ends(t)))
    assert found[0] == found[1]
    assert found[0][1]["again"]["loss"] is None and found[0][1]["again"]["made"] > 11


@pytest.mark.parametrize("name", PLANS)
def test_memory_of_the_device_is_what_a_trainer_holds_there(beside, name):
    if PLANS[name].depth:
        pytest.skip("what stochastic depth compiles depends on chance")
    t, taken, allocate = trainer(PLANS[name], "beside"), [], beside.allocate
    beside.allocate = lambda nbytes: taken.append(nbytes) or allocate(nbytes)  # behind the arena, what is kept alone
    t.fit(*data(), 1)
    found = process.with_a_batch(t.program, process.Base(1000, 10))
    own, dense = t.runner.owned, found.pop("dense_step")
    assert found.pop("tables") == 0 and 0 <= (between := found.pop("between")) < 64 * len(own)  # as a GPU holds them
    if name == "learnt":  # before: a step that tells the order of channels
        weights = sum(a.nbytes for a in t.parameters.values())
        assert 0 <= dense - (taken.pop(0) + weights - sum(taken)) < 64 * len(own)
    assert found == {
        "runtime": 1000,
        "arena": t.runner.block.nbytes,
        "weights": sum(own[b].nbytes for b in t.program.step.parameters.values()),
        "optimizer": sum(own[b].nbytes for b in t.program.step.state.values()),
        "plan": sum(own[c.buffer].nbytes for c in t.program.step.constants.values()),
        "kept": sum(taken),
    }
    assert (found["kept"] > 0) == (name != "waits")
    needs = budget.fits(t.program, replace(find("reference"), base=None), None)
    assert needs["at_least"] and needs["needs"]["ram"] == sum(found.values()) - 1000 + dense + between
