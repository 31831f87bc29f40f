"""The calls of a forward gradient's step on parameters of whole numbers, QZO-FF, and what the host tells them.

A parameter whose dtype is an integer is perturbed and updated by `ops.quantized_perturbation`, in the steps Δw that its
graph says (`Quantized.scale`), one for all of it or one for each output channel, which stay as they are: arXiv
2411.04036 eqs. (6) to (8). One of floats keeps the calls of `methods.forward_gradient_calls`, in the same step too.

The host tells ε and 2^31·η·Δz/m, the signs and the numbers of the draws once for all parameters. How many steps of each
scale they are is found where it is read, so that what a parameter of many channels takes lives as long as that.

Our readings: plain SGD alone, for eq. (8) gives the learning rate the whole value 1, and a velocity in steps of Δw
would need a scale of its own; no weight decay, for what it takes away is less than a step. The enhancements compute
norms, thresholds or slopes of floats. Weights and biases saturate at `kernels.quantized.ends`, within which no sum of
32 bits overflows, whatever training makes of them: at those of int16 where a sum has few products, before them where it
has more.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..kernels.passes import dtypes_of
from ..kernels.quantized import BIAS_END, INT32, MapEnds, factors
from ..kernels.random import PERTURBATION
from ..ops import quantized_perturbation as perturbation
from .optim import SGD

if TYPE_CHECKING:
    from ..compiler.derive import Derivation
    from ..compiler.ir import Buffer, Scaled
    from ..compiler.program import Program
    from ..graph import Graph, Node
    from ..training.trainer import Trainer
    from .forward_gradient import ForwardGradient

EPSILON, RATE = "whole_epsilon", "whole_rate"  # what the host tells: ε, and 2^31·η·Δz/m
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
            | ends_of(learner.graph, name)
            | {
                "each": scaled(learner.parameters[name]).each,
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
        self.told = {array: learner.host_array(array, (1,), np.float64) for array in (EPSILON, RATE)}

    def _arrays(self, net: "Derivation", section: str, name: str, array: str, told: str, most: int):
        """What the passes of a section read beside w. array: what they read of `told`, in steps of each scale."""
        scale = scaled(net.parameters[name]).scale
        steps = net.buffer(f"{name}.{array}", scale.shape, np.int64)
        arrays = {"out": steps, "scale": scale, "length": self.told[told]}
        net.emit(name, perturbation.in_steps, arrays, {"most": most})
        return {"seed": self.seed, "draws": self.draws[section], "signs": self.signs[section], array: steps}

    def look(self, net: "Derivation", name: str, w: "Buffer") -> "Buffer":
        """What nodes read in place of a parameter in a look: w itself where it is none of these."""
        if name not in self.names:
            return w
        moved = net.buffer(f"{name}.moved", w.shape, w.dtype)
        read = self._arrays(net, "look", name, "epsilon", EPSILON, perturbation.far(w.dtype))
        net.emit(name, perturbation.perturb, {"moved": moved, "w": w, **read}, self.attrs[name])
        return moved

    def update(self) -> None:
        """The calls of the update."""
        net, always = self.learner, self.learner.when
        net.begin("update")
        for name in self.names:
            net.when, w = net.used(name), net.parameters[name]
            read = self._arrays(net, "update", name, "rate", RATE, perturbation.FAST)
            net.emit(name, perturbation.step, {"w": w, **read}, self.attrs[name])
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
        scale = None if q is None or q.zero_point is not None else net.parameters.get(q.scale)
        if scale is None or scale.dtype.kind != "f":
            raise ValueError(
                f"{method.method} perturbs whole numbers in steps of scales of floats, without a zero point, but "
                f"{name} has {'no scale' if q is None else 'others'}: surgery.quantize gives {net.graph.name} such ones"
            )


def perturbed(program: "Program") -> dict[str, str]:
    """The whole parameters that the step of a program perturbs, in their order → the parameter that holds their Δw."""
    names = {b: name for name, b in program.step.parameters.items()}
    found = (call.arrays["w"] for call in program.step if call.passed is perturbation.step)
    return {names[w]: names[scaled(w).scale] for w in found}


def scaled(b: "Buffer") -> "Scaled":
    """The scale of a whole parameter, which `check` has seen."""
    assert b.quantized is not None
    return b.quantized


def scales(program: "Program", parameters: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Δw of each whole parameter that the step of a program perturbs, float64: one, or one for each channel."""
    return {name: factors(parameters[scale]) for name, scale in perturbed(program).items()}


def of_each(program: "Program", name: str, values: np.ndarray) -> np.ndarray:
    """The entry of each element of a whole parameter, in a row, of what it has one or one a channel of."""
    b = program.step.parameters[name]
    return np.resize(np.repeat(values, scaled(b).each), math.prod(b.shape))


def tell(method: "ForwardGradient", trainer: "Trainer", n: int, total: int) -> None:
    """Write the learning rate for a step on n samples of a run of `total`: arXiv 2411.04036 eq. (8)."""
    now = trainer.moment("", total)
    rate = now.factor * method.optimizer.rate(now.made, now.planned, now.seed)
    trainer.runner.write(RATE, n, [perturbation.rate_length(rate, method.m, method.z_max, method.mean8)])


def check_steps(method: "ForwardGradient", program: "Program", parameters: Mapping[str, np.ndarray]) -> None:
    """ValueError where ε or the learning rate moves too few of the whole weights, or most of them to their ends.

    Also where a weight begins beyond the ends within which no sum overflows.
    """
    found = scales(program, parameters)
    if not found:
        return
    check_ends(method, program, parameters)
    rate, signs = method.optimizer.lr, method.distribution == "signs"
    share = perturbation.least_rate(1.0, method.m, signs)
    each_least = np.concatenate([of_each(program, name, step * share) for name, step in found.items()])
    lost = np.count_nonzero(rate < each_least)
    if 2 * lost > len(each_least):
        raise ValueError(
            f"lr={rate:g} of {method.method} rounds to 0 in most updates of {lost / len(each_least):.0%} of the "
            f"weights: lr={rounded_up(float(np.median(each_least)))} would move most of them, and so would weights of "
            "more bits"
        )
    spans = {name: of_each(program, name, step) * np.iinfo(parameters[name].dtype).max for name, step in found.items()}
    most = np.concatenate([*spans.values()])
    for setting, value in (("epsilon", method.epsilon), ("lr", rate)):
        if 2 * np.count_nonzero(value > most) > len(most):
            raise ValueError(
                f"{setting}={value:g} of {method.method} moves most of the weights from end to end of their range: "
                f"{setting}={rounded_down(float(np.median(most)) / 10)} is a tenth of it"
            )


def ends_of(graph: "Graph", name: str) -> dict[str, int]:
    """The attributes low and high of a whole parameter: the ends within which no sum of a node that uses it overflows.

    Those of its dtype where no node sums its products.
    """
    low, high = (int(f(np.iinfo(graph.parameters[name].dtype))) for f in (lambda i: i.min, lambda i: i.max))
    for node, local in graph.users()[name]:
        found = sums_of(graph, node)
        if found and local in ("w", "b"):
            end = found.weight_end if local == "w" else BIAS_END
            low, high = max(low, -end), min(high, end)
    return {"low": low, "high": high}


def sums_of(graph: "Graph", node: "Node") -> MapEnds | None:
    """What a node's sums of products with its weights are made of; None where it sums none of whole numbers."""
    defaults = node.operator.defaults
    if "x_zero" not in defaults or "w" not in node.params:
        return None
    shape = graph.parameters[node.params["w"]].shape
    return MapEnds(math.prod(shape[:-1]), {**defaults, **node.attrs}["x_zero"])


def check_ends(method: "ForwardGradient", program: "Program", parameters: Mapping[str, np.ndarray]) -> None:
    """ValueError where a sum might leave int32 while weights are perturbed and grow, with the bits that would do."""
    trained = perturbed(program)
    for graph in program.graphs.values():
        for node in graph.nodes:
            sums, own = sums_of(graph, node), {local: p for local, p in node.params.items() if local in ("w", "b")}
            if sums is None or not set(own.values()) & set(trained):
                continue
            w, b = (parameters[own[local]].astype(np.int64) if local in own else np.zeros(1) for local in ("w", "b"))
            before = f"{node.name} of {graph.name} trained by {method.method} may sum beyond int32"
            if own["w"] not in trained:
                largest = sums.largest * int(abs(w).reshape(-1, w.shape[-1]).sum(0).max())
                if largest > INT32 - BIAS_END:
                    raise ValueError(f"{before}: its products reach {largest:,}, and they must leave {BIAS_END:,} to b")
            elif abs(w).max() > sums.weight_end:
                raise ValueError(
                    f"{before}: a weight is {int(abs(w).max()):,}, and those of {sums.products} products must stay "
                    f"within ±{sums.weight_end:,}: surgery.quantize with headroom=1.5 or with "
                    f"bits={sums.weight_end.bit_length()} makes such weights"
                )
            if abs(b).max() > BIAS_END:
                raise ValueError(
                    f"{before}: a bias is {int(abs(b).max()):,}, and it must stay within ±{BIAS_END:,}: weights of "
                    f"{math.ceil(math.log2(abs(b).max() / BIAS_END))} bits less do"
                )


def rounded_down(value: float) -> str:
    """A number above 0 in two digits, not above it."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.floor(value / unit) * unit:.2g}"


def rounded_up(value: float) -> str:
    """A number above 0 in two digits, not below it."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / unit) * unit:.2g}"
