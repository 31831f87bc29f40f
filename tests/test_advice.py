"""Advice: the front against brute force, the limit that binds, and the screening against compiled programs."""

from dataclasses import replace

import numpy as np
import pytest

import refimpl as ri
from costmodel import predict
from costmodel.advice import advice, budget
from costmodel.advice.advice import BATCHES, Candidate, Limits, Search, front, searched
from costmodel.advice.expected_error import ErrorTable
from costmodel.advice.screening import Screen
from costmodel.device import process
from costmodel.device.device import find
from refimpl import models

SAMPLES = 100


def table(convolutions: int) -> ErrorTable:
    """Measured shares that were not measured: every layer alike, larger settings better or worse as they are."""
    exact = [0.9 / convolutions] * convolutions

    def points(name, shares):
        return [{name: s, "dot": [q * e for e in exact], "square": [q * e for e in exact]} for s, q in shares.items()]

    methods = {
        "gradient-filter": points("patch", {2: 0.9, 4: 0.8, 7: 0.6}),
        "error-map-pruning": points("keep", {0.1: 0.2, 0.5: 0.7, 0.75: 0.9}),
        "sparse-update": points("ratio", {0.02: 0.02, 0.5: 0.5}),
    }
    return ErrorTable({"measured": {"classifier": 0.1, "exact": exact, "methods": methods}})


def search(model="lenet5", **options) -> Search:
    graph = models.build(model, **({"size": (16, 16)} if model == "resnet8" else {}))
    convolutions = sum(n.op == "conv2d" for n in graph.nodes)
    few = {"methods": searched(), "batches": (1, 16), "table": table(convolutions)} | options
    return Search(graph, find("raspberry-pi-4"), SAMPLES, threads=2, **few)


@pytest.fixture(scope="module")
def everything() -> Search:
    """LeNet-5 with every candidate compiled."""
    s = search()
    for i in range(len(s.candidates)):
        s.price(i)
    return s


def dominates(a, b) -> bool:
    """Is plan a no worse than b in memory, seconds and error, and better in one of them?"""
    return all(x <= y for x, y in zip(a[:3], b[:3], strict=True)) and tuple(a[:3]) != tuple(b[:3])


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_what_comparing_all_pairs_leaves(seed):
    rng = np.random.default_rng(seed)
    figures = rng.integers(0, 6, (40, 3)).astype(float)  # with ties and equal rows
    found = front(figures)
    wanted = {tuple(a) for a in figures if not any(dominates(b, a) for b in figures)}
    assert sorted(map(tuple, figures[found])) == sorted(wanted)
    assert list(figures[found, 2]) == sorted(figures[found, 2])
    assert front(np.empty((0, 3))) == []


def test_a_front_within_limits_agrees_with_brute_force(everything):
    every = list(everything.compiled.values())
    assert len(every) == len(everything.candidates) == 2 * (3 + 2 * 15)
    middle = np.median([p.figures for p in every], axis=0)
    for limits in (Limits(), Limits(middle[0], middle[1]), Limits(memory=middle[0]), Limits(seconds=middle[1])):
        fitting = [p.figures for p in every if p.memory_bytes <= limits.memory and p.seconds["mid"] <= limits.seconds]
        wanted = sorted({f for f in fitting if not any(dominates(g, f) for g in fitting)})
        found = everything.advise(limits)
        assert sorted(p.figures for p in found.front) == wanted and found.complete and found.binding is None
        assert {id(p) for p in (*found.front, *found.others)} == {id(p) for p in every}


@pytest.mark.parametrize("most", [30, None])
def test_a_short_search_finds_the_ends_of_the_front_and_nothing_far_from_it(everything, most):
    every = np.array([p.figures for p in everything.compiled.values()])
    middle = np.median(every, axis=0)
    for limits in (Limits(), Limits(middle[0], middle[1])):
        found = search().advise(limits, most=most)
        fitting = every[limits.hold(every)]
        figures = np.array([p.figures for p in found.front])
        assert most is None or len(found.front) + len(found.others) <= most
        assert figures[0, 2] == fitting[:, 2].min()
        assert figures[:, 0].min() <= 1.02 * fitting[:, 0].min() and figures[:, 1].min() <= 1.02 * fitting[:, 1].min()
        for f in figures:
            assert not any((1.1 * g <= f)[:3].all() for g in fitting)


def test_what_is_returned_was_compiled(everything):
    for p in list(everything.compiled.values())[::17]:
        c = p.candidate
        program = ri.compile(everything.graph, c.plan, c.batch, backend="fast", threads=2)
        assert p.memory_bytes == program.state_bytes + program.peak_bytes
        assert p.constant_bytes == program.constant_bytes
        step, rest = predict.estimate(program, device=everything.device), SAMPLES % c.batch
        last = predict.estimate(program, rest, everything.device).seconds if rest else dict.fromkeys(step.seconds, 0)
        for key, value in p.seconds.items():
            assert value == pytest.approx(SAMPLES // c.batch * step.seconds[key] + last[key], rel=1e-12)
        assert p.steps == -(-SAMPLES // c.batch)
        resident = process.with_a_batch(program, everything.device.base)
        assert p.fits == budget.fits(program, everything.device, sum(resident.values()))
        assert p.share == p.fits["needs"]["ram"] / everything.device.ram_bytes


def limits_of(everything, kind: str) -> Limits:
    figures = np.array([p.figures for p in everything.compiled.values()])
    memory, seconds = figures[:, 0].min(), figures[:, 1].min()
    if kind == "together":  # each is kept by some, both by none
        least = figures[figures[:, 0] == memory]
        return Limits(memory, 0.99 * least[:, 1].min())
    return Limits(memory - 1 if kind != "time" else np.inf, seconds * 0.99 if kind != "memory" else np.inf)


@pytest.mark.parametrize("kind", ["memory", "time", "memory and time", "together"])
@pytest.mark.parametrize("most", [8, None])
def test_the_limit_that_binds_is_named_with_what_would_do(everything, kind, most):
    limits = limits_of(everything, kind)
    s = search()
    found = s.advise(limits, most)
    b, figures = found.binding, np.array([p.figures for p in everything.compiled.values()])
    assert not found.front and found.searched == len(everything.candidates)
    assert b.together == (kind == "together")
    assert set(b.constraints) == ({"memory", "time"} if kind == "together" else set(kind.split(" and ")))
    assert b.least_memory.memory_bytes == figures[:, 0].min()
    assert b.least_seconds.seconds["mid"] == pytest.approx(figures[:, 1].min(), rel=1e-12)
    for column, other, priced, limit in (
        (0, 1, b.memory_within, limits.seconds),
        (1, 0, b.seconds_within, limits.memory),
    ):
        within = figures[figures[:, other] <= limit][:, column]
        assert (priced is None) == (not len(within))
        if priced:
            assert priced.figures[column] == pytest.approx(within.min(), rel=1e-12)
    if b.memory_within:  # that limit works, and one byte less does not
        enough = replace(limits, memory=b.memory_within.memory_bytes)
        assert s.advise(enough, most).front
        assert not s.advise(replace(enough, memory=enough.memory - 1), most).front


@pytest.mark.parametrize("method", searched(), ids=lambda m: m.name)
@pytest.mark.parametrize("model", ["lenet5", "resnet8"])
def test_screened_memory_is_near_that_of_programs(model, method):
    """Of the reference backend, whose calls are those of the closed form; what is left are gaps of the placement."""
    graph = models.build(model, **({"size": (16, 16)} if model == "resnet8" else {}))
    value = method.values[-1]
    plan = replace(Candidate(method, value, 0, 1, "float32").plan, train_last="all")
    screen = Screen(graph, plan, method.setting)
    points = [(batch, v) for batch in (1, 4) for v in method.values[:2]]
    memory, _ = screen.at(points, find("reference"), 1)
    for k in range(screen.convolutions + 1):
        for j, (batch, v) in enumerate(points):
            p = ri.compile(graph, Candidate(method, v, k, batch, "float32").plan, batch, backend="reference", threads=1)
            assert memory[k, j] == pytest.approx(p.state_bytes + p.lower_bound.nbytes, rel=0.02), (k, batch, v)


def test_samples_must_be_there():
    with pytest.raises(ValueError, match="an epoch must have at least 1 sample, got 0"):
        Search(models.build("lenet5"), find("raspberry-pi-4"), 0, table=table(2))
    assert {c.batch for c in search(batches=BATCHES).candidates} == {b for b in BATCHES if b <= SAMPLES}


def test_precisions_are_those_that_compile():
    for precision in advice.PRECISIONS:
        ri.compile(models.build("lenet5"), ri.Plan(), 1, backend="fast", dtype=np.dtype(precision))
