"""What a run does where an option was not given, and whether the run was of use.

A recipe, `auto`, makes a run safe (`refimpl.recipes`): some training samples are held out to judge by, the classifier
trains first and alone, short probes choose the learning rate, the best weights are kept, and the run ends where nothing
improves. `plain` is the steps of the epochs and nothing else.

Decided from the options and the net alone, before the run:

- The gradient is clipped, at the norm `methods.optim.CLIP_NORM`: unclipped, a pre-trained net whose batch norm is
  frozen, or folded into its convolutions, diverges at the learning rate that its new classifier needs.
- A new classifier of a pre-trained net starts near zero: its first gradients know nothing yet and must not move the
  layers below.
- The learning rate falls with 1 − momentum, and with the square root of the batch: gradients of few samples are noisy.
- A method may state a factor on the learning rate, and that it falls with the root of the weights that train: estimated
  gradients are noisier still, the more so the more weights they are of.
- A method that states so trains the last layers alone.
"""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line reads the constants for its help, and must not wait for kernels
    import numpy as np

    from refimpl.graph import Graph
    from refimpl.plan.plan import Plan

    from .settings import AdaptSettings

BACKEND = "auto"  # what runs a program, unless it is named: what is best on the machine
RATE, BATCH = 0.1, 32  # learning rate of plain SGD at this batch and above
RATE_RULE = f"{RATE:g} * (1 - momentum) * sqrt(batch / {BATCH}), the root at most 1"
RATE_HELP = f"Learning rate at the start, it falls along a cosine; auto, the default, is found from {RATE_RULE} down."
AUTO, PLAIN = "auto", "plain"
RECIPES = {
    AUTO: "holds samples out, trains the classifier first, finds the learning rate and keeps the best weights",
    PLAIN: "makes the steps of the epochs and nothing else",
}
SGD, ADAM = "sgd", "adam"
OPTIMIZERS = {SGD: 1.0, ADAM: 0.1}  # → factor on the default learning rate: Adam's steps do not fall with the gradient
BALANCED = "balanced"
# Defaults of `adapt` and of what goes with it
METHOD = "gradient-filter:patch=2"
EPOCHS, SAMPLES = 20, 32  # of a run, and of a step
NORMS = FROZEN, TRAINED = "frozen", "train"  # batch norms


def rate(batch: int, momentum: float, factor: float = 1.0) -> float:
    """Learning rate at the start of a run, to six digits; of a momentum that no optimizer takes, any.

    factor: what a method states (`Statement.rate`).
    """
    share = 1 - momentum if 0 <= momentum < 1 else 1
    return six_digits(factor * RATE * share * math.sqrt(min(1, batch / BATCH)))


def with_parts(plan: Plan, settings: AdaptSettings) -> Plan:
    """The plan with the parts of a recipe that have an option of their own; classes are balanced by `balanced`.

    ValueError for a part that the method or the optimizer does not take.
    """
    from refimpl.methods.optim import Adam

    step = plan.step
    optimizer = replace(step.optimizer, schedule=replace(step.optimizer.schedule, warmup=settings.warmup))
    if settings.optimizer == ADAM:
        optimizer = Adam(six_digits(optimizer.lr), schedule=optimizer.schedule)
    step = replace(step, optimizer=optimizer)
    if settings.clip is not None:
        if all(field.name != "clip_norm" for field in fields(step)):
            raise ValueError(f"{step.method} clips no gradient: leave --clip out")
        step = replace(step, clip_norm=settings.clip or None)
    return replace(plan, step=step, batch_norm=norms(plan, settings), label_smoothing=settings.label_smoothing)


def norms(plan: Plan, settings: AdaptSettings) -> str:
    """What batch norms do unless somebody says it: those of random weights train, where every method lets them."""
    from refimpl.methods.registry import known

    train = settings.from_scratch and all(known()[name].states.norms for name in plan.methods)
    return settings.batch_norm or (TRAINED if train else FROZEN)


def balanced(labels: np.ndarray, classes: int) -> tuple[float, ...]:
    """A weight for each class, samples / (classes that are there · samples of it), so that all weigh alike; else 1."""
    counts = [0] * classes
    for label in labels.tolist():
        counts[label] += 1
    there = sum(map(bool, counts))
    return tuple(len(labels) / (there * n) if n else 1.0 for n in counts)


def with_layers(plan: Plan, graph: Graph, given: str | None) -> Plan:
    """The plan with the layers that train where `--train-last` was not given: all, or `at_most` so many last ones."""
    from refimpl.plan.plan import counted

    most = at_most(plan)
    if given is not None or plan.train_last != "all" or most is None or len(counted(graph)) <= most[0]:
        return plan
    return replace(plan, train_last=most[0])


def with_rate(plan: Plan, graph: Graph, given: float | None) -> Plan:
    """The plan with the learning rate that its methods want for so many weights, where `--lr` was not given."""
    share = by_weights(plan, graph)[0]
    if given is not None or share == 1:
        return plan
    optimizer = plan.step.optimizer
    return replace(plan, step=replace(plan.step, optimizer=replace(optimizer, lr=six_digits(optimizer.lr * share))))


def by_weights(plan: Plan, graph: Graph) -> tuple[float, str]:
    """The factor on the learning rate by how many weights train, and how it is found; 1 where no method asks for it."""
    from refimpl.methods.registry import known

    limits = [s for s in (known()[name].states.rate_weights for name in plan.methods) if s is not None]
    if not limits:
        return 1.0, ""
    params = {node.name: node.params for node in graph.nodes}
    trained = {params[node][local] for node, arrays in plan.trained(graph).items() for local in arrays}
    count = sum(math.prod(graph.parameters[name].shape) for name in trained)
    if count <= min(limits):
        return 1.0, ""
    return math.sqrt(min(limits) / count), f", times sqrt({min(limits):,} / {count:,} weights that train)"


def six_digits(value: float) -> float:
    """A number as it is told."""
    return float(f"{value:.6g}")


def at_most(plan: Plan) -> tuple[int, str] | None:
    """The most last convolutions that the methods of a plan train unless asked, and why; None is all of them."""
    from refimpl.methods.registry import known

    return min((s for s in (known()[name].states.at_most for name in plan.methods) if s), default=None)


def start_small(graph: Graph) -> None:
    """Let what a net with weights of its own has yet to draw, a new classifier, start near zero."""
    from refimpl.saved.labels import HEAD_GAIN

    for name, parameter in graph.parameters.items():
        if graph.weights and name not in graph.weights:
            graph.parameters[name] = replace(parameter, gain=HEAD_GAIN)


def worse(before: float, after: float, lr: float, samples: int) -> str | None:
    """The sentence of a run that ended below where it began, in shares of the evaluation data; None where none did."""
    if after >= before:
        return None
    return (
        f"the run ended worse than it began: accuracy {before:.2%} before, {after:.2%} after, on {samples:,} samples; "
        f"the weights that it began with are kept; a smaller --lr (it was {lr:g}), a smaller --train-last or more "
        "--epochs may help"
    )


def reasons(plan: Plan, graph: Graph, batch: int) -> list[str]:
    """A sentence for each setting of a run that is as decided here, and why."""
    from refimpl.methods.registry import known
    from refimpl.plan.plan import of_kind

    optimizer, found = plan.step.optimizer, []
    factor = min((known()[name].states.rate for name in plan.methods), default=1.0)
    share, weights = by_weights(plan, graph)
    momentum = getattr(optimizer, "momentum", None)
    if momentum is not None and optimizer.lr == six_digits(rate(batch, momentum, factor) * share):
        times = ("" if factor == 1 else f", times {factor:g}") + weights
        clipped = "" if plan.step.clip_norm is None else f"; the gradient is clipped at norm {plan.step.clip_norm:g}"
        found.append(f"learning rate {optimizer.lr:g}, the default: {RATE_RULE}{times}{clipped}")
    most = at_most(plan)
    if most and plan.train_last == most[0] == with_layers(replace(plan, train_last="all"), graph, None).train_last:
        found.append(f"the last {most[0]} {of_kind(graph)} and the classifier train, the default here: {most[1]}")
    return found
