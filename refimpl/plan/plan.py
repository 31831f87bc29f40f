"""What trains, by which rule, and how a step is made: data, with no behaviour hidden in flags."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import arguments
from ..graph import Graph, Node
from ..methods.optim import SGD, Adam
from ..methods.strategy import BOUNDS, Around, Modifier, Strategy, Turn, turns
from ..ops import operator, operators, quantized_sgd
from .combinations import check_combination

if TYPE_CHECKING:
    from ..compiler.compose import Composer
    from ..compiler.ir import Step
    from ..compiler.program import Program
    from ..training.trainer import Trainer

PHASES = ("forward", "backward", "update")  # the sections of back-propagation


def is_loss(name: str, has: str = "loss") -> bool:
    """Is `name` an operator that computes a loss, and has it an array or attribute `has`?"""
    if name not in operators():
        return False
    op = operator(name)
    return op.writer("loss") is not None and (has in op.shapes or has in op.defaults)


def kind_of(method: Any) -> str | None:
    """The kind that a method states, None where it is none."""
    states = getattr(method, "states", None)
    return states and states.kind


def roles(graph: Graph) -> dict[str, str | None]:
    """When the parameters of each node train, as its operator states (`TRAINS`).

    Of a net without convolutions the last linear layer alone is the classifier, and those before it are counted; a part
    of a net keeps what was the classifier of the whole.
    """
    found = {node.name: node.operator.trains for node in graph.nodes}
    always = [name for name, role in found.items() if role == "always"]
    classifier = graph.classifier
    if classifier is None:
        classifier = frozenset(always if "counted" in found.values() else always[-1:])
    return found | {name: "counted" for name in always if name not in classifier}


def counted(graph: Graph) -> list[str]:
    """Names of the layers that `Plan.train_last` counts, in node order: the convolutions that a gradient reaches.

    Of a net without them its linear layers but the last (`roles`). Of several with the same weights the last.
    """
    reached, last, role = graph.reached(), dict[str, str](), roles(graph)
    for node in graph.nodes:
        if role[node.name] == "counted" and node.name in reached:
            weights = node.params.get("w", node.name)
            last.pop(weights, None)
            last[weights] = node.name
    return list(last.values())


def of_kind(graph: Graph) -> str:
    """What the layers are, in words, that `Plan.train_last` counts."""
    linear = any(graph.node(name).operator.trains != "counted" for name in counted(graph))
    return "hidden layers" if linear else "convolutions"


@dataclass(frozen=True)
class Backprop(Strategy):
    """A step by back-propagation: forward, backward, update; `clip_norm` bounds the norm of the whole gradient."""

    optimizer: SGD | Adam = SGD(lr=0.01)
    clip_norm: float | None = None

    def __post_init__(self):
        arguments.offers("optimizer", self.optimizer, "rate", "an optimizer, such as SGD(lr=0.01)")
        if self.clip_norm is not None:
            arguments.numbers(clip_norm=self.clip_norm)
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be a norm above 0, got {self.clip_norm}")

    @property
    def waits(self) -> bool:
        """It does not."""
        return False

    def derive(self, composer: "Composer") -> "Step":
        """Forward, backward and update of the main net."""
        return composer.net().build(losses=composer.chosen)

    def run(self, trainer: "Trainer", x: Any, y: np.ndarray, total: int, everything: bool = False) -> float | None:
        """One step on the samples of x, or on those that were put in place already where x is None; the loss."""
        if x is not None:
            trainer.fill(trainer.runner, x)
            trainer.put(y)
        return trainer.learn(len(y), total)

    def check_weights(self, program: "Program", parameters: Mapping[str, np.ndarray]) -> None:
        """ValueError where a sum of a layer in whole numbers might leave int32 as its weights grow."""
        graph = program.graph
        for name, trained in program.plan.trained(graph).items():
            params = graph.node(name).params
            if "w" not in trained or "b" not in params or parameters[params["w"]].dtype.kind != "i":
                continue
            w, b = (parameters[params[local]] for local in ("w", "b"))
            end = quantized_sgd.end(b.dtype, w[..., 0].size)
            if (found := np.abs(b.astype(np.int64))).max() > end:
                raise ValueError(
                    f"the weights of {name} cannot train: the bias of channel {int(found.argmax())} is "
                    f"{int(b[found.argmax()]):,}, and beside every sum of {w[..., 0].size} weights of 8 bits int32 "
                    f"leaves room for {end:,}: train fewer layers, or give that channel a larger scale"
                )

    def schedule(self, program: "Program", n: float) -> tuple[Turn, ...]:
        """Each section once."""
        return turns(PHASES, n)


@dataclass(frozen=True)
class Plan:
    """Which nodes train and how.

    train_last: the classifier (every linear layer) and the last k convolutions in node order train; "all" trains every
        convolution; 0 the classifier alone. Everything else is frozen, and backward stops at the first trained layer.
        Of a net without convolutions the classifier is the last linear layer, and those before it are counted.
    rules: methods that replace gradient passes of the trained nodes whose operators they name; without one the
        gradient is dense.
    batch_norm: "frozen" (running statistics) or "train" (batch statistics, gamma and beta train too).
    train_bias: convolution biases train too (that of a linear layer that trains always does).
    bias_only: of the convolutions only biases train (TinyTL, Cai et al. 2020, arXiv 2007.11622): their own and, as the
        batch norm behind a convolution adds one too, its beta; gamma, statistics and weights are frozen. No gradient of
        a bias reads a feature map. Our reading: without TinyTL's residual modules, and the classifier trains in full.
    instances: what data enters a step, such as InstanceFilter; None is all.
    depth: what leaves residual blocks out of a step, such as StochasticDepth; None leaves none out.
    loss: "softmax_cross_entropy", "mse" or another operator that computes a `loss`.
    class_weights: a positive weight for each class in the mean of softmax_cross_entropy; None weighs all alike.
    ignored_label: the label of rows that softmax_cross_entropy leaves out, such as −100 or 255; None leaves none out.
    """

    train_last: int | str = "all"
    rules: Sequence[Any] = ()
    step: Strategy = field(default_factory=Backprop)
    batch_norm: str = "frozen"
    train_bias: bool = False
    bias_only: bool = False
    instances: Any = None
    depth: Modifier | None = None
    loss: str = "softmax_cross_entropy"
    label_smoothing: float = 0.0
    class_weights: Sequence[float] | None = None
    ignored_label: int | None = None

    def __post_init__(self):
        if not isinstance(self.rules, (tuple, list)):
            raise ValueError(f"rules must be a tuple of methods, such as (GradientFilter(),), got {self.rules!r}")
        object.__setattr__(self, "rules", tuple(self.rules))
        for rule in self.rules:
            arguments.offers("each of rules", rule, "bind", "a rule for gradients, such as GradientFilter()")
        if self.instances is not None:
            arguments.offers("instances", self.instances, "fewest", "a choice of data, such as InstanceFilter()")
        if self.depth is not None and (isinstance(self.depth, type) or kind_of(self.depth) != "depth"):
            raise ValueError(f"depth must be what leaves blocks out, such as StochasticDepth(), got {self.depth!r}")
        arguments.offers("step", self.step, "optimizer", "a way to make a step, such as Backprop(SGD(lr=0.01))")
        k = self.train_last
        if k != "all" and (isinstance(k, bool) or not isinstance(k, int) or k < 0):
            raise ValueError(f"train_last must be a number of convolutions from 0 up, or 'all', got {k!r}")
        if self.batch_norm not in ("frozen", "train"):
            raise ValueError(f"batch_norm must be 'frozen' or 'train', got {self.batch_norm!r}")
        if self.bias_only and self.batch_norm == "train":
            raise ValueError(
                "bias_only needs batch_norm='frozen': statistics of the batch need the feature map in the backward pass"
            )
        check_combination(self.methods)
        optimizer = self.step.optimizer
        for method in (self.instances, *self.rules, self.depth) if optimizer.state else ():
            states = getattr(method, "states", None)
            if states and states.plain_sgd:
                why = states.plain_sgd.format(optimizer=type(optimizer).__name__)
                raise ValueError(f"{method.method} needs plain SGD without momentum: {why}")
        self.step.check_plan(self)
        self._check_loss("loss must be", "loss")
        if self.instances is not None:
            self._check_loss(f"{self.instances!r} chooses by", "labels")
        arguments.numbers(label_smoothing=self.label_smoothing)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and less than 1, got {self.label_smoothing}")
        if self.class_weights is not None:
            self._check_class_weights(self.class_weights)
        if self.ignored_label is not None:
            self._check_loss("ignored_label needs the loss", "ignored")
            if isinstance(self.ignored_label, bool) or not isinstance(self.ignored_label, int):
                raise ValueError(f"ignored_label must be a whole number or None, got {self.ignored_label!r}")

    def _check_loss(self, who: str, has: str) -> None:
        """ValueError where the loss is none or has no array or attribute `has`."""
        if not is_loss(self.loss, has):
            others = " or ".join(name for name in operators() if is_loss(name, has))
            raise ValueError(f"{who} {others}, but the loss is {self.loss}")

    def _check_class_weights(self, weights: Sequence[float]) -> None:
        """ValueError where they are no weights of a mean."""
        self._check_loss("class_weights need the loss", "class_weights")
        try:
            right = len(weights) > 0 and all(0 < w < math.inf for w in weights)
        except TypeError:
            right = False
        if not right:
            raise ValueError(f"class_weights must be positive finite numbers, one a class, got {weights!r}")

    @cached_property
    def strategy(self) -> Strategy:
        """How a step is made, with what leaves blocks out and what chooses the data around it."""
        found = self.step
        for rule in (self.depth, self.instances):
            found = found if rule is None else Around(rule, found)
        return found

    def for_net(self, graph: Graph, size: tuple[int, int] | None) -> "Plan":
        """The same with a choice of data for this net and its input size."""
        return self if self.instances is None else replace(self, instances=self.instances.for_net(graph, size))

    def over(self, n: int, steps: int, losses: np.ndarray | None = None) -> "dict[str, Plan]":
        """`low`, `mid` and `high`: the same, reckoning with what enters in a run of `steps` mini-batches of n."""
        if self.instances is None:
            return dict.fromkeys(BOUNDS, self)
        found = self.instances.over(n, steps, losses)
        return {bound: replace(self, instances=rule) for bound, rule in found.items()}

    @property
    def methods(self) -> list[str]:
        """Names of the methods that it combines, as `--method` takes them."""
        chosen = [] if self.instances is None else [self.instances.method]
        chosen += [rule.method for rule in self.rules] + ["bias-only"] * self.bias_only
        chosen += [] if self.depth is None else [self.depth.method]
        return [*chosen, self.step.method] if kind_of(self.step) == "step" else chosen

    def trained(self, graph: Graph) -> dict[str, list[str]]:
        """Trained nodes of a graph: node name → the operator's array names that train.

        None of them lies where no gradient arrives.
        """
        layers = counted(graph)
        every = isinstance(self.train_last, str)
        if isinstance(self.train_last, int):
            if self.train_last > len(layers):
                which = of_kind(graph) + (" that gradients reach" if graph.frozen() else "")
                raise ValueError(f"train_last is {self.train_last}, but {graph.name} has {len(layers)} {which}")
            layers = layers[len(layers) - self.train_last :]
        chosen, reached, found = set(layers), every, dict[str, list[str]]()
        gradient, role = graph.reached(), roles(graph)
        for node in graph.nodes:
            if node.name not in gradient:
                continue
            op = node.operator
            own = [p for p in op.params if p in node.params]
            reached |= node.name in chosen
            if role[node.name] == "always":
                found[node.name] = own
            elif self.bias_only:
                behind = op.trains == "statistics" and (node.inputs[0] in chosen or every)
                behind |= op.trains == "behind" and reached
                if op.bias in own and (node.name in chosen or behind):
                    found[node.name] = [op.bias]
            elif node.name in chosen:
                found[node.name] = [p for p in own if p != op.bias or self.train_bias or op.trains == "always"]
            elif op.trains == "behind" and reached or op.trains == "statistics" and self.batch_norm == "train":
                found[node.name] = own
        return self.whole(graph, found, gradient)

    def whole(self, graph: Graph, trained: Mapping[str, list[str]], reached: set[str]) -> dict[str, list[str]]:
        """Trained nodes with those that share their arrays: a gradient is summed over all that use one.

        reached: nodes that a gradient can reach.
        """
        arrays = {graph.node(name).params[local] for name, own in trained.items() for local in own}
        several = {name for name, users in graph.users().items() if len(users) > 1} & arrays
        if not several:
            return dict(trained)
        found = {}
        for node in graph.nodes:
            own = trained.get(node.name, [])
            more = [p for p in node.operator.params if p not in own and node.params.get(p) in several]
            if own or more and node.name in reached:
                found[node.name] = [p for p in node.operator.params if p in own or p in more]
        return found

    def rules_of(self, node: Node) -> list:
        """The rules for a trained node; none is the dense gradient."""
        return [r for r in self.rules if node.op in r.operators]
