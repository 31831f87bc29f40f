"""Instance filter and error map pruning on MNIST as a stream: arXiv 2007.03213, LeNet.

gradledger reproduce lenet-mnist

LeNet from scratch as the paper trains it: SGD, lr 0.01, momentum 0.5, mini-batches of 64, 18.7k iterations (20 epochs);
the filter with lr 0.1, then 0.05 after 940 iterations. Every method sees the same stream of mini-batches of a seed.
Computation is counted, not estimated: multiply-adds of every launch that a run made, the filter's own and those on
uncertain instances included, as a share of SGD's. OHEM, SMD and SMB are run at the computation of EIF+EMP (as far as
they can: OHEM's forward pass on everything alone costs 35 %), OHEM at the paper's saving too.

Readings: the paper prints neither net in full, nor α₁, α₂, the length of R_TH, the entropy limit and the first T.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import refimpl as ri
from costmodel import predict
from refimpl import data

from . import datasets, measured
from .runs import Runs, spread

NAME = "lenet-mnist"
PUBLISHED = {
    "source": "arXiv 2007.03213, LeNet on MNIST",
    "SGD": {"saved": 0.0, "accuracy": 99.23},
    "EIF+EMP": {"saved": 78.60, "accuracy": 99.47},
    "OHEM": {"saved": 65.24, "accuracy": 99.33},
}
MEAN, DEVIATION = 0.1307, 0.3081  # of MNIST's training pixels, from 0 to 1
GOAL = {"saved": 78.0, "gain": 0.0}


@dataclass(frozen=True)
class Protocol:
    """What is run. share: R_set; keep: kept share of the error maps' channels; budget: computation left, of SGD's."""

    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 20
    batch: int = 64
    lr: float = 0.01
    momentum: float = 0.5
    filter_lr: float = 0.1
    filter_drop: int = 940
    share: float = 0.1
    keep: float = 0.5
    entropy: float = 0.6
    window: int = 10
    threshold: float = 1.0
    rise: float = 1.005
    fall: float = 0.995
    budget: float = 0.2
    ohem_keep: float = 0.04

    def methods(self) -> dict[str, tuple]:
        """Name → (instances, rules, share of the iterations)."""
        pruned = (ri.ErrorMapPruning(self.keep),)
        optimizer = ri.SGD(self.filter_lr, schedule=ri.Schedule("step", milestones=(self.filter_drop,), gamma=0.5))
        chosen = ri.InstanceFilter(
            ri.models.slim_lenet(), self.share, optimizer, window=self.window, entropy=self.entropy,
            threshold=self.threshold, rise=self.rise, fall=self.fall,
        )  # fmt: skip
        hard = ri.HardExamples(self.ohem_keep)
        return {
            "SGD": (None, (), 1.0),
            "EIF+EMP": (chosen, pruned, 1.0),
            "EIF": (chosen, (), 1.0),
            "EMP": (None, pruned, 1.0),
            "OHEM": (hard, (), 1.0),
            "OHEM, same computation": (hard, (), self.budget / self.ohem_cost()),
            "SMD, same computation": (ri.RandomSkip(1 - self.budget), (), 1.0),
            "SMB, same computation": (None, (), self.budget),
        }

    def program(self, method: str) -> ri.Program:
        """The compiled step of a method."""
        instances, rules, _ = self.methods()[method]
        step = ri.Backprop(ri.SGD(self.lr, self.momentum))
        plan = ri.Plan("all", rules, step, train_bias=True, instances=instances)
        return ri.compile(ri.models.lenet(), plan, self.batch)

    def ohem_cost(self) -> float:
        """Computation of an OHEM iteration as a share of SGD's, predicted."""
        step = ri.Backprop(ri.SGD(self.lr, self.momentum))
        plans = (
            ri.Plan("all", step=step, train_bias=True, instances=i) for i in (ri.HardExamples(self.ohem_keep), None)
        )
        ohem, sgd = (predict.estimate(ri.compile(ri.models.lenet(), p, self.batch)).macs for p in plans)
        return ohem / sgd


def train(d: data.Dataset, protocol: Protocol, method: str, seed: int, watch: Callable[[str], None]) -> dict:
    """One run: accuracy on the test images after each epoch's worth of steps, and the multiply-adds that it made."""
    program = protocol.program(method)
    trainer = ri.Trainer(program, seed)
    per_epoch = -(-len(d.x_train) // protocol.batch)
    steps = round(protocol.methods()[method][2] * protocol.epochs * per_epoch)
    curve, trained, started = [], 0.0, time.perf_counter()
    for p in trainer.steps(d.x_train, d.y_train, protocol.epochs):
        if p.step % per_epoch == 0 or p.step == steps:
            trained += time.perf_counter() - started
            curve.append([p.step, trainer.evaluate(d.x_test, d.y_test)])
            watch(f"{method}, seed {seed}: {p.step} of {steps} steps, {100 * curve[-1][1]:.2f} %")
            started = time.perf_counter()
        if p.step == steps:
            break
    made = trainer.runner.made
    return {
        "accuracy": curve[-1][1],
        "curve": curve,
        "macs": measured.run_flops(program, made) / 2,
        "main_share": sum(n * t for (s, n), t in made.items() if s == "forward") / (steps * protocol.batch),
        "uncertain_share": sum(n * t for (s, n), t in made.items() if s == "uncertain") / (steps * protocol.batch),
        "train_seconds": round(trained, 1),
    }


def mnist() -> data.Dataset:
    """The full MNIST, with pixels of zero mean and unit variance over the training images."""
    return data.idx(datasets.folder("mnist")).with_pixels(-MEAN / DEVIATION, (1 - MEAN) / DEVIATION)


def run(
    output: Path,
    watch: Callable[[int, int, str], None],
    d: data.Dataset | None = None,
    protocol: Protocol | None = None,
) -> dict:
    """Do the runs that `output` does not hold yet, and return the result record. d: default the full MNIST."""
    protocol = protocol or Protocol()
    d = d or mnist()
    settings = {k: v for k, v in asdict(protocol).items() if k != "seeds"} | {"train": len(d.x_train)}
    runs = Runs(output, NAME, settings)
    work = [(method, seed) for seed in protocol.seeds for method in protocol.methods()]
    for i, (method, seed) in enumerate(work):
        if not runs.get(method=method, seed=seed):
            watch(i, len(work), f"{method}, seed {seed}")
            found = train(d, protocol, method, seed, partial(watch, i, len(work)))
            runs.add(method=method, seed=seed, **found)
    return record([runs.get(method=m, seed=s) for m, s in work], protocol)


def record(runs: list[dict], protocol: Protocol) -> dict:
    """The result record of finished runs."""
    sgd = {r["seed"]: r for r in runs if r["method"] == "SGD"}
    rows = {}
    for method in protocol.methods():
        mine = [r for r in runs if r["method"] == method]
        rows[method] = {
            "saved": spread([100 * (1 - r["macs"] / sgd[r["seed"]]["macs"]) for r in mine]),
            "accuracy": spread([100 * r["accuracy"] for r in mine]),
            "gain": spread([100 * (r["accuracy"] - sgd[r["seed"]]["accuracy"]) for r in mine]),
            "seconds_share": spread([r["train_seconds"] / sgd[r["seed"]]["train_seconds"] for r in mine]),
        }
    both = rows["EIF+EMP"]
    return {
        "name": NAME,
        "published": PUBLISHED,
        "measured": rows,
        "units": "saved: percent of SGD's multiply-adds; accuracy: percent of the test images; gain: points over SGD",
        "ok": both["saved"]["mean"] >= GOAL["saved"] and both["gain"]["mean"] >= GOAL["gain"],
        "goal": f"EIF+EMP saves at least {GOAL['saved']} % and is not below SGD",
        "protocol": asdict(protocol),
        "seeds": list(protocol.seeds),
        "runs": runs,
    }
