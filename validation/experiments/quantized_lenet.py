"""8-bit training on top of the instance filter and error map pruning ("+Q"): arXiv 2007.03213, LeNet on MNIST.

gradledger reproduce quantized-lenet

LeNet from scratch on all training images with the settings of `lenet_mnist`, half of its epochs: plain SGD, and EIF+EMP
under `quantized`, which makes the products of trained convolutions products of 8 bits, linear layers and the filter net
staying floats where the method leaves them so. Both see the same stream of mini-batches of a seed. EIF+EMP+Q ends where
it has made `budget` of SGD's computation, so what it saves is set and its accuracy is the finding.

Computation is counted by running each pass's own body, of every launch that a run made: a multiply-add of floats is
one, a product of whole numbers of a×b bits max(a, b)/32 of one (`costmodel.advice.integers`, by width; our reading).

The scheme is the best of CANDIDATES, by the accuracy on training images that are held out of a trial run of a seed of
their own; all other settings are those of `lenet_mnist`, which says how they were found. Test images are looked at once
a run, at its end. [ours] Half of the epochs: what the time allowed; the computation of SGD is that of as many.
"""

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
from .runs import FRESH, TRIAL_SEED, Runs, best_of, held_out, judged, percents, spread, verdicts

NAME = "quantized-lenet"
PUBLISHED = {
    "source": "arXiv 2007.03213, LeNet on MNIST; of EIF+EMP+Q only what it saves was at hand",
    "SGD": {"saved": 0.0, "accuracy": 99.23},
    "EIF+EMP": {"saved": 78.60, "accuracy": 99.47},
    "EIF+EMP+Q": {"saved": 95.0},
}
GOAL = {"saved": 94.5, "gain": -0.5}
CANDIDATES = ({"scheme": "psq"}, {"scheme": "banner"})
METHODS = ("SGD", "EIF+EMP+Q")
CHECKS = 20  # looks at the computation in an epoch


@dataclass(frozen=True)
class Protocol:
    """What is run. budget: share of SGD's computation at which EIF+EMP+Q ends; scheme: of its 8 bits."""

    seeds: tuple[int, ...] = FRESH[:3]
    epochs: int = 10
    budget: float = 0.05
    scheme: str = "psq"

    @property
    def base(self) -> lenet_mnist.Protocol:
        """The settings of `lenet_mnist`, for as many epochs."""
        return lenet_mnist.Protocol(seeds=self.seeds, epochs=self.epochs)

    def program(self, method: str) -> ri.Program:
        """The compiled step of a method."""
        base = self.base
        if method == "SGD":
            return base.program("SGD")
        instances, rules, _ = base.methods()["EIF+EMP"]
        step = ri.Backprop(ri.SGD(base.lr, base.momentum))
        plan = ri.Plan(
            "all", (*rules, ri.QuantizedTraining(self.scheme)), step, train_bias=True, instances=instances
        )  # fmt: skip
        return ri.compile(ri.models.lenet(), plan, base.batch)


def train(d: data.Dataset, protocol: Protocol, method: str, seed: int, watch: Callable[[str], None]) -> dict:
    """One run until its share of SGD's computation: steps, the computation as multiply-adds, accuracy at the end."""
    program = protocol.program(method)
    trainer = ri.Trainer(program, seed)
    per_epoch = -(-len(d.x_train) // program.batch)
    every, steps = max(1, per_epoch // CHECKS), per_epoch * protocol.epochs
    most = protocol.base.sgd_macs(len(d.x_train)) * (1.0 if method == "SGD" else protocol.budget)
    macs, started = 0.0, time.perf_counter()
    for p in trainer.steps(d.x_train, d.y_train, protocol.epochs):
        if p.step % every == 0 and method != "SGD":
            flops = measured.run_flops(program, trainer.made[frozenset()], measured.weighed_flops)
            grown, macs = flops / 2 - macs, flops / 2
            watch(f"{method}, seed {seed}: {p.step} of {steps} steps, {100 * macs / most:.1f} % of its computation")
            if macs + grown > most:
                break
    seconds = time.perf_counter() - started
    macs = measured.run_flops(program, trainer.made[frozenset()], measured.weighed_flops) / 2
    floats = predict.as_macs(measured.run_flops(program, trainer.made[frozenset()]))
    accuracy = trainer.evaluate(d.x_test, d.y_test)
    watch(f"{method}, seed {seed}: {100 * accuracy:.2f} %")
    found = {"steps": trainer.step, "macs": macs, "macs_of_floats": floats, "accuracy": accuracy}
    return found | {"train_seconds": round(seconds, 1)}


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
        tell = partial(watch, 0, len(candidates))
        return train(apart, replace(protocol, **given), METHODS[1], TRIAL_SEED, tell)["accuracy"]

    best = best_of(runs, METHODS[1], candidates, trial)
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
    work = [{"method": m, "seed": s} for s in protocol.seeds for m in METHODS]
    for i, key in enumerate(work):
        if not runs.get(**key):
            runs.add(**key, **train(d, protocol, key["method"], key["seed"], partial(watch, i, len(work))))
    chosen_on = {"all but the scheme": "as lenet-mnist's record says", **sources}
    return record([runs.get(**key) for key in work], protocol) | {"settings_chosen_on": chosen_on}


def judge(given: dict) -> dict:
    """The record of the runs of a record, made anew."""
    return record(given["runs"], Protocol(**given["protocol"] | {"seeds": tuple(given["seeds"])}))


def record(runs: list[dict], protocol: Protocol) -> dict:
    """The result record of finished runs."""
    of = {m: {r["seed"]: r for r in runs if r["method"] == m} for m in METHODS}
    sgd = of["SGD"]
    saved = {m: [1 - found[s]["macs"] / sgd[s]["macs"] for s in protocol.seeds] for m, found in of.items()}
    gain = {m: [found[s]["accuracy"] - sgd[s]["accuracy"] for s in protocol.seeds] for m, found in of.items()}
    rows = {
        m: {
            "saved": percents(saved[m]),
            "accuracy": percents([found[s]["accuracy"] for s in protocol.seeds]),
            "gain": percents(gain[m]),
            "steps": spread([found[s]["steps"] for s in protocol.seeds]),
        }
        for m, found in of.items()
    }
    mine = METHODS[1]
    return {
        "name": NAME,
        "published": PUBLISHED,
        "measured": rows,
        "units": "saved: percent of SGD's multiply-adds, a product of whole numbers of a×b bits as max(a, b)/32 of one; "
        "accuracy: percent of the test images; gain: points over SGD of the same seed",
        **verdicts(
            [
                judged(f"{mine} saves computation, %", [100 * x for x in saved[mine]], GOAL["saved"]),
                judged(f"accuracy of {mine} to SGD, points", [100 * x for x in gain[mine]], GOAL["gain"]),
            ]
        ),
        "protocol": asdict(protocol),
        "seeds": list(protocol.seeds),
        "runs": runs,
    }
