"""Bias and variance of gradients that are computed with few bits, against the dense ones, on a small trained net.

    python -m validation.instruments.rounding      the bundled watch net, each scheme at 8, 6 and 4 bits

The mini-batch and the weights stay, the words of the roundings are drawn anew: a_i is the gradient of draw i, g the
dense one, all convolutions together, each given the exact dy (*local* in `instruments.approximation`), float64:

    variance   E ‖a − E a‖² / ‖g‖²      what rounding dy at random adds to the noise of a step
    bias       ‖E a − g‖ / ‖g‖          what stays after averaging over the draws
    chance     √(variance / draws)      the bias that so few draws show where there is none

The bias of dw beyond chance is that of x, of dx that of w, whose rounding to the nearest is the same in every draw;
under `banner` also that of the maps that the layers before computed with 8 bits.
"""

import sys
from dataclasses import dataclass

import numpy as np

import refimpl as ri
from refimpl import data
from refimpl.graph import Graph
from refimpl.kernels.running import threads
from refimpl.methods.quantized import SCHEMES
from refimpl.plan.plan import Plan
from refimpl.training.trainer import Trainer

from .approximation import convolutions, gradients

BATCH, DRAWS, BITS = 32, 64, (8, 6, 4)


@dataclass(frozen=True)
class Rounding:
    """What draws of one gradient show; see the head of the file."""

    variance: float
    bias: float
    draws: int

    @property
    def chance(self) -> float:
        """The bias that so few draws show where there is none."""
        return float(np.sqrt(self.variance / self.draws))


def measure(graph: Graph, plan: Plan, x: np.ndarray, y: np.ndarray, draws: int, seed: int = 0) -> dict[str, Rounding]:
    """`dw` and `dx` of the convolutions that train, of x (N, H, W, C) and y (N,), against those without rules.

    The weights are those of `graph`, else drawn from `seed`. ValueError where no convolution trains.
    """
    exact, approximate = (
        Trainer(ri.compile(graph, p, len(x), backend="reference", dtype=np.float64), seed)
        for p in (Plan(plan.train_last, batch_norm=plan.batch_norm), plan)
    )
    layers = convolutions(graph, plan)
    with threads(exact.program.threads):
        true = gradients(exact, x, y, 0, draws)
        dy = {node: a for (node, array), a in true.items() if array == "dy"}
        keys = [key for key in true if key[0] in layers and key[1] != "dy"]
        sums, squares = {key: np.zeros_like(true[key]) for key in keys}, dict.fromkeys(keys, 0.0)
        for i in range(draws):
            drawn = gradients(approximate, x, y, i, draws, dy)
            for key in keys:
                error = drawn[key] - true[key]
                sums[key] += error
                squares[key] += float(np.vdot(error, error))
    found = {}
    for array in ("dw", "dx"):
        own = [key for key in keys if key[1] == array]
        if not own:
            continue
        norm = sum(float(np.vdot(true[key], true[key])) for key in own)
        shift = sum(float(np.vdot(sums[key], sums[key])) for key in own) / draws**2
        spread = (sum(squares[key] for key in own) / draws - shift) * draws / (draws - 1)
        found[array] = Rounding(spread / norm, float(np.sqrt(shift / norm)), draws)
    return found


def main() -> int:
    """Print the table."""
    d = data.load("watch", subject=1)
    graph = ri.models.build("watch", classes=len(d.classes))
    graph.weights = ri.models.watch_weights(1)
    x, y = d.x_train[:BATCH], d.y_train[:BATCH]
    print("| scheme | bits | dw: variance | bias | chance | dx: variance | bias | chance |")
    print("|---|---|---|---|---|---|---|---|")
    for scheme in SCHEMES:
        for bits in BITS:
            found = measure(graph, Plan(rules=[ri.QuantizedTraining(scheme, bits)]), x, y, DRAWS)
            cells = [f"{v:.2e}" for a in ("dw", "dx") for v in (found[a].variance, found[a].bias, found[a].chance)]
            print(f"| {scheme} | {bits} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
