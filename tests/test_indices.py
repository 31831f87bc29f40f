"""No kernel is launched on an index that lies outside its array: what is declared, what is checked, and where."""

import contextlib
import inspect

import numpy as np
import pytest
from nets import NETS

import refimpl as ri
from refimpl import methods, ops
from refimpl.kernels.passes import Pass, dtype_of
from refimpl.kernels.running import threads
from refimpl.training.trainer import Runner, Trainer, initial, new_block

# What no body indexes with: arithmetic, comparisons and bits only.
NO_INDEX = {"argmax", "mask", "step", "seed", "block", "draws", "x_q", "w_q", "dy_q", "x_sum_q", "w_sum_q", "dy_mean_q",
            "low", "high"}  # fmt: skip
# Operators on whole numbers, whose arrays are all operands.
WHOLE = ("quantized_", "dequantize", "niti_", "shared_exponent", "sparse_update_whole")
# Bodies that read these only to compare them, or to hand on what others index with.
COMPARED = {("error_map_pruning", "keep", "rank"), ("error_map_pruning", "grad_w", "rank"),
            ("error_map_pruning", "grad_w", "kept"), ("sparse_update", "choose", "order"),
            ("sparse_update", "grad_w", "order"), ("max_over", "grad_x", "place"),
            ("max_over", "tangent", "place"), ("top_values", "forward", "rank"), ("top_values", "grad_x", "rank"),
            ("top_values", "tangent", "rank")}  # fmt: skip


def passes() -> list[Pass]:
    import importlib
    import pkgutil

    modules = [
        importlib.import_module(f"{room.__name__}.{m.name}")
        for room in (ops, methods)
        for m in pkgutil.iter_modules(room.__path__)
    ]
    return sorted({p for m in modules for _, p in inspect.getmembers(m, lambda o: isinstance(o, Pass))}, key=str)


def test_every_array_of_integers_is_an_index_below_a_letter_or_none():
    seen = set()
    for p in passes():
        for a in p.reads:
            if dtype_of(p.shapes[a], np.float32).kind not in "iu":
                continue
            if a in p.indices:
                assert p.indices[a] in p.letters(), (p, a)
                seen.add(str(p))
            else:
                whole = p.operator.startswith(WHOLE)
                assert whole or a in NO_INDEX or (p.operator, p.name, a) in COMPARED, (p, a)
        assert set(p.indices) <= set(p.reads)
    assert len(seen) == 19


SIZES = dict.fromkeys("NBHWCPQKEMLDJAUV", 3) | dict.fromkeys("RSG", 1)


@pytest.mark.parametrize("p", [p for p in passes() if any(dtype_of(s, float).kind in "iu" for s in p.shapes.values())],
                         ids=str)  # fmt: skip
def test_what_is_no_index_may_hold_anything(p):
    """The body, in plain Python where an index out of range is an error, on every extreme of its integers."""
    sizes = SIZES | {"relu": {"B": 1}, "relu6": {"B": 1}, "block_prune": {"B": 4}}.get(
        p.operator, {}
    )  # bytes of a mask
    if p.operator.startswith(WHOLE) and "B" in p.letters() and p.derive:
        given = {letter: n for letter, n in sizes.items() if letter not in "HW"}
        sizes["B"] = p.derive(given, p.attrs({})).get("B", sizes["B"])
    for value in (-(2**31), -1, 2**31 - 1, None):
        arrays = []
        for a in p.arrays:
            shape, kind = p.shape(a, sizes), dtype_of(p.shapes[a], np.float64)
            arrays.append(np.ones(shape, kind))
            if kind.kind in "iu":
                wild = np.iinfo(kind).max if value is None else value
                arrays[-1][...] = 1 if a in p.indices else np.clip(wild, np.iinfo(kind).min, np.iinfo(kind).max)
        attrs = p.attrs({"rate": 0.5, "block": 1})
        guarded = [a.view(Guarded) for a in arrays]
        for t in range(p.count_items(sizes)):
            with np.errstate(all="ignore"), contextlib.suppress(OverflowError, ValueError):  # of math
                p.body(t, *guarded, *attrs.values())


class Guarded(np.ndarray):
    """An array that takes no negative index either."""

    def __getitem__(self, index):
        self._check(index)
        return super().__getitem__(index)

    def __setitem__(self, index, value):
        self._check(index)
        super().__setitem__(index, value)

    def _check(self, index):
        for i, n in zip(index if isinstance(index, tuple) else (index,), self.shape, strict=True):
            assert 0 <= i < n, f"{index} is outside {self.shape}"


@pytest.mark.parametrize("bad", [-1, 3, 2**31 - 1])
@pytest.mark.parametrize("p, a", [(p, a) for p in passes() for a in p.indices], ids=str)
def test_an_eager_call_refuses_an_index_outside(p, a, bad):
    if p.name == "mean_loss":  # its labels index class weights only
        given = {"class_weights": np.ones(3)}
    else:
        given = {}
    arrays = {name: np.ones(p.shape(name, SIZES), dtype_of(p.shapes[name], np.float64))
              for name in p.reads if name not in p.optional} | given  # fmt: skip
    arrays[a][-1] = bad
    letters = {letter: SIZES[letter] for letter in p.letters()}
    with pytest.raises(ValueError, match=f"^{a} must hold indices from 0 to 2, but it holds {min(bad, 1)} to "):
        p(**arrays, **letters)


def runner(backend="fast", instances=None, rules=()) -> Runner:
    p = ri.compile(NETS["residual"](), ri.Plan(instances=instances, rules=rules), 4, backend=backend)
    r = Runner(p, initial(p, 0), new_block(p.peak_bytes))
    rng = np.random.default_rng(0)
    r.host("input", 4)[...] = rng.normal(size=(4, *p.size, 3))
    r.host("labels", 4)[...] = rng.integers(0, 3, 4)
    for name, scalar in p.step.scalars.items():
        r.host(name, 4)[0] = scalar(0, 1, 0)
    return r


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_section_is_not_run_on_what_the_arena_happens_to_hold(backend):
    r = runner(backend, ri.HardExamples(0.5))
    r.host("chosen", 4)[...] = [0, 3, -4194304, 2]
    with pytest.raises(ValueError, match="^chosen must hold indices from 0 to 3, but it holds -4194304 to 3$"):
        r.run("forward", 4)
    r.host("chosen", 4)[...] = [0, 3, 1, 2]
    r.host("labels", 4)[2] = 3
    with pytest.raises(ValueError, match="^labels must hold indices from 0 to 2, but it holds . to 3$"):
        r.run("forward", 4)
    with pytest.raises(ValueError, match="^the program is compiled for batches of 1 to 4 samples, not 5$"):
        r.run("forward", 5)


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_sections_follow_each_other(backend):
    r = runner(backend, rules=(ri.SparseUpdate(0.4), ri.ErrorMapPruning(0.5)))
    said = "needs what {} leaves: run that on them just before it$"
    with pytest.raises(RuntimeError, match="^backward on 4 samples " + said.format("forward")):
        r.run("backward", 4)
    r.run("forward", 4)
    with pytest.raises(RuntimeError, match="^update on 4 samples " + said.format("backward")):
        r.run("update", 4)
    with pytest.raises(RuntimeError, match="^backward on 3 samples " + said.format("forward")):
        r.run("backward", 3)
    r.run("backward", 4)
    r.run("update", 4)
    with pytest.raises(RuntimeError, match="^backward on 4 samples " + said.format("forward")):
        r.run("backward", 4)


def test_sections_of_other_runners_in_the_same_memory_come_between():
    t = Trainer(ri.compile(NETS["residual"](), ri.Plan(depth=ri.StochasticDepth()), 4))
    x = np.zeros((4, *t.program.size, 3), np.float32)
    whole, without = frozenset(), frozenset({"sum"})
    for between in (
        lambda: t.predict(x),
        lambda: t.runner.leave_out(without),
        lambda: (t.runner.leave_out(without), t.runner.run("forward", 4), t.runner.leave_out(whole)),
    ):
        t.runner.leave_out(whole)
        t.fill(t.runner, x)
        t.put(np.zeros(4, int))
        t.runner.run("forward", 4)
        between()
        with pytest.raises(RuntimeError, match="^backward on 4 samples needs what forward leaves"):
            t.runner.run("backward", 4)


def test_a_resumed_order_of_channels_has_each_once():
    program = ri.compile(NETS["residual"](), ri.Plan(rules=(ri.SparseUpdate(0.4, "gradient"),)), 4)
    saved = {name: a.copy() for name, a in Trainer(program).resume_arrays().items()}
    for wrong in (10**6, -1, saved["order/conv1"][1]):
        arrays = saved | {"order/conv1": saved["order/conv1"].copy()}
        arrays["order/conv1"][0] = wrong
        with pytest.raises(ValueError, match="^the saved run's order/conv1 is no order of 4 channels$"):
            Trainer(program).resume(arrays, 3, [])


def test_a_kernel_gets_the_ranks_of_scores_that_are_not_numbers():
    from refimpl.backends.cpu import channels
    from refimpl.methods import error_map_pruning as emp

    for scores in (np.full(5, np.nan), np.array([1, np.nan, np.inf, -np.inf, np.nan])):
        rank = emp.rank(scores)
        assert rank.min() >= 0 and rank.max() < 5
        kept = emp.keep(rank, L=3)
        assert kept.min() >= 0 and kept.max() < 5
        out, spread = np.empty((2, 1, 1, 5)), np.empty(3, np.int32)
        with threads(1):
            channels.spread(out, spread, np.ones((2, 1, 1, 3)), rank)
        assert spread.min() >= 0 and spread.max() < 5
