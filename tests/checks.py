"""The checks that every operator goes through. A test file states its subject and takes the tests:

    subject = Subject("relu", case, oracle=oracles.relu, torch=lambda F, t, a: F.relu(t["x"]))
    test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()

`case(pick)` builds one call from `pick(low, high)`, which chooses an integer: hypothesis draws it in the tests, a plain
generator elsewhere. Arrays are float64 and integers; maps are NHWC. Gradients are checked for a random dy.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from unittest import mock

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costmodel.formulas import cost
from refimpl.kernels import passes
from refimpl.kernels.passes import read_sizes
from refimpl.ops import operator
from validation.instruments import counting


@dataclass
class Case:
    """One call: the arrays that an operator is given, its attributes, and letters that no array tells."""

    arrays: dict[str, np.ndarray]
    attrs: dict = field(default_factory=dict)
    letters: dict[str, int] = field(default_factory=dict)

    def cast(self, dtype) -> "Case":
        """The same case with its float arrays in `dtype`."""
        arrays = {a: v.astype(dtype) if v.dtype.kind == "f" else v for a, v in self.arrays.items()}
        return Case(arrays, self.attrs, self.letters)


def rng_of(pick) -> np.random.Generator:
    """A generator of numbers for the arrays of a case."""
    return np.random.default_rng(pick(0, 10_000))


def apart(rng, shape, span=3.0) -> np.ndarray:
    """Random numbers in ±span, all different and none near zero: kinks and ties are further away than a small step."""
    n = int(np.prod(shape))
    return ((rng.permutation(n) - n // 2 + 0.5) * (2 * span / max(n, 1))).reshape(shape)


class Run:
    """Evaluates an operator: `run["dx"]` runs the passes that dx needs, each once, on poisoned output arrays."""

    def __init__(self, name: str, case: Case):
        self.operator = operator(name)
        self.values = dict(case.arrays)
        self.attrs, self.letters = case.attrs, case.letters
        self.calls: list = []  # (pass, arrays it read, attributes, letters) of every pass that ran

    def __getitem__(self, array: str):
        if array not in self.values:
            if writer := self.operator.writer(array):
                self.run(writer)
            else:  # a tangent, that of any direction
                of = self[array.removeprefix("t")]
                self.values[array] = np.random.default_rng(of.size).normal(size=of.shape).astype(of.dtype)
        return self.values[array]

    def run(self, passed: passes.Pass) -> dict:
        """Run one pass; its results by name."""
        arrays = {a: self[a] for a in passed.reads if a in self.values or a not in passed.optional}
        attrs = {a: v for a, v in self.attrs.items() if a in passed.attributes}
        known = {a: v for a, v in self.values.items() if a in self.operator.shapes}
        sizes = read_sizes(self.operator.shapes, known, self.letters)
        letters = {d: n for d, n in sizes.items() if d in passed.letters()}
        self.calls.append((passed, arrays, attrs, letters))
        written = call(passed, arrays, attrs, letters)
        self.values |= written
        return written


def poisoned(shape, dtype, like=None):
    """An array that shows every element that a pass forgets to write."""
    empty = np.empty(shape, dtype)
    empty.fill(np.nan if empty.dtype.kind == "f" else 85)
    if like is None or isinstance(like, np.ndarray):
        return empty
    from refimpl.kernels import cuda

    return cuda.to_device(empty)


def call(passed: passes.Pass, arrays: Mapping, attrs: Mapping, letters: Mapping) -> dict:
    """Run a pass on poisoned output arrays; its results by name."""
    with mock.patch.object(passes, "empty", poisoned):
        found = passed(**arrays, **attrs, **letters)
    return dict(zip(passed.writes, found if len(passed.writes) > 1 else (found,), strict=True))


def distance(ours, theirs, scale=0.0) -> float:
    """‖ours − theirs‖ / max(‖theirs‖, scale), with scale a number or an array to take the norm of."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, f"shapes differ: {ours.shape} and {theirs.shape}"
    assert np.isfinite(ours).all(), "not finite"
    size = max(np.linalg.norm(theirs), np.linalg.norm(scale), np.finfo(float).tiny)
    return float(np.linalg.norm(ours - theirs) / size)


def check_close(ours: Mapping, theirs: Mapping, bound: float, scales: Mapping | None = None) -> None:
    """Every array of `theirs` within `bound` of ours."""
    for name in theirs:
        error = distance(ours[name], theirs[name], (scales or {}).get(name, 0.0))
        assert error <= bound, f"{name} is off by {error:.2e}"


def check_counts(passed: passes.Pass, arrays: Mapping, attrs: Mapping, letters: Mapping) -> None:
    """The body's own count by classes, its count of every item and the cost formula are one."""
    attrs = passed.attrs(attrs)
    sizes = passed.sizes(arrays, attrs, letters)
    present = [a for a in passed.optional if arrays.get(a) is not None]
    counted = counting.count(passed, sizes, attrs, present)
    assert counted == counting.count(passed, sizes, attrs, present, every_item=True), f"classes of {passed}"
    assert counted == cost.counts(passed.operator, passed.name, sizes, attrs, present), f"cost of {passed}"


def check_threads(passed: passes.Pass, arrays: Mapping, attrs: Mapping, letters: Mapping) -> None:
    """The same bits with one thread and with two."""
    found = []
    for threads in (1, 2):
        numba.set_num_threads(threads)
        found.append(call(passed, arrays, attrs, letters))
    for name in found[0]:
        assert found[0][name].tobytes() == found[1][name].tobytes(), f"{passed}: {name} depends on the thread count"


@dataclass
class Subject:
    """An operator under test.

    oracle: `oracle(arrays, attrs) -> {name: array}` in float64 NumPy, gradients for arrays["dy"] included.
    torch: `torch(F, tensors, attrs) -> y`, in our layout; its gradients are taken by autograd.
    scale: `scale(arrays, attrs) -> {name: array}`, the same formulas with absolute values of their terms.
    output: what the gradients are of. step: step of the central difference.
    """

    name: str
    case: Callable
    oracle: Callable
    torch: Callable | None = None
    scale: Callable = lambda arrays, attrs: {}
    output: str = "y"
    step: float = 1e-5

    def complete(self, case: Case) -> Case:
        """The case with a random dy of the shape of y; a loss needs none."""
        if self.output != "y":
            return case
        y = Run(self.name, case)["y"]
        dy = np.random.default_rng(y.size).normal(size=y.shape)
        return Case(case.arrays | {"dy": dy}, case.attrs, case.letters)

    def leaves(self, case: Case) -> list[str]:
        """The given arrays that a pass computes a gradient for."""
        op = operator(self.name)
        return [a for a in case.arrays if "d" + a in op.shapes and op.writer("d" + a)]

    def names(self, case: Case) -> list[str]:
        """What is compared: the output and every gradient."""
        return [self.output, *("d" + a for a in self.leaves(case))]

    def check_oracle(self, case: Case) -> None:
        case = self.complete(case)
        theirs = self.oracle(case.arrays, case.attrs)
        run = Run(self.name, case)
        assert set(self.names(case)) <= set(theirs), "the oracle leaves something out"
        check_close({a: run[a] for a in theirs}, theirs, 1e-12, self.scale(case.arrays, case.attrs))

    def check_slope(self, case: Case) -> None:
        case = self.complete(case)
        run = Run(self.name, case)
        rng = np.random.default_rng(1)
        for leaf in self.leaves(case):
            direction = rng.choice([-1.0, 1.0], size=case.arrays[leaf].shape)
            ends = []
            for h in (self.step, -self.step):
                moved = {a: v for a, v in case.arrays.items() if a != "dy"} | {leaf: case.arrays[leaf] + h * direction}
                y = Run(self.name, Case(moved, case.attrs, case.letters))[self.output]
                ends.append(np.sum(y * case.arrays.get("dy", 1.0)))
            slope = (ends[0] - ends[1]) / (2 * self.step)
            terms = run["d" + leaf] * direction
            bound = 1e-6 * (np.abs(terms).sum() + np.abs(ends[0]) + 1e-3)
            assert abs(slope - terms.sum()) <= bound, f"d{leaf}: slope {slope}, gradient {terms.sum()}"

    def check_torch(self, case: Case) -> None:
        torch = pytest.importorskip("torch")
        for dtype, bound in ((np.float64, 1e-12), (np.float32, 1e-5)):
            given_arrays = self.complete(case).cast(dtype)
            tensors = {a: torch.tensor(v) for a, v in given_arrays.arrays.items() if a != "dy"}
            leaves = self.leaves(given_arrays)
            for leaf in leaves:
                tensors[leaf].requires_grad_()
            y = self.torch(torch.nn.functional, tensors, given_arrays.attrs)
            dy = torch.tensor(given_arrays.arrays["dy"]) if "dy" in given_arrays.arrays else torch.ones_like(y)
            gradients = torch.autograd.grad(y, [tensors[leaf] for leaf in leaves], dy) if leaves else ()
            theirs = {self.output: y.detach().numpy()}
            theirs |= {"d" + leaf: g.numpy() for leaf, g in zip(leaves, gradients, strict=True)}
            run = Run(self.name, given_arrays)
            for name in theirs:
                assert run[name].dtype == dtype, f"{name} is {run[name].dtype} for {np.dtype(dtype)} input"
            scales = self.scale(given_arrays.cast(np.float64).arrays, given_arrays.attrs)
            check_close(run, theirs, bound, scales)

    def calls(self, case: Case) -> list:
        """The calls of every pass that does not update in place; of tangents those that the case's arrays have."""
        case = self.complete(case)
        run = Run(self.name, case)
        absent = {f"t{a}" for a in run.operator.params if a not in case.arrays}
        for passed in run.operator.passes.values():
            if not passed.inplace and not absent.intersection(set(passed.reads) - passed.optional):
                run.run(passed)
        return run.calls

    def check_counts(self, case: Case) -> None:
        for made in self.calls(case):
            check_counts(*made)

    def check_threads(self, case: Case) -> None:
        for made in self.calls(case):
            check_threads(*made)

    def tests(self) -> tuple:
        """Five tests over drawn cases: oracle, slope, torch, counts, threads."""
        SUBJECTS[self.name] = self
        strategy = st.composite(lambda draw: self.case(lambda low, high: draw(st.integers(low, high))))()

        def over_cases(check):
            def test(case):
                check(case)

            return given(case=strategy)(test)

        checks = (self.check_oracle, self.check_slope, self.check_torch, self.check_counts, self.check_threads)
        return tuple(over_cases(check) for check in checks)

    def sample(self, seed: int) -> Case:
        """A case without hypothesis."""
        rng = np.random.default_rng(seed)
        return self.complete(self.case(lambda low, high: int(rng.integers(low, high + 1))))


SUBJECTS: dict[str, Subject] = {}


def torch_or_none():
    """PyTorch where it is installed: a test that has other checks too leaves PyTorch's out without it."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def nchw(tensor):
    """Torch's layout of an NHWC tensor, copied: PyTorch 2.13 on a CPU computes some float32 convolutions of one channel
    wrongly (one output column, stride 2) when the strides of the permuted view fit both of its layouts.
    """
    return tensor.permute(0, 3, 1, 2).clone(memory_format=torch_or_none().contiguous_format)


def nhwc(tensor):
    """Our layout of an NCHW tensor."""
    return tensor.permute(0, 2, 3, 1)


def padding(pad) -> tuple[int, int, int, int]:
    """((top, bottom), (left, right)) as torch.nn.functional.pad takes it."""
    return (*pad[1], *pad[0])


def map_shape(pick) -> tuple[int, int, int, int]:
    """A small (N, H, W, C), single values along any axis included."""
    return pick(1, 3), pick(1, 6), pick(1, 6), pick(1, 5)


def window_attrs(pick, dilation=True, most=2) -> SimpleNamespace:
    """Kernel or window, stride (up to beyond the window), dilation, padding on four sides, and a map it fits into."""
    window = pick(1, 3), pick(1, 3)
    stride = pick(1, 4), pick(1, 4)
    step = (pick(1, 2), pick(1, 2)) if dilation else (1, 1)
    pad = tuple(tuple(pick(0, min(most, w if dilation else w - 1)) for _ in range(2)) for w in window)
    least = [max(1, step[i] * (window[i] - 1) + 1 - sum(pad[i])) for i in range(2)]
    size = tuple(n + pick(0, 4) for n in least)
    return SimpleNamespace(window=window, stride=stride, dilation=step, pad=pad, size=size)


def both_thread_counts(work):
    """What `work` gives, which must have the same bits with one thread and with two."""
    before, found = numba.get_num_threads(), []
    try:
        for count in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(count)
            found.append(work())
    finally:
        numba.set_num_threads(before)
    assert found[0].tobytes() == found[1].tobytes(), "depends on the thread count"
    return found[0]
