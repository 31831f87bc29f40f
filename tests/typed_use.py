"""The public interface as a typed program uses it: mypy checks this file under its strict settings, nothing runs it."""

from pathlib import Path

import numpy as np

import costmodel
import refimpl as ri
from refimpl import data


def own_graph() -> ri.Graph:
    graph = ri.Graph("own", (8, 8), 3)
    x = graph.conv2d("conv", "input", 8, kernel=3, pad="same", bias=True)
    x = graph.relu("relu", graph.batch_norm("bn", x))
    x = graph.add("sum", x, graph.conv2d("side", "input", 8, (1, 1)))
    x = graph.global_avg_pool("pool", graph.max_pool("max", x, 2))
    graph.linear("fc", graph.dropout("drop", x, rate=0.1), 5)
    return graph


def plans() -> list[ri.Plan]:
    step = ri.Backprop(ri.SGD(lr=0.05, momentum=0.9), clip_norm=1.0)
    return [
        ri.Plan(train_last=2, rules=[ri.GradientFilter(patch=2)], step=step),
        ri.Plan("all", (ri.ErrorMapPruning(0.5),), ri.Backprop(ri.Adam(lr=1e-3))),
        ri.Plan(instances=ri.InstanceFilter(keep=0.25), class_weights=[1.0, 2.0]),
        ri.Plan(depth=ri.StochasticDepth(), batch_norm="train"),
    ]


def train(program: ri.Program, path: Path) -> float:
    found = data.load("watch", subject=1)
    trainer = ri.Trainer(program, seed=0)
    losses: list[float] = trainer.fit(found.x_train, found.y_train, epochs=1)
    for progress in trainer.steps(found.x_train, found.y_train, epochs=2):
        losses.append(progress.loss)
    trainer.save(path)
    return trainer.evaluate(found.x_test, found.y_test)


def price(graph: ri.Graph, plan: ri.Plan) -> tuple[float, int]:
    program = ri.compile(graph, plan, batch=8, size=(8, 8), memory_limit=1 << 20, backend="fast", dtype=np.float32)
    estimate: costmodel.Estimate = costmodel.estimate(program, device="raspberry-pi-4")
    peak: int = program.peak_bytes
    return estimate.seconds["mid"], peak
