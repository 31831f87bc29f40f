"""The classifier first and alone: a new one knows nothing yet, and its gradients would spoil the layers below.

One that knows its classes comes so, too, to what a linear probe gives, whatever the method makes of the layers below.
The maps before it are computed once (`surgery.cut`), so that many passes over them cost next to nothing. Each of RATES
is tried to the end, by Adam with a rate that falls along a cosine, and the weights whose loss on the samples held out
was lowest after any pass are the result; they may be those that it began with. Where the net is to train on all
samples in the end, the classifier then trains once more on all of them: for twice as many passes, at most PASSES, over
which that rate falls to 0. So it goes as far as where the loss was lowest, but there its steps had not become small.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..compiler.compile import compile
from ..compiler.program import Program
from ..graph import Graph
from ..methods.optim import Adam, Schedule
from ..plan.plan import Backprop, Plan
from ..surgery.cut import cut, frozen_until
from ..surgery.for_step import is_quantized
from ..training.evaluator import inference
from ..training.guard import NonFiniteError
from ..training.inputs import Inputs, samples
from ..training.trainer import Trainer
from .course import Event, Glance, sizes_of
from .watched import looked

RATES = (0.01, 0.003, 0.001)
PASSES = 60  # over the maps, for each rate
PART = "classifier"
MOST_STEPS = 2_000  # for each rate: fewer passes over many samples, at least one


def plan_of(plan: Plan) -> Plan:
    """How the classifier of a net trains alone, before it trains by `plan`: the loss is that of the plan."""
    step = Backprop(Adam(RATES[0], schedule=Schedule("cosine")))
    return Plan(
        0, step=step, train_bias=True, loss=plan.loss, label_smoothing=plan.label_smoothing,
        class_weights=plan.class_weights, ignored_label=plan.ignored_label,
    )  # fmt: skip


def parts_of(
    graph: Graph, plan: Plan, batch: int, backend: str | None = None, threads: int | None = None
) -> tuple[Program, Program]:  # fmt: skip
    """What makes the maps before a net's classifier, and what trains the classifier on them.

    plan: of the training that follows. ValueError for a net whose classifier does not stand on one map.
    """
    alone = plan_of(plan)
    place = frozen_until(graph, alone, features=True)
    if place is None:
        raise ValueError(f"the classifier of {graph.name} does not stand on one map of the layers before it")
    frozen, tail = cut(graph, place)
    made = compile(frozen, None, batch, backend=backend, threads=threads)
    return made, compile(tail, alone, batch, backend=backend, threads=threads)


def parts_that_help(
    graph: Graph, plan: Plan, batch: int, backend: str | None = None, threads: int | None = None
) -> tuple[Program, Program] | None:  # fmt: skip
    """`parts_of` where a classifier that trains first is of use.

    None where nothing else trains, where the net is one of whole numbers, or where its classifier does not stand on one
    map.
    """
    alone = plan.trained(graph).keys() == Plan(0).trained(graph).keys()
    if alone or plan.step.quantizes is not None or is_quantized(graph):
        return None
    try:
        return parts_of(graph, plan, batch, backend, threads)
    except ValueError:
        return None


def passes_of(count: int, batch: int) -> int:
    """Passes over `count` samples that each of RATES makes."""
    return max(1, min(PASSES, MOST_STEPS // -(-count // batch)))


def parts_of_fit(
    frozen: Program, tail: Program, count: int, held: int, again: int, steps: int | None = None
) -> list[tuple[str, str, Program, list[int]]]:  # fmt: skip
    """What the programs of `parts_of` run to train on `count` samples and look at `held`, a row for each part.

    (name, key as `adapt` records what ran, program, mini-batches). again: passes over all samples after that; steps: on
    the `count` that were made, default all of them.
    """
    ran = [sizes_of([[0, -(-n // tail.batch)]], n, tail.batch) for n in (count, held, count + held)]
    passes = len(RATES) * passes_of(count, tail.batch) if steps is None else steps // len(ran[0])
    return [
        ("maps of the layers before the classifier", "maps", inference(frozen), ran[0] + ran[1]),
        ("steps of the classifier alone", "steps", tail, ran[0] * passes + ran[2] * again),
        ("looks at the classifier alone", "looks", inference(tail), ran[1] * (1 + passes)),
    ]


def is_new(graph: Graph, tail: Program) -> bool:
    """Does a net come without weights of its classifier, which `tail` trains?"""
    return not graph.weights.keys() & set(tail.step.gradients)


def kept_bytes(tail: Program) -> int:
    """Bytes of the weights that train on the maps."""
    return sum(tail.step.parameters[name].nbytes for name in tail.step.gradients)


@dataclass
class HeadFit:
    """What training the classifier alone gave.

    weights: of its parameters, by name; whole: the same after training again on all samples, empty where it did not;
    before, after: the looks before the first step and of the best weights; rate: of these, None where they are those of
    the beginning; passes: over the maps, of each rate; steps: of all rates; again: passes over all samples.
    """

    weights: dict[str, np.ndarray]
    whole: dict[str, np.ndarray]
    before: Glance
    after: Glance
    rate: float | None
    passes: int
    steps: int
    again: int


class Head:
    """What trains a net's classifier alone: `frozen` makes the maps before it, `tail` learns from them."""

    def __init__(self, frozen: Program, tail: Program, seed: int = 0):
        """frozen, tail: of `parts_of`."""
        self.frozen, self.tail = frozen, tail
        self.maps, self.trainer = Trainer(self.frozen, seed), Trainer(self.tail, seed)
        self.fitted: HeadFit | None = None

    def passes(self, count: int) -> int:
        """Passes over `count` samples that each rate makes."""
        return passes_of(count, self.tail.batch)

    def steps(self, count: int) -> int:
        """Steps that all rates make on `count` samples, where no loss becomes infinite."""
        return len(RATES) * self.passes(count) * -(-count // self.tail.batch)

    def fit(
        self, x: Inputs, y: np.ndarray, x_val: Inputs, y_val: np.ndarray, whole: bool = False
    ) -> Iterator[Event]:  # fmt: skip
        """Train on x (M, H, W, C), y (M,), a step at a time; `fitted` has the result when it ends.

        whole: train again on these and on the samples held out, x_val and y_val.
        """
        trainer, passes, most = self.trainer, self.passes(samples(x)), self.steps(samples(x))
        x, x_val = self.maps.predict(x), self.maps.predict(x_val)
        first, per_pass = trainer.state(), self._per_pass(len(y))
        before = best = looked(trainer, x_val, y_val)
        kept, found, made = first, None, 0
        for rate in RATES:
            trainer.restore(first)
            trainer.factor = rate / RATES[0]
            try:
                for progress in trainer.steps(x, y, passes):
                    made += 1
                    look = looked(trainer, x_val, y_val) if progress.step % per_pass == 0 else None
                    if look and look.loss < best.loss:
                        best, kept, found = look, trainer.state(), rate
                    yield Event(made, most, progress.loss, look, part=PART)
            except NonFiniteError:
                continue
        trainer.restore(kept)
        weights, again, on_all = self._weights(), 0, dict[str, np.ndarray]()
        if whole and found is not None:
            x, y = np.concatenate([x, x_val]), np.concatenate([y, y_val])
            again = min(passes, 2 * (best.step // per_pass))
            end = again * self._per_pass(len(y))
            trainer.restore(first)
            trainer.factor = found / RATES[0]
            with contextlib.suppress(NonFiniteError):
                for progress in trainer.steps(x, y, again):
                    yield Event(made + progress.step, made + end, progress.loss, None, part=PART)
                on_all = self._weights()
        self.fitted = HeadFit(weights, on_all, before, best, found, passes, made, again)

    def _per_pass(self, count: int) -> int:
        return -(-count // self.tail.batch)

    def _weights(self) -> dict[str, np.ndarray]:
        there = self.trainer.resume_arrays()
        return {name: there[name].copy() for name in self.tail.step.gradients}
