"""Int8 microcontroller nets adapted in whole numbers by back-propagation: the sparse update with scaled gradients.

gradledger reproduce quantized-scaling

The two nets of arXiv 2206.15472 learn ten classes of photographs (CIFAR-10 re-encoded as JPEG, stretched to 128×128)
in their last six convolutions by `sparse-update:ratio=0.1`, plain SGD, cosine:

    whole       in whole numbers, with quantization-aware scaling
    unscaled    the same without it
    float       the dequantized net, in float32
    classifier  its classifier alone, in whole numbers before it, for as many epochs more

All begin with the classifier of the same seed, trained alone in the net of whole numbers. It is a linear layer of
floats in all of them. Whether a step of whole numbers is one of floats is answered by `whole` beside `float`, whether
the scaling is needed by `unscaled`.

Our protocol, for two cores: a few images, in their order in the file; the convolutions that are frozen run once
(`surgery.cut`), so that no image is moved or mirrored. The learning rate of each is the best of CANDIDATES by one epoch
of a seed of its own, judged by images of the training set that no run trains on.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

import refimpl as ri
from refimpl.data.cifar_jpeg import decode
from refimpl.data.resized import Resized
from refimpl.formats.npz import load_npz
from refimpl.surgery.cut import cut, frozen_until

from . import datasets
from .runs import FRESH, TRIAL_SEED, Runs, best_of, chosen_on, judged, percents, verdicts

NAME = "quantized-scaling"
WEIGHTS = {"MobileNetV2 0.35": "mobilenet_v2_w0.35_int8.npz", "MCUNet": "mcunet_5fps_int8.npz"}
CANDIDATES = {
    "classifier first": (0.01, 0.03, 0.1), "whole": (0.0003, 0.001, 0.003), "unscaled": (0.001, 0.003, 0.01),
    "float": (0.0003, 0.001, 0.003), "classifier": (0.001, 0.003, 0.01),
}  # fmt: skip
METHODS = tuple(name for name in CANDIDATES if name != "classifier first")
PARTS = ("train", "held", "test")


@dataclass(frozen=True)
class Protocol:
    """What is run. images: training, held-out and test images; first: epochs of the classifier alone before."""

    seeds: tuple[int, ...] = FRESH[:3]
    size: int = 128
    layers: int = 6
    ratio: float = 0.1
    batch: int = 16
    first: int = 8
    epochs: int = 3
    images: tuple[int, int, int] = (2500, 500, 2000)

    def plan(self, method: str, lr: float) -> ri.Plan:
        """How a net learns."""
        sgd = ri.SGD(lr, schedule=ri.Schedule("cosine"), scaled=method != "unscaled")
        if method.startswith("classifier"):
            return ri.Plan(0, (), ri.Backprop(sgd))
        return ri.Plan(self.layers, (ri.SparseUpdate(self.ratio),), ri.Backprop(sgd))


def photographs(protocol: Protocol) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (N, 32, 32, 3) uint8 and labels of each of PARTS."""
    train, held, test = protocol.images
    found = {}
    with np.load(datasets.folder("cifar10_jpeg.npz")) as file:
        for part, name, first, count in (
            ("train", "train", 0, train),
            ("held", "train", train, held),
            ("test",) * 2 + (0, test),
        ):
            ends = file[f"{name}_offsets"][first : first + count + 1]
            stream = file[f"{name}_jpeg"][ends[0] : ends[-1]]
            images = decode(stream, ends - ends[0], f"{name}_jpeg")
            found[part] = images, file[f"{name}_labels"][first : first + count].astype(np.int64)
    return found


class Net:
    """What of a net learns, in whole numbers and in floats, with the maps that its frozen part makes of the images."""

    def __init__(self, name: str, protocol: Protocol, images: dict[str, tuple[np.ndarray, np.ndarray]]):
        self.protocol, self.tails, self.maps = protocol, {}, {}
        self.labels = {part: y for part, (_, y) in images.items()}
        self.first: dict[int, dict] = {}  # seed → the run of the classifier that all begin with
        size = (protocol.size, protocol.size)
        for whole in (True, False):
            graph = load_npz(datasets.weights(WEIGHTS[name]), 10, size, whole=whole)
            head, self.tails[whole] = cut(graph, frozen_until(graph, ri.Plan(protocol.layers)))
            judge = ri.Trainer(ri.compile(head, None, protocol.batch))
            dtype = np.int8 if whole else np.float32
            self.maps[whole] = {
                part: judge.predict(Resized(x, size).with_pixels(*graph.pixels, dtype))
                for part, (x, _) in images.items()
            }

    def begun(self, lr: float, seed: int, on: str, watch: Callable[[str], None]) -> dict:
        """The run of the classifier alone that all methods begin with."""
        if seed not in self.first:
            self.first[seed] = self.train("classifier first", lr, seed, self.protocol.first, on, None, watch)
        return self.first[seed]

    def train(
        self, method: str, lr: float, seed: int, epochs: int, on: str, start: dict | None, watch: Callable[[str], None]
    ) -> dict:
        """Accuracy on the images of `on`, losses and the classifier of one run that begins with that of `start`."""
        whole = method != "float"
        graph, maps = self.tails[whole], self.maps[whole]
        features = graph.parameters["fc.w"].shape
        graph.weights |= start or {"fc.w": np.zeros(features, np.float32), "fc.b": np.zeros(10, np.float32)}
        before = {n: w.copy() for n, w in graph.weights.items()}
        program = ri.compile(graph, self.protocol.plan(method, lr), self.protocol.batch, threads=1)
        trainer = ri.Trainer(program, seed)
        started = time.perf_counter()
        for p in trainer.steps(maps["train"], self.labels["train"], epochs):
            if p.step % 50 == 0:
                loss = np.mean(trainer.losses[-50:])
                watch(f"{method}, lr {lr:g}, seed {seed}: step {p.step} of {p.steps}, loss {loss:.3f}")
        moved = {n: np.count_nonzero(trainer.parameters[n] != before[n]) for n in program.step.gradients if n in before}
        sizes = {n: before[n].size for n in moved if not n.startswith("fc.")}
        return {
            "accuracy": trainer.evaluate(maps[on], self.labels[on]),
            "loss": [
                round(float(np.mean(part)), 4) for part in np.array_split(trainer.losses, min(6, len(trainer.losses)))
            ],
            "moved": round(float(sum(moved[n] for n in sizes)) / max(1, sum(sizes.values())), 4),
            "train_seconds": round(time.perf_counter() - started, 1),
            "classifier": {n: trainer.parameters[n].copy() for n in ("fc.w", "fc.b")},
        }


def run(output: Path, watch: Callable[[int, int, str], None], protocol: Protocol | None = None) -> dict:
    """Do the runs that `output` does not hold yet, and return the result record."""
    protocol = protocol or Protocol()
    runs = Runs(output, NAME, {k: v for k, v in asdict(protocol).items() if k != "seeds"})
    images = photographs(protocol)
    found, rates, done = [], {}, 0
    count = len(WEIGHTS) * len(protocol.seeds) * len(METHODS)
    for name in WEIGHTS:
        net = Net(name, protocol, images)
        tell = partial(lambda text, done, name: watch(done, count, f"{name}, {text}"), done=done, name=name)

        rates[name] = mine = {}

        def one(method, lr, seed, epochs, on, net=net, tell=tell, mine=mine):
            start = None if method == "classifier first" else net.begun(mine["classifier first"], seed, on, tell)
            return net.train(method, lr, seed, epochs, on, start and start["classifier"], tell)

        for method, candidates in CANDIDATES.items():
            epochs = protocol.first if method == "classifier first" else 1

            def trial(settings, method=method, epochs=epochs):
                return one(method, settings["lr"], TRIAL_SEED, epochs, "held")["accuracy"]

            mine[method] = best_of(runs, f"{name}, {method}", [{"lr": lr} for lr in candidates], trial)["lr"]
        for seed in protocol.seeds:
            for method in METHODS:
                key = {"net": name, "method": method, "seed": seed}
                if not runs.get(**key):
                    ran = one(method, mine[method], seed, protocol.epochs, "test")
                    ran.pop("classifier")
                    first = net.begun(mine["classifier first"], seed, "test", tell)["accuracy"]
                    runs.add(**key, lr=mine[method], first=first, **ran)
                found.append(runs.get(**key))
                done += 1
    sources = {
        f"{name}, {method}": chosen_on({"lr": lr}, protocol.images[1], CANDIDATES[method])["lr"]
        for name, mine in rates.items()
        for method, lr in mine.items()
    }
    return record(found, protocol) | {"settings_chosen_on": sources}


def judge(given: dict) -> dict:
    """The record of the runs of a record, made anew."""
    return record(
        given["runs"], Protocol(**{k: tuple(v) if isinstance(v, list) else v for k, v in given["protocol"].items()})
    )


def points(runs: dict[tuple[str, str], list[dict]], name: str, over: str) -> list[float]:
    """By how many points whole numbers are above another method, for each seed."""
    other = {r["seed"]: r["accuracy"] for r in runs[name, over]}
    return [100 * (r["accuracy"] - other[r["seed"]]) for r in runs[name, METHODS[0]]]


def record(runs: list[dict], protocol: Protocol) -> dict:
    """The result record of finished runs."""
    keys = [(name, method) for name in WEIGHTS for method in METHODS]
    of = {key: [r for r in runs if (r["net"], r["method"]) == key] for key in keys}
    measured = {f"{name}, {method}": percents([r["accuracy"] for r in mine]) for (name, method), mine in of.items()}
    first = {name: percents([r["first"] for r in of[name, METHODS[0]]]) for name in WEIGHTS}
    return {
        "name": NAME,
        "data": "CIFAR-10 re-encoded as JPEG, not the canonical images",
        "published": {},
        "measured": measured,
        "classifier before": first,
        "moved": {f"{name}, {method}": percents([r["moved"] for r in mine]) for (name, method), mine in of.items()},
        "units": "accuracy in percent of the test images; percent of the weights of trained convolutions that moved",
        **verdicts(
            [
                judged(f"{name}, {METHODS[0]} over {over} of the same seed, points", points(of, name, over), least)
                for name in WEIGHTS
                for over, least in (("classifier", 0), ("float", -1))
            ]
        ),
        "protocol": asdict(protocol),
        "seeds": list(protocol.seeds),
        "runs": [{k: v for k, v in r.items() if k != "digest"} for r in runs],
    }
