"""Where calls run: threads, a BLAS of one thread, other Python threads, copies, forks."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading

import numba
import numpy as np
import pytest
from nets import NETS
from threadpoolctl import threadpool_info

import refimpl as ri
from refimpl.kernels import running
from refimpl.training.trainer import Runner, Trainer, initial, new_block

MOST = numba.config.NUMBA_NUM_THREADS
METHODS = {
    "plain": {},
    "hard-examples": {"instances": ri.HardExamples(0.5)},
    "sparse-update": {"rules": (ri.SparseUpdate(0.4, "gradient"),)},
    "gradient-filter": {"rules": (ri.GradientFilter(2),)},
}


def blas() -> set[int]:
    return {x["num_threads"] for x in threadpool_info() if x["user_api"] == "blas"}


def trainer(count=1, seed=1, **plan) -> Trainer:
    return Trainer(ri.compile(NETS["depthwise"](), ri.Plan(**plan), 5, threads=count), seed)


def samples(n=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 8, 7, 3)).astype(np.float32), rng.integers(0, 3, n)


def bits(t: Trainer) -> bytes:
    return b"".join(a.tobytes() for a in t.resume_arrays().values())


@pytest.fixture(params=[1, MOST])
def ambient(request):
    """What a process happens to have set, which no call may depend on or change."""
    before = numba.get_num_threads()
    numba.set_num_threads(request.param)
    yield request.param
    assert numba.get_num_threads() == request.param
    numba.set_num_threads(before)


def seen(monkeypatch) -> set:
    """Threads of Numba and of BLAS in every launch."""
    found = set()
    ready = Runner.ready

    def watching(runner, section, n):
        return [(lambda: found.add((numba.get_num_threads(), *blas())), ()), *ready(runner, section, n)]

    monkeypatch.setattr(Runner, "ready", watching)
    return found


CALLS = {
    "train_step": lambda t, x, y: t.train_step(x, y, 3),
    "fit": lambda t, x, y: t.fit(x, y, 2),
    "steps": lambda t, x, y: list(t.steps(x, y, 2)),
    "rehearse": lambda t, x, y: t.rehearse(x, y),
    "predict": lambda t, x, y: t.predict(x),
    "evaluate": lambda t, x, y: t.evaluate(x, y),
}


@pytest.mark.parametrize("count", [1, MOST])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("call", CALLS)
def test_every_call_sets_the_threads_of_the_program(call, method, count, ambient, monkeypatch):
    x, y = samples()
    t, found = trainer(count, **METHODS[method]), seen(monkeypatch)
    CALLS[call](t, x, y)
    assert found == {(count, 1)}


def test_a_runner_alone_sets_them_too(ambient, monkeypatch):
    p = ri.compile(NETS["depthwise"](), ri.Plan(), 5, threads=1)
    r = Runner(p, initial(p, 0), new_block(p.peak_bytes))
    r.host("labels", 5)[...] = 0
    outside, found = blas(), seen(monkeypatch)
    for section in p.sections:
        r.run(section, 5)
    assert found == {(1, 1)} and blas() == outside


def test_one_thread_compiled_two_in_the_process():
    """The segmentation fault of the watch net and MobileNetV2: scratch for one thread, two at work."""
    script = """
import numpy as np, refimpl as ri
for name, size in (("watch", (1, 44)), ("mobilenet_v2", (32, 32))):
    g = ri.models.build(name, classes=4, size=size)
    t = ri.Trainer(ri.compile(g, ri.Plan(), 8, threads=1))
    x = np.zeros((8, *t.program.size, g.channels), np.float32)
    for _ in range(4):
        t.train_step(x, np.zeros(8, int), 4)
print("done")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "done\n", (done.returncode, done.stderr[-2000:])


def test_steps_leave_the_user_code_between_them_its_own_threads(ambient):
    x, y = samples(20)
    other = trainer(1)
    for _ in trainer(MOST).steps(x, y, 1):
        assert numba.get_num_threads() == ambient
        other.train_step(x[:5], y[:5], 3)


def test_two_runs_of_steps_in_turn_leave_the_threads_as_they_were(ambient):
    x, y = samples(20)
    before = blas()
    for _ in zip(trainer(MOST).steps(x, y, 1), trainer(1).steps(x, y, 1), strict=True):
        pass
    assert blas() == before


def test_blas_is_limited_once_and_let_go_by_the_last():
    before = blas()
    with running.single_threaded_blas():
        controller = running._libraries
        with running.single_threaded_blas(), running.threads(1):
            assert blas() == {1}
        assert blas() == {1} and running._libraries is controller
    assert blas() == before


# ---- Python threads


def in_threads(*works) -> list:
    """Run each in a thread of its own, all at once; what each gave or raised."""
    gate, results = threading.Barrier(len(works)), [None] * len(works)

    def go(i, work):
        gate.wait()
        try:
            results[i] = work()
        except Exception as e:
            results[i] = e

    running = [threading.Thread(target=go, args=pair) for pair in enumerate(works)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return results


def test_a_trainer_refuses_a_second_thread():
    t, (x, y) = trainer(MOST), samples()
    inside, go_on = threading.Event(), threading.Event()
    fill = t.fill

    def waiting(*args):
        inside.set()
        go_on.wait(20)
        fill(*args)

    t.fill = waiting
    first = threading.Thread(target=lambda: t.train_step(x, y, 3))
    first.start()
    inside.wait(20)
    arrays = {name: a.copy() for name, a in t.resume_arrays().items()}
    calls = {
        **CALLS,
        "save": lambda t, x, y: t.save(os.devnull),
        "resume": lambda t, x, y: t.resume(arrays, 1, []),
    }
    try:
        for call in calls.values():
            with pytest.raises(RuntimeError, match="^this Trainer is at work in another call: use it from one thread"):
                call(t, x, y)
    finally:
        go_on.set()
        first.join()
    del t.fill
    assert t.step == 1
    t.train_step(x, y, 3)  # it goes on


def test_many_threads_at_one_trainer_give_sentences_or_the_bits_of_one():
    x, y = samples(40)
    t, plain = trainer(MOST), trainer(MOST)
    results = in_threads(*[lambda: t.fit(x, y, 3)] * 8)
    refused = [r for r in results if isinstance(r, RuntimeError)]
    assert all("this Trainer is at work" in str(r) for r in refused)
    assert len(refused) + sum(isinstance(r, list) for r in results) == 8
    for _ in range(8 - len(refused)):  # those that came after another one had ended
        plain.fit(x, y, 3)
    assert 0 < t.step == plain.step and bits(t) == bits(plain)


def test_no_other_call_begins_a_run_within_one():
    x, y = samples(40)
    t, plain = trainer(1), trainer(1)
    steps = t.steps

    def interrupted(*args):
        for progress in steps(*args):
            if progress.step == 1:
                with pytest.raises(RuntimeError, match="^this Trainer is at work in another call: use it from one"):
                    t.fit(x, y, 1)
            yield progress

    t.steps = interrupted
    t.fit(x, y, 2)
    plain.fit(x, y, 2)
    assert bits(t) == bits(plain)


def test_trainers_of_their_own_run_in_threads_of_their_own():
    x, y = samples(40)
    before = blas()
    plain = {count: trainer(count) for count in (1, MOST)}
    for t in plain.values():
        t.fit(x, y, 6)
    alone = [trainer(count) for count in (1, MOST, 1, MOST)]
    results = in_threads(*[lambda t=t: t.fit(x, y, 6) for t in alone])
    assert all(isinstance(r, list) for r in results), results
    assert {bits(t) for t in alone} == {bits(t) for t in plain.values()}
    assert blas() == before


WORKQUEUE = """
import threading, sys
sys.path.insert(0, "tests")
import test_running as tests
tests.test_trainers_of_their_own_run_in_threads_of_their_own()
tests.test_many_threads_at_one_trainer_give_sentences_or_the_bits_of_one()
import numba
print(numba.threading_layer())
"""


@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_the_same_on_each_threading_layer(layer):
    environment = os.environ | {"NUMBA_THREADING_LAYER": layer}
    done = subprocess.run([sys.executable, "-c", WORKQUEUE], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, f"{layer}\n"), done.stderr[-2000:]


# ---- copies and other processes


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"])
def test_no_copies(make):
    t = trainer()
    for thing, name in ((t, "Trainer"), (t.runner, "Runner")):
        with pytest.raises(TypeError, match=f"^a {name} works in memory of its own and can be neither copied nor pick"):
            make(thing)


def test_what_the_sentence_says_makes_a_copy():
    x, y = samples(20)
    t = trainer(instances=ri.RandomSkip(0.3))
    t.fit(x, y, 2)
    other = Trainer(t.program, t.seed)
    other.resume(t.resume_arrays(), t.step, t.losses)
    for one in (t, other):
        one.fit(x, y, 4)
    assert bits(t) == bits(other) and t.losses == other.losses


def test_a_copied_program_trains_to_the_same_bits():
    x, y = samples(20)
    p = trainer().program
    one, two = Trainer(p, 1), Trainer(copy.deepcopy(p), 1)
    for t in (one, two):
        t.fit(x, y, 2)
    assert bits(one) == bits(two)


FORK = """
import os, sys, warnings
import numpy as np, refimpl as ri
from refimpl.ops import relu
warnings.simplefilter("ignore")
g = ri.Graph("net", (4, 4), 3)
g.linear("fc", g.global_avg_pool("mean", g.conv2d("conv", "input", 4, 3)), 2)
t = ri.Trainer(ri.compile(g, ri.Plan(), 4))
x, y = np.ones((4, 4, 4, 3), np.float32), np.array([0, 1, 0, 1])
if sys.argv[1] == "after":
    t.train_step(x, y, 2)
child = os.fork()
if not child:
    run = t.runner.run
    step, fill = t.train_step, relu.forward
    for work in (lambda: step(x, y, 2), lambda: t.predict(x), lambda: fill(x), lambda: run("forward", 4)):
        try:
            work()
            print("ran", flush=True)
        except RuntimeError as e:
            print(e, flush=True)
    os._exit(0)
_, status = os.waitpid(child, 0)
t.train_step(x, y, 2)
print(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_fork_after_kernels_ran_gets_a_sentence(when):
    done = subprocess.run([sys.executable, "-c", FORK, when], capture_output=True, text=True,
                          env=os.environ | {"NUMBA_THREADING_LAYER": "omp"})  # fmt: skip
    *said, status = done.stdout.splitlines()
    assert (done.returncode, status, len(said)) == (0, "0", 4), done
    if when == "before":
        assert said == ["ran"] * 4
    else:
        assert all(
            s.startswith("this process was forked from one in which kernels had run, and GNU OpenMP") for s in said
        )


def _spawned(x, y):
    t = trainer()
    t.train_step(x, y, 2)
    return bits(t)


def test_a_spawned_worker_trains():
    x, y = samples()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(_spawned, (x, y))
    assert found == _spawned(x, y)


def test_threads_for_which_there_is_no_room_are_told_and_not_waited_for():
    code = """
import resource
import refimpl as ri
from refimpl.kernels import running
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**20,) * 2)
try:
    with running.threads(1):
        print("inside")
except MemoryError as e:
    print(e)
"""
    environment = os.environ | {"NUMBA_THREADING_LAYER": "workqueue", "NUMBA_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "no room for the stacks of 2 threads\n", done.stderr
