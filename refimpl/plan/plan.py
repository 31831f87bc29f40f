"""What trains, by which rule, and how a step is made: data, with no behaviour hidden in flags."""

import math
from dataclasses import dataclass, field

from .. import arguments
from ..graph import Graph, Node
from ..methods.optim import SGD, Adam
from ..methods.stochastic_depth import StochasticDepth
from .combinations import check_combination

WEIGHTED = ("conv2d", "linear")
LOSSES = ("softmax_cross_entropy", "mse")


@dataclass(frozen=True)
class Backprop:
    """A step by back-propagation: forward, backward, update; `clip_norm` bounds the norm of the whole gradient."""

    optimizer: SGD | Adam = SGD(lr=0.01)
    clip_norm: float | None = None

    def __post_init__(self):
        arguments.offers("optimizer", self.optimizer, "rate", "an optimizer, such as SGD(lr=0.01)")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be a norm above 0, got {self.clip_norm}")


@dataclass(frozen=True)
class Plan:
    """Which nodes train and how.

    train_last: the classifier (every linear layer) and the last k convolutions in node order train; "all" trains every
        convolution; 0 the classifier alone. Everything else is frozen, and backward stops at the first trained layer.
    rules: methods that replace gradient passes of the trained nodes whose operator they name; without one the
        gradient is dense.
    batch_norm: "frozen" (running statistics) or "train" (batch statistics, gamma and beta train too).
    train_bias: convolution biases train too (a classifier's bias always does).
    bias_only: of the convolutions only biases train (TinyTL, Cai et al. 2020, arXiv 2007.11622): their own and, as the
        batch norm behind a convolution adds one too, its beta; gamma, statistics and weights are frozen. No gradient of
        a bias reads a feature map. Our reading: without TinyTL's residual modules, and the classifier trains in full.
    instances: what data enters a step, such as InstanceFilter; None is all.
    depth: StochasticDepth leaves residual blocks out of a step at random; None leaves none out.
    loss: "softmax_cross_entropy" or "mse".
    class_weights: a positive weight for each class in the mean of softmax_cross_entropy; None weighs all alike.
    ignored_label: the label of rows that softmax_cross_entropy leaves out, such as −100 or 255; None leaves none out.
    """

    train_last: int | str = "all"
    rules: tuple = ()
    step: Backprop = field(default_factory=Backprop)
    batch_norm: str = "frozen"
    train_bias: bool = False
    bias_only: bool = False
    instances: object = None
    depth: StochasticDepth | None = None
    loss: str = "softmax_cross_entropy"
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
    ignored_label: int | None = None

    def __post_init__(self):
        if not isinstance(self.rules, (tuple, list)):
            raise ValueError(f"rules must be a tuple of methods, such as (GradientFilter(),), got {self.rules!r}")
        object.__setattr__(self, "rules", tuple(self.rules))
        for rule in self.rules:
            arguments.offers("each of rules", rule, "bind", "a rule for gradients, such as GradientFilter()")
        if self.instances is not None:
            arguments.offers("instances", self.instances, "sections", "a choice of data, such as InstanceFilter()")
        if self.depth is not None:
            arguments.offers("depth", self.depth, "survival", "a StochasticDepth()")
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
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        if self.instances is not None and self.loss != "softmax_cross_entropy":
            raise ValueError(f"{self.instances!r} chooses by softmax_cross_entropy, but the loss is {self.loss}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and less than 1, got {self.label_smoothing}")
        if self.class_weights is not None:
            self._check_class_weights()
        if self.ignored_label is not None:
            if self.loss != "softmax_cross_entropy":
                raise ValueError(f"ignored_label needs the loss softmax_cross_entropy, but the loss is {self.loss}")
            if isinstance(self.ignored_label, bool) or not isinstance(self.ignored_label, int):
                raise ValueError(f"ignored_label must be a whole number or None, got {self.ignored_label!r}")

    def _check_class_weights(self) -> None:
        """ValueError where they are no weights of a mean."""
        weights = self.class_weights
        if self.loss != "softmax_cross_entropy":
            raise ValueError(f"class_weights need the loss softmax_cross_entropy, but the loss is {self.loss}")
        try:
            right = len(weights) > 0 and all(0 < w < math.inf for w in weights)
        except TypeError:
            right = False
        if not right:
            raise ValueError(f"class_weights must be positive finite numbers, one a class, got {weights!r}")

    @property
    def methods(self) -> list[str]:
        """Names of the methods that it combines, as `--method` takes them."""
        chosen = [] if self.instances is None else [self.instances.method]
        chosen += [rule.method for rule in self.rules] + ["bias-only"] * self.bias_only
        return chosen if self.depth is None else [*chosen, self.depth.method]

    def trained(self, graph: Graph) -> dict[str, list[str]]:
        """Trained nodes of a graph: node name → the operator's array names that train."""
        convolutions = [n.name for n in graph.nodes if n.op == "conv2d"]
        every = self.train_last == "all"
        if not every:
            if self.train_last > len(convolutions):
                raise ValueError(
                    f"train_last is {self.train_last}, but {graph.name} has {len(convolutions)} convolutions"
                )
            convolutions = convolutions[len(convolutions) - self.train_last :]
        convolutions = set(convolutions)
        found = {}
        for node in graph.nodes:
            if node.op == "linear":
                found[node.name] = [p for p in ("w", "b") if p in node.params]
            elif self.bias_only and node.op == "conv2d" and node.name in convolutions and "b" in node.params:
                found[node.name] = ["b"]
            elif self.bias_only and node.op == "batch_norm" and (node.inputs[0] in convolutions or every):
                found[node.name] = ["beta"]
            elif node.op == "conv2d" and node.name in convolutions and not self.bias_only:
                found[node.name] = ["w"] + (["b"] if self.train_bias and "b" in node.params else [])
            elif node.op == "batch_norm" and self.batch_norm == "train":
                found[node.name] = ["gamma", "beta"]
        return found

    def rules_of(self, node: Node) -> list:
        """The rules for a trained node; none is the dense gradient."""
        return [r for r in self.rules if r.operator == node.op]
