"""A watched training: its rate, its best weights, its end, and the same bits where it is taken up again."""

import json
import math

import numpy as np
import pytest

import refimpl as ri
from refimpl.recipes import head, watched
from refimpl.recipes.rehearsed import Rehearsed
from refimpl.recipes.watched import Course, Pace, Watched

CLASSES = 3


def samples(seed, count):
    """Maps whose class is where they are bright, with noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, count)
    x = rng.normal(0, 0.7, (count, 6, 6, 2)).astype(np.float32)
    for i, k in enumerate(y):
        x[i, 2 * k : 2 * k + 2] += 1
    return x, y


X, Y = samples(0, 70)
X_VAL, Y_VAL = samples(1, 30)


def net() -> ri.Graph:
    g = ri.Graph("small", (6, 6), 2)
    x = g.relu("relu1", g.conv2d("conv1", "input", 8, 3, pad=1, bias=True))
    x = g.relu("relu2", g.conv2d("conv2", x, 8, 3, pad=1, bias=True))
    g.linear("fc", g.flatten("flat", x), CLASSES)
    return g


def trainer(lr=0.05, step=None, **plan):
    step = step or ri.Backprop(ri.SGD(lr, 0.9, schedule=ri.Schedule("cosine")))
    return ri.Trainer(ri.compile(net(), ri.Plan("all", step=step, train_bias=True, **plan), 16), 3)


def all_of(run):
    return [event for event in run.run()]


def test_the_pace_of_a_run():
    assert Pace.of(70, 16, 20, 3) == Pace(100, 5, 10, 8, 3) and Pace.of(70, 16, 20, 3).most == 120
    assert Pace.of(7, 16, 1, 3) == Pace(1, 1, 1, 3, 3)  # one step in all: each probe makes it
    assert Pace.of(50_000, 32, 2, 1) == Pace(3126, 312, 312, 4, 1) and Pace.of(50_000, 32, 2, 1).most == 3126


def test_the_best_weights_are_in_place_and_are_no_worse_than_those_of_the_beginning():
    run = Watched(trainer(), X, Y, X_VAL, Y_VAL, 20)
    events = all_of(run)
    course, best = run.course, run.course.looks[run.course.best]
    assert course.ended and best.loss == min(look.loss for look in course.looks) < course.looks[0].loss
    assert run.trainer.measures(X_VAL, Y_VAL)["loss"] == best.loss and best.measure > 0.9
    assert [e.step for e in events] == list(range(1, len(events) + 1)) and events[-1].step == course.made
    assert len(events) <= events[0].steps == run.pace.most
    made = sum(times for ran in run.trainer.made.values() for (section, _), times in ran.items() if section == "update")
    assert made == course.made  # what probes do is done by the trainer, and counted there
    looks = len(course.looks) + len(watched.PROBES) - 1  # one of the probes is a look of the run
    assert course.seen == {("forward", 16): looks, ("forward", 14): looks}


def test_the_probes_begin_alike_and_the_run_goes_on_from_the_best():
    run = Watched(trainer(), X, Y, X_VAL, Y_VAL, 20)
    events = all_of(run)
    losses = [e.loss for e in events]
    pace, probed = run.pace, run.course.probed
    assert run.sizes()[:5] == [16, 16, 16, 16, 6] and len(run.sizes()) == run.course.made
    assert run.course.ran[:2] == [[0, pace.probe]] * 2 and run.course.ran[2][0] == 0
    assert losses[0] == losses[pace.probe] == losses[2 * pace.probe]  # one batch, the same weights
    assert len({look.loss for look in probed}) == 3 and all(look.step == pace.probe for look in probed)
    assert run.course.looks[1] == min(probed, key=lambda look: look.loss)
    chosen = watched.PROBES[probed.index(run.course.looks[1])]
    plain = trainer(0.05 * chosen)
    plain.fit(X, Y, 20)
    ran = run.trainer.step
    assert run.course.lowered or run.trainer.losses[:ran] == pytest.approx(plain.losses[:ran], rel=1e-5)


@pytest.mark.parametrize("lr", [3.0, 300.0])
def test_a_rate_that_ruins_a_net_is_lowered_or_nothing_is_lost(lr):
    run = Watched(trainer(lr), X, Y, X_VAL, Y_VAL, 20)
    before = run.trainer.measures(X_VAL, Y_VAL)["loss"]
    all_of(run)
    assert run.trainer.measures(X_VAL, Y_VAL)["loss"] <= before and np.isfinite(run.trainer.predict(X)).all()
    assert run.course.factor < 1 or run.course.lowered
    json.dumps(run.course.as_json(), allow_nan=False)


def test_it_ends_where_nothing_improves():
    run = Watched(trainer(0.05), X, np.roll(Y, 1), X_VAL, Y_VAL, 40)  # labels that say nothing about the others
    events = all_of(run)
    assert len(events) < run.pace.most and len(run.course.looks) - 1 - run.course.best == run.pace.patience


STEPS = {
    "backprop": {},
    "adam": {"step": ri.Backprop(ri.Adam(0.01))},
    "diverges": {"lr": 3.0},
    "forward": {"step": ri.ForwardGradient(m=1, optimizer=ri.SGD(0.01))},
}
ALL = np.concatenate([X, X_VAL]), np.concatenate([Y, Y_VAL])
RUNS = {
    "watched": lambda t: Watched(t, X, Y, X_VAL, Y_VAL, 8),
    "rehearsed": lambda t: Rehearsed(t, (X, Y), (X_VAL, Y_VAL), ALL, 8),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", STEPS)
def test_a_run_that_is_taken_up_after_any_step_ends_with_the_same_bits(kind, run):
    whole = RUNS[run](trainer(**STEPS[kind]))
    events = all_of(whole)
    for stop in {0, 1, 9, 10, 11, 20, 29, 30, 31, 35, len(events) - 1}:
        if stop >= len(events):
            continue
        first = RUNS[run](trainer(**STEPS[kind]))
        for event in first.run() if stop else ():
            if event.step == stop:
                break
        state = first.trainer.state()
        arrays, course = first.saved()
        arrays = {name: a.copy() for name, a in arrays.items()}
        again = RUNS[run](trainer(**STEPS[kind]))
        again.trainer.restore(state)
        again.resume(arrays, json.loads(json.dumps(course, allow_nan=False)))
        rest = all_of(again)
        assert [e[2:4] for e in events[stop:]] == [e[2:4] for e in rest], (kind, stop)
        for name, a in whole.trainer.parameters.items():
            assert np.array_equal(a, again.trainer.parameters[name]), (kind, stop, name)
        assert again.told() == whole.told() and again.sizes() == whole.sizes()


def test_after_the_rehearsal_all_samples_train_from_the_beginning():
    run = Rehearsed(trainer(), (X, Y), (X_VAL, Y_VAL), ALL, 20)
    events = all_of(run)
    watched_steps, course = run.watched.course.made, run.watched.course
    again = [e for e in events if e.part == ""]
    assert len(again) == run.again.made == 20 * 7 and run.again.kept and again[0].step == watched_steps + 1
    plain = trainer(0.05 * course.factor)
    plain.fit(*ALL, 20)
    assert [e.loss for e in again] == pytest.approx(plain.losses, rel=1e-5)
    assert run.sizes()[-7:] == [16] * 6 + [4] and len(run.sizes()) == len(events) <= run.most
    assert run.watched.pace.total == 10 * 5  # half of the epochs


def test_the_rehearsal_decides_what_is_kept():
    run = Rehearsed(
        trainer(), (X, np.roll(Y, 1)), (X_VAL, Y_VAL), ALL, 20
    )  # it finds nothing better than the beginning
    first = run.watched.look().loss
    all_of(run)
    assert run.watched.course.best or (not run.again.made and run.watched.look().loss == first)
    run = Rehearsed(trainer(), (X, Y), (X_VAL, Y_VAL), (ALL[0], (ALL[1] + 1) % 3), 20)  # labels that are wrong
    all_of(run)
    best = run.watched.course.looks[run.watched.course.best].loss
    assert run.again.made and not run.again.kept and run.watched.look().loss == best


def test_what_is_of_another_run_is_refused():
    run = Watched(trainer(), X, Y, X_VAL, Y_VAL, 2)
    next(run.run())
    arrays, course = run.saved()
    with pytest.raises(ValueError, match="kept as first have no array conv1.w"):
        run.resume({k: v for k, v in arrays.items() if k != "first/conv1.w"}, course)
    with pytest.raises(ValueError, match="lacks or has too much"):
        run.resume(arrays, course | {"more": 1})
    assert course["ran"] == [[0, 1]] and run.course.made == 1
    with pytest.raises(ValueError, match="no look 7"):
        run.resume(arrays, course | {"best": 7})
    with pytest.raises(ValueError, match="needs samples that it does not train on, got none"):
        Watched(trainer(), X, Y, X_VAL[:0], Y_VAL[:0], 2)
    assert Course.of(course).looks == run.course.looks and not math.isnan(run.course.looks[0].loss)


def test_a_factor_is_on_every_rate():
    for step in (
        ri.Backprop(ri.SGD(0.1)), ri.Backprop(ri.Adam(0.1)), ri.ForwardGradient(m=1, optimizer=ri.SGD(0.1)),
    ):  # fmt: skip
        one, two = (
            trainer(step=step),
            trainer(step=type(step)(**{**vars(step), "optimizer": type(step.optimizer)(0.05)})),
        )
        one.factor = 0.5
        for t in (one, two):
            t.fit(X, Y, 1)
        assert all(np.array_equal(a, two.parameters[n]) for n, a in one.parameters.items())


def test_the_classifier_alone_learns_on_maps_that_are_computed_once():
    graph = net()
    weights = {name: a for name, a in trainer().parameters.items() if not name.startswith("fc")}
    graph.weights = weights
    fits = head.Head(*head.parts_of(graph, ri.Plan("all"), 16), seed=2)
    events = list(fits.fit(X, Y, X_VAL, Y_VAL))
    found = fits.fitted
    assert set(found.weights) == {"fc.w", "fc.b"} and found.after.loss < found.before.loss and found.after.measure > 0.6
    assert len(events) == fits.steps(len(X)) == 3 * 60 * 5 and events[-1].step == events[0].steps
    ran = {n: times for made in fits.maps.evaluator.runner.made.values() for (_, n), times in made.items()}
    assert ran == {16: 4 + 1, 6: 1, 14: 1}  # 70 and 30 samples, once
    graph.weights = weights | found.weights
    whole = ri.Trainer(ri.compile(graph, None, 16))
    assert whole.measures(X_VAL, Y_VAL)["loss"] == pytest.approx(found.after.loss, rel=1e-5)


def test_a_classifier_that_cannot_improve_stays():
    fits = head.Head(*head.parts_of(net(), ri.Plan("all"), 16))
    list(fits.fit(X, Y, X_VAL, (Y_VAL + 1) % 3))
    found = fits.fitted
    assert found.after.loss <= found.before.loss
    if found.rate is None:
        assert found.after == found.before
