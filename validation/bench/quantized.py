"""Training steps in 8 bits beside the same step by back-propagation in float32, all layers, batch statistics."""

from dataclasses import dataclass

import numpy as np

import refimpl as ri

from .methods import ERROR_LR, LR, MethodCase
from .steps import StepCase


@dataclass(frozen=True)
class QuantizedCase(MethodCase):
    """`quantized` on a model, at an input size and a batch size."""

    def program(
        self, rules: tuple = (), train_last: int | str = "all", dtype=np.float32, lr=LR, backend: str | None = None
    ) -> ri.Program:
        """The step under `rules`."""
        graph = StepCase(self.model, self.size, self.batch).graph()
        plan = ri.Plan(train_last, rules, ri.Backprop(ri.SGD(lr=lr)), train_bias=True, batch_norm="train")
        return ri.compile(graph, plan, self.batch, dtype=dtype, backend=backend)

    def error(self) -> float:
        """Error of the change that one step makes to all weights, against the reference, both in float64.

        Steps of float32 and of float64 round numbers of the error maps to either side here and there.
        """
        both = (self.program((self.rule,), "all", np.float64, ERROR_LR, backend) for backend in (None, "reference"))
        return self.distance(*both)


NETS = (("resnet8", 32, 32), ("resnet20", 32, 32), ("lenet", 28, 64), ("mobilenet_v2", 96, 8))
CASES = {
    f"quantized-{model}-{size}x{size}-batch{batch}-{scheme}": QuantizedCase(
        model, (size, size), batch, ri.QuantizedTraining(scheme)
    )
    for model, size, batch in NETS
    for scheme in ("psq", "ptq", "banner")
}
