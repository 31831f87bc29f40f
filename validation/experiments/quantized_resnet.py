"""The instance filter, error map pruning and 8-bit training ("+Q") from scratch: arXiv 2007.03213, ResNet on CIFAR-10.

gradledger reproduce quantized-resnet

ResNet-20 on all of CIFAR-10, re-encoded as JPEG, by SGD, by EIF+EMP and by EIF+EMP under `quantized:scheme=banner`, for
the same number of epochs with the same mini-batches of the same seed; what each saves of SGD's computation and its
accuracy are both findings. The scheme is the paper's, and the only one whose forward pass is of 8 bits too: under `psq`
no more than the gradients would be, two thirds of a step. Its batch norms take the range of the batch in place of its
deviation, so nothing can be pre-trained by another, and every way trains from scratch.

Computation is counted by running each pass's own body, of every launch that a run made, the filter's own and those on
uncertain instances included, both with floats: a multiply-add of floats is one, a product of whole numbers of a×b bits
max(a, b)/32 of one (`costmodel.advice.integers`, by width; our reading).

[paper] Momentum 0.9, weight decay 1e-4, the filter's rate 0.1, crops and mirror images (as arXiv 1512.03385).
[ours]  ResNet-20 and few epochs in place of ResNet-74 or -110 and 164, and mini-batches of 64 in place of 128: what the
        time allowed. Cosine decay to 0 in place of two drops, since a run is short.
[ours]  The filter net is `slim_lenet`, the paper's for digits: a step of it costs 0.9 % of one of ResNet-20. ResNet-8,
        the paper's for CIFAR, costs 31 % of it (5.9 % of ResNet-110, for which it was made), and looks at everything.
[ours]  T begins at ln 10, the loss of guessing, and not at 1, from where it would have to climb there. Entropy limit
        0.6, and EMP keeps half, as in `lenet_mnist`; the paper prints neither.

Chosen in trial runs of `trial_epochs` on training images, of which 5,000 are held out and judge: the learning rate, the
same for all ways, by SGD; R_set and γ₁, the weight of the kernels in EMP's score, by EIF+EMP. More accuracy can always
be had there by saving less. So of the candidates that save what the paper saves the most accurate is taken, and where
none does, the one that saves most. The goals are the paper's figures of ResNet-74, the nearest to ResNet-20 of its two.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import refimpl as ri
from refimpl import data

from . import datasets, saving
from .filter_shares import CIFAR
from .runs import FRESH, TRIAL_SEED, Runs, chosen, held_out, verdicts

NAME = "quantized-resnet"
PUBLISHED = {
    "source": "arXiv 2007.03213, CIFAR-10, 64,000 steps; the rows are of ResNet-74, the nearest to ResNet-20",
    "SGD": {"saved": 0.0, "accuracy": 93.46},
    "EIF+EMP": {"saved": 63.91, "accuracy": 93.48},
    "EIF+EMP+Q": {"saved": 95.41, "accuracy": 93.00},
    "ResNet-110": {
        "SGD": {"saved": 0.0, "accuracy": 93.57},
        "EIF+EMP": {"saved": 67.84, "accuracy": 93.66},
        "EIF+EMP+Q": {"saved": 95.71, "accuracy": 93.54},
    },
}
GOALS = {"EIF+EMP": {"saved": 63.91, "gain": 0.02}, "EIF+EMP+Q": {"saved": 95.41, "gain": -0.46}}
METHODS = ("SGD", *GOALS)
MEAN, DEVIATION = 0.4733, 0.2504  # of the training pixels, from 0 to 1
EVERY = 100  # steps from one word of progress to the next
HELD_OUT = 5_000
CANDIDATES = {  # of the method that chooses them → settings to be tried on training images
    "SGD": ({"lr": 0.05}, {"lr": 0.1}),
    "EIF+EMP": ({"share": 0.1, "gamma_w": 1.0}, {"share": 0.2, "gamma_w": 1.0}, {"share": 0.2, "gamma_w": 0.0}),
}

Watch = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Protocol:
    """What is run: every one of METHODS for every seed. share: R_set; keep: kept share of the error maps' channels."""

    seeds: tuple[int, ...] = FRESH[:3]
    epochs: int = 3
    batch: int = 64
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    filter_lr: float = 0.1
    share: float = 0.2
    entropy: float = 0.6
    threshold: float = 2.3
    keep: float = 0.5
    gamma_w: float = 1.0
    scheme: str = "banner"
    trial_epochs: int = 1

    def plan(self, method: str, d: data.Dataset) -> ri.Plan:
        """How a method trains."""
        parts, instances, rules = method.split("+"), None, []
        if "EIF" in parts:
            net = ri.models.build("slim_lenet", classes=2, size=d.size, channels=d.channels)
            instances = ri.InstanceFilter(
                net, self.share, ri.SGD(self.filter_lr), entropy=self.entropy, threshold=self.threshold
            )
        if "EMP" in parts:
            rules.append(ri.ErrorMapPruning(self.keep, self.gamma_w))
        if "Q" in parts:
            rules.append(ri.QuantizedTraining(self.scheme))
        sgd = ri.SGD(self.lr, self.momentum, weight_decay=self.weight_decay, schedule=ri.Schedule("cosine"))
        return ri.Plan("all", tuple(rules), ri.Backprop(sgd), batch_norm="train", train_bias=True, instances=instances)

    def program(self, method: str, d: data.Dataset) -> ri.Program:
        """The compiled step of a method for a data set's maps and classes."""
        net = ri.models.build("resnet20", classes=len(d.classes), size=d.size, channels=d.channels)
        return ri.compile(net, self.plan(method, d), self.batch)


def cifar() -> data.Dataset:
    """All of CIFAR-10 as JPEG, with pixels of zero mean and unit variance over the training images."""
    return data.load(datasets.folder(CIFAR)).with_pixels(-MEAN / DEVIATION, (1 - MEAN) / DEVIATION)


def train(d: data.Dataset, protocol: Protocol, method: str, seed: int, watch: Callable[[str], None]) -> dict:
    """One run: its `point` of steps, multiply-adds and accuracy at the end, and shares of instances."""
    trainer = ri.Trainer(protocol.program(method, d), seed)
    started = time.perf_counter()
    for p in trainer.steps(d.x_train, d.y_train, protocol.epochs):
        if p.step % EVERY == 0:
            watch(f"{method}, seed {seed}: {p.step} of {p.steps} steps, loss {p.loss:.2f}")
    seconds = time.perf_counter() - started
    point = [trainer.step, saving.weighed_macs(trainer), trainer.evaluate(d.x_test, d.y_test)]
    watch(f"{method}, seed {seed}: {100 * point[2]:.2f} %")
    return {"point": point, "shares": saving.shares(trainer), "train_seconds": round(seconds, 1)}


def worth(point: list, dense: float, least: float) -> float:
    """What a trial is chosen by: its accuracy where it saves `least` of `dense` multiply-adds, else below any of these.

    point: of a run; least: a share. What saves too little is the better the more it saves.
    """
    saved = 1 - point[1] / dense
    return point[2] if saved >= least else saved - 1


def choose(output: Path, watch: Watch, d: data.Dataset, protocol: Protocol, candidates: dict) -> tuple[dict, dict]:
    """The best candidate settings by trial runs on training images, each beside those found before; chosen on what."""
    count = min(HELD_OUT, len(d.x_train) // 10)
    apart, settings, sources = held_out(d, count), {}, {}
    short = replace(protocol, epochs=protocol.trial_epochs)
    decides = [asdict(short) | {"seeds": 0}, len(d.x_train), count, candidates]
    runs = Runs(output, f"{NAME}-trials", decides)
    dense = saving.dense_macs(short.program("SGD", d), len(apart.x_train), short.epochs)

    def trial(before: dict, method: str, given: dict) -> float:
        one = train(apart, replace(short, **before | given), method, TRIAL_SEED, partial(watch, 0, 1))
        return worth(one["point"], dense, GOALS[method]["saved"] / 100 if method in GOALS else 0)

    for method, tried in candidates.items():
        best, where = chosen(runs, {method: tried}, count, partial(trial, dict(settings)))
        settings |= best
        sources |= where
    return settings, sources


def run(
    output: Path,
    watch: Watch,
    d: data.Dataset | None = None,
    protocol: Protocol | None = None,
    candidates: dict | None = None,
) -> dict:
    """Do the runs that `output` does not hold yet, and return the result record. d: default all of CIFAR-10 as JPEG.

    candidates: settings to choose from on training images, default CANDIDATES; with none the protocol's own.
    """
    d, protocol = d or cifar(), protocol or Protocol()
    settings, sources = choose(output, watch, d, protocol, CANDIDATES if candidates is None else candidates)
    protocol = replace(protocol, **settings)
    runs = Runs(output, NAME, [asdict(protocol) | {"seeds": 0}, len(d.x_train)])
    work = [{"seed": seed, "method": method} for seed in protocol.seeds for method in METHODS]
    for i, key in enumerate(work):
        if not runs.get(**key):
            watch(i, len(work), f"{key['method']}, seed {key['seed']}")
            runs.add(**key, **train(d, protocol, key["method"], key["seed"], partial(watch, i, len(work))))
    return record([runs.get(**key) for key in work], protocol) | {"settings_chosen_on": sources}


def judge(given: dict) -> dict:
    """The record of the runs of a record, made anew."""
    return record(given["runs"], Protocol(**given["protocol"] | {"seeds": tuple(given["seeds"])}))


def record(runs: list[dict], protocol: Protocol) -> dict:
    """The result record of finished runs: a row for each method, and its goals beside SGD of the same seed."""
    points = {m: [r["point"] for s in protocol.seeds for r in runs if (r["method"], r["seed"]) == (m, s)]
              for m in METHODS}  # fmt: skip
    goals = [goal for m, least in GOALS.items() for goal in saving.goals(m, points[m], points["SGD"], least)]
    return {
        "name": NAME,
        "published": PUBLISHED,
        "measured": {method: saving.row(found, points["SGD"]) for method, found in points.items()},
        "units": "saved: percent of SGD's multiply-adds, a product of whole numbers of a×b bits as max(a, b)/32 "
        "of one; accuracy: percent of the test images; gain: points over SGD of the same seed; point: steps, "
        "multiply-adds, share of the test images",
        **verdicts(goals),
        "protocol": asdict(protocol),
        "seeds": list(protocol.seeds),
        "runs": runs,
    }
