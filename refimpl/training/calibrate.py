"""What a run learns from its first mini-batch before the first step: constants of rules that follow from gradients."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ..compiler.compile import compile
from ..compiler.program import Program
from ..methods.convolution import Rule


def learnt(program: Program) -> dict[str, tuple[str, Rule]]:
    """The constants that the first mini-batch decides: name in a saved run, `order/conv1` → name in the step, rule."""
    found = {}
    for rule in program.plan.rules:
        for local in rule.learnt():
            names = (name for name in program.step.constants if name.endswith(f".{local}"))
            found |= {f"{local}/{name.removesuffix(f'.{local}')}": (name, rule) for name in names}
    return found


def check_learnt(program: Program, saved: Mapping[str, np.ndarray]) -> None:
    """ValueError where a constant of a saved run cannot be right."""
    for name, (constant, rule) in learnt(program).items():
        if wrong := rule.wrong(constant.rpartition(".")[2], saved[name]):
            raise ValueError(f"the saved run's {name} {wrong}")


def calibrate(trainer, x: np.ndarray, y: np.ndarray) -> None:
    """Make what rules learn of the dense gradients on n ≤ batch samples x (n, H, W, C), y (n,).

    Nothing for a plan without such a rule. Once, it takes the memory of a dense step of the same layers; the parameters
    stay as they are.
    """
    program = trainer.program
    wanted = learnt(program)
    if not wanted:
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
    for name, _ in wanted.values():
        constant, w = program.step.constants[name], program.graph.node(name.rpartition(".")[0]).params["w"]
        dw = trainer.backend.read(exact.runner.array(dense.step.gradients[w]))
        trainer.backend.write(trainer.runner.owned[constant.buffer], constant.make({w: dw}, trainer.seed))
