"""Training steps in 8 bits beside the same step by back-propagation in float32, all layers, batch statistics."""

from dataclasses import dataclass

import numpy as np

import refimpl as ri

from .methods import LR, MethodCase
from .steps import StepCase


@dataclass(frozen=True)
class QuantizedCase(MethodCase):
    """`quantized` on a model, at an input size and a batch size."""

    tolerance = 5e-2  # of the change of the weights: an error map in float64 is rounded the other way here and there

    def program(self, rules: tuple = (), train_last: int | str = "all", dtype=np.float32, lr=LR) -> ri.Program:
        """The step under `rules`."""
        graph = StepCase(self.model, self.size, self.batch).graph()
        plan = ri.Plan(train_last, rules, ri.Backprop(ri.SGD(lr=lr)), train_bias=True, batch_norm="train")
        return ri.compile(graph, plan, self.batch, dtype=dtype)


NETS = (("resnet8", 32, 32), ("resnet20", 32, 32), ("lenet", 28, 64), ("mobilenet_v2", 96, 8))
CASES = {
    f"quantized-{model}-{size}x{size}-batch{batch}-{scheme}": QuantizedCase(
        model, (size, size), batch, ri.QuantizedTraining(scheme)
    )
    for model, size, batch in NETS
    for scheme in ("psq", "ptq", "banner")
}
