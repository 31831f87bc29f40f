"""8-bit training on top of the instance filter and error map pruning ("+Q"): arXiv 2007.03213, LeNet on MNIST.

gradledger reproduce quantized-lenet

LeNet from scratch on all of MNIST with the settings of `lenet_mnist`: EIF+EMP under `quantized:scheme=banner`, the
scheme whose forward pass is of 8 bits too. The products of convolutions and linear layers of the main net are then
products of 8 bits, with 16 of the error map for the gradient of the weights; the filter net computes with floats, and
so does the forward pass by which uncertain instances are labelled. Accuracy is looked at where a run has made each of
`budgets`, shares of the computation of 20 epochs of SGD, by default what the paper's 95 % leave. So what is saved is
set and the accuracy is the finding. SGD is that of lenet-mnist's record, with the same mini-batches of the same seed.

Computation is counted by running each pass's own body, of every launch that a run made: a multiply-add of floats is
one, a product of whole numbers of a×b bits max(a, b)/32 of one (`costmodel.advice.integers`, by width; our reading).

Settings are those of `lenet_mnist`, which says how they were found, and the learning rate is SGD's; none was chosen by
a result here. (At a rate of 0.05 SGD diverges within ten steps, with floats as with 8 bits.)
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import refimpl as ri
from refimpl import data

from . import lenet_mnist, saving
from .runs import Runs, verdicts

NAME = "quantized-lenet"
PUBLISHED = {
    "source": "arXiv 2007.03213, LeNet on MNIST; of EIF+EMP+Q only what it saves was at hand",
    "SGD": {"saved": 0.0, "accuracy": 99.23},
    "EIF+EMP": {"saved": 78.60, "accuracy": 99.47},
    "EIF+EMP+Q": {"saved": 95.0},
}
GOAL = {"saved": 94.5, "gain": -0.5}
METHOD = "EIF+EMP+Q"
EVERY = 40  # steps from one look at the computation to the next
DENSE = Path(__file__).parents[1] / "results" / f"{lenet_mnist.NAME}.json"


@dataclass(frozen=True)
class Protocol:
    """What is run. budgets: shares of SGD's computation at which accuracy is looked at, a run ends at the last one."""

    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 20
    budgets: tuple[float, ...] = (0.05,)
    scheme: str = "banner"

    @property
    def base(self) -> lenet_mnist.Protocol:
        """The settings of `lenet_mnist`."""
        return lenet_mnist.Protocol(seeds=self.seeds, epochs=self.epochs)

    def program(self) -> ri.Program:
        """The compiled step."""
        instances, rules, _ = self.base.methods()["EIF+EMP"]
        rules = (*rules, ri.QuantizedTraining(self.scheme))
        step = ri.Backprop(ri.SGD(self.base.lr, self.base.momentum))
        plan = ri.Plan("all", rules, step, train_bias=True, instances=instances)
        return ri.compile(ri.models.lenet(), plan, self.base.batch)


def train(d: data.Dataset, protocol: Protocol, seed: int, watch: Callable[[str], None]) -> dict:
    """One run: `points` of steps, the computation as multiply-adds and accuracy, one for each budget."""
    program = protocol.program()
    trainer = ri.Trainer(program, seed)
    whole = protocol.base.sgd_macs(len(d.x_train))
    points, before, macs, seconds, started = [], 0.0, 0.0, 0.0, time.perf_counter()
    steps = -(-len(d.x_train) // program.batch) * protocol.epochs
    for p in trainer.steps(d.x_train, d.y_train, protocol.epochs):
        if p.step % EVERY and p.step < steps:
            continue
        before, macs = macs, saving.weighed_macs(trainer)
        watch(f"{METHOD}, seed {seed}: {p.step} steps, {100 * macs / whole:.2f} % of SGD's computation")
        if 2 * macs - before > protocol.budgets[len(points)] * whole or p.step == steps:
            seconds += time.perf_counter() - started
            points.append([p.step, macs, trainer.evaluate(d.x_test, d.y_test)])
            watch(f"{METHOD}, seed {seed}: {100 * points[-1][2]:.2f} %")
            started = time.perf_counter()
            if len(points) == len(protocol.budgets):
                break
    return {"points": points, "train_seconds": round(seconds, 1)}


def run(
    output: Path,
    watch: Callable[[int, int, str], None],
    d: data.Dataset | None = None,
    protocol: Protocol | None = None,
) -> dict:
    """Do the runs that `output` does not hold yet, and return the result record. d: default the full MNIST."""
    d, protocol = d or lenet_mnist.mnist(), protocol or Protocol()
    common = {k: v for k, v in asdict(protocol).items() if k != "seeds"}
    runs = Runs(output, NAME, common | {"train": len(d.x_train)})
    for i, seed in enumerate(protocol.seeds):
        if not runs.get(seed=seed):
            found = train(d, protocol, seed, partial(watch, i, len(protocol.seeds)))
            runs.add(method=METHOD, seed=seed, **found, sgd=sgd(seed))
    return record([runs.get(seed=s) for s in protocol.seeds], protocol)


def sgd(seed: int) -> list:
    """Steps, multiply-adds and accuracy of SGD's run of a seed at its end, from lenet-mnist's record."""
    runs = json.loads(DENSE.read_text(encoding="utf-8"))["runs"]
    return next(r["curve"][-1] for r in runs if r["method"] == "SGD" and r["seed"] == seed)


def judge(given: dict) -> dict:
    """The record of the runs of a record, made anew."""
    lists = {k: tuple(v) if isinstance(v, list) else v for k, v in given["protocol"].items()}
    return record(given["runs"], Protocol(**lists))


def record(runs: list[dict], protocol: Protocol) -> dict:
    """The result record of finished runs: a row for each budget, and the goals at the first."""
    sgd = [r["sgd"] for r in runs]
    points = {f"{METHOD}, {100 * b:g} %": [r["points"][i] for r in runs] for i, b in enumerate(protocol.budgets)}
    goals = [goal for name, found in points.items() for goal in saving.goals(name, found, sgd, GOAL)]
    return {
        "name": NAME,
        "published": PUBLISHED,
        "measured": {name: saving.row(found, sgd) for name, found in ({"SGD": sgd} | points).items()},
        "units": "saved: percent of SGD's multiply-adds, a product of whole numbers of a×b bits as max(a, b)/32 "
        "of one; accuracy: percent of the test images; gain: points over SGD of the same seed",
        **verdicts(goals),
        "settings_chosen_on": {"all": "as lenet-mnist's record says, partly accuracy on test images"},
        "protocol": asdict(protocol),
        "seeds": list(protocol.seeds),
        "runs": runs,
    }
