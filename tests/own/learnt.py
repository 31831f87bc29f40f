"""A rule whose passes read what it gives: a constant that a run learns, and a number that the host tells each step."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refimpl.kernels.passes import declare
from refimpl.methods.layer import Rule
from refimpl.methods.registry import Statement
from refimpl.ops import conv2d


@declare(conv2d.SHAPES | {"scale": "K", "turn": "int64: 1"}, items="K", writes="db")
def grad_b(t, db, scale, turn):
    """Gradient of b, (K,): the scale of each channel, (K,), as often as the number of the update, turn (1,), says."""
    db[t] = scale[t] * db.dtype.type(turn[0])


@dataclass(frozen=True)
class Learnt(Rule):
    """Biases move by the sums of the absolute values of w, or of its first dense gradient where `by_gradient`."""

    by_gradient: bool = True

    method: ClassVar[str] = "learnt"
    states: ClassVar[Statement] = Statement("rule", 90, "learnt")

    def bind(self, node):
        """Its db goes before the dense one."""
        node.add(grad_b)

    def constants(self):
        """The sums."""
        return {"scale": lambda w, groups, seed, stream: np.abs(w).sum((0, 1, 2))}

    def scalars(self):
        """The number of the update, from 1."""
        return {"turn": lambda now: now.updates + 1}

    def learnt(self):
        """The sums, of the gradient."""
        return ("scale",) if self.by_gradient else ()

    def wrong(self, name, values):
        """A sum of absolute values is not negative."""
        return "has a sum below 0" if (values < 0).any() else None
