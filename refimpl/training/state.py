"""What training changes: what a run begins with, and all of it as named arrays, to be taken out and put in again."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from ..compiler.program import Program
from ..graph import Graph, Parameter
from ..kernels import quantized, random
from .learnt_constants import check_saved, learnt_constants

if TYPE_CHECKING:
    from .trainer import Trainer

BEGUN = "begun"  # the name of the mini-batches before the run at hand, and the beginning of those of updates
CHUNK = 1 << 16  # values drawn at a time: NumPy makes arrays of all of them in between


def initial(program: Program, seed: int) -> dict[str, np.ndarray]:
    """Parameter arrays of a program: the graph's weights where it has them, else drawn from the seed.

    Quantized ones that are drawn are rounded to their scale, or where that has no values either, that is chosen for
    them (`kernels.quantized.symmetric`). ValueError for weights that the graph has no parameter for, or of another
    shape or dtype, and for integers that cannot be drawn.
    """
    arrays: dict[str, np.ndarray] = {}
    for graph in program.graphs.values():
        for name, values in graph.weights.items():
            if name not in graph.parameters:
                raise ValueError(f"{graph.name} has no parameter {name!r}; it has {', '.join(graph.parameters)}")
            shape, given = tuple(graph.parameters[name].shape), np.shape(values)
            if given != shape:
                raise ValueError(f"the weights {name!r} of {graph.name} must be of shape {shape}, got {given}")
            wanted, got = graph.parameters[name].dtype, np.asarray(values).dtype
            if wanted is not None and wanted.kind in "iu" and got != wanted:
                raise ValueError(f"the weights {name!r} of {graph.name} must be of {wanted}, got {got}")
    owners = [(prefix, graph, name) for prefix, graph in program.graphs.items() for name in graph.parameters]
    for i, (prefix, graph, own) in enumerate(owners):
        parameter, name = graph.parameters[own], prefix + own
        dtype = np.dtype(parameter.dtype or program.dtype)
        if own in graph.weights:
            arrays[name] = np.array(graph.weights[own], dtype, order="C").reshape(parameter.shape)
        else:
            floats = parameter.init == "he" and dtype.kind in "iu"
            arrays[name] = drawn(parameter, i, seed, program.dtype if floats else dtype)
    for prefix, graph, own in owners:
        parameter = graph.parameters[own]
        if (
            parameter.init == "he"
            and own not in graph.weights
            and np.dtype(parameter.dtype or program.dtype).kind in "iu"
        ):
            arrays[prefix + own] = _rounded(graph, own, parameter, prefix, arrays)
    return arrays


def drawn(parameter: Parameter, place: int, seed: int, dtype: DTypeLike) -> np.ndarray:
    """How a parameter starts, by its `init`. place: its number among those of the nets that train, for the draw."""
    if parameter.init != "he":
        return np.full(parameter.shape, {"zeros": 0, "ones": 1}[parameter.init], dtype)
    values = np.empty(parameter.shape, dtype)
    flat, deviation = values.reshape(-1), parameter.gain * math.sqrt(2 / parameter.fan_in)
    for start in range(0, flat.size, CHUNK):
        part = flat[start : start + CHUNK]
        part[...] = random.normal(seed, random.WEIGHTS, place, part.size, start) * deviation
    return values


def _rounded(graph: Graph, own: str, parameter: Parameter, prefix: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Drawn floats as the whole numbers of a quantized parameter; a scale without values is set for them."""
    dtype, q = np.dtype(parameter.dtype), parameter.quantized
    if q is None or q.scale not in graph.parameters or dtype.kind == "u" and q.zero_point not in graph.weights:
        raise ValueError(f"{own} of {graph.name} holds {dtype} and cannot be drawn: give the graph weights for it")
    floats, scale = arrays[prefix + own], arrays[prefix + q.scale]
    each = quantized.each(parameter.shape, q.axis)
    if q.scale not in graph.weights:
        scale[...] = quantized.symmetric(floats, dtype, scale, each)
    return quantized.whole(floats, dtype, scale, arrays[prefix + q.zero_point] if q.zero_point else None, each)


class State(NamedTuple):
    """Everything that a training goes on from. arrays: of `arrays`; step: mini-batches looked at; losses: of each."""

    arrays: Mapping[str, np.ndarray]
    step: int
    losses: list[float]


def arrays(trainer: "Trainer") -> dict[str, np.ndarray]:
    """Parameters, optimizer arrays, counts of updates and what the strategy remembers, by name; they are no copies.

    Names with BEGUN: mini-batches and updates before the run at hand.
    """
    trainer.runner.fetch()
    kept = {name: trainer.backend.read(array) for name, array in _kept(trainer).items()}
    counts = {f"updates/{name}": count for name, count in trainer.updates.items()}
    memory = {f"instances/{name}": array for name, array in trainer.memory.items()}
    begun = {BEGUN: trainer.begun} | {f"{BEGUN}/{name}": count for name, count in trainer.before.items()}
    return trainer.parameters | kept | counts | begun | memory


def _kept(trainer: "Trainer") -> dict[str, object]:
    """The backend's arrays beside the parameters that a run goes on from."""
    step, owned = trainer.program.step, trainer.runner.owned
    kept = {f"optimizer/{name}": owned[b] for name, b in step.state.items()}
    learnt = learnt_constants(trainer.program)
    return kept | {constant.saved: owned[step.constants[constant.name].buffer] for constant in learnt}


def _of_run(name: str) -> bool:
    return name == BEGUN or name.startswith(f"{BEGUN}/")


def check(trainer: "Trainer", given: Mapping[str, np.ndarray], step: int) -> None:
    """ValueError where arrays are not those that `arrays` gives after `step` steps of the trainer's plan."""
    mine = arrays(trainer)
    for name, own in mine.items():
        if _of_run(name) and name not in given:  # of a version whose trainers made one run
            continue
        if name not in given or given[name].shape != own.shape or given[name].dtype.kind != own.dtype.kind:
            raise ValueError(f"the saved run has no array {name} of {own.dtype} {own.shape}: it is of another plan")
        if name.startswith("updates/") and not 0 <= given[name][0] <= step:
            raise ValueError(f"the saved run counts {given[name][0]} in {name}, but it has made {step} steps")
        if _of_run(name):
            most = step if name == BEGUN else int(given[f"updates{name.removeprefix(BEGUN)}"][0])
            if not 0 <= given[name][0] <= most:
                raise ValueError(f"the saved run says {given[name][0]} in {name}, but it has made {most}")
    if more := [name for name in given if name not in mine]:
        raise ValueError(f"the saved run has an array {more[0]}, which this plan does not need: it is of another plan")
    check_saved(trainer.program, given)


def put(trainer: "Trainer", given: State) -> None:
    """Let a trainer go on from a state that `check` found to be of its plan."""
    kept = _kept(trainer)
    for name, own in arrays(trainer).items():
        if name in kept:
            trainer.backend.write(kept[name], given.arrays[name])
        else:
            own[...] = given.arrays.get(name, 0)
    trainer.runner.push()
    trainer.step, trainer._losses = given.step, list(given.losses)
    trainer.guard.keep(trainer.runner, trainer.step, trainer.updates)
