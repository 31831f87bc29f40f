"""Launches too small for a second thread run on one, with the same bits."""

import numba
import numpy as np
import pytest

import refimpl as ri
from refimpl.backends import small
from refimpl.compiler.ir import Buffer, Launch
from refimpl.kernels.running import threads

TWO = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")


def launch(name, *elements):
    made = [Buffer(f"{name}{i}", (n,), np.dtype(np.float32), "arena") for i, n in enumerate(elements)]
    return Launch(name, None, (), tuple(made[:1]), tuple(made[1:]), ())


def test_what_a_launch_reads_and_writes_decides():
    edge = small.SMALL // 4
    assert small.alone(launch("less", edge - 2, 1)) and not small.alone(launch("enough", edge - 1, 1))
    one = Buffer("x", (edge - 1,), np.dtype(np.float32), "arena")
    assert small.alone(Launch("in place", None, (), (one,), (one,), ()))  # an array counts once


@TWO
def test_threads_change_only_between_large_and_small():
    large, little = launch("large", small.SMALL), launch("little", 1)
    seen = []

    def tell(name):
        seen.append((name, numba.get_num_threads()))

    given = [large, little, little, large, little]
    with threads(2):
        for function, args in small.in_turns(given, [(tell, [one.name]) for one in given], 2):
            function(*args)
        assert numba.get_num_threads() == 2
    assert seen == [("large", 2), ("little", 1), ("little", 1), ("large", 2), ("little", 1)]
    assert len(small.in_turns(given, [(tell, [one.name]) for one in given], 2)) == 5 + 4
    assert len(small.in_turns(given, [(tell, [one.name]) for one in given], 1)) == 5


def trained(count, limit, monkeypatch):
    monkeypatch.setattr(small, "SMALL", limit)
    g = ri.Graph("net", (8, 8), 3)
    x = g.relu("relu", g.batch_norm("bn", g.conv2d("conv", "input", 8, 3, pad=1)))
    g.linear("fc", g.global_avg_pool("mean", g.conv2d("depth", x, 8, 3, pad=1, groups=8)), 4)
    plan = ri.Plan("all", batch_norm="train", train_bias=True, step=ri.Backprop(ri.SGD(lr=0.1, momentum=0.9)))
    trainer = ri.Trainer(ri.compile(g, plan, 16, threads=count))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 8, 8, 3), dtype=np.float32), rng.integers(0, 4, 40)
    return trainer.fit(x, y, 2), trainer.predict(x), trainer


@TWO
def test_the_bits_do_not_depend_on_what_is_small(monkeypatch):
    one, predicted, _ = trained(1, small.SMALL, monkeypatch)
    for limit in (0, small.SMALL, 1 << 60):
        losses, outputs, trainer = trained(2, limit, monkeypatch)
        assert losses == one and np.array_equal(outputs, predicted)
        switches = len(trainer.runner.ready("forward", 16)) - len(trainer.program.launches["forward"])
        assert (switches > 0) == (limit > 0)
