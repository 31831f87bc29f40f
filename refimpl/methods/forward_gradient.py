"""Forward gradients (arXiv 2411.04036): a step by forward passes with perturbed weights, and no backward pass.

    ĝ = (∇L·z)·z,   z independent, of mean 0 and variance 1                        eq. (1)       exact
    ĝ = [L(w + ε·z) − L(w − ε·z)] / (2ε) · z,   z ~ N(0, I)                       eq. (2)       spsa
    ĝ = 1/m·Σ_i sign(L(w + ε·z_i) − L(w − ε·z_i))·z_i                              eq. (3)       sign_spsa
    w ← w − η·ĝ, or what another optimizer makes of ĝ                              eq. (4)       ForwardGradient.derive
    ĝ(wⁱ) = sign(·)·zⁱ/‖zⁱ‖·‖wⁱ‖ of each layer                                     eq. (9)       ops.perturbation
    ĝ = Σ_i (L_i − L_0)/(m·std(L_1 … L_m))·z_i,  L_i at w + ε·z_i, L_0 at w      one-sided       one_sided

No weight is ever written to look at a loss: a pass writes w + ε·z where the layer reads it from (`ops.perturbation`),
and z is drawn again wherever it is needed, from the seed and the number of the draw. So weights come back to the bit,
and a step keeps no array of the size of the weights: what it needs beside inference is one perturbed parameter at a
time, and one estimate at a time. The sections of a step:

    prepare                      thresholds and norms of the weights, where something asks for them
    look                         the loss under a perturbation, run twice for each of m draws (one-sided: m + 1 times);
                                 exact: at w, once for each draw, and beside the loss its derivative along z
    ascended                     the same above the weights, for the sharpness-aware perturbation
    forward, backward            of the last layers, where these train by back-propagation
    update                       each parameter's ĝ from the losses, and the optimizer on it

Readings beyond the equations:
  [ours] One mini-batch for both signs and all draws. sign(0) = 0. A step's loss is the mean of the losses that it
         looked at; where the last layers train by back-propagation, theirs. Looks are in inference mode: batch norm is
         frozen and dropout drops nothing. z: see `ops.perturbation`. A skipped mini-batch takes no draws.
  [ours] Exact: ∇L·z by forward mode (`compiler.forward_mode`), with rounding as its only error; the mean of m draws.
         Where the sharpness-aware perturbation looks, it is the derivative there. It asks for no ε, and for a second
         array of each map while that map is computed.
  [ours] One-sided: FZOO as its abstract tells it. Losses that are all equal give no step.
  [ours] Normalization: one norm for each parameter; ‖w‖/‖z‖ is at least 10⁻³, so that weights of zero can move.
  [paper] Sharpness-aware perturbation: one more ascent step by perturbation. [ours] Estimate g at w, estimate ĝ with
         new draws at w + ρ·g, apply ĝ to w.
  [paper] Sparse perturbation: only the largest weights, a random subset or those above a threshold are perturbed and
         updated. [ours] The share holds for each parameter; a random subset is drawn anew in each step.
  [paper] Momentum-guided sampling: z₁ ~ N(0, √α·I), z₂ ~ N(z_t, √(1−α)·I), z_{t+1} = β·z₁ + (1−β)·z₂, β = 1 at first.
         [ours] √α is a standard deviation, the first step is that with β = 1, all draws of a step are around one z_t,
         and the last of them is the next one. z_t is kept: an array of the size of what is perturbed.
  [ours] Last layers by back-propagation, as ElasticZO (arXiv 2501.04287) has them: their gradient is that at the
         weights as they are, from one more forward pass.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ..ops import perturbation
from ..ops.quantized_perturbation import Z_MAX, variable_settings
from .forward_gradient_calls import Perturbed, draws_of
from .forward_gradient_whole import EPSILON, RATE, Whole, check_steps, of_each, rounded_up, scales, tell
from .optim import SGD, Adam
from .registry import Other, Pick, Statement, Tried, register_method
from .strategy import Strategy, Turn, turns

if TYPE_CHECKING:
    from ..compiler.compose import Composer
    from ..compiler.derive import Derivation
    from ..compiler.ir import Buffer, Step
    from ..compiler.program import Program
    from ..plan.plan import Plan
    from ..training.trainer import Trainer


def exact(slopes: np.ndarray, epsilon: float) -> np.ndarray:
    """Factors of each z, (m,), arXiv 2411.04036 eq. (1), of slopes ∇L·z, (m,); our mean of m. epsilon: not needed."""
    return slopes / len(slopes)


def spsa(losses: np.ndarray, epsilon: float) -> np.ndarray:
    """Slope along each z, (m,), arXiv 2411.04036 eq. (2), of losses (m, 2) at w + ε·z and w − ε·z; our mean of m."""
    return (losses[:, 0] - losses[:, 1]) / (2 * epsilon * len(losses))


def sign_spsa(losses: np.ndarray, epsilon: float) -> np.ndarray:
    """Factors of each z, (m,), arXiv 2411.04036 eq. (3), of losses (m, 2) at w + ε·z and w − ε·z; sign(0) = 0."""
    return np.sign(losses[:, 0] - losses[:, 1]) / len(losses)


def one_sided(losses: np.ndarray, epsilon: float) -> np.ndarray:
    """Factors of each z, (m,), of losses (m + 1,), the first at w and the others at w + ε·z: our reading of FZOO.

    Differences from the first, divided by m and by the standard deviation of the others; 0 where that is 0.
    """
    first, others = losses[0], losses[1:]
    spread = np.std(others)
    return (others - first) / (len(others) * spread) if spread else np.zeros(len(others))


class Look(NamedTuple):
    """A look at the loss: at w + sign·ε·z of a draw, or along sign·z. draw: its number among a step's, from 0."""

    draw: int
    sign: int


@dataclass(frozen=True)
class Estimator:
    """How looks tell slopes.

    looks: of a step with m draws; slopes(seen, ε): the factors of the z's; sides: how many looks each draw has, 0 where
    what they see stays in a row; fewest: draws that it needs. along: do looks see the derivative of the loss along z,
    in place of the loss at w + ε·z?
    """

    looks: Callable[[int], list[Look]]
    slopes: Callable[[np.ndarray, float], np.ndarray]
    sides: int
    fewest: int = 1
    along: bool = False

    def factors(self, seen: list[float], epsilon: float) -> np.ndarray:
        """What each z is multiplied by, (m,) float64, of what `looks` saw, in their order."""
        row = np.array(seen)
        return self.slopes(row.reshape(-1, self.sides) if self.sides else row, epsilon)


def both_sides(m: int) -> list[Look]:
    """Two looks for each draw."""
    return [Look(i, sign) for i in range(m) for sign in (1, -1)]


def one_side(m: int) -> list[Look]:
    """The weights as they are, then a look for each draw."""
    return [Look(0, 0), *(Look(i, 1) for i in range(m))]


def each_once(m: int) -> list[Look]:
    """A look for each draw."""
    return [Look(i, 1) for i in range(m)]


ESTIMATORS = {
    "sign": Estimator(both_sides, sign_spsa, 2),
    "spsa": Estimator(both_sides, spsa, 2),
    "one-sided": Estimator(one_side, one_sided, 0, fewest=2),
    "exact": Estimator(each_once, exact, 0, along=True),
}
DISTRIBUTIONS = ("normal", "signs")
NORMS = ("none", "tensor")
SPARSE = ("none", "magnitude", "random", "threshold")
HEADROOM = 1.5  # of Δw where a command makes whole numbers of a net, so that weights can grow: our reading


class Bits(NamedTuple):
    """What a word of the setting `bits` says of weights."""

    bits: int
    dtype: np.dtype


BITS = {"16w8a": Bits(16, np.dtype(np.int16)), "8w8a": Bits(8, np.dtype(np.int8))}


@register_method
@dataclass(frozen=True)
class ForwardGradient(Strategy):
    """A step by forward passes with perturbed weights.

    m: draws a step. epsilon: how far a look is from the weights, nothing to "exact". estimator: "sign" (eq. 3), "spsa"
    (eq. 2), "exact" (eq. 1) or "one-sided". distribution: "normal" z, or "signs", ±1 (binomial perturbation).
    normalize: "tensor" is eq. (9). sharpness: ρ of the sharpness-aware perturbation, 0 is none. sparse: which weights
    take part, "none" all of them, by `share` ("magnitude", "random") or by `threshold`. alpha, beta: of momentum-guided
    sampling, β = 1 is none. backprop_last: the classifier and so many of the last counted layers train by
    back-propagation, None: none. bits: of weights and maps, "16w8a" or "8w8a"; None is the net as it is, whole numbers
    as such. z_max, mean8: of whole weights, the largest z, and is the mean of the draws rounded to 8 bits first.
    optimizer: makes the update of ĝ. clip_norm: what the norm of all ĝ is clipped to, for which each is made twice.
    ValueError for values that cannot be. arXiv 2411.04036.
    """

    m: int = 3
    epsilon: float = 1e-3
    estimator: str = "sign"
    distribution: str = "normal"
    normalize: str = "none"
    sharpness: float = 0.0
    sparse: str = "none"
    share: float = 0.1
    threshold: float = 0.01
    alpha: float = 0.5
    beta: float = 1.0
    backprop_last: int | None = None
    bits: str | None = None
    z_max: float = Z_MAX
    mean8: bool = False
    optimizer: SGD | Adam = SGD(lr=0.01)
    clip_norm: float | None = None

    method: ClassVar[str] = "forward-gradient"
    states: ClassVar[Statement] = Statement(
        "step", 90,
        "forward-gradient:m=3,epsilon=0.001 (no backward pass; estimator=spsa, one-sided, exact; bits=16w8a; and more)",
        {
            "m": int, "epsilon": float, "estimator": tuple(ESTIMATORS), "distribution": DISTRIBUTIONS,
            "normalize": NORMS, "sharpness": float, "sparse": SPARSE, "share": float, "threshold": float,
            "alpha": float, "beta": float, "backprop_last": int, "bits": tuple(BITS), "z_max": float,
        },
        norms=False,
        combines={
            "instances": "the chosen instances are looked at",
            "bias": "biases alone are perturbed",
            "depth": "steps leave residual blocks out, and what is left is perturbed",
        },
        refuses={
            "rule": "a rule replaces gradients of back-propagation, and here is none",
            "step": "both say how a step is made",
        },
        momentum=0.0,
        rate=0.1,
        rate_weights=1000,
        tried=Tried(
            small={"m": 2},
            timed=({"m": 1}, {"m": 3, "bits": "16w8a"}),
            few=True,
            variants={
                "=one-sided": ({"m": 4, "estimator": "one-sided", "distribution": "signs"}, {}),
                "=enhanced": ({"m": 2, "normalize": "tensor", "sharpness": 0.01, "sparse": "magnitude"}, {}),
                "=guided": ({"m": 1, "beta": 0.5, "sparse": "random", "share": 0.5}, {}),
                "=hybrid": ({"m": 1, "backprop_last": 0}, {}),
                "=exact": ({"m": 2, "estimator": "exact"}, {}),
            },
        ),
    )  # fmt: skip

    def __post_init__(self):
        for name, words in (
            ("estimator", tuple(ESTIMATORS)), ("distribution", DISTRIBUTIONS), ("normalize", NORMS), ("sparse", SPARSE)
        ):  # fmt: skip
            if getattr(self, name) not in words:
                raise ValueError(f"{name} must be one of {', '.join(words)}, got {getattr(self, name)!r}")
        fewest = ESTIMATORS[self.estimator].fewest
        if isinstance(self.m, bool) or not isinstance(self.m, int) or self.m < fewest:
            why = "" if fewest == 1 else f": {self.estimator} divides by the standard deviation of their losses"
            raise ValueError(f"m must be at least {fewest} draws a step, got {self.m}{why}")
        if not 0 < self.epsilon < math.inf:
            raise ValueError(f"epsilon must be above 0 and finite, such as 0.001, got {self.epsilon}")
        for name in ("sharpness", "threshold"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {getattr(self, name)}")
        for name in ("share", "beta"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, got {self.alpha}")
        k = self.backprop_last
        if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 0):
            raise ValueError(f"backprop_last must be a number of layers from 0 up, or None, got {k!r}")
        if self.bits is not None and self.bits not in BITS:
            raise ValueError(f"bits must be one of {', '.join(BITS)}, or None for the net as it is, got {self.bits!r}")
        variable_settings(self.z_max)
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be a norm above 0, got {self.clip_norm}")

    @classmethod
    def drawn(cls, pick: Pick, other: Other) -> "ForwardGradient":
        """With any settings."""
        estimator = list(ESTIMATORS)[pick(0, len(ESTIMATORS) - 1)]
        return cls(
            m=pick(ESTIMATORS[estimator].fewest, 3), estimator=estimator, distribution=DISTRIBUTIONS[pick(0, 1)],
            normalize=NORMS[pick(0, 1)], sharpness=pick(0, 1) * 0.01, sparse=SPARSE[pick(0, 3)],
            share=pick(1, 9) / 10, beta=(1.0, 0.5)[pick(0, 1)], clip_norm=1.0 if pick(0, 1) else None,
        )  # fmt: skip

    def check_plan(self, plan: "Plan") -> None:
        """ValueError for what a step without a backward pass cannot do."""
        if plan.batch_norm == "train":
            raise ValueError(
                f"{self.method} needs batch_norm='frozen': statistics of the batch would move with each perturbation"
            )
        k, trained = self.backprop_last, plan.train_last
        if k is not None and isinstance(trained, int) and k >= trained:
            most = f"at most {trained - 1}" if trained else "none, for the classifier alone trains"
            raise ValueError(
                f"backprop_last={k} leaves {self.method} nothing to train where train_last is {trained}: it can be "
                f"{most}"
            )

    def check_weights(self, program: "Program", parameters: Mapping[str, np.ndarray]) -> None:
        """ValueError where epsilon, or the learning rate of whole numbers, is below the last digit of most weights."""
        moved = {call.arrays["w"] for call in program.step if call.passed is perturbation.perturb}
        weights = [parameters[name].reshape(-1) for name, b in program.step.parameters.items() if b in moved]
        far = program.dtype.type(self.epsilon)
        least = [of_each(program, name, step / 2) for name, step in scales(program, parameters).items()]
        lost = sum(np.count_nonzero(w + far == w) for w in weights) + sum(
            np.count_nonzero(self.epsilon < e) for e in least
        )
        if 2 * lost > sum(each.size for each in (*weights, *least)):
            last = np.concatenate([*(np.spacing(np.abs(w)) for w in weights), *least])
            raise ValueError(
                f"epsilon={self.epsilon:g} of {self.method} is lost in {lost / len(last):.0%} of the weights, whose "
                f"last digit is larger: epsilon={rounded_up(float(np.median(last)))} would move most of them"
            )
        check_steps(self, program, parameters)

    def _check_bits(self, net: "Derivation") -> None:
        """ValueError where the weights that train are not of the bits that are stated."""
        wanted = BITS[self.bits] if self.bits else None
        for node, arrays in net.trained.items():
            for name in (net.graph.node(node).params[local] for local in arrays if local == "w"):
                if wanted and net.parameters[name].dtype != wanted.dtype:
                    raise ValueError(
                        f"bits={self.bits} of {self.method} trains weights of {wanted.dtype}, but {name} of "
                        f"{net.graph.name} holds {net.parameters[name].dtype}: surgery.quantize(…, bits={wanted.bits}) "
                        "makes them"
                    )

    @property
    def quantizes(self) -> dict[str, Any] | None:
        """16 or 8 bits of weights, with HEADROOM, where bits says so."""
        return {"bits": BITS[self.bits].bits, "headroom": HEADROOM} if self.bits else None

    @property
    def looks(self) -> list[Look]:
        """Of one estimate, in order."""
        return ESTIMATORS[self.estimator].looks(self.m)

    @property
    def draws(self) -> int:
        """Draws a step."""
        return self.m * (2 if self.sharpness else 1)

    @property
    def _prefix(self) -> str:
        """Of the net that is looked at: the main one, unless there is one with a backward pass."""
        return "" if self.backprop_last is None else "look."

    def derive(self, composer: "Composer") -> "Step":
        """Looks, and the update, in which w ← w − η·ĝ: arXiv 2411.04036 eq. (4)."""
        if self.sharpness or self.backprop_last is not None:
            composer = composer.sharing()
        whole = learner = composer.net(chosen=False)
        self._check_bits(whole)
        names = [name for name, b in whole.parameters.items() if b.region == "state"]
        if self.backprop_last is not None:
            last = replace(composer.plan, train_last=self.backprop_last, step=replace(self, backprop_last=None))
            learner = composer.net(parameters=whole.parameters, plan=last)
            params = {node.name: node.params for node in composer.graph.nodes}
            back = {params[node][local] for node, arrays in learner.trained.items() for local in arrays}
            names = [name for name in names if name not in back]
            if not names:
                raise ValueError(
                    f"backprop_last={self.backprop_last} leaves {self.method} nothing to train in "
                    f"{composer.graph.name}: fewer layers leave some"
                )
        along = ESTIMATORS[self.estimator].along
        draws = draws_of(self, learner, along)
        floats = [name for name in names if whole.parameters[name].dtype.kind == "f"]
        integers = Whole(self, learner, [name for name in names if name not in floats], draws)
        weights = Perturbed(self, learner, floats, draws, along)
        weights.prepare()
        learner.estimated = {name: weights.estimate(name) for name in floats}
        learner.updated |= {name: learner.used(name) for name in floats}
        if floats and learner is whole:
            learner.learn()
        main = [] if learner is whole else [learner.build(losses=composer.chosen)]
        weights.follow()
        integers.update()
        if learner is whole:
            main = [learner.emitted("update")]

        def operand(section: str) -> "Callable[[Derivation, str, Buffer], Buffer] | None":
            moved = weights.operand(section)
            if section != "look" or not integers.names:
                return moved
            return lambda net, name, w: integers.look(net, name, moved(net, name, w) if moved else w)

        stages = [(self._prefix, "look"), ("ascended.", "ascended")][: 1 + bool(self.sharpness)]
        looked = [
            composer.net(False, prefix, section, parameters=whole.parameters, operand=operand(section))
            .build(losses=composer.chosen and not prefix, loss=True, tangent=weights.tangent)
            for prefix, section in stages
        ]  # fmt: skip
        prepared = [learner.emitted("prepare")] if weights.prepared else []
        step = composer.joined(whole.held(), *prepared, *looked, *main)
        step.repeats |= {section: len(self.looks) for _, section in stages}
        return step

    def run(self, trainer: "Trainer", x: Any, y: np.ndarray, total: int, everything: bool = False) -> float | None:
        """One step on a mini-batch, of which x None is in place already; the loss."""
        runner, n = trainer.runner, len(y)
        if x is not None:
            trainer.put(y)
        trainer.begin("", n, total)
        first = int(trainer.updates[""][0]) * self.draws
        numbers = np.arange(first, first + self.draws)
        runner.write("update_draws", n, numbers[-self.m :])
        told = trainer.program.step.host_writes
        if RATE in told:
            tell(self, trainer, n, total)
        if self.sharpness:  # norms of these draws are asked for before it is known where a look above the weights looks
            along = ESTIMATORS[self.estimator].along
            runner.write("ascended_draws", n, numbers[: self.m + (not along)])
        if "prepare" in trainer.program.sections:
            runner.run("prepare", n)
        losses, factors = self._looked(trainer, n, total, "look", numbers, np.zeros(0))
        if self.sharpness:
            more, factors = self._looked(trainer, n, total, "ascended", numbers, self.sharpness * factors)
            losses += more
        with np.errstate(over="ignore"):
            given = factors.astype(trainer.program.dtype)
        if not np.isfinite(given).all():
            what = f"the slope is not finite at step {trainer.step + 1}"
            trainer.stop(what, self._prefix, n, total, "" if self._prefix else "look")
        for array, values in (("update_coefficients", given), ("update_signs", np.sign(factors))):
            if array in told:
                runner.write(array, n, values)
        if self.backprop_last is not None:
            trainer.again()
            return trainer.learn(n, total)
        runner.run("update", n)
        trainer.updated()
        return float(np.mean(losses))

    def _looked(
        self, trainer: "Trainer", n: int, total: int, section: str, numbers: np.ndarray, above: np.ndarray
    ) -> tuple[list[float], np.ndarray]:  # fmt: skip
        """The losses of an estimate, each by a run of a section, and the factors of its draws.

        numbers: of a step's draws; above: the factors of the first of them, by which the looks are above the weights;
        the next m are looked along.
        """
        runner, estimator, losses, seen = trainer.runner, ESTIMATORS[self.estimator], [], []
        prefix = self._prefix if section == "look" else f"{section}."
        for look in self.looks:
            trainer.again(prefix)
            draw = numbers[len(above) + look.draw]
            told = {section: ([*numbers[: len(above)]], [*above])}
            if estimator.along:
                told["along"] = [draw], [look.sign]
            else:
                told[section][0].append(draw)
                told[section][1].append(look.sign * self.epsilon)
            for name, (draws, coefficients) in told.items():
                if draws:
                    runner.write(f"{name}_draws", n, draws)
                    if f"{name}_coefficients" in trainer.program.step.host_writes:
                        runner.write(f"{name}_coefficients", n, coefficients)
            if f"{section}_signs" in trainer.program.step.host_writes:
                runner.write(f"{section}_signs", n, [look.sign])
                runner.write(EPSILON, n, [self.epsilon])
            runner.run(section, n)
            losses.append(float(runner.read(f"{prefix}loss", n)[0]))
            seen.append(float(runner.read(f"{prefix}tloss", n)[0]) if estimator.along else losses[-1])
            if not (math.isfinite(losses[-1]) and math.isfinite(seen[-1])):
                found = f"loss is {losses[-1]}" if not math.isfinite(losses[-1]) else f"slope is {seen[-1]}"
                trainer.stop(f"the {found} at step {trainer.step + 1}", prefix, n, total, "" if prefix else section)
        return losses, estimator.factors(seen, self.epsilon)

    def schedule(self, program: "Program", n: float) -> tuple[Turn, ...]:
        """A look for each side of each draw, everything else once."""
        repeats = program.step.repeats
        return tuple(turn._replace(times=repeats.get(turn.section, 1)) for turn in turns(program.sections, n))
