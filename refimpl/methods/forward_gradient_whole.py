"""The calls of a forward gradient's step on parameters of whole numbers, QZO-FF, and what the host tells them.

A parameter whose dtype is an integer is perturbed and updated by `ops.quantized_perturbation`, in the step Δw that its
graph says (`Quantized.scale`), which stays as it is: arXiv 2411.04036 eqs. (6) to (8). One of floats keeps the calls of
`methods.forward_gradient_calls`, in the same step too.

The host tells the signs and the numbers of the draws once for all parameters, and for each parameter ε_q, and the
multiplier and shift of the learning rate, which follows a schedule: an entry of three arrays of int32.

Our readings: plain SGD alone, for eq. (8) gives the learning rate the whole value 1, and a velocity in steps of Δw
would need a scale of its own; no weight decay, for what it takes away is less than a step. The enhancements compute
norms, thresholds or slopes of floats.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..kernels.passes import dtypes_of
from ..kernels.quantized import factors
from ..kernels.random import PERTURBATION
from ..ops import quantized_perturbation as perturbation
from .optim import SGD

if TYPE_CHECKING:
    from ..compiler.derive import Derivation
    from ..compiler.ir import Buffer
    from ..compiler.program import Program
    from ..training.trainer import Trainer
    from .forward_gradient import ForwardGradient

EPSILONS, MULTIPLIERS, SHIFTS = "epsilons", "rate_multipliers", "rate_shifts"  # arrays with an entry for each parameter
ONLY = {  # setting → the only value that whole numbers take, and why
    "estimator": ("sign", "its z are multiplied by 1, 0 or −1, those of the others by a slope of floats"),
    "normalize": ("none", "norms are of floats"),
    "sharpness": (0.0, "an ascent by a share of a step of the weights is nothing"),
    "sparse": ("none", "a mask goes by magnitudes of floats"),
    "beta": (1.0, "a guide for the draws is of floats"),
    "backprop_last": (None, "operators on whole numbers have no gradient"),
    "clip_norm": (None, "norms are of floats"),
}


class Whole:
    """The calls of a step on the whole parameters that it perturbs. names: theirs; draws: section → their numbers."""

    def __init__(
        self, method: "ForwardGradient", learner: "Derivation", names: list[str], draws: "Mapping[str, Buffer]"
    ):  # fmt: skip
        """ValueError where a setting, a scale or a dtype is none that they take."""
        self.learner, self.names, self.draws = learner, names, draws
        if not names:
            return
        check(method, learner, names)
        places = {name: i for i, name in enumerate(learner.graph.parameters)}
        variable = perturbation.variable_settings(method.z_max)
        self.attrs = {
            name: variable
            | perturbation.dtype_settings(learner.parameters[name].dtype)
            | {
                "stream": PERTURBATION + 3 * places[name],
                "binomial": method.distribution == "signs",
                "mean8": method.mean8,
            }
            for name in names
        }
        self.seed = learner.seed_write()
        self.signs = {
            section: learner.host_array(f"{section}_signs", told.shape, np.int32) for section, told in draws.items()
        }
        self.told = {
            array: learner.host_array(array, (len(names),), np.int32) for array in (EPSILONS, MULTIPLIERS, SHIFTS)
        }

    def _arrays(self, section: str, name: str, **told: str) -> "dict[str, Buffer]":
        """What the passes of a section read beside w. told: array of a pass → the array of all parameters."""
        place = self.names.index(name)
        own = {array: self.told[every].part(place, (1,)) for array, every in told.items()}
        return {"seed": self.seed, "draws": self.draws[section], "signs": self.signs[section], **own}

    def look(self, net: "Derivation", name: str, w: "Buffer") -> "Buffer":
        """What nodes read in place of a parameter in a look: w itself where it is none of these."""
        if name not in self.names:
            return w
        moved = net.buffer(f"{name}.moved", w.shape, w.dtype)
        arrays = {"moved": moved, "w": w, **self._arrays("look", name, epsilon=EPSILONS)}
        net.emit(name, perturbation.perturb, arrays, self.attrs[name])
        return moved

    def update(self) -> None:
        """The calls of the update."""
        net, always = self.learner, self.learner.when
        net.begin("update")
        for name in self.names:
            net.when, w = net.used(name), net.parameters[name]
            arrays = self._arrays("update", name, rate_multiplier=MULTIPLIERS, rate_shift=SHIFTS)
            net.emit(name, perturbation.step, {"w": w, **arrays}, self.attrs[name])
        net.when = always


def check(method: "ForwardGradient", net: "Derivation", names: list[str]) -> None:
    """ValueError where a setting, a scale or a dtype is none that whole parameters take."""
    first = f"{names[0]} of {net.graph.name} holds {net.parameters[names[0]].dtype}"
    for setting, (value, why) in ONLY.items():
        given = getattr(method, setting)
        if given != value:
            raise ValueError(f"{method.method} with {setting}={given} cannot train whole numbers, and {first}: {why}")
    optimizer = method.optimizer
    if not isinstance(optimizer, SGD) or optimizer.momentum or optimizer.weight_decay:
        raise ValueError(
            f"{method.method} trains whole numbers by plain SGD without momentum and weight decay alone, and {first}: "
            "what else an optimizer keeps or adds is of floats"
        )
    takes = dtypes_of(perturbation.SHAPES["w"])
    for name in names:
        dtype, q = net.parameters[name].dtype, net.graph.parameters[name].quantized
        if dtype not in takes:
            raise ValueError(f"{method.method} trains {', '.join(map(str, takes))}, but {name} holds {dtype}")
        if q is None or q.scale not in net.parameters or q.axis is not None or q.zero_point is not None:
            raise ValueError(
                f"{method.method} perturbs whole numbers in steps of their one scale, without a zero point, but {name} "
                f"has {'no scale' if q is None else 'others'}: quantize {net.graph.name} with one scale a tensor"
            )


def perturbed(program: "Program") -> dict[str, str]:
    """The whole parameters that the step of a program perturbs, in their order → the parameter that holds their Δw."""
    names = {b: name for name, b in program.step.parameters.items()}
    found = (call.arrays["w"] for call in program.step if call.passed is perturbation.step)
    return {names[w]: names[w.quantized.scale] for w in found}


def scales(program: "Program", parameters: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Δw of each whole parameter that the step of a program perturbs."""
    return {name: float(factors(parameters[scale])[0]) for name, scale in perturbed(program).items()}


def tell(method: "ForwardGradient", trainer: "Trainer", n: int, total: int) -> None:
    """Write ε_q and the learning rate for a step on n samples of a run of `total`: arXiv 2411.04036 eqs. (6), (8)."""
    steps = scales(trainer.program, trainer.parameters).values()
    rate = method.optimizer.rate(int(trainer.updates[""][0]), trainer.planned(total), trainer.seed)
    rates = [perturbation.whole_rate(rate, step, method.m, method.z_max, method.mean8) for step in steps]
    trainer.runner.write(EPSILONS, n, [perturbation.whole_epsilon(method.epsilon, step) for step in steps])
    trainer.runner.write(MULTIPLIERS, n, [multiplier for multiplier, _ in rates])
    trainer.runner.write(SHIFTS, n, [shift for _, shift in rates])


def check_rate(method: "ForwardGradient", program: "Program", parameters: Mapping[str, np.ndarray]) -> None:
    """ValueError where the learning rate moves less than half of the whole weights in an update that should.

    Also where a factor does not fit into a multiplier and a shift.
    """
    found = scales(program, parameters)
    if not found:
        return
    rate, signs = method.optimizer.lr, method.distribution == "signs"
    for name, step in found.items():
        try:
            perturbation.whole_rate(rate, step, method.m, method.z_max, method.mean8)
            perturbation.whole_epsilon(method.epsilon, step)
        except ValueError as e:
            raise ValueError(f"{method.method} cannot train {name}, whose step is {step:.3g}: {e}") from None
    least = {name: perturbation.least_rate(step, method.m, signs) for name, step in found.items()}
    each = np.repeat([*least.values()], [parameters[name].size for name in least])
    lost = np.count_nonzero(rate < each)
    if 2 * lost > len(each):
        raise ValueError(
            f"lr={rate:g} of {method.method} rounds to 0 in most updates of {lost / len(each):.0%} of the weights: "
            f"lr={rounded_up(float(np.median(each)))} would move most of them, and so would weights of more bits"
        )


def rounded_up(value: float) -> str:
    """A number above 0 in two digits, not below it."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / unit) * unit:.2g}"
