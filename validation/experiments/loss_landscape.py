"""The loss around the paths of back-propagation and of forward gradients: arXiv 2411.04036, appendix.

gradledger reproduce loss-landscape

The bundled watch net that does not know a person learns that person's exercises, all layers, batch norm frozen: once by
back-propagation and once by sign-m-SPSA. The loss over all training windows is drawn on the plane that both paths leave
least, and on a plane of filter-normalised random directions around where back-propagation ends.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

import refimpl as ri
from refimpl import data
from validation.instruments import landscape

NAME = "loss-landscape"
PUBLISHED = {"source": "arXiv 2411.04036, appendix: 2-D plots of the loss along the training path, no figures"}
SUBJECT, SEED, BATCH, POINTS, SIDE = 1, 10, 64, 30, 25
COSINE = ri.Schedule("cosine")
WAYS = {
    "backprop": (ri.Backprop(ri.SGD(0.01, 0.9, schedule=COSINE)), 500),
    "sign, m = 1": (ri.ForwardGradient(m=1, optimizer=ri.SGD(0.003, schedule=COSINE)), 9000),
}


def path(step, steps: int, d: data.Dataset, tell: Callable[[int], None]) -> tuple[list[dict], list[float], ri.Trainer]:
    """Trained parameters at POINTS + 1 places of a run, the accuracy at each, and the trainer."""
    graph = ri.models.build("watch", classes=len(d.classes))
    graph.weights = ri.models.watch_weights(SUBJECT)
    program = ri.compile(graph, ri.Plan("all", step=step), BATCH)
    trainer = ri.Trainer(program, SEED)
    names = [name for name, b in program.step.parameters.items() if b.region == "state"]
    epochs = max(1, round(steps / -(-len(d.x_train) // BATCH)))
    total = epochs * -(-len(d.x_train) // BATCH)
    marks = {round(total * (i + 1) / POINTS) for i in range(POINTS)}
    found, accuracy = [], []

    def keep() -> None:
        found.append({name: trainer.parameters[name].copy() for name in names})
        accuracy.append(round(100 * trainer.evaluate(d.x_test, d.y_test), 2))

    keep()
    for progress in trainer.steps(d.x_train, d.y_train, epochs):
        if progress.step in marks:
            keep()
            tell(progress.step)
    return found, accuracy, trainer


def grid(coordinates: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """SIDE values along both directions, a quarter beyond what the paths reach."""
    both = np.concatenate(coordinates)
    low, high = both.min(axis=0), both.max(axis=0)
    room = 0.25 * np.maximum(high - low, 1e-3)
    return tuple(np.linspace(low[i] - room[i], high[i] + room[i], SIDE) for i in (0, 1))


def run(output: Path, watch: Callable[[int, int, str], None]) -> dict:
    """Train, look around, and keep what a picture needs."""
    d = data.watch(SUBJECT)
    work = len(WAYS) * POINTS + 2
    paths, accuracies, trainer = [], {}, None
    for i, (name, (step, steps)) in enumerate(WAYS.items()):
        tell = lambda done, i=i, name=name: watch(i * POINTS, work, f"{name}, step {done}")  # noqa: E731
        points, accuracies[name], trainer = path(step, steps, d, tell)
        paths.append(points)

    def loss(weights: landscape.Weights) -> float:
        for name, w in weights.items():
            trainer.parameters[name][...] = w
        logits = trainer.predict(d.x_train).astype(np.float64)
        top = logits.max(axis=1)
        sums = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
        return float(np.mean(sums - logits[np.arange(len(logits)), d.y_train]))

    ends = {
        name: {"first": loss(points[0]), "last": loss(points[-1])} for name, points in zip(WAYS, paths, strict=True)
    }
    planes = {}
    for i, kind in enumerate(("principal", "filter-normalised")):
        watch(len(WAYS) * POINTS + i, work, f"the {kind} plane")
        if kind == "principal":
            plane, kept = landscape.principal(paths)
            tracks = [plane.coordinates(points) for points in paths]
            a, b = grid(tracks)
        else:
            plane, kept, tracks = landscape.filter_normalised(paths[0][-1], SEED), [], []
            a = b = np.linspace(-1, 1, SIDE)
        planes[kind] = {
            "kept": [round(share, 4) for share in kept],
            "a": a.tolist(),
            "b": b.tolist(),
            "loss": np.round(landscape.surface(plane, loss, a, b), 5).tolist(),
            "paths": {name: np.round(track, 5).tolist() for name, track in zip(WAYS, tracks, strict=bool(tracks))},
        }
    return {
        "name": NAME,
        "published": PUBLISHED,
        "subject": SUBJECT,
        "seed": SEED,
        "measured": {"losses": ends, "accuracy": accuracies, "planes": planes},
        "steps": {name: steps for name, (_, steps) in WAYS.items()},
        "ok": all(end["last"] < end["first"] for end in ends.values()),
    }
