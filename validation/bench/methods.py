"""Training steps under the methods beside the same step by back-propagation: does the time fall as the ledger says?

Frozen batch norm and plain SGD, as sparse update needs them. The peer is our own back-propagation on all layers, so a
ratio is what a method leaves of the step's time; beside it stand the ratios that `costmodel` predicts.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

import costmodel
import refimpl as ri
from costmodel.advice import integers
from costmodel.device import device as devices

from .steps import StepCase

LR = 1e-6  # of timed steps: approximate gradients must not drive weights that were never trained out of range
ERROR_LR = 1e-2  # of the step whose error is taken: its change must stand out of the weights' rounding
STATISTICS_STEPS = 30  # of a running mean that takes a tenth of each new value


@cache
def pretrained(model: str, size: tuple[int, int], batch: int) -> ri.Graph:
    """The model with first weights and frozen statistics that fit them, as those of a pre-trained net do."""
    graph = StepCase(model, size, batch).graph()
    trainer = ri.Trainer(ri.compile(graph, ri.Plan(1, batch_norm="train", step=ri.Backprop(ri.SGD(lr=1e-9))), batch))
    x, y = StepCase(model, size, batch).samples(graph)
    for _ in range(STATISTICS_STEPS):
        trainer.train_step(x, y, STATISTICS_STEPS)
    graph.weights = {name: a.copy() for name, a in trainer.parameters.items()}
    return graph


@dataclass(frozen=True)
class MethodCase:
    """A rule on the last convolutions of a model, at an input size and a batch size."""

    model: str
    size: tuple[int, int]
    batch: int
    rule: object
    train_last: int | str = "all"
    tolerance = 1e-2  # of the whole change of the weights: a rectifier near its kink may fall to either side
    peers = ("backprop",)

    def program(self, rules: tuple = (), train_last: int | str = "all", dtype=np.float32, lr=LR) -> ri.Program:
        """The step under `rules`."""
        graph = pretrained(self.model, self.size, self.batch)
        plan = ri.Plan(train_last, rules, ri.Backprop(ri.SGD(lr=lr)), train_bias=True)
        return ri.compile(graph, plan, self.batch, dtype=dtype)

    def own(self, dtype=np.float32, lr=LR) -> ri.Program:
        """The step under the rule."""
        return self.program((self.rule,), self.train_last, dtype, lr)

    def step(self, program: ri.Program):
        """A step of a trainer, ready to be called again; `.trainer` is the trainer."""
        trainer = ri.Trainer(program)
        x, y = StepCase(self.model, self.size, self.batch).samples(program.graph)

        def step() -> float:
            return trainer.train_step(x, y, 1)

        step.trainer = trainer
        return step

    def ours(self):
        """A step under the rule."""
        return self.step(self.own())

    def backprop(self):
        """A step by back-propagation on all layers."""
        return self.step(self.program())

    def error(self) -> float:
        """Error of the change that one step makes to all weights, against the same step in float64."""
        return self.distance(*(self.own(dtype, ERROR_LR) for dtype in (np.float32, np.float64)))

    def distance(self, ours: ri.Program, exact: ri.Program) -> float:
        """‖a − b‖ / ‖b‖ of the changes that one step of each makes to all weights."""
        changes = []
        for program in (ours, exact):
            step = self.step(program)
            parameters = step.trainer.parameters
            before = {name: parameters[name].astype("float64") for name in program.graph.parameters}
            step()
            changes.append(np.concatenate([(parameters[name] - a).ravel() for name, a in before.items()]))
        return float(np.linalg.norm(changes[0] - changes[1]) / np.linalg.norm(changes[1]))

    def bytes(self) -> int:
        """Bytes that the launches read and write, each array of a launch once."""
        return costmodel.estimate(self.own()).traffic_bytes

    def predicted(self) -> dict[str, float]:
        """The ratios to back-propagation that `costmodel` gives: multiply-adds, counted and executed, and seconds here.

        The range of the seconds' ratio is that of both intervals' ends, wider than either.
        `predicted_calibrated`: did `gradledger calibrate` measure this machine?
        """
        here = devices.this_machine()
        ours, dense = (costmodel.estimate(p, device=here) for p in (self.own(), self.program()))
        return {
            "predicted_macs_ratio": integers.weighed_macs(ours) / dense.macs,
            "predicted_executed_ratio": ours.executed_flops / dense.executed_flops,
            "predicted_seconds_ratio": ours.seconds["mid"] / dense.seconds["mid"],
            "predicted_seconds_ratio_range": [
                ours.seconds["low"] / dense.seconds["high"],
                ours.seconds["high"] / dense.seconds["low"],
            ],
            "predicted_calibrated": here.measured,
        }


RULES = {
    "error-map-pruning-0.5": ri.ErrorMapPruning(0.5), "error-map-pruning-0.25": ri.ErrorMapPruning(0.25),
    "sparse-update-0.02": ri.SparseUpdate(0.02), "gradient-filter-2": ri.GradientFilter(2),
    "gradient-filter-4": ri.GradientFilter(4),
}  # fmt: skip
NETS = {  # part of a case's name → model, size, and how many convolutions sparse update trains
    "resnet18": ("resnet18", (64, 64), "all"), "resnet18_128": ("resnet18", (128, 128), "all"),
    "resnet20": ("resnet20", (32, 32), "all"), "mobilenet_v2": ("mobilenet_v2", (96, 96), 42),
}  # fmt: skip
CASES = {
    f"method-{net}-{name}": MethodCase(model, size, 8, rule, last if name.startswith("sparse-update") else "all")
    for net, (model, size, last) in NETS.items()
    for name, rule in RULES.items()
}
