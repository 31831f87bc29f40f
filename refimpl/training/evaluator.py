"""Run a trained net in inference mode and measure it by what its loss is for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..compiler.compile import compile
from ..compiler.program import Program
from ..ops import operator_module
from . import inputs
from .inputs import Inputs, samples, taken
from .runner import Runner


def inference(program: Program) -> Program:
    """The net of a training program, compiled to infer."""
    return compile(
        program.graph, None, program.batch, program.size, None, program.backend, program.threads, program.dtype
    )


class Evaluator:
    """A net in inference mode, in the memory and with the weights of the runner that trains it."""

    def __init__(self, program: Program, training: Runner):
        """program: of `inference`, whose arena is no larger than the memory of `training`."""
        self.training, self.parameters = training, training.parameters
        self.trains = training.program
        self.scales = self.trains.plan.strategy.scales(self.trains.graph)
        self.scaled = {name: self.parameters[name].copy() for name in self.scales}
        self.runner = Runner(program, {**self.parameters, **self.scaled}, training.block)
        self.runner.last = training.last

    def weights(self, updated: bool) -> dict[str, np.ndarray]:
        """The parameters of the net that is evaluated: those that train, scaled where steps left blocks out.

        updated: has there been any update? A net without one is evaluated as it was given.
        """
        self.training.fetch()
        for name, scale in self.scales.items():
            np.multiply(self.parameters[name], scale if updated else 1.0, out=self.scaled[name])
        self.runner.push()
        return {**self.parameters, **self.scaled}

    def outputs(self, x: Inputs) -> dict[str, np.ndarray]:
        """Each output of the net (M, …), by name, for samples x (M, …) and the weights last asked for."""
        batch, total, outputs = self.trains.batch, samples(x), dict[str, np.ndarray]()
        first, *others = self.trains.graph.outputs
        hosts = {first: "output"} | {name: f"output.{name}" for name in others}
        for start in range(0, total, batch):
            part = taken(x, slice(start, start + batch))
            count = samples(part)
            inputs.fill(self.runner, part)
            self.runner.run("forward", count)
            for name, host in hosts.items():
                y = self.runner.read(host, count)
                if name not in outputs:
                    outputs[name] = np.empty((total, *y.shape[1:]), y.dtype)
                outputs[name][start : start + count] = y
        return outputs

    def measures(self, output: np.ndarray, y: np.ndarray) -> Mapping[str, Any]:
        """How well an output (M, …) fits labels or targets y: what the loss's operator measures, the main one first."""
        plan = self.trains.plan
        return operator_module(plan.loss).measures(output, y, plan.ignored_label)
