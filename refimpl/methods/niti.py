"""NITI (Wang et al. 2020, arXiv 2009.13108): training in whole numbers alone, from the input to the update.

A tensor is whole numbers of 8 bits that share an exponent; a sum of products is of 32 bits, and a shift brings it back
to 8 (`kernels.shared_exponent`). A step:

    forward      y·2^y_e ≈ (x ∗ w)·2^(x_e + w_e), rounded to the nearest                  ops.niti_conv2d, niti_linear
    loss         dx ≈ softmax(x·2^x_e) − [k = label] in whole numbers                     ops.niti_cross_entropy
    backward     dx·2^dx_e ≈ (dy ∗ wᵀ)·2^(dy_e + w_e), rounded as `rounding` says         ops.niti_conv2d, niti_linear
    update       w ← w − dw/2^s, so that the largest change has rate_bits bits            ops.niti_update

No floats are in it: the first node makes whole numbers of the samples, and the loss that is reported is computed beside
the step. A net of floats becomes one of such numbers by `surgery.share_exponents`, its weights too.

Readings:
  [second-hand] int8 weights, activations and errors with an exponent a tensor; the range by the highest bit; the three
         roundings; an integer approximation of softmax cross-entropy; the gradient shifted to few bits for the update.
  [ours] rate_bits = 7 + log₂(learning rate) rounded: the rate is the largest change as a share of the largest weight
         that there can be, 2^7; so a schedule lowers the bits. A weight moves by its last digit at least, or not.
  [ours] Activations are rounded to the nearest, for inference must not draw; errors and updates as `rounding` says.
  [ours] Biases, means, sums, the shape of the approximation and the exponents of zeros: see the operators.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..kernels import random
from ..kernels.shared_exponent import BITS, MOST, ROUNDINGS
from ..ops import niti_update, shared_exponent
from .optim import SGD, Adam
from .registry import Other, Pick, Statement, Tried, register_method
from .strategy import Strategy, Turn, turns

if TYPE_CHECKING:
    from ..compiler.compose import Composer
    from ..compiler.derive import Derivation
    from ..compiler.ir import Moment, Step
    from ..compiler.program import Program
    from ..plan.plan import Plan
    from ..training.trainer import Trainer

SECTIONS = ("forward", "backward", "update")
LEAST_BITS = -24  # of an update: one in 2^24 of the largest gradients moves its weight
WORDS = tuple(ROUNDINGS)


def rate_bits(rate: float) -> int:
    """The bits of the largest change of a weight for a learning rate: 7 + log₂(rate), rounded, at least −24."""
    if rate <= 0:
        return LEAST_BITS
    return max(LEAST_BITS, BITS + math.floor(math.log2(rate) + 0.5))


@register_method
@dataclass(frozen=True)
class Niti(Strategy):
    """A step in whole numbers that share exponents; the net must be one of `surgery.share_exponents`.

    arXiv 2009.13108, integer-only step.

    rounding: of errors and updates, "nearest", "stochastic" or "pseudo-stochastic". optimizer: plain SGD, whose rate
    says the bits of an update (`rate_bits`). ValueError for another rounding.
    """

    rounding: str = "pseudo-stochastic"
    optimizer: SGD | Adam = SGD(lr=0.01)

    method: ClassVar[str] = "niti"
    states: ClassVar[Statement] = Statement(
        "step", 95, "niti:rounding=pseudo-stochastic (whole numbers alone, or rounding stochastic, nearest)",
        {"rounding": WORDS},
        norms=False,
        combines={"instances": "the chosen instances train in whole numbers"},
        refuses={
            "rule": "a rule replaces gradients of floats, and here are none",
            "bias": "biases alone move by whole steps of the weights' last digit, which is too coarse",
            "depth": "a block that is left out would leave its sum without an exponent",
            "step": "both say how a step is made",
        },
        momentum=0.0,
        tried=Tried(
            few=True,
            variants={"=stochastic": ({"rounding": "stochastic"}, {}), "=nearest": ({"rounding": "nearest"}, {})},
        ),
    )  # fmt: skip
    form: ClassVar[str] = "exponents"
    loss: ClassVar[str | None] = "niti_cross_entropy"

    def __post_init__(self):
        if self.rounding not in ROUNDINGS:
            raise ValueError(f"rounding must be one of {', '.join(WORDS)}, got {self.rounding!r}")

    @classmethod
    def drawn(cls, pick: Pick, other: Other) -> "Niti":
        """With any rounding."""
        return cls(WORDS[pick(0, len(WORDS) - 1)])

    @property
    def attrs(self) -> dict[str, bool]:
        """The rounding."""
        return ROUNDINGS[self.rounding]

    @property
    def quantizes(self) -> dict[str, Any]:
        """Nothing more is told: exponents are found anew in each step."""
        return {}

    def check_plan(self, plan: "Plan") -> None:
        """ValueError for what whole numbers cannot do, and for a rate at which every update is rounded to 0."""
        if not isinstance(self.optimizer, SGD) or self.optimizer.momentum or self.optimizer.weight_decay:
            raise ValueError(
                "niti needs plain SGD without momentum and weight decay: what an optimizer keeps or adds would be less "
                "than the last digit of a weight"
            )
        for setting, only in (
            ("batch_norm", "frozen"), ("loss", "softmax_cross_entropy"), ("label_smoothing", 0.0),
            ("class_weights", None), ("ignored_label", None),
        ):  # fmt: skip
            if getattr(plan, setting) != only:
                raise ValueError(f"niti has no form of {setting}={getattr(plan, setting)!r} in whole numbers")
        bits = rate_bits(self.optimizer.lr)
        if self.rounding == "nearest" and bits < 0:
            least = 2.0 ** (-BITS - 0.5)
            raise ValueError(
                f"at a learning rate of {self.optimizer.lr:g} niti would round every update to 0: the least that moves "
                f"a weight by rounding to the nearest is {math.ceil(least * 1e4) / 1e4:g}"
            )

    @property
    def waits(self) -> bool:
        """The host does not go by what a step computes."""
        return False

    def derive(self, composer: "Composer") -> "Step":
        """Forward, backward and update of the main net. ValueError for a net that is none of `share_exponents`."""
        output = composer.graph.tensors[composer.graph.output]
        stands = output.quantized
        if output.dtype != np.int8 or stands is None or stands.scale not in composer.graph.tensors:
            raise ValueError(
                f"niti trains whole numbers that share exponents, and {composer.graph.name} gives none: "
                "surgery.share_exponents(…) makes them of a net of floats"
            )
        net = composer.net()
        net.updating = self._update
        return net.build(losses=composer.chosen)

    def _update(self, net: "Derivation") -> None:
        """The calls that change each trained parameter."""
        always = net.when

        def bits_of(now: "Moment") -> int:
            return rate_bits(now.factor * self.optimizer.rate(now.made, now.planned))

        bits = net.scalar("rate_bits", np.int32, bits_of)
        told = {"step": net.count_write(), "seed": net.seed_write(), "rate_bits": bits}
        places = {name: i for i, name in enumerate(net.graph.parameters)}
        for name, when in net.updated.items():
            net.when = when
            w, dw = net.parameters[name], net.gradient(name)
            most = net.buffer(f"{name}.most", dw.shape[:1], np.int32)
            shift = net.buffer(f"{name}.shift", (1,), np.int32)
            arrays = told | {"v": dw, "dw": dw, "most": most, "shift": shift, "w": w}
            net.emit(name, shared_exponent.most, arrays, {})
            net.emit(name, niti_update.shift_of, arrays, {})
            end = MOST if w.dtype == np.int8 else int(np.iinfo(w.dtype).max)
            attrs = {"end": end, "stream": random.UPDATE + places[name]} | ROUNDINGS[self.rounding]
            net.emit(name, niti_update.change, arrays, attrs)
        net.when = always

    def run(self, trainer: "Trainer", x: Any, y: np.ndarray, total: int, everything: bool = False) -> float | None:
        """One step on the samples of x, or on those that were put in place already where x is None; the loss."""
        if x is not None:
            trainer.fill(trainer.runner, x)
            trainer.put(y)
        return trainer.learn(len(y), total)

    def schedule(self, program: "Program", n: float) -> tuple[Turn, ...]:
        """Each section once."""
        return turns(SECTIONS, n)
