"""The exact derivative of a loss along a direction of the parameters, by forward mode."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .. import arguments
from ..compiler.compile import compile
from ..graph import Graph
from ..methods.directional import Directional
from ..plan.plan import Plan
from . import inputs
from .inputs import Inputs, samples
from .runner import Runner
from .state import initial


class Along(NamedTuple):
    """A loss, and its derivative along a direction."""

    loss: float
    derivative: float


def directional_derivative(
    graph: Graph, x: Inputs, y: np.ndarray, direction: Mapping[str, ArrayLike], plan: Plan | None = None,
    parameters: Mapping[str, np.ndarray] | None = None, seed: int = 0, backend: str = "reference",
    dtype: DTypeLike = np.float64,
) -> Along:  # fmt: skip
    """The loss of a net on samples x, y and its derivative ∇L·v along v = `direction`, exact up to rounding.

    It is computed by forward mode, beside the forward pass and without a backward pass: ∇L·v is the factor of a forward
    gradient (∇L·v)·v (arXiv 2411.04036 eq. (1)), and the limit of the slope [L(w + h·v) − L(w − h·v)] / 2h.

    x: (M, H, W, C), or a dict of arrays by input; y: (M,) labels, or for mse targets; all M are one batch.
    direction: parameter → array of its shape, in real numbers; a parameter that is left out does not move.
    plan: tells the loss, and what batch norm and dropout do in a step of training; default Plan(). Its rules are
    left out: the derivative is that of the net itself. parameters: values by name, default those of the graph, else
    drawn from `seed`, which also tells what dropout drops: that of the first step. backend, dtype: as `compile`.
    ValueError in one sentence for an unknown parameter, a wrong shape, data that do not fit, and an operator without a
    tangent.
    """
    plan = plan or Plan()
    for what, method in (("instances", plan.instances), ("depth", plan.depth)):
        if method is not None:
            raise ValueError(f"the derivative is that of a whole batch and net: plan without {what}, {method!r}")
    arguments.whole("seed", seed, 0)
    tangents = checked(graph, direction)
    if parameters is not None:
        graph = copy.copy(graph)
        graph.weights = graph.weights | dict(parameters)
    plan = replace(plan, rules=(), step=Directional(tuple(tangents)))
    sides = np.shape(x)[1:3] if graph.size and not isinstance(x, Mapping) else ()
    program = compile(graph, plan, samples(x), sides if len(sides) == 2 else None, backend=backend, dtype=dtype)
    inputs.check(program, x, y)
    runner, n = Runner(program, initial(program, seed), seed=seed), samples(x)
    inputs.fill(runner, x)
    runner.write(program.truth.name, n, y)
    for name, scalar in program.step.scalars.items():
        runner.write(name, n, scalar(0, 1, seed))
    for name, tangent in tangents.items():
        runner.write(f"tangent.{name}", n, tangent)
    runner.run("forward", n)
    return Along(float(runner.read("loss", n)[0]), float(runner.read("tloss", n)[0]))


def checked(graph: Graph, direction: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    """The arrays of a direction; ValueError where one is not the tangent of a parameter that can move."""
    tangents = {}
    moving = [name for node in graph.needed() for local, name in node.params.items() if local in node.operator.params]
    for name, given in direction.items():
        if name not in moving:
            what = "is no parameter that trains" if name in graph.parameters else "is no parameter"
            raise ValueError(f"direction has {name!r}, which {what} of {graph.name}: those are {', '.join(moving)}")
        own, tangent = graph.parameters[name], np.asarray(given)
        if own.dtype is not None and own.dtype.kind != "f":
            raise ValueError(f"direction has {name!r}, which holds {own.dtype}: only what holds floats can move")
        if tangent.dtype.kind not in inputs.REAL or tangent.shape != tuple(own.shape):
            raise ValueError(
                f"direction[{name!r}] must be of real numbers and shape {tuple(own.shape)}, but it is of "
                f"{tangent.dtype} and shape {tangent.shape}"
            )
        tangents[name] = tangent
    if not tangents:
        raise ValueError(f"direction is empty: give it an array for at least one of {', '.join(moving)}")
    return tangents
