"""Resident memory of training processes: predicted within 2 % of measured, its terms, and what must not be held."""

import re
import subprocess
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from nets import MOMENTUM, NETS
from numba import prange

import refimpl as ri
from costmodel.device import process
from costmodel.device.process import Base
from refimpl.kernels import kernel, random
from refimpl.training.trainer import Trainer, initial
from validation.instruments import measured, resident
from validation.instruments.resident import Case, plan

# models, and so kernels, that the base is measured by, each with another term that is large
CASES = {
    "data, arena": Case("watch", 256, plan(), samples=3_000),
    "arena": Case("resnet20", 128, plan(), samples=128),
    "weights, pre-trained ones too": Case("mobilenet_v2", 2, plan(), {"size": (64, 64)}, pretrained=True),
}


@pytest.fixture(scope="module")
def base():
    return resident.measure_base()


@pytest.mark.parametrize("name", CASES)
def test_the_peak_is_predicted_within_2_percent(base, name):
    row = resident.compare(base, {name: CASES[name]})[0]
    assert abs(row["error"]) <= resident.GOAL, resident.line(row)


PLANS = {
    "momentum": ri.Plan(step=MOMENTUM),
    "classifier": ri.Plan(0, step=MOMENTUM),
    "sparse": ri.Plan(rules=(ri.SparseUpdate(0.5),), step=ri.Backprop(ri.SGD(lr=0.1))),
    "instances": ri.Plan(instances=ri.InstanceFilter()),
}


@pytest.mark.parametrize("name", PLANS)
def test_terms_are_what_a_trainer_holds_and_add_up(name):
    p = ri.compile(NETS["residual"](), PLANS[name], 3)
    for graph in p.graphs.values():  # of the filter net too
        graph.weights = {n: np.ones(p.shape) for n, p in list(graph.parameters.items())[:3]}
    t = Trainer(p)
    found = process.terms(p, Base(1000, 10), data_bytes=500, samples=7)
    assert process.peak_bytes(p, Base(1000, 10), 500, 7) == sum(found.values())

    def nbytes(arrays):
        return sum(a.nbytes for a in arrays)

    launches = sum(len(runner.program.order) for runner in (t.runner, t.evaluator.runner))
    assert found == {
        "runtime": 1000,
        "launches": 10 * launches,
        "arena": t.runner.block.nbytes,
        "weights": nbytes(t.parameters.values()),
        "optimizer": nbytes(t.runner.owned[b] for b in p.step.state.values()),
        "plan": nbytes(t.runner.owned[c.buffer] for c in p.step.constants.values()),
        "kept": nbytes(t.guard.good.values()),
        "pretrained": nbytes(a for g in p.graphs.values() for a in g.weights.values()),
        "data": 500,
        "batch": t.runner.host("input", 3).nbytes,
        "shuffle": 7 * process.SHUFFLED,
        "dense_step": 0,
    }


def test_the_order_of_a_sparse_update_adds_the_dense_step_that_tells_it():
    sparse = ri.Plan(rules=(ri.SparseUpdate(0.5, order="gradient"),), step=ri.Backprop(ri.SGD(lr=0.1)))
    graph = NETS["residual"]()
    p, dense = (ri.compile(graph, one, 3) for one in (sparse, replace(sparse, rules=())))
    found = process.terms(p, Base(0, 10), 0, 0)
    own = Trainer(dense)
    held = [own.runner.block, *own.parameters.values(), *own.guard.good.values()]
    wanted = sum(a.nbytes for a in held) + 10 * len(dense.order) - found["arena"]
    assert found["dense_step"] == wanted > 0


def test_stochastic_depth_is_refused():
    p = ri.compile(NETS["residual"](), ri.Plan(depth=ri.StochasticDepth(0.5)), 2)
    with pytest.raises(ValueError, match="^the resident memory of stochastic-depth is not predicted: what it compiles"):
        process.terms(p, Base(0, 0), 0, 0)


def peak_of(call) -> int:
    """The most bytes that were allocated at once during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def large():
    """A net whose one weight takes 4 MB, at 64 x 64."""
    graph = ri.Graph("large", (64, 64), 3)
    x = graph.conv2d("conv", "input", 16, 3, pad=1)
    graph.linear("fc", graph.flatten("flat", graph.max_pool("pool", x, 4)), 250)
    return graph


def test_weights_are_drawn_a_block_at_a_time_and_are_those_drawn_at_once():
    p = ri.compile(large(), None, 1)
    found = {}
    peak = peak_of(lambda: found.update(initial(p, 5)))
    w, place = found["fc.w"], list(found).index("fc.w")
    assert peak < w.nbytes * 2.5, "scratch memory for drawing weights grows with the weights"
    drawn = random.normal(5, random.WEIGHTS, place, w.size) * np.sqrt(2 / w.shape[0])
    assert np.array_equal(w, drawn.astype(np.float32).reshape(w.shape))


def test_data_are_checked_without_an_array_of_their_size():
    t = Trainer(ri.compile(large(), None, 1))
    x = np.zeros((400, 64, 64, 3), np.float32)
    assert peak_of(lambda: t.check(x)) < x.size / 8
    x[399, 0, 0, 0] = x[301, 63, 63, 2] = np.nan
    with pytest.raises(ValueError, match="x has a NaN or infinite value in sample 301; remove or repair it"):
        t.check(x)


def test_the_weights_to_go_back_to_are_held_once():
    t = Trainer(ri.compile(large(), ri.Plan(), 2))
    before = {name: id(a) for name, a in t.guard.good.items()}
    x, y = np.random.default_rng(0).random((4, 64, 64, 3), np.float32), np.arange(4)
    t.fit(x, y, 2)
    assert {name: id(a) for name, a in t.guard.good.items()} == before
    assert not np.array_equal(t.guard.good["fc.w"], t.parameters["fc.w"])
    t.parameters["fc.b"][0] = np.nan
    with pytest.raises(ri.NonFiniteError):
        t.train_step(x[:2], y[:2], 4)
    assert t.step == 2 and all(np.array_equal(a, t.parameters[name]) for name, a in t.guard.good.items())


def test_measuring_the_arena_in_a_trainers_memory_needs_no_second_one():
    p = ri.compile(large(), ri.Plan(), 32)
    t = Trainer(p)
    x, y = np.ones((32, 64, 64, 3), np.float32), np.arange(32)
    found = []
    peak = peak_of(lambda: found.append(measured.touched_bytes(p, x, y, t.parameters, t.runner.block)))
    assert found == [p.peak_bytes] and peak < 0.8 * p.peak_bytes


def double(x):
    for i in prange(x.size):
        x[i] *= 2


def test_a_kernel_from_the_disk_cache_forgets_its_llvm_code():
    if kernel.CACHE_DIR is None:
        pytest.skip("no kernel cache folder can be written here")
    for _ in range(2):  # the second one comes from the disk, whoever compiled it
        found = kernel.fast(double)
        kernel.KERNELS.remove(found)
        x = np.ones(3, np.float32)
        found(x)
    assert x.tolist() == [2, 2, 2] and not found.stats.cache_misses
    (loaded,) = found.overloads.values()
    assert loaded.library._shared_module is None


def test_a_system_without_proc_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setattr(resident, "STATUS", tmp_path / "status")
    message = f"resident memory is read from {tmp_path / 'status'}, which this system does not have: use Linux"
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        resident.measured(CASES["arena"])


def test_a_run_that_fails_says_why():
    with pytest.raises(RuntimeError, match="failed: .*there is no model 'nothing'"):
        resident.measured(Case("nothing", 1, plan()))


def test_a_cache_that_keeps_nothing_is_refused(monkeypatch):
    cold = SimpleNamespace(returncode=0, stdout='{"peak_bytes": 1, "compiled": 3}')
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: cold)
    with pytest.raises(RuntimeError, match="does not keep kernels: each process compiles them anew"):
        resident.measured(CASES["arena"])
