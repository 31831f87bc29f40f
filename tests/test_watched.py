"""A watched training: its rate, its best weights, its end, and the same bits where it is taken up again."""

import itertools
import json
import math

import numpy as np
import pytest

import refimpl as ri
from refimpl.recipes import head
from refimpl.recipes.course import AT_ONCE, GIVEN, PROBES, SAFE, SEARCH, Course, Glance, Pace, following
from refimpl.recipes.rehearsed import Rehearsed
from refimpl.recipes.watched import Watched

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
    assert Pace.of(70, 16, 20) == Pace(100, 5, 25, 8)
    assert Pace.of(7, 16, 1) == Pace(1, 1, 1, 3)  # one step in all: each probe makes it
    assert Pace.of(50_000, 32, 2) == Pace(3126, 312, 300, 4) and Pace.of(50_000, 32, 2, GIVEN).probe == 0


INF = math.inf


@pytest.mark.parametrize(
    "factors, first, losses, tried, then",
    [
        (SEARCH, 2.0, [1.0, 1.2, 1.2], [1, 4, 0.25], None),  # neither way is better
        (SEARCH, 2.0, [1.0, 1.09], [1, 4], 16),  # that may be chance
        (SEARCH, 2.0, [1.0, 1.09, 1.3], [1, 4, 16], 0.25),
        (SEARCH, 2.0, [1.0, 0.9, 0.8], [1, 4, 16], None),  # the highest
        (SEARCH, 2.0, [1.0, 0.9, INF], [1, 4, 16], None),
        (SEARCH, 2.0, [1.0, 1.2, 0.9], [1, 4, 0.25], 1 / 16),  # down while it gets better
        (SEARCH, 2.0, [1.0, 1.2, 0.9, 0.8, 0.7], [1, 4, 0.25, 1 / 16, 1 / 64], None),
        (SEARCH, 2.0, [1.0], [1], 4),
        (SEARCH, 2.0, [3.0], [1], 0.25),  # no way up from what does harm
        (SEARCH, 2.0, [INF, INF, 2.5], [1, 0.25, 1 / 16], 1 / 64),
        (SEARCH, 2.0, [3.0, 2.5, 2.4, 2.3], [1, 0.25, 1 / 16, 1 / 64], None),
        (SEARCH, 2.0, [], [], 1),
        (SAFE, 2.0, [1.0], [1], None),
        (SAFE, 2.0, [3.0, 1.9], [1, 0.25], None),
        (SAFE, 2.0, [3.0], [1], 0.25),
        (GIVEN, 2.0, [], [], None),
    ],
)
def test_which_factor_is_tried_next(factors, first, losses, tried, then):
    assert following(first, losses, factors) == (dict(zip(tried, losses, strict=True)), then)


def test_the_best_weights_are_in_place_and_are_no_worse_than_those_of_the_beginning():
    run = Watched(trainer(), X, Y, X_VAL, Y_VAL, 20)
    events = all_of(run)
    course, best = run.course, run.course.looks[run.course.best]
    assert course.ended and best.loss == min(look.loss for look in course.looks) < course.looks[0].loss
    assert run.trainer.measures(X_VAL, Y_VAL)["loss"] == min(best.loss, course.won.loss) and best.measure > 0.9
    assert [e.step for e in events] == list(range(1, len(events) + 1)) and events[-1].step == course.made
    assert len(events) <= events[-1].steps <= run.most
    made = sum(times for ran in run.trainer.made.values() for (section, _), times in ran.items() if section == "update")
    assert made == course.made  # what probes do is done by the trainer, and counted there
    looks = len(course.looks) + sum(map(len, course.probed))
    assert course.seen == {("forward", 16): looks, ("forward", 14): looks}


def test_probes_begin_alike_and_their_rate_falls_to_nothing():
    run = Watched(trainer(0.01), X, Y, X_VAL, Y_VAL, 20)
    events = all_of(run)
    pace, course = run.pace, run.course
    tried = dict(run.told()["tried"])
    probes = len(course.probed)
    assert course.ran[:probes] == [[0, pace.probe]] * probes and course.ran[probes][0] == 0 and probes == len(tried) > 2
    assert {e.part for e in events[: probes * pace.probe]} == {PROBES} and events[probes * pace.probe].part == ""
    assert len({events[i * pace.probe].loss for i in range(probes + 1)}) == 1  # one batch, the same weights
    assert [[look.step for look in probe] for probe in course.probed] == [[5, 10, 15, 20, 25]] * probes
    assert run.sizes()[:5] == [16, 16, 16, 16, 6] and len(run.sizes()) == course.made
    factor = min(tried, key=tried.get)
    assert course.lowered or course.factor == factor
    plain = trainer(0.01 * factor)
    plain.fit(X, Y, 20)
    ran = run.trainer.step
    assert course.lowered or run.trainer.losses[:ran] == pytest.approx(plain.losses[:ran], rel=1e-5)
    for i, factor in enumerate(tried):
        alone = trainer(0.01)
        steps = alone.steps(X, Y, 20)
        for k in range(pace.probe):
            alone.factor = 4 * factor * (1 + math.cos(math.pi * k / pace.probe)) / 2
            next(steps)
        assert alone.measures(X_VAL, Y_VAL)["loss"] == course.probed[i][-1].loss


@pytest.mark.parametrize("lr", [3.0, 300.0])
def test_a_rate_that_ruins_a_net_is_lowered_or_nothing_is_lost(lr):
    run = Watched(trainer(lr), X, Y, X_VAL, Y_VAL, 20)
    before = run.trainer.measures(X_VAL, Y_VAL)["loss"]
    all_of(run)
    assert run.trainer.measures(X_VAL, Y_VAL)["loss"] <= before and np.isfinite(run.trainer.predict(X)).all()
    assert run.course.factor < 1
    json.dumps(run.course.as_json(), allow_nan=False)


def test_it_ends_where_nothing_improves():
    run = Watched(trainer(0.05), X, np.roll(Y, 1), X_VAL, Y_VAL, 40)  # labels that say nothing about the others
    events = all_of(run)
    assert len(events) < events[-1].steps and len(run.course.looks) - 1 - run.course.best == run.pace.patience


STEPS = {
    "backprop": {},
    "adam": {"step": ri.Backprop(ri.Adam(0.01))},
    "diverges": {"lr": 3.0},
    "forward": {"step": ri.ForwardGradient(m=1, optimizer=ri.SGD(0.01))},
}
ALL = np.concatenate([X, X_VAL]), np.concatenate([Y, Y_VAL])
OTHER = {name: a.copy() for name, a in trainer().resume_arrays().items() if name.startswith("fc")}
OTHER["fc.w"] += 0.25


def exchanged(t):
    run = Rehearsed(t, (X, Y), (X_VAL, Y_VAL), ALL, 8)
    run.instead = {name: a.copy() for name, a in OTHER.items()}
    return run


WRONG = (Y_VAL + 1) % CLASSES
USED = trainer()  # to labels that are wrong
USED.fit(X_VAL, WRONG, 40)
OUTER = {name: a.copy() for name, a in trainer().parameters.items() if name.startswith("fc")}


def headed(t, whole, wins):
    """A run with a classifier that was trained alone, as it were: one that all layers at once beat, or do not."""
    held = (X_VAL, Y_VAL if wins else WRONG)
    run = Rehearsed(t, (X, Y), held, ALL, 8, headed=True) if whole else Watched(t, X, Y, *held, 8, headed=True)
    if wins:
        head = {name: a + 1 for name, a in OUTER.items()}
    else:
        t.resume({**t.resume_arrays(), **USED.parameters, **OUTER}, 0, [])
        head = {name: USED.parameters[name] for name in OUTER}
    run.begin_headed(head)
    return run


RUNS = {
    "watched": lambda t: Watched(t, X, Y, X_VAL, Y_VAL, 8),
    "rehearsed": lambda t: Rehearsed(t, (X, Y), (X_VAL, Y_VAL), ALL, 8),
    "another classifier": exchanged,
    "at once": lambda t: headed(t, False, True),
    "at once, then all": lambda t: headed(t, True, True),
    "not at once": lambda t: headed(t, False, False),
    "not at once, then all": lambda t: headed(t, True, False),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("kind", STEPS)
def test_a_run_that_is_taken_up_after_any_step_ends_with_the_same_bits(kind, run):
    whole = RUNS[run](trainer(**STEPS[kind]))
    events = all_of(whole)
    probe = Pace.of(len(X), 16, 8).probe
    direct = sum(e.part == AT_ONCE for e in events)
    stops = {0, 1, 4, 5, direct - 1, direct, direct + 1, len(events) - 1}
    stops |= {direct + n for n in (probe - 1, probe, probe + 1, 2 * probe, 3 * probe, 3 * probe + 1)}
    for stop in stops:
        if not 0 <= stop < len(events):
            continue
        first = RUNS[run](trainer(**STEPS[kind]))
        for _ in itertools.islice(first.run(), stop):
            pass
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


def test_all_layers_at_once_are_the_run_where_they_beat_the_classifier_alone():
    plain = trainer(0.01)
    plain.fit(X, Y, 8)
    run = headed(trainer(0.01), False, True)
    events, course = all_of(run), run.course
    assert course.at_once and course.ended and not course.probed and {e.part for e in events} == {AT_ONCE}
    assert len(events) == events[-1].steps == course.made == len(run.trainer.losses)
    assert run.trainer.losses == pytest.approx(plain.losses[: len(events)], rel=1e-5)  # at the rate that was given
    best = min(look.loss for look in course.direct)
    assert run.look().loss == best < course.looks[0].loss and len(course.looks) == 1
    run = headed(trainer(0.01), True, True)
    events, plain = all_of(run), trainer(0.01)
    plain.fit(*ALL, 8)
    again = [e for e in events if not e.part]
    assert run.watched.course.at_once and run.again.kept and len(events) == events[-1].steps <= run.most
    assert [e.loss for e in again] == pytest.approx(plain.losses, rel=1e-5)
    for name, a in plain.parameters.items():
        np.testing.assert_allclose(run.trainer.parameters[name], a, rtol=1e-3, atol=1e-5)


def test_the_classifier_alone_is_the_beginning_where_all_layers_at_once_are_worse():
    for whole in (False, True):
        run, none = headed(trainer(0.01), whole, False), headed(trainer(0.01), whole, False)
        (none.watched if whole else none).own = {}  # nothing to try
        events, others = all_of(run), all_of(none)
        direct = [e for e in events if e.part == AT_ONCE]
        watched = run.watched if whole else run
        assert len(direct) == watched.pace.directly and not watched.course.at_once and watched.course.probed
        assert [e.loss for e in events[len(direct) :]] == [e.loss for e in others]
        for name, a in none.trainer.parameters.items():
            assert np.array_equal(a, run.trainer.parameters[name]), name
        assert len(events) <= run.most


@pytest.mark.parametrize("lowest, at_once", [(0.95, False), (0.9, False), (0.88, True)])
def test_all_layers_at_once_must_be_clearly_better(lowest, at_once):
    """A loss of 1 is clearly above 0.88, and not above 0.9: of a few samples held out that may be chance."""
    run = headed(trainer(0.01), False, True)
    losses = itertools.chain([1.0, 1.2, lowest], itertools.repeat(1.3))
    run.look = lambda: Glance(run.trainer.step, next(losses), 0.0)
    list(run.choose())
    assert run.course.at_once is at_once and (not run.course.probed) is at_once


def test_a_loss_that_is_not_finite_at_once_leaves_the_classifier():
    run = headed(trainer(3e8), False, True)
    first = run.look().loss
    all_of(run)
    assert not run.course.at_once and run.look().loss <= first and np.isfinite(run.trainer.predict(X)).all()
    assert all(not math.isfinite(look.loss) for look in run.course.direct[-1:])
    json.dumps(run.course.as_json(), allow_nan=False)


def test_after_the_probes_all_samples_train_from_the_beginning():
    run = Rehearsed(trainer(0.01), (X, Y), (X_VAL, Y_VAL), ALL, 20)
    events = all_of(run)
    course = run.watched.course
    again = [e for e in events if e.part == ""]
    assert len(again) == run.again.made == 20 * 7 and run.again.kept and again[0].step == course.made + 1
    assert course.made == 25 * len(course.probed) and len(course.looks) == 1  # a quarter of the steps of the part
    plain = trainer(0.01 * course.factor)
    plain.fit(*ALL, 20)
    assert [e.loss for e in again] == pytest.approx(plain.losses, rel=1e-5)
    assert run.sizes()[-7:] == [16] * 6 + [4] and len(run.sizes()) == len(events) == events[-1].steps <= run.most


def test_the_probes_decide_what_is_kept():
    wrong = (X_VAL, (Y_VAL + 1) % 3)
    begins = trainer(0.05)
    begins.fit(*wrong, 40)  # a net that is used to what it is judged by
    run = Rehearsed(trainer(), (X, Y), wrong, ALL, 20)
    run.trainer.resume({**run.trainer.resume_arrays(), **begins.parameters}, 0, [])
    first = run.watched.look().loss
    events = all_of(run)
    assert run.again.made == 0 and events and run.watched.look().loss == first and not run.again.kept
    assert [factor for factor, _ in run.told()["tried"]] == [1, 1 / 4, 1 / 16, 1 / 64]
    run = Rehearsed(trainer(), (X, Y), (X_VAL, Y_VAL), (ALL[0], (ALL[1] + 1) % 3), 20)  # labels that are wrong
    all_of(run)
    assert run.again.made and not run.again.kept and run.watched.look().loss == run.watched.course.won.loss


def test_a_classifier_that_knows_all_samples_takes_its_place_after_the_probes():
    run, plain = exchanged(trainer(0.01)), Rehearsed(trainer(0.01), (X, Y), (X_VAL, Y_VAL), ALL, 8)
    events, others = all_of(run), all_of(plain)
    probes = [e.loss for e in events if e.part]
    assert probes == [e.loss for e in others if e.part] and run.again.kept  # they do not see it
    begins = trainer(0.01 * run.watched.course.factor)
    begins.resume({**begins.resume_arrays(), **OTHER}, 0, [])
    begins.fit(*ALL, 8)
    assert [e.loss for e in events if not e.part] == pytest.approx(begins.losses, rel=1e-5)


def test_a_classifier_that_knows_all_samples_is_kept_where_no_probe_improves():
    wrong = (X_VAL, (Y_VAL + 1) % 3)
    begins = trainer(0.05)
    begins.fit(*wrong, 40)
    run = Rehearsed(trainer(), (X, Y), wrong, ALL, 20)
    run.trainer.resume({**run.trainer.resume_arrays(), **begins.parameters}, 0, [])
    run.instead = {name: a.copy() for name, a in OTHER.items()}
    all_of(run)
    assert run.again.made == 0 and run.again.ended
    for name, a in run.trainer.parameters.items():
        assert np.array_equal(a, OTHER.get(name, begins.parameters[name])), name


def test_where_the_end_is_worse_the_best_probe_is_kept_whole():
    """Of weights that do not train, too: those that the probe saw."""
    graph = net()
    begins = ri.Trainer(ri.compile(graph, ri.Plan(1, step=ri.Backprop(ri.SGD(0.05))), 16), 3)
    before = begins.parameters["conv1.w"].copy()
    run = Rehearsed(begins, (X, Y), (X_VAL, Y_VAL), (ALL[0], (ALL[1] + 1) % 3), 20)
    run.instead = {"conv1.w": before + 1, "fc.w": OTHER["fc.w"].copy()}
    for event in run.run():
        if not event.part and event.look is None:
            assert np.array_equal(begins.parameters["conv1.w"], before + 1)
    assert not run.again.kept and np.array_equal(begins.parameters["conv1.w"], before)
    assert run.watched.look().loss == run.watched.course.won.loss


def test_a_rate_that_is_given_is_left_where_it_does_no_harm():
    run = Rehearsed(trainer(0.01), (X, Y), (X_VAL, Y_VAL), ALL, 20, SAFE)
    all_of(run)
    assert [factor for factor, _ in run.told()["tried"]] == [1] and run.watched.course.factor == 1
    run = Watched(trainer(0.01), X, Y, X_VAL, Y_VAL, 20, GIVEN)
    all_of(run)
    assert run.told()["tried"] == [] and run.course.made == 100 and run.most == 100


def test_what_is_of_another_run_is_refused():
    run = Watched(trainer(), X, Y, X_VAL, Y_VAL, 2)
    next(run.run())
    arrays, course = run.saved()
    with pytest.raises(ValueError, match="kept as best have no array conv1.w"):
        run.resume({k: v for k, v in arrays.items() if k != "best/conv1.w"}, course)
    with pytest.raises(ValueError, match="keeps other weights than none"):
        run.resume({}, course)
    with pytest.raises(ValueError, match="lacks or has too much"):
        run.resume(arrays, course | {"more": 1})
    assert course["ran"] == [[0, 1]] and run.course.made == 1
    for changed in ({"chosen": True}, {"probed": [[[2, 0.5, 0.5]], [[10, 0.4, 0.5]]]}):
        with pytest.raises(ValueError, match="no search for a learning rate stands so"):
            run.resume(arrays | {k.replace("best", "winner"): a for k, a in arrays.items()}
                       if "probed" in changed else arrays, course | changed)  # fmt: skip
    with pytest.raises(ValueError, match="no look 7"):
        run.resume(arrays, course | {"best": 7})
    with pytest.raises(ValueError, match="needs samples that it does not train on, got none"):
        Watched(trainer(), X, Y, X_VAL[:0], Y_VAL[:0], 2)
    for changed in ({"at_once": True}, {"direct": [[5, 0.5, 0.5]], "looks": []}, {"direct": [[5, 0.5, 0.5]]}):
        with pytest.raises(ValueError, match=r"no run was tried so|lacks the classifier that it began with"):
            run.resume(arrays, course | changed)
    with pytest.raises(ValueError, match="no array of the classifier"):
        run.resume(arrays | {"own/fc.w": np.zeros((2, 2), np.float32)}, course)
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


def test_the_classifier_trains_again_on_all_samples():
    fits = head.Head(*head.parts_of(net(), ri.Plan("all"), 16), seed=2)
    noisy = np.where(np.arange(len(Y)) % 5, Y, (Y + 1) % CLASSES)  # learnt by heart, they spoil what is known before
    events = list(fits.fit(X, noisy, X_VAL, Y_VAL, whole=True))
    found, per_pass = fits.fitted, 5
    assert 0 < found.again == 2 * found.after.step // per_pass < 60 and found.steps == 3 * 60 * per_pass
    assert len(events) == found.steps + 7 * found.again == events[-1].step == events[-1].steps
    maps, tail = fits.maps.predict(ALL[0]), ri.Trainer(fits.tail, 2)
    tail.factor = found.rate / head.RATES[0]
    tail.fit(maps, np.concatenate([noisy, Y_VAL]), found.again)
    for name, a in found.whole.items():
        assert np.array_equal(a, tail.parameters[name]) and not np.array_equal(a, found.weights[name])


def test_a_classifier_that_cannot_improve_stays():
    fits = head.Head(*head.parts_of(net(), ri.Plan("all"), 16))
    list(fits.fit(X, Y, X_VAL, (Y_VAL + 1) % 3, whole=True))
    found = fits.fitted
    assert (found.rate is None) == (found.again == 0) == (not found.whole)
    assert found.after.loss <= found.before.loss
    if found.rate is None:
        assert found.after == found.before
