"""Early instance filter (arXiv 2007.03213): a small net predicts which instances are worth a training step.

The filter net sees each instance of a mini-batch first and predicts, as a binary class, whether the main net's loss on
it will be High or Low. Only instances predicted High train the main net. The filter learns at the same time:

    y_i = H if loss_i ≥ T, else L                                               eq. (1)       labels
    R_TH = share of predicted and true High over the last mini-batches           eq. (2)       true_high_ratio
    T ← α₁·T if R_TH ≥ R_set, else α₂·T, with α₁ > 1 > α₂                        eq. (3)       next_threshold
    entropy_i = −Σ_c p_c·log p_c of the filter's prediction                      eq. (4)       entropy
    a dropped instance with entropy above a limit is uncertain                   eq. (5)       uncertain
    w_H = 1/R_set for instances labelled H, w_L = 1/(1 − R_set) for L            eq. (6)       class_weights
    filter's loss = Σ_i w_i·ce_i / Σ_i w_i                                       eq. (7)       softmax_cross_entropy

Uncertain instances run forward through the main net, only for their loss and label: otherwise the filter would learn to
drop everything. The sections of a step, each on as many instances as it needs:

    filter       the filter's forward pass on the whole mini-batch, and the entropy of its predictions
    forward, backward, update                          the main net on the instances predicted High
    uncertain    the main net's forward pass on the uncertain ones, batch norm in inference mode
    filter.forward, filter.backward, filter.update     the filter on every instance whose loss is now known

Readings beyond the equations:
  [ours] α₁ = 1.005 and α₂ = 0.995 (the values of an unofficial implementation), 10 mini-batches for R_TH, entropy limit
         0.6 (ln 2 is the largest), first T = 1: the paper prints none of them.
  [ours] The filter keeps nothing from its first pass: it runs forward again on the labelled instances, which costs less
         memory, and less time while few are labelled. Everything is counted.
  [ours] Where a mini-batch has neither a predicted High nor an uncertain instance, that of the largest entropy counts
         as uncertain: a filter that has come to drop everything would never see another label.
  [ours] A net whose batch norm takes statistics of maps of one pixel cannot train on a single instance, which has no
         variance: then a single High is not trained on, only labelled, and the filter gets the next one in doubt too.
  [ours] The instances of a section are copied side by side (`select`), which has its cost.
Dimensions: N instances of a section, B of the mini-batch, E elements of an instance, K classes. Any float dtype.
"""

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .. import arguments, models
from ..graph import Graph
from ..kernels import traced
from ..kernels.passes import declare
from . import filter_shares
from .optim import SGD
from .registry import JUDGED_WHOLE, ONE_CHOICE, Other, Pick, Statement, Tried, register_method
from .strategy import Modifier, Strategy, Turn, turns

if TYPE_CHECKING:
    from ..compiler.compose import Composer
    from ..compiler.ir import Step
    from ..compiler.program import Program
    from ..training.trainer import Trainer

SHAPES = {"stream": "B E*", "chosen": "int32: N", "selected": "N E*", "logits": "N K", "entropy": "N"}
LOW, HIGH = 0, 1  # classes of the filter


@declare(SHAPES, items="N E", writes="selected", indices={"chosen": "B"})
def select(t, selected, stream, chosen):
    """Selected instances, (N, E): those of stream, (B, E), that chosen, (N,), names."""
    n, e = divmod(t, selected.shape[1])
    selected[n, e] = stream[chosen[n], e]


@declare(SHAPES, items="N", writes="entropy", sums="K")
def entropy(t, entropy, logits):
    """Entropy in nats, (N,), eq. (4), of the softmax of logits, (N, K)."""
    largest = logits[t, 0]
    for k in range(1, logits.shape[1]):
        value = logits[t, k]
        largest = value if value > largest else largest
    total = entropy.dtype.type(0)
    weighted = entropy.dtype.type(0)
    for k in range(logits.shape[1]):
        below = logits[t, k] - largest
        odds = math.exp(below)
        total += odds
        weighted += odds * below
    entropy[t] = math.log(total) - weighted / total


def of_samples(losses: np.ndarray, n: int) -> np.ndarray:
    """The loss of each of n samples, (n,): the mean of its rows, as of the pixels of a map that each have a label."""
    return losses.reshape(n, -1).mean(1)


def labels(losses: np.ndarray, threshold: float) -> np.ndarray:
    """Labels, (n,) int64, eq. (1): HIGH where losses, (n,), reach the threshold."""
    return np.where(losses >= threshold, HIGH, LOW).astype(np.int64)


def true_high_ratio(true_high: np.ndarray, sizes: np.ndarray) -> float:
    """R_TH, eq. (2), of the true High instances (n,) and the sizes (n,) of the last mini-batches.

    Our reading: before there were n mini-batches it is the share of those so far (the sizes of the others are 0).
    """
    return float(np.sum(true_high) / max(1, np.sum(sizes)))


def next_threshold(threshold: float, ratio: float, wanted: float, rise: float, fall: float) -> float:
    """T after a mini-batch, eq. (3)."""
    return threshold * (rise if ratio >= wanted else fall)


def uncertain(entropy: np.ndarray, dropped: np.ndarray, limit: float) -> np.ndarray:
    """Instances, eq. (5): those of `dropped` (n,) whose entropy lies above the limit."""
    return dropped[entropy[dropped] > limit]


def class_weights(wanted: float) -> tuple[float, float]:
    """(w_L, w_H), eq. (6), for R_set = wanted."""
    return 1 / (1 - wanted), 1 / wanted


@register_method
@dataclass(frozen=True)
class InstanceFilter(Modifier):
    """What enters a step: the instances that a filter net predicts to have a high loss.

    graph: the filter net, two outputs, with the main net's input; None: the paper's for that input. keep: R_set, the
    wanted share of true High instances. optimizer: the filter's. rise, fall: α₁ and α₂. window: mini-batches in R_TH.
    entropy: limit of eq. (5) in nats. threshold: the first T. shares: of the instances, those predicted High and those
    uncertain, that predictions of cost reckon with; None: as `filter_shares` finds them for a run of
    `filter_shares.STEPS` mini-batches. ValueError for bad values.
    """

    graph: Graph | None = None
    keep: float = 0.1
    optimizer: SGD = field(default_factory=lambda: SGD(lr=0.1))
    rise: float = 1.005
    fall: float = 0.995
    window: int = 10
    entropy: float = 0.6
    threshold: float = 1.0
    shares: tuple[float, float] | None = None

    method: ClassVar[str] = "instance-filter"
    states: ClassVar[Statement] = Statement(
        "instances", 10, "instance-filter:keep=0.1",
        {"keep": float, "rise": float, "fall": float, "window": int, "entropy": float, "threshold": float},
        refuses={
            "instances": ONE_CHOICE, "depth": JUDGED_WHOLE,
        },
        tried=Tried(small={"keep": 0.4}),
    )  # fmt: skip
    priced: ClassVar[tuple[str, ...]] = ("keep",)  # settings that sizes and costs depend on
    by_losses: ClassVar[bool] = True
    prefix: ClassVar[str] = "filter."  # of the filter net's arrays and sections

    def __post_init__(self):
        if self.graph is not None and not isinstance(self.graph, Graph):
            raise ValueError(f"graph must be a Graph with two outputs, or None for the paper's, got {self.graph!r}")
        arguments.numbers(keep=self.keep)
        if not 0 < self.keep < 1:
            raise ValueError(f"keep must be a share between 0 and 1, got {self.keep}")
        if not 0 < self.fall < 1 < self.rise < math.inf:
            raise ValueError(
                f"rise must be above 1 and fall between 0 and 1, both finite, got {self.rise} and {self.fall}"
            )
        if self.window < 1:
            raise ValueError(f"window must be at least 1 mini-batch, got {self.window}")
        if not 0 < self.threshold < math.inf:
            raise ValueError(f"threshold must be a loss above 0 and finite, got {self.threshold}")
        if not self.entropy >= 0:
            raise ValueError(f"entropy must be a limit in nats from 0 up, got {self.entropy}")
        if self.shares is not None and not (min(self.shares) >= 0 and sum(self.shares) <= 1):
            raise ValueError(f"shares must be two shares that make at most 1, High and uncertain, got {self.shares}")
        if self.graph and self.graph.shape(self.graph.output)[1:] != (2,):
            raise ValueError(f"the filter net {self.graph.name} must have two outputs, Low and High")

    @classmethod
    def drawn(cls, pick: Pick, other: Other) -> "InstanceFilter":
        """With a small filter net and any share."""
        return cls(other(2), keep=pick(1, 19) / 20)

    def for_net(self, graph: Graph, size: tuple[int, int]) -> "InstanceFilter":
        """The same with a filter net for the input of a main net: slim LeNet, ResNet-8 or ResNet-10."""
        if self.graph:
            return self
        side = max(size)
        name = "slim_lenet" if graph.channels == 1 or min(size) == 1 else "resnet8" if side <= 64 else "resnet10"
        return replace(
            self, graph=models.build(name, classes=2, size=tuple(map(traced.value, size)), channels=graph.channels)
        )

    def filter_settings(self) -> dict:
        """How the filter trains, as settings of a Plan: everything, with the weighted loss of eq. (6) and (7)."""
        weights = class_weights(self.keep)
        return {"train_last": "all", "batch_norm": "train", "train_bias": True, "class_weights": weights}

    def fewest(self, n: int) -> int:
        """Instances that a step trains on at least, of a mini-batch of n: a single one only where the net can."""
        return min(n, 2)

    @property
    def nets(self) -> dict[str, Graph]:
        """The filter net."""
        return {} if self.graph is None else {self.prefix: self.graph}

    def derive(self, composer: "Composer", inner: Strategy) -> "Step":
        """The filter judges the whole mini-batch, the main net trains on the Highs, then the filter on what is known.

        Between them the main net judges, in inference mode, what the filter is uncertain of.
        """
        composer = composer.choosing()
        main = inner.derive(composer)
        assert self.graph is not None, "compile asks for_net, which gives it one"
        learner = composer.other(
            self.graph, self.prefix, chosen=True, optimizer=self.optimizer, **self.filter_settings()
        )
        asked = composer.other(
            self.graph, self.prefix, training=False, section="filter", parameters=learner.parameters,
            optimizer=self.optimizer, **self.filter_settings(),
        )  # fmt: skip
        first = asked.build()
        logits = first.host_reads.pop(f"{self.prefix}output")
        doubt = asked.buffer("entropy", logits.shape[:1], batched=1)
        asked.emit("entropy", entropy, {"logits": logits, "entropy": doubt}, {})
        first.host_reads |= {f"{self.prefix}logits": logits, f"{self.prefix}entropy": doubt}
        unsure = composer.net(False, "uncertain.", "uncertain", chosen=True, parameters=main.parameters)
        return composer.joined(first, main, unsure.build(losses=True), learner.build())

    def schedule(self, program: "Program", n: float, inner: Strategy) -> tuple[Turn, ...]:
        """Mean number of instances of each section that are expected of a mini-batch of n: of a mean step of a run.

        What a batch norm adds that cannot train on a single instance is left out: it matters for a batch of a few.
        """
        if self.shares is None:
            high = filter_shares.trained(self.keep, n, self.entropy)
            known = filter_shares.labelled(self.keep, n, self.entropy)
        else:
            high, known = self.shares[0] * n, sum(self.shares) * n
        own = turns([f"{self.prefix}{phase}" for phase in ("forward", "backward", "update")], known)
        return Turn("filter", n), *inner.schedule(program, high), Turn("uncertain", known - high), *own

    def over(self, n: int, steps: int, losses: np.ndarray | None = None) -> "dict[str, InstanceFilter]":
        """`mid`, and `low` and `high` around it: the same with the shares of a run of `steps` mini-batches of n.

        losses: those of some instances before the first step, where they are known (`filter_shares.first_losses`).
        Shares that are given stay.
        """
        if self.shares is not None:
            return dict.fromkeys(("low", "mid", "high"), self)
        falls, rises = 1.0, filter_shares.RISES
        if losses is not None:
            falls = rises = max(float(np.quantile(losses, 1 - self.keep)) / self.threshold, 1e-9)
        quiet = filter_shares.passed(falls, self.fall, steps)

        def made(quiet: float, loud: float, factor: float) -> InstanceFilter:
            """Nothing High in the share `quiet` of the steps, everything in `loud`, what is told apart in the rest."""
            rest = 1 - quiet - loud
            shares = filter_shares.shares(self.keep, self.entropy, self.keep * n * steps * rest, factor)
            doubt = filter_shares.in_doubt(sum(shares), n)
            high, unsure = (rest * s for s in shares)
            high += loud
            return replace(self, shares=(high, min(1 - high, unsure + (rest * doubt + quiet) / n)))

        most = filter_shares.passed(1 / filter_shares.FALLS, self.fall, steps)
        loud = filter_shares.passed(rises, self.rise, steps)
        return {
            "low": made(max(quiet, most), 0.0, filter_shares.MOST),
            "mid": made(quiet, 0.0, 1.0),
            "high": made(quiet / 2, loud, filter_shares.LEAST),
        }

    def memory(self) -> dict[str, np.ndarray]:
        """What it remembers between steps."""
        history = {name: np.zeros(self.window, np.int64) for name in ("true_high", "sizes")}
        return {"threshold": np.array([self.threshold]), **history}

    def run(
        self, trainer: "Trainer", x: Any, y: np.ndarray, total: int, everything: bool, inner: Strategy
    ) -> float | None:  # fmt: skip
        """One step on a mini-batch; the main net's loss, None where no instance was predicted High.

        High is predicted where its logit is the larger one: equal logits count as Low. The last mini-batches of eq. (2)
        are remembered here.

        everything: let each section have the whole mini-batch, which is the most that the arena must hold.
        """
        runner, n, memory = trainer.runner, len(x), trainer.memory
        trainer.fill(runner, x)
        runner.run("filter", n)
        logits, doubt = runner.read("filter.logits", n).copy(), runner.read("filter.entropy", n).copy()
        is_high = logits[:, HIGH] > logits[:, LOW]
        high, low = np.flatnonzero(is_high | everything), np.flatnonzero(~is_high | everything)
        loss, known, unsure = None, np.full(n, np.nan), np.array([], np.int64)
        if len(high) == 1 < n and trainer.thin("forward"):
            unsure, high = high, unsure
        if len(high):
            trainer.put(y[high], chosen=high)
            loss = inner.run(trainer, None, y[high], total, everything)
            known[high] = of_samples(runner.read("losses", len(high)), len(high))
        unsure = np.union1d(unsure, low if everything else uncertain(doubt, low, self.entropy))
        least = 2 if trainer.thin("filter.forward") else 1
        while len(high) + len(unsure) < min(least, n):
            others = np.setdiff1d(low, unsure)
            unsure = np.union1d(unsure, others[[np.argmax(doubt[others])]])
        if len(unsure):
            trainer.put(y[unsure], "uncertain.", unsure)
            known[unsure] = of_samples(trainer.judge(len(unsure), "uncertain."), len(unsure))
        labelled = np.flatnonzero(~np.isnan(known))
        truth = labels(known[labelled], memory["threshold"][0])
        if len(labelled):
            trainer.put(truth, "filter.", labelled)
            trainer.learn(len(labelled), total, "filter.")
        for name, value in (("true_high", np.sum(truth[is_high[labelled]])), ("sizes", n)):
            memory[name][trainer.step % self.window] = value
        ratio = true_high_ratio(memory["true_high"], memory["sizes"])
        memory["threshold"][0] = next_threshold(memory["threshold"][0], ratio, self.keep, self.rise, self.fall)
        return loss
