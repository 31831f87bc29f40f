"""8-bit training on top of the instance filter and error map pruning ("+Q"): arXiv 2007.03213, LeNet on MNIST.

gradledger reproduce quantized-lenet

LeNet from scratch on all of MNIST with the settings of `lenet_mnist`: EIF+EMP under `quantized`, which makes the
products of convolutions and linear layers of the main net products of 8 bits; the filter net computes with floats.
A run ends where it has made `budget` of the computation of 20 epochs of SGD, so what it saves is set and its accuracy
is the finding. SGD is that of lenet-mnist's record, which sees the same mini-batches of the same seed.

Computation is counted by running each pass's own body, of every launch that a run made: a multiply-add of floats is
one, a product of whole numbers of a×b bits max(a, b)/32 of one (`costmodel.advice.integers`, by width; our reading).

The scheme is banner, the only one whose forward pass is of 8 bits. The learning rate is the best of CANDIDATES, by the
accuracy on training images that are held out of a trial run of a seed of their own: a run that ends early wants larger
steps, while SGD keeps the paper's. All other settings are those of `lenet_mnist`, which says how they were found. Test
images are looked at once a run, at its end.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import refimpl as ri
from costmodel import predict
from refimpl import data

from ..instruments import measured
from . import lenet_mnist
from .runs import TRIAL_SEED, Runs, best_of, held_out, judged, percents, spread, verdicts

NAME = "quantized-lenet"
PUBLISHED = {
    "source": "arXiv 2007.03213, LeNet on MNIST; of EIF+EMP+Q only what it saves was at hand",
    "SGD": {"saved": 0.0, "accuracy": 99.23},
    "EIF+EMP": {"saved": 78.60, "accuracy": 99.47},
    "EIF+EMP+Q": {"saved": 95.0},
}
GOAL = {"saved": 94.5, "gain": -0.5}
CANDIDATES = tuple({"scheme": "banner", "lr": lr} for lr in (0.01, 0.05, 0.1))
METHOD = "EIF+EMP+Q"
CHECKS = 20  # looks at the computation in an epoch
DENSE = Path(__file__).parents[1] / "results" / f"{lenet_mnist.NAME}.json"


@dataclass(frozen=True)
class Protocol:
    """What is run. budget: share of SGD's computation at which a run ends; scheme: of its 8 bits; lr: its step."""

    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 20
    budget: float = 0.05
    scheme: str = "banner"
    lr: float = 0.02

    @property
    def base(self) -> lenet_mnist.Protocol:
        """The settings of `lenet_mnist`."""
        return lenet_mnist.Protocol(seeds=self.seeds, epochs=self.epochs)

    def program(self) -> ri.Program:
        """The compiled step."""
        instances, rules, _ = self.base.methods()["EIF+EMP"]
        rules = (*rules, ri.QuantizedTraining(self.scheme))
        step = ri.Backprop(ri.SGD(self.lr, self.base.momentum))
        plan = ri.Plan("all", rules, step, train_bias=True, instances=instances)
        return ri.compile(ri.models.lenet(), plan, self.base.batch)


def train(d: data.Dataset, protocol: Protocol, seed: int, watch: Callable[[str], None]) -> dict:
    """One run until its share of SGD's computation: steps, the computation as multiply-adds, accuracy at the end."""
    program = protocol.program()
    trainer = ri.Trainer(program, seed)
    per_epoch = -(-len(d.x_train) // program.batch)
    every = max(1, per_epoch // CHECKS)
    most = protocol.base.sgd_macs(len(d.x_train)) * protocol.budget
    macs, started = 0.0, time.perf_counter()
    for p in trainer.steps(d.x_train, d.y_train, protocol.epochs):
        if p.step % every == 0:
            before, macs = macs, _macs(program, trainer)
            watch(f"{METHOD}, seed {seed}: {p.step} steps, {100 * macs / most:.1f} % of its computation")
            if 2 * macs - before > most:
                break
    seconds = time.perf_counter() - started
    floats = predict.as_macs(measured.run_flops(program, trainer.made[frozenset()]))
    accuracy = trainer.evaluate(d.x_test, d.y_test)
    watch(f"{METHOD}, seed {seed}: {100 * accuracy:.2f} %")
    found = {"steps": trainer.step, "macs": _macs(program, trainer), "macs_of_floats": floats, "accuracy": accuracy}
    return found | {"train_seconds": round(seconds, 1)}


def _macs(program: ri.Program, trainer: ri.Trainer) -> float:
    return measured.run_flops(program, trainer.made[frozenset()], measured.weighed_flops) / 2


def choose(
    output: Path, watch: Callable[[int, int, str], None], d: data.Dataset, protocol: Protocol, candidates: tuple
) -> tuple[dict, dict]:
    """The candidate with the best trial run on training images; and what it was chosen on."""
    if not candidates:
        return {}, {}
    count = min(lenet_mnist.HELD_OUT, len(d.x_train) // 10)
    apart = held_out(d, count)
    runs = Runs(output, f"{NAME}-trials", asdict(protocol) | {"seeds": 0, "train": len(d.x_train), "held": count})

    def trial(given: dict) -> float:
        return train(apart, replace(protocol, **given), TRIAL_SEED, partial(watch, 0, len(candidates)))["accuracy"]

    best = best_of(runs, METHOD, candidates, trial)
    where = f"{count:,} training images held out of trial runs of seed {TRIAL_SEED}, the best of {len(candidates)}"
    return best, {name: f"{value}: {where}" for name, value in best.items()}


def run(
    output: Path,
    watch: Callable[[int, int, str], None],
    d: data.Dataset | None = None,
    protocol: Protocol | None = None,
    candidates: tuple = CANDIDATES,
) -> dict:
    """Do the runs that `output` does not hold yet, and return the result record. d: default the full MNIST."""
    d = d or lenet_mnist.mnist()
    settings, sources = choose(output, watch, d, protocol or Protocol(), candidates)
    protocol = replace(protocol or Protocol(), **settings)
    common = {k: v for k, v in asdict(protocol).items() if k != "seeds"}
    runs = Runs(output, NAME, common | {"train": len(d.x_train)})
    for i, seed in enumerate(protocol.seeds):
        if not runs.get(seed=seed):
            found = train(d, protocol, seed, partial(watch, i, len(protocol.seeds)))
            runs.add(method=METHOD, seed=seed, **found, sgd=sgd(seed))
    chosen_on = {"all others": "as lenet-mnist's record says", **sources}
    return record([runs.get(seed=s) for s in protocol.seeds], protocol) | {"settings_chosen_on": chosen_on}


def sgd(seed: int) -> dict:
    """Steps, multiply-adds and accuracy of SGD's run of a seed at its end, from lenet-mnist's record."""
    runs = json.loads(DENSE.read_text(encoding="utf-8"))["runs"]
    steps, macs, accuracy = next(r["curve"][-1] for r in runs if r["method"] == "SGD" and r["seed"] == seed)
    return {"steps": steps, "macs": macs, "accuracy": accuracy}


def judge(given: dict) -> dict:
    """The record of the runs of a record, made anew."""
    return record(given["runs"], Protocol(**given["protocol"] | {"seeds": tuple(given["seeds"])}))


def record(runs: list[dict], protocol: Protocol) -> dict:
    """The result record of finished runs."""
    saved = [1 - r["macs"] / r["sgd"]["macs"] for r in runs]
    gain = [r["accuracy"] - r["sgd"]["accuracy"] for r in runs]
    rows = {
        "SGD": {
            "saved": percents([0.0] * len(runs)),
            "accuracy": percents([r["sgd"]["accuracy"] for r in runs]),
            "gain": percents([0.0] * len(runs)),
            "steps": spread([r["sgd"]["steps"] for r in runs]),
        },
        METHOD: {
            "saved": percents(saved),
            "accuracy": percents([r["accuracy"] for r in runs]),
            "gain": percents(gain),
            "steps": spread([r["steps"] for r in runs]),
        },
    }
    return {
        "name": NAME,
        "published": PUBLISHED,
        "measured": rows,
        "units": "saved: percent of SGD's multiply-adds, a product of whole numbers of a×b bits as max(a, b)/32 "
        "of one; accuracy: percent of the test images; gain: points over SGD of the same seed",
        **verdicts(
            [
                judged(f"{METHOD} saves computation, %", [100 * x for x in saved], GOAL["saved"]),
                judged(f"accuracy of {METHOD} to SGD of the same seed, points", [100 * x for x in gain], GOAL["gain"]),
            ]
        ),
        "protocol": asdict(protocol),
        "seeds": list(protocol.seeds),
        "runs": runs,
    }
