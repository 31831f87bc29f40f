"""A step that only looks: the loss, and its derivative along tangents of parameters that the host gives.

It is what estimates of a gradient from forward passes are held against (`training.directional`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .optim import SGD, Adam
from .strategy import Strategy, Turn, turns

if TYPE_CHECKING:
    from ..compiler.compose import Composer
    from ..compiler.derive import Derivation
    from ..compiler.ir import Buffer, Step
    from ..compiler.program import Program
    from ..training.trainer import Trainer


@dataclass(frozen=True)
class Directional(Strategy):
    """The loss and `tloss`, its derivative along a direction, in one section; nothing is learnt.

    parameters: names of those that have a tangent, which the host writes as `tangent.NAME`.
    """

    parameters: tuple[str, ...]
    optimizer: SGD | Adam = SGD(lr=1.0)  # a plan asks for one; there is no update

    def derive(self, composer: "Composer") -> "Step":
        """One forward section, with tangents."""
        return composer.net().build(tangent=self.tangent)

    def tangent(self, net: "Derivation", name: str, parameter: "Buffer") -> "Buffer | None":
        """That of a parameter, which the host writes."""
        if name not in self.parameters:
            return None
        own = net.host_writes[f"tangent.{name}"] = net.buffer(f"tangent.{name}", parameter.shape)
        return own

    def run(self, trainer: "Trainer", x: Any, y: np.ndarray, total: int, everything: bool = False) -> float | None:
        """ValueError: there is nothing to train."""
        raise ValueError("a step that only tells a directional derivative trains nothing: plan another step")

    def schedule(self, program: "Program", n: float) -> tuple[Turn, ...]:
        """Its one section, once."""
        return turns(program.sections, n)
