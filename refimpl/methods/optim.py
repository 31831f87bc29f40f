"""Optimizers and learning-rate schedules, as data. The update passes are operators: `refimpl.ops.sgd`, `adam`.

Steps here are updates: a mini-batch that updates nothing leaves a schedule and its warm-up where they are. Our reading
of a run's length, which a cosine comes to its end with: the updates that are known ahead. Under random skipping the
seed tells them exactly. Under the instance filter only the run shows which mini-batches have no High, so every
mini-batch is reckoned as one update, and with some left out a cosine ends above 0. A residual block that stochastic
depth leaves out has the learning rate of the whole net; only what Adam counts of its parameters is its own.
"""

import math
from dataclasses import dataclass

import numpy as np

LARGEST = float(np.finfo(np.float32).max)
MOMENTUM = 0.9  # of SGD, where commands and searches are told none
CLIP_NORM = 1.0  # most that the norm of the whole gradient may be there


def _number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise ValueError(f"{name} must be a number, got {value!r}")


def _positive(name: str, value: float) -> None:
    _number(name, value)
    if not 0 < value <= LARGEST:
        raise ValueError(f"{name} must be a positive number that float32 can hold, got {value}")


def _unit(name: str, value: float) -> None:
    _number(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, got {value}")


@dataclass(frozen=True)
class Schedule:
    """Learning-rate factor by update: linear warm-up, then constant, cosine to 0, or ×gamma at some steps.

    kind: "constant", "cosine" or "step"; warmup: updates of linear warm-up. For "step": ×gamma at each of `milestones`
    where there are any, else every `every` steps, counted after the warm-up.
    """

    kind: str = "constant"
    warmup: int = 0
    every: int = 1000
    gamma: float = 0.1
    milestones: tuple[int, ...] = ()

    def __post_init__(self):
        if self.kind not in ("constant", "cosine", "step"):
            raise ValueError(f"schedule must be constant, cosine or step, got {self.kind!r}")
        _number("warmup", self.warmup)
        _number("every", self.every)
        if self.warmup < 0 or self.every < 1:
            raise ValueError(f"warmup must be ≥ 0 and every ≥ 1 step, got {self.warmup} and {self.every}")

    def factor(self, step: int, steps: int) -> float:
        """Factor on the learning rate at update `step` (from 0) of a run of `steps`."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        if self.kind == "cosine":
            done = (step - self.warmup) / max(1, steps - self.warmup)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        if self.kind == "step":
            passed = step - self.warmup
            times = sum(passed >= m for m in self.milestones) if self.milestones else passed // self.every
            return self.gamma**times
        return 1.0


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent: v ← momentum·v + (dw + weight_decay·w), w ← w − lr·v (Nesterov: dw + momentum·v).

    scaled: gradients of whole numbers are scaled as arXiv 2206.15472 has it (`ops.quantized_sgd`).
    """

    lr: float
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: Schedule = Schedule()
    scaled: bool = True

    operator = "sgd"
    whole = "quantized_sgd"  # that of whole numbers

    def __post_init__(self):
        _positive("lr", self.lr)
        _unit("momentum", self.momentum)
        _number("weight_decay", self.weight_decay)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")

    def rate(self, step: int, steps: int, seed: int = 0) -> float:
        """Learning rate at update `step` (from 0) of a run of `steps`."""
        return self.lr * self.schedule.factor(step, steps)

    @property
    def state(self) -> tuple[str, ...]:
        """Arrays kept for each trained parameter, of its shape."""
        return ("velocity",) if self.momentum else ()

    @property
    def attrs(self) -> dict:
        """Attributes of the update pass."""
        return {
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "weight_decay": self.weight_decay,
            "scaled": self.scaled,
        }


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015); with `decoupled` weight decay it is AdamW (Loshchilov and Hutter 2019)."""

    lr: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False
    schedule: Schedule = Schedule()

    operator = "adam"
    whole = None
    state = ("m", "v")

    def __post_init__(self):
        _positive("lr", self.lr)
        _number("weight_decay", self.weight_decay)
        for beta in self.betas:
            _unit("betas", beta)

    def rate(self, step: int, steps: int, seed: int = 0) -> float:
        """Learning rate at update `step` (from 0) of a run of `steps`."""
        return self.lr * self.schedule.factor(step, steps)

    @property
    def attrs(self) -> dict:
        """Attributes of the update pass."""
        return {
            "gain1": 1 - self.betas[0],
            "gain2": 1 - self.betas[1],
            "eps": self.eps,
            "weight_decay": self.weight_decay,
            "decoupled": self.decoupled,
        }
