"""How near estimated gradients come to those of back-propagation, on the bundled watch net.

    python -m validation.instruments.estimators      each estimator, each enhancement, 1 to 30 draws a step

The mini-batch and the weights stay, z is drawn anew. ĝ_i is what step i takes off the weights at a learning rate of 1,
g what a step of back-propagation takes, all trained parameters side by side, E the mean over n steps. An optimizer has
a learning rate, so what counts of ĝ is its direction; it is compared at the scale s at which E ĝ is nearest to g:

    scale      s = ⟨E ĝ, g⟩ / ‖g‖²             1 for what estimates the gradient itself
    bias       ‖E ĝ / s − g‖ / ‖g‖             what no number of draws averages away
    variance   E ‖ĝ − E ĝ‖² / (s²·‖g‖²)
    cosine     E ⟨ĝ, g⟩ / (‖ĝ‖·‖g‖)

Of n steps the square of the bias is estimated by ⟨ĝ_i, ĝ_j⟩ of i ≠ j, in which the variance has no part. It is then
uncertain by about √(2/D)·variance/n, of D weights; `bias_resolved` is the root of that: a smaller bias is not told from
none.

What arXiv 2411.04036 eq. (1) comes to, and eq. (2) where ε is small, follows from z alone (our derivation): for
independent z_k of mean 0, variance 1 and kurtosis κ = E z⁴, ĝ = 1/m·Σ_i (g·z_i)·z_i has E ĝ = g and, as E z_k²·‖z‖² is
κ + D − 1,

    variance   (D + κ − 2) / m                                     κ: 3 of a normal z, 2.85 of ours, 1 of ±1
    cosine     E χ_m / √(D + m + κ − 2), about √(m / (D + m))      χ_m: the norm of m normal variables

of which the cosine holds where D is large and g·z about normal. The sign of eq. (3) has the same with one draw, and
s = √(2/π) / ‖g‖.
"""

import math
import sys
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import DTypeLike

import refimpl as ri
from refimpl import data
from refimpl.graph import Graph
from refimpl.kernels.random import BELL_VARIANCE
from refimpl.methods.strategy import Strategy
from refimpl.plan.plan import Plan
from refimpl.training.trainer import Trainer

BATCH, DRAWS, LEAST = 32, 1200, 40  # samples; draws of a row in all, and steps at least
BELL_KURTOSIS = 3 - 8 * (256**4 - 1) / 120 / BELL_VARIANCE**2  # a sum's fourth cumulant: −(b⁴ − 1)/120 for each byte
KURTOSIS = {"normal": BELL_KURTOSIS, "signs": 1.0}
ONE = ri.SGD(lr=1.0)


@dataclass(frozen=True)
class GradientEstimate:
    """What steps of one kind show; see the head of the file. dimensions: D; steps: n."""

    scale: float
    bias: float
    variance: float
    cosine: float
    bias_resolved: float
    dimensions: int
    steps: int


def measure(
    graph: Graph, plan: Plan, x: np.ndarray, y: np.ndarray, steps: int, seed: int = 0, backend: str = "fast",
    dtype: DTypeLike = np.float32,
) -> GradientEstimate:  # fmt: skip
    """What the step of a plan makes of one mini-batch x (N, H, W, C), y (N,), `steps` times from the same weights.

    The weights are those of `graph`, else drawn from `seed`. ValueError for fewer than two steps, for what chooses
    instances or blocks, and where the gradient is zero.
    """
    if steps < 2:
        raise ValueError(f"steps must be at least 2, got {steps}")
    for what, chosen in (("instances", plan.instances), ("depth", plan.depth)):
        if chosen is not None:
            raise ValueError(f"estimates are those of a whole batch and net: plan without {what}, {chosen!r}")

    def trainer(step: Strategy) -> Trainer:
        own = replace(plan, step=replace(step, optimizer=ONE, clip_norm=None))
        return Trainer(ri.compile(graph, own, len(x), backend=backend, dtype=dtype), seed)

    g = taken(trainer(ri.Backprop(ONE)), x, y)
    norm = float(np.linalg.norm(g))
    if not norm:
        raise ValueError("the gradient of this mini-batch is zero: there is nothing to compare with")
    estimating, total, squares, cosines = trainer(plan.step), np.zeros_like(g), 0.0, []
    for _ in range(steps):
        a = taken(estimating, x, y)
        total += a
        squares += float(a @ a)
        length = float(np.linalg.norm(a))
        cosines.append(float(a @ g) / (length * norm) if length else 0.0)
    mean = total / steps
    scale = float(mean @ g) / norm**2
    of_mean = (float(total @ total) - squares) / (steps * (steps - 1))  # ⟨ĝ_i, ĝ_j⟩ of i ≠ j
    unit = scale**2 * norm**2
    variance = (squares / steps - of_mean) / unit
    return GradientEstimate(
        scale, math.sqrt(max(of_mean / unit - 1, 0.0)), variance, float(np.mean(cosines)),
        math.sqrt(math.sqrt(2 / g.size) * variance / steps), g.size, steps,
    )  # fmt: skip


def taken(trainer: Trainer, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What a step takes off the weights that train, side by side, float64; the weights are put back."""
    names = [name for name, b in trainer.program.step.parameters.items() if b.region == "state"]
    before = {name: trainer.parameters[name].copy() for name in names}
    trainer.train_step(x, y, 1)
    change = [before[name].astype(np.float64) - trainer.parameters[name] for name in names]
    for name in names:
        trainer.parameters[name][...] = before[name]
    return np.concatenate([a.reshape(-1) for a in change])


def expected(method: ri.ForwardGradient, dimensions: int) -> tuple[float, float] | None:
    """Variance and cosine that follow from z; None where they do not follow from z alone."""
    plain = ri.ForwardGradient(m=method.m, distribution=method.distribution)
    same = replace(method, estimator=plain.estimator, epsilon=plain.epsilon, optimizer=plain.optimizer, clip_norm=None)
    if method.estimator not in ("exact", "spsa") or same != plain:
        return None
    m, more = method.m, dimensions + KURTOSIS[method.distribution] - 2
    chi = math.sqrt(2) * math.exp(math.lgamma((m + 1) / 2) - math.lgamma(m / 2))
    return more / m, chi / math.sqrt(more + m)


FIGURES = {  # what a reader is told of a `GradientEstimate` → its field
    "steps": "steps", "weights": "dimensions", "cosine": "cosine", "variance": "variance", "bias": "bias",
    "bias resolved": "bias_resolved", "scale": "scale",
}  # fmt: skip
COLUMNS = (  # what a reader of the figures is told
    "Estimates of one mini-batch's gradient from the same weights, against back-propagation, at the scale that fits "
    "best. Cosine: mean over the steps. Bias: what is left after averaging, as a share of the gradient; smaller than "
    "resolved it is not told from none. Variance: around that, as a share of the squared norm. By theory: from z alone."
)


def report(graph: Graph, plan: Plan, x: np.ndarray, y: np.ndarray, steps: int, seed: int = 0) -> dict:
    """The figures of `measure`, with the variance and cosine by theory, None where there are none."""
    found = measure(graph, plan, x, y, steps, seed)
    theory = expected(plan.step, found.dimensions) if isinstance(plan.step, ri.ForwardGradient) else None
    variance, cosine = theory or (None, None)
    return asdict(found) | {"variance_by_theory": variance, "cosine_by_theory": cosine}


WAYS = {
    "exact (1)": {"estimator": "exact"},
    "slope (2)": {"estimator": "spsa"},
    "sign (3)": {},
    "one-sided": {"estimator": "one-sided"},
    "exact, z of ±1": {"estimator": "exact", "distribution": "signs"},
    "exact, normalized (9)": {"estimator": "exact", "normalize": "tensor"},
    "exact, largest 10 %": {"estimator": "exact", "sparse": "magnitude"},
    "exact, random 10 %": {"estimator": "exact", "sparse": "random"},
    "exact, sharpness-aware": {"estimator": "exact", "sharpness": 0.01},
    "exact, guided": {"estimator": "exact", "beta": 0.5},
}
SEVERAL = ("exact (1)", "slope (2)", "sign (3)", "one-sided")  # of which more than one draw a step is shown
MODES: dict[str, int | str] = {"classifier": 0, "whole net": "all"}


def main() -> int:
    """Print the table."""
    d = data.load("watch", subject=1)
    graph = ri.models.build("watch", classes=len(d.classes))
    graph.weights = ri.models.watch_weights(1)
    x, y = d.x_train[:BATCH], d.y_train[:BATCH]
    print("| trains | D | estimate | m | variance | by theory | cosine | by theory | bias | resolved | scale |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for mode, last in MODES.items():
        for way, settings in WAYS.items():
            fewest = 3 if settings.get("estimator") == "one-sided" else 1
            for m in [m for m in (1, 3, 10, 30) if m >= fewest and (way in SEVERAL or m == 1)]:
                method = ri.ForwardGradient(m=m, **settings)
                found = measure(graph, Plan(last, step=method), x, y, max(LEAST, DRAWS // m))
                theory = expected(method, found.dimensions)
                said = [f"{theory[0]:,.0f}", f"{theory[1]:.4f}"] if theory else ["", ""]
                cells = [
                    mode,
                    f"{found.dimensions:,}",
                    way,
                    m,
                    f"{found.variance:,.0f}",
                    said[0],
                    f"{found.cosine:.4f}",
                ]
                cells += [said[1], f"{found.bias:.2f}", f"{found.bias_resolved:.2f}", f"{found.scale:.3g}"]
                print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
