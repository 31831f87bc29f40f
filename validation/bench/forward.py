"""A step without a backward pass beside one of back-propagation, both on all layers, plain SGD, frozen batch norm.

[paper] arXiv 2411.04036: with one draw a step, two forward passes, is 1.5 times as cheap as back-propagation, whose
three passes cost about one forward pass each. Whole numbers: int8 maps and int16 weights, "16w8a".
"""

from dataclasses import dataclass, replace

import numpy as np

import refimpl as ri
from refimpl.surgery.for_step import made_for, weights_that_train

from .methods import ERROR_LR, LR, MethodCase, pretrained
from .steps import StepCase

WHOLE_LR = 1e-3  # a smaller one rounds to no change of a weight, and is refused


@dataclass(frozen=True)
class ForwardCase(MethodCase):
    """rule: a kind of step, whose optimizer is replaced."""

    def own(self, dtype=np.float32, lr=LR, backend: str | None = None) -> ri.Program:
        """The step without a backward pass; of whole numbers where it says so, then dtype does not matter."""
        graph, whole = pretrained(self.model, self.size, self.batch), self.rule.quantizes is not None
        step = replace(self.rule, optimizer=ri.SGD(lr=max(lr, WHOLE_LR) if whole else lr))
        plan = ri.Plan(self.train_last, step=step, train_bias=True)
        x, _ = StepCase(self.model, self.size, self.batch).samples(graph)
        made = made_for(step, graph, x, 0, weights_that_train(plan, graph))
        return ri.compile(made, plan, self.batch, dtype=np.float32 if whole else dtype, backend=backend)

    def error(self) -> float:
        """Error of the change that one step makes to all weights, against float64; of whole numbers the reference."""
        if self.rule.quantizes is None:
            return super().error()
        tuned, reference = (self.own(lr=ERROR_LR, backend=backend) for backend in (None, "reference"))
        return self.distance(tuned, reference)


NETS = (("watch", (1, 100), 64), ("resnet8", (32, 32), 32), ("mobilenet_v2", (96, 96), 8))
STEPS = {
    "m1": ri.ForwardGradient(m=1),
    "m3": ri.ForwardGradient(m=3),
    "m1-16w8a": ri.ForwardGradient(m=1, bits="16w8a"),
}
CASES = {
    f"forward-{model}-{size[0]}x{size[1]}-batch{batch}-{name}": ForwardCase(model, size, batch, step)
    for model, size, batch in NETS
    for name, step in STEPS.items()
}
