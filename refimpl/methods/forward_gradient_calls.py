"""The calls of a forward gradient's step: what its looks read in place of the weights, and what its update is made of.

`methods.forward_gradient` says in which sections they are, and what the host tells them.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..kernels.random import PERTURBATION
from ..kernels.traced import part
from ..ops import clip_norm, perturbation

if TYPE_CHECKING:
    from ..compiler.derive import Derivation, Operand
    from ..compiler.forward_mode import Tangent
    from ..compiler.ir import Buffer
    from ..kernels.passes import Pass
    from .forward_gradient import ForwardGradient


def draws_of(method: "ForwardGradient", learner: "Derivation", along: bool) -> "dict[str, Buffer]":
    """Section → the numbers of its draws, int64 (J,), which the host tells once for all parameters.

    along: looks are along z, at the weights.
    """
    counts = {"along" if along else "look": 1, "update": method.m}
    if method.sharpness:
        counts["ascended"] = method.m + (not along)
    return {section: learner.host_array(f"{section}_draws", (j,), np.int64) for section, j in counts.items()}


class Perturbed:
    """The calls of a step on the parameters of floats that it perturbs.

    names: theirs; draws: section → the numbers of its draws; along: its looks are along z, at w.
    """

    def __init__(
        self, method: "ForwardGradient", learner: "Derivation", names: list[str], draws: "dict[str, Buffer]",
        along: bool,
    ):  # fmt: skip
        self.method, self.learner, self.names = method, learner, names
        places = {name: i for i, name in enumerate(learner.graph.parameters)}
        self.attrs = {
            name: {
                "stream": PERTURBATION + 3 * places[name],
                "signs": method.distribution == "signs",
                "deviation": math.sqrt(method.alpha),
                "spread": math.sqrt(1 - method.alpha),
                "chosen": method.share,
            }
            for name in names
        }
        self.given: dict[str, dict[str, Buffer]] = {name: {"seed": learner.seed_write()} for name in names}
        scales = {"ascended": {}, "update": {}}
        self.scales: dict[str, dict[str, Buffer]] = scales  # section → parameter → ‖w‖/‖z‖ of its draws
        if method.beta < 1 and names:
            share = learner.scalar("share", learner.dtype, lambda now: method.beta if now.updates else 1.0)
            for name in names:
                shape = learner.parameters[name].shape
                learner.state[f"{name}.guide"] = guide = learner.buffer(f"{name}.guide", shape, region="state")
                self.given[name] |= {"guide": guide, "share": share}
        if method.sparse == "random":
            self._give("step", lambda name: learner.count_write())
        elif method.sparse == "threshold":
            self._give("least", lambda name: learner.scalar("least", learner.dtype, lambda now: method.threshold))
        self.draws = {
            section: {
                "draws": told,
                "coefficients": learner.host_array(f"{section}_coefficients", told.shape, learner.dtype),
            }
            for section, told in (draws if names else {}).items()
        }

    def _give(self, array: str, of: "Callable[[str], Buffer]") -> None:
        """Let the passes of each parameter read an array."""
        for name in self.names:
            self.given[name][array] = of(name)

    def prepare(self) -> None:
        """Thresholds and norms of the weights, once a step."""
        method, net = self.method, self.learner
        self.prepared = bool(self.names) and (method.sparse == "magnitude" or method.normalize == "tensor")
        if not self.prepared:
            return
        net.begin("prepare")
        always = net.when
        for name in self.names:
            w, net.when = net.parameters[name], net.used(name)
            if method.sparse == "magnitude":
                least = self.given[name]["least"] = net.buffer(f"{name}.least", (1,))
                keep = part(method.share, math.prod(w.shape))
                net.emit(name, perturbation.magnitude, {"least": least, "w": w}, {"keep": keep})
            if method.normalize == "tensor":
                self._norms(name, w)
        net.when = always
        net.begin("forward")

    def _norms(self, name: str, w: "Buffer") -> None:
        """‖w‖/‖z‖ of the draws of each section that puts a gradient together."""
        net, m = self.learner, self.method.m
        slices = clip_norm.partial_squares.sizes({"dw": w}, {})["L"]
        of_w = net.buffer(f"{name}.w_squares", (slices,), np.float64)
        net.emit(name, clip_norm.partial_squares, {"dw": w, "partials": of_w}, {})
        for section in [section for section in self.scales if section in self.draws]:
            of_z = net.buffer(f"{name}.z_squares", (m, slices), np.float64)
            scales = self.scales[section][name] = net.buffer(f"{name}.{section}_scales", (m,))
            arrays = {"z_squares": of_z, "w": w, "draws": self.draws[section]["draws"]} | self.given[name]
            net.emit(name, perturbation.squares, arrays, self.attrs[name])
            norms = {"scales": scales, "w_squares": of_w, "z_squares": of_z}
            net.emit(name, perturbation.norm_ratio, norms, {})

    def _arrays(self, section: str, name: str) -> "dict[str, Buffer]":
        """What a pass that sums draws reads beside w. section: whose draws."""
        scales = self.scales.get(section, {}).get(name)
        return self.draws[section] | self.given[name] | ({} if scales is None else {"scales": scales})

    def _emit(self, passed: "Pass", writes: str, of: str, section: str, net: "Derivation", name: str) -> "Buffer":
        """Emit a pass over a section's draws of a parameter; what it writes, called after the parameter and `of`."""
        w = net.parameters[name]
        made = net.buffer(f"{name}.{of}", w.shape)
        net.emit(name, passed, {writes: made, "w": w} | self._arrays(section, name), self.attrs[name])
        return made

    def operand(self, section: str) -> "Operand | None":
        """What nodes read in place of parameters in a section: w itself where it is not perturbed; None: w always."""
        if section not in self.draws:
            return None

        def moved(net: "Derivation", name: str, w: "Buffer") -> "Buffer":
            if name not in self.given:
                return w
            return self._emit(perturbation.perturb, "moved", "moved", section, net, name)

        return moved

    @property
    def tangent(self) -> "Tangent | None":
        """That of each parameter that is perturbed, z of a draw; None where no look is along z."""

        def along(net: "Derivation", name: str, w: "Buffer") -> "Buffer | None":
            if name not in self.given:
                return None
            return self._emit(perturbation.estimate, "estimated", "tangent", "along", net, name)

        return along if "along" in self.draws else None

    def estimate(self, name: str) -> "Callable[[], Buffer]":
        """What emits the call that makes ĝ of a parameter."""
        return lambda: self._emit(perturbation.estimate, "estimated", "estimate", "update", self.learner, name)

    def follow(self) -> None:
        """Let the last draw of a step be the guide of the next, where there is one."""
        net, always = self.learner, self.learner.when
        for name in self.names if self.method.beta < 1 else ():
            net.when = net.used(name)
            arrays = {"draws": self.draws["update"]["draws"], **self.given[name]}
            net.emit(name, perturbation.follow, arrays, self.attrs[name])
        net.when = always
