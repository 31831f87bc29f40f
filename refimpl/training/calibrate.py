"""What a run learns from its first mini-batch before the first step: the order of sparse update by gradients."""

from dataclasses import replace

import numpy as np

from ..compiler.compile import compile
from ..compiler.program import Program
from ..methods.sparse_update import order


def orders(program: Program) -> list[str]:
    """Nodes whose channels the plan orders by the gradient of a calibration batch."""
    asked = any(getattr(rule, "order", None) == "gradient" for rule in program.plan.rules)
    suffix = ".order"
    return [name.removesuffix(suffix) for name in program.step.constants if asked and name.endswith(suffix)]


def check_order(name: str, order: np.ndarray) -> None:
    """ValueError where an order of channels (C,) does not have each of them once: kernels index with it."""
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise ValueError(f"the saved run's {name} is no order of {len(order)} channels")


def calibrate(trainer, x: np.ndarray, y: np.ndarray) -> None:
    """Order the input channels by the norms of their dense gradients on n ≤ batch samples x (n, H, W, C), y (n,).

    Nothing for a plan whose sparse update goes by another order. Once, it takes the memory of a dense step of the same
    layers; the parameters stay as they are.
    """
    program = trainer.program
    nodes = orders(program)
    if not nodes:
        return
    plan = replace(program.plan, rules=(), instances=None, depth=None)
    dense = compile(program.graph, plan, len(x), program.size, None, program.backend, program.threads, program.dtype)
    exact = type(trainer)(dense, trainer.seed)
    for name in program.graph.parameters:
        exact.parameters[name][...] = trainer.parameters[name]
    exact.fill(exact.runner, x)
    labels = "labels" if "labels" in dense.step.host_writes else "target"
    exact.runner.write(labels, len(y), y)
    exact.runner.run("forward", len(x))
    exact.runner.run("backward", len(x))
    for node in nodes:
        gradient = dense.step.gradients[program.graph.node(node).params["w"]]
        dw = trainer.backend.read(exact.runner.array(gradient))
        found = trainer.runner.owned[program.step.constants[f"{node}.order"].buffer]
        trainer.backend.write(found, order(dw, found.shape[0] // dw.shape[2], "norm", 0, 0))
