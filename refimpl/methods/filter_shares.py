"""How many instances the filter of arXiv 2007.03213 lets in: the equations of its rule, solved for the shares.

The rule of `instance_filter` holds the share that is predicted High *and truly* High at R_set. What trains the main net
is everything predicted High, which is more: R_set over the filter's precision. [ours] all of this.

What follows from the paper's equations. The loss of eq. (6) weighs High by 1/R_set and Low by 1/(1 − R_set), so a
filter that has learned the probability p of High answers with the odds p/(1 − p) · (1 − R_set)/R_set, and predicts High
where p > R_set: nine in ten of the predicted may be Low at R_set 0.1. Eq. (3) moves T until P(predicted High, High) =
R_set. Of the others, eq. (4) and (5) call those uncertain whose odds are above e^−λ, with λ the log-odds at which the
entropy is the limit. So with `s` the log-odds of High that the filter finds in an instance,

    high      = P(s > logit R_set)            where T makes P(s > logit R_set, High) = R_set
    uncertain = P(logit R_set ≥ s > logit R_set − λ)

What they leave open is how well High can be told from Low. [ours] Two bell curves: a score with deviation 1 for both
kinds, its means `separation` = d apart, and b the share of Highs, so that s = d·score − d²/2 + logit b. With
x = logit b − logit R_set, which T settles, and Φ the normal distribution,

    b·Φ(d/2 + x/d) = R_set                                                                       x, eq. (3)
    within(λ) = b·Φ(d/2 + (x + λ)/d) + (1 − b)·Φ((x + λ)/d − d/2),  high = within(0)             `within`

With d = 0, a filter that knows nothing, everything is let in; with d → ∞, a perfect one, R_set.

What is measured. d grows with what the filter has learned, and it learns from Highs, of which R_set·n enter in a
mini-batch of n. The mean over a run of `steps` mini-batches is

    d = SLOPE · ln(R_set·n·steps / FEW)                                                           `separation`

SLOPE and FEW are fitted to LeNet on MNIST alone: to the multiply-adds of the six runs of 8,000 to 11,700 mini-batches
in `validation/results/lenet-mnist.json`, and of three shorter ones (R_set 0.05, 0.1 and 0.3, looked at after 469 to
7,500). They then lie within 11 %, but for R_set 0.3 in its first 938 mini-batches, 30 % too high, in which T falls all
the time. That d follows the logarithm of the Highs was seen on these and on first runs on Fashion-MNIST.
`validation.experiments.filter_shares` holds it against data, nets and settings that nothing was fitted to.

What the equations cannot tell is when there are Highs. T falls by α₂ a mini-batch at most, eq. (3), and while it lies
above all losses there are none: the filter comes to drop everything but the instance in doubt. So it is for the first
ln(T/loss)/−ln α₂ mini-batches where a net comes trained, with `loss` what the share R_set of the instances reaches
(`passed`), and may be whenever a net learns its data by heart faster than T falls. Against that, T rises by α₁ a
mini-batch at most, and while it lies below all losses everything is let in. The ends of the interval reckon with the
most that T may have to move: to 1/FALLS of its first value, and to the loss before the first step.
"""

import math
from functools import cache, partial
from statistics import NormalDist

import numpy as np

from ..kernels import random
from ..kernels.traced import opaque

SLOPE, FEW = 0.2, 76.0
LEAST, MOST = 0.75, 1.3  # times d: the interval
FALLS, RISES = 1000.0, 5.0  # factors by which T may have to move where no losses are known
STEPS = 10_000  # mini-batches of a run where its length is not known
LOOK = 128  # instances whose losses tell where T will meet them
FAR = 50.0  # log-odds at which the entropy is 0 and a share 0 or 1 in float64

_phi = NormalDist().cdf


def _where(rises, target: float, low: float, high: float) -> float:
    """Where a rising function reaches a value, between low and high."""
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if rises(middle) >= target else (middle, high)
    return (low + high) / 2


def reach(limit: float) -> float:
    """λ: log-odds against High at which the entropy of two classes is `limit` nats; 0 from ln 2 up."""

    def certainty(odds: float) -> float:
        p = 1 / (1 + math.exp(odds))
        return -odds * p - math.log1p(math.exp(-odds))

    return 0.0 if limit >= math.log(2) else _where(certainty, -limit, 0.0, FAR)


def separation(highs: float) -> float:
    """d of a run in which about so many Highs enter; not below 0.1, where nearly everything is let in."""
    return SLOPE * math.log(max(highs / FEW, math.exp(0.1 / SLOPE)))


@cache
def within(wanted: float, reach: float, d: float) -> float:
    """Share of the instances whose log-odds of High lie above −reach, for R_set = wanted and separation d."""
    if wanted >= 1:
        return 1.0
    first = math.log(wanted / (1 - wanted))

    def of(x: float) -> float:  # b, the share of Highs
        return 1 / (1 + math.exp(-first - x))

    x = _where(lambda x: of(x) * _phi(d / 2 + x / d), wanted, 0.0, FAR)
    b = of(x)
    return b * _phi(d / 2 + (x + reach) / d) + (1 - b) * _phi((x + reach) / d - d / 2)


def shares(wanted: float, limit: float, highs: float, factor: float = 1.0) -> tuple[float, float]:
    """(predicted High, uncertain) once T has met the losses, of a run in which about so many Highs enter.

    wanted: R_set; limit: of the entropy in nats; factor: of the separation.
    """
    d = factor * separation(highs)
    high = within(wanted, 0.0, d)
    return high, within(wanted, reach(limit), d) - high


@partial(opaque, whole=False)
def trained(wanted: float, n: int, limit: float) -> float:
    """Mean number of instances predicted High in a mini-batch of n, over a run of STEPS; arguments as for `shares`."""
    return float(n) * shares(float(wanted), limit, float(wanted * n) * STEPS)[0]


@partial(opaque, whole=False)
def labelled(wanted: float, n: int, limit: float) -> float:
    """The same of those whose loss becomes known: predicted High, uncertain, or in doubt where there is neither."""
    share = sum(shares(float(wanted), limit, float(wanted * n) * STEPS))
    return float(n) * share + in_doubt(share, float(n))


def in_doubt(share: float, n: float) -> float:
    """Mean number of instances in doubt that are labelled because none of n is, each with the probability `share`."""
    return (1 - share) ** n


def passed(ratio: float, factor: float, steps: int) -> float:
    """Share of a run's steps that T, which moves by `factor` a step, needs to move by `ratio`; 0 where it need not."""
    return max(0.0, min(1.0, math.log(ratio) / math.log(factor) / max(1, steps)))


def first_losses(trainer, x, y: np.ndarray) -> np.ndarray:
    """Losses (at most LOOK,) of the first instances of a run, by a trainer that has made no step; x, y as for `fit`."""
    chosen = random.permutation(trainer.seed, random.SHUFFLE, 0, len(x))[:LOOK]
    logits = trainer.predict(x[chosen]).astype(float)
    logits -= logits.max(1, keepdims=True)
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(chosen)), y[chosen]]
