"""Constants of rules that follow from gradients: a run learns them from its first mini-batch, before the first step."""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from ..compiler.compile import compile
from ..compiler.program import Program
from ..methods.layer import Rule


class LearntConstant(NamedTuple):
    """A constant of a rule on a node, which the first mini-batch decides. local: its name in the rule's passes."""

    node: str
    local: str
    rule: Rule

    @property
    def name(self) -> str:
        """Its name in the step."""
        return f"{self.node}.{self.local}"

    @property
    def saved(self) -> str:
        """Its name in a saved run."""
        return f"{self.local}/{self.node}"


def learnt_constants(program: Program) -> list[LearntConstant]:
    """Those of a program."""
    return [
        LearntConstant(name.removesuffix(f".{local}"), local, rule)
        for rule in program.plan.rules
        for local in rule.learnt()
        for name in program.step.constants
        if name.endswith(f".{local}")
    ]


def check_saved(program: Program, saved: Mapping[str, np.ndarray]) -> None:
    """ValueError where a learnt constant of a saved run cannot be right."""
    for constant in learnt_constants(program):
        if wrong := constant.rule.wrong(constant.local, saved[constant.saved]):
            raise ValueError(f"the saved run's {constant.saved} {wrong}")


def learn_constants(trainer, x: np.ndarray, y: np.ndarray) -> None:
    """Make what rules learn of the dense gradients on n ≤ batch samples x (n, H, W, C), y (n,).

    Nothing for a plan without such a rule. Once, it takes the memory of a dense step of the same layers; the parameters
    stay as they are.
    """
    program = trainer.program
    constants = learnt_constants(program)
    if not constants:
        return
    plan = replace(program.plan, rules=(), instances=None, depth=None)
    dense = compile(program.graph, plan, len(x), program.size, None, program.backend, program.threads, program.dtype)
    exact = type(trainer)(dense, trainer.seed)
    for name in program.graph.parameters:
        exact.parameters[name][...] = trainer.parameters[name]
    exact.fill(exact.runner, x)
    exact.runner.write(dense.truth.name, len(y), y)
    exact.runner.run("forward", len(x))
    exact.runner.run("backward", len(x))
    for learnt in constants:
        constant, w = program.step.constants[learnt.name], program.graph.node(learnt.node).params["w"]
        dw = trainer.backend.read(exact.runner.array(dense.step.gradients[w]))
        trainer.backend.write(trainer.runner.owned[constant.buffer], constant.make({w: dw}, trainer.seed))
