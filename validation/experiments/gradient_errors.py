"""How far each approximate method turns the gradient of a pre-trained net: what `gradledger cost --advise` looks up.

gradledger reproduce gradient-errors     writes gradient-errors.json; `costmodel/advice/gradient-errors.json` is a copy

The exact gradient g is that of every convolution's weights and of the classifier, by plain back-propagation. Each
setting of each method runs on the same batches with the same weights, all convolutions trained, so that the error map
that reaches a layer carries the errors of the layers behind it (the *whole* view of `instruments.approximation`). The
last k convolutions have the same gradients whether those before them train or not, so one run tells of every k.

Of each layer are kept, as shares of ‖g‖² over all layers and batches, with a the method's gradient:

    exact    Σ_batches ‖g_l‖²       dot    Σ_batches ⟨a_l, g_l⟩       square    Σ_batches ‖a_l‖²

Readings [ours]: the classifier's gradient is exact under every method, for nothing is approximated behind it. Weights
stay as they were before the first step. Channels that a sparse update leaves out in a step have the gradient 0.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import refimpl as ri
from costmodel.advice import expected_error
from refimpl import data
from refimpl.formats.npz import load_npz
from refimpl.graph import Graph
from refimpl.kernels import random
from refimpl.kernels.running import threads
from refimpl.training.trainer import Trainer

from ..instruments.approximation import check_samples, full_gradient, gradients
from . import datasets
from .sparse_mobilenet import WEIGHTS

NAME = "gradient-errors"
DIGITS = 6
METHODS = {
    "gradient-filter": [{"patch": p} for p in (2, 4, 7)],
    "error-map-pruning": [{"keep": k} for k in (0.1, 0.25, 0.5, 0.75)],
    "sparse-update": [{"ratio": r} for r in (0.02, 0.1, 0.25, 0.5)],
}
RULES = {
    "gradient-filter": ri.GradientFilter,
    "error-map-pruning": ri.ErrorMapPruning,
    "sparse-update": ri.SparseUpdate,
}


@dataclass(frozen=True)
class Case:
    """A net with weights, and data: what is measured on. about: how its record names the weights and the data."""

    graph: Graph
    dataset: data.Dataset
    about: dict


def watch_net(seed: int) -> Case:
    """The bundled net that was trained without person 1, on that person's movements."""
    d = data.load("watch", subject=1)
    graph = ri.models.build("watch", classes=len(d.classes))
    graph.weights = ri.models.watch_weights(1)
    return Case(graph, d, {"data": "watch, person 1", "weights": "pre-trained on the nine others"})


def resnet(seed: int) -> Case:
    """ResNet-20, trained here on the embedded part of Fashion-MNIST."""
    d = data.load("fashion-mnist")
    graph = ri.models.build("resnet20", classes=len(d.classes), size=(28, 28), channels=1)
    train(graph, d, "all", epochs=5, seed=seed)
    return Case(graph, d, {"data": "fashion-mnist, 2,000 images", "weights": "trained here first, for 5 epochs"})


def mobilenet(seed: int) -> Case:
    """MobileNetV2 pre-trained on ImageNet, its new classifier trained here on CIFAR-10 (re-encoded as JPEG)."""
    d = data.load(datasets.folder("cifar10_jpeg.npz"), size=(96, 96))
    graph = load_npz(datasets.weights(WEIGHTS["width 1.0"]), len(d.classes), (96, 96))
    d = d.with_pixels(*graph.pixels)
    d = replace(d, x_train=replace(d.x_train, images=d.x_train.images[:2000]), y_train=d.y_train[:2000])
    train(graph, d, 0, epochs=2, seed=seed)
    weights = "pre-trained on ImageNet, the classifier here first, for 2 epochs of 2,000 images"
    return Case(graph, d, {"data": "CIFAR-10 re-encoded as JPEG, 96x96", "weights": weights})


CASES = {"watch": watch_net, "resnet20": resnet, "mobilenet_v2": mobilenet}


def train(graph: Graph, d: data.Dataset, train_last: int | str, epochs: int, seed: int) -> None:
    """Give a graph weights by back-propagation, for the errors of random ones say little."""
    step = ri.Backprop(ri.SGD(lr=0.05, momentum=0.9, schedule=ri.Schedule("cosine")))
    norms = "train" if train_last == "all" else "frozen"
    trainer = Trainer(ri.compile(graph, ri.Plan(train_last, step=step, batch_norm=norms), 64), seed)
    trainer.fit(d.x_train, d.y_train, epochs)
    graph.weights = trainer.parameters


def shares(
    graph: Graph, x, y, methods: Mapping[str, list[dict]], batch: int, batches: int, seed: int = 0,
    watch: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> dict:  # fmt: skip
    """What the module's table keeps of one net, measured on x (M, H, W, C) and y (M,) in float64.

    methods: method → settings. Returns `classifier`, `exact` [convolutions] and, for each method, its settings with
    `dot` and `square` [convolutions]. ValueError where the samples are too few or there is no convolution.
    """
    check_samples(batch, batches, len(x))
    plain = ri.Plan("all")

    def trainer(rules: tuple) -> Trainer:
        program = ri.compile(graph, replace(plain, rules=rules), batch, backend="reference", dtype=np.float64)
        return Trainer(program, seed)

    exact = trainer(())
    settings = [(name, one) for name, many in methods.items() for one in many]
    approximate = [trainer((RULES[name](**one),)) for name, one in settings]
    names = [node.name for node in graph.nodes if node.op == "conv2d"]
    if not names:
        raise ValueError(f"{graph.name} has no convolution, so there is no gradient to compare")
    classifier = [name for name in exact.program.step.gradients if name.rsplit(".", 1)[0] not in names]
    own, rest = np.zeros(len(names)), 0.0
    dots, squares = (np.zeros((len(settings), len(names))) for _ in range(2))
    order = random.permutation(seed, random.SHUFFLE, 0, len(x))
    with threads(exact.program.threads):
        for i in range(batches):
            chosen = order[i * batch : (i + 1) * batch]
            one = np.asarray(x[chosen]), y[chosen]
            true = gradients(exact, *one, i, batches)
            own += [np.vdot(true[name, "dw"], true[name, "dw"]) for name in names]
            rest += sum(np.square(full_gradient(exact.program, exact.runner, name)).sum() for name in classifier)
            for j, ((method, setting), t) in enumerate(zip(settings, approximate, strict=True)):
                watch(i * len(settings) + j, batches * len(settings), f"{graph.name}, {method} {setting}")
                found = gradients(t, *one, i, batches)
                for k, name in enumerate(names):
                    dots[j, k] += np.vdot(found[name, "dw"], true[name, "dw"])
                    squares[j, k] += np.vdot(found[name, "dw"], found[name, "dw"])
    total = own.sum() + rest
    table = {name: [] for name in methods}
    for (name, setting), dot, square in zip(settings, dots / total, squares / total, strict=True):
        table[name].append({**setting, "dot": rounded(dot), "square": rounded(square)})
    return {"classifier": rounded([rest / total])[0], "exact": rounded(own / total), "methods": table}


def rounded(values) -> list[float]:
    """Numbers with DIGITS significant digits."""
    return [float(f"{v:.{DIGITS}g}") for v in values]


def run(
    output: Path, watch: Callable[[int, int, str], None], cases: Mapping[str, Callable[[int], Case]] = CASES,
    batch: int = 16, batches: int = 4, seed: int = 0, methods: Mapping[str, list[dict]] = METHODS,
) -> dict:  # fmt: skip
    """Measure every net; returns the result record, which is the table that `costmodel.advice.expected_error` reads."""
    nets = {}
    for name, make in cases.items():
        watch(0, 1, name)
        case = make(seed)
        found = shares(case.graph, case.dataset.x_train, case.dataset.y_train, methods, batch, batches, seed, watch)
        nets[name] = {**case.about, "size": list(case.graph.size), "batch": batch, "batches": batches, **found}
    table = expected_error.ErrorTable(nets)
    measured = {}
    for name, net in nets.items():
        for method, many in net["methods"].items():
            for one in many:
                key, setting = next(iter(one.items()))
                found = table.error(name, method, setting, "all", len(net["exact"]))
                figures = {"cosine": found.cosine, "error": found.error, "relative_error": found.relative_error}
                measured[f"{name}, {method}:{key}={setting}"] = {k: round(v, 3) for k, v in figures.items()}
        for k in (0, 1, 2):
            found = table.error(name, "backprop", None, k, len(net["exact"]))
            measured[f"{name}, backprop, last {k}"] = {"cosine": round(found.cosine, 3), "error": round(found.error, 3)}
    return {
        "name": NAME,
        "published": {},
        "measured": measured,
        "ok": True,
        "goal": "a table to look up, which judges nothing",
        "seeds": [seed],
        "nets": nets,
    }
