"""What a trainer is given: samples of one input or of several by name, labels or targets; do they fit the program?"""

import math
from collections.abc import Mapping

import numpy as np

from ..backends.finite import all_finite
from ..compiler.program import Program
from ..data.on_demand import OnDemand
from ..ops import operator, operators
from .runner import Runner

CHUNK = 1 << 16  # values checked at a time: NumPy makes arrays of all of them in between
REAL = "fiub"  # kinds of dtypes that samples may have
Inputs = np.ndarray | OnDemand | Mapping[str, np.ndarray | OnDemand]  # of a net of several inputs by their names


def samples(x: Inputs) -> int:
    """How many samples there are."""
    return len(next(iter(x.values()))) if isinstance(x, Mapping) else len(x)


def taken(x: Inputs, index) -> Inputs:
    """Some of the samples."""
    return {name: values[index] for name, values in x.items()} if isinstance(x, Mapping) else x[index]


def named(program: Program, x: Inputs) -> Mapping[str, np.ndarray | OnDemand]:
    """Input tensor → its samples."""
    return x if isinstance(x, Mapping) else {program.graph.inputs[0]: x}


def fill(runner: Runner, x: Inputs) -> None:
    """Copy samples into the arena."""
    for name, values in named(runner.program, x).items():
        runner.write(name, len(values), values)


def check(program: Program, x: Inputs, y: np.ndarray | None = None) -> None:
    """ValueError with one sentence where data do not fit the program."""
    inputs = program.graph.inputs
    if isinstance(x, Mapping) and x.keys() != set(inputs) or not isinstance(x, Mapping) and len(inputs) > 1:
        given = f"{', '.join(map(str, x)) or 'none'}" if isinstance(x, Mapping) else "a single array"
        raise ValueError(
            f"{program.graph.name} has the inputs {', '.join(inputs)}: x must be a dict with an array for "
            f"each, but it has {given}"
        )
    for name, values in named(program, x).items():
        _check_input(program, f"x[{name!r}]" if isinstance(x, Mapping) else "x", name, values)
    counts = {name: len(values) for name, values in named(program, x).items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"the inputs must have as many samples each, but they have {counts}")
    if y is None:
        return
    _check_labels(program, y)
    if len(y) != samples(x):
        raise ValueError(f"x has {samples(x)} samples, but y has {len(y)}")


def _check_input(program: Program, what: str, name: str, x: np.ndarray | OnDemand) -> None:
    """ValueError where samples do not fit an input tensor."""
    want = program.step.host_writes[name].shape[1:]
    if not isinstance(x, (np.ndarray, OnDemand)) or isinstance(x, np.ndarray) and x.dtype.kind not in REAL:
        kind = x.dtype if isinstance(x, np.ndarray) else type(x).__name__
        raise ValueError(f"{what} must be an array of real numbers, such as float32, but it is of {kind}")
    held = program.step.host_writes[name].dtype
    if held.kind in "iu":
        _check_whole(what, x, held)
    if len(x.shape) != 1 + len(want) or x.shape[1:] != want or not len(x):
        form = f"(M, H, W, C) with H, W, C = {want}" if len(want) == 3 else f"{('M', *want)}".replace("'", "")
        raise ValueError(f"{what} must be {form} and M ≥ 1, but its shape is {x.shape}")
    count = max(1, CHUNK // math.prod(want))
    for start in range(0, len(x), count) if isinstance(x, np.ndarray) else ():
        part = x[start : start + count]
        if part.dtype.kind == "f" and not all_finite(part):
            bad = start + int(np.flatnonzero(~np.isfinite(part).reshape(len(part), -1).all(1))[0])
            raise ValueError(f"{what} has a NaN or infinite value in sample {bad}; remove or repair it")


def _check_whole(what: str, x: np.ndarray | OnDemand, held: np.dtype) -> None:
    """ValueError where samples are no whole numbers that `held` can hold."""
    if x.dtype.kind == "f":
        raise ValueError(f"{what} must hold {held} values, but it is of {x.dtype}")
    if isinstance(x, OnDemand):
        return
    ends = np.iinfo(held)
    if x.size and not np.can_cast(x.dtype, held) and not ends.min <= x.min() <= x.max() <= ends.max:
        raise ValueError(f"{what} must hold {held} values, but it holds {x.min()} to {x.max()}")


def _check_labels(program: Program, y: np.ndarray) -> None:
    """ValueError where y are no class numbers, or for mse no targets."""
    if not isinstance(y, np.ndarray):
        raise ValueError(f"y must be a NumPy array, but it is of {type(y).__name__}")
    name, shape, classes = program.truth
    form = "(M,)" if not shape else f"{('M', *shape)}".replace("'", "")
    what = "class numbers of an integer type" if name == "labels" else "targets of real numbers"
    if not y.ndim or y.shape[1:] != shape or y.dtype.kind not in ("iu" if name == "labels" else REAL):
        raise ValueError(f"y must be {form} {what}, but its shape is {y.shape} and its type {y.dtype}")
    if classes is None:
        return
    ignored = program.plan.ignored_label
    y = y if ignored is None else y[y != ignored]
    if y.size and (y.min() < 0 or y.max() >= classes):
        raise ValueError(f"labels must be from 0 to {classes - 1}, but y has {int(y.min())} to {int(y.max())}")


def check_batches(program: Program, count: int) -> None:
    """ValueError where a batch of an epoch leaves a batch norm one value a channel: it has no variance."""
    batch = program.batch
    forward = (section for section in program.sections if section.endswith("forward"))
    node = next(filter(None, (thin(program, section) for section in forward)), None)
    for kind, size in (("last", count % batch or min(count, batch)), ("first", min(count, batch))):
        if node and program.plan.strategy.fewest(size) == 1:
            chooses = program.plan.instances
            what = "is a single one" if size == 1 else f"trains on a single one under {chooses.method}"
            raise ValueError(
                f"the {kind} batch of {count} samples in batches of {batch} {what}, which gives {node} one value "
                "a channel: choose another batch size"
            )


def thin(program: Program, section: str) -> str | None:
    """The first node of a section that takes statistics of one value a sample: it needs two samples.

    None where there is no such node, or no such section.
    """
    for call in program.step.calls.get(section, ()):
        letters = operator(call.passed.operator).statistics if call.passed.operator in operators() else ()
        if letters and set(letters) <= call.sizes.keys():
            if math.prod(call.sizes[letter] for letter in letters if letter != "N") == 1:
                return call.node
    return None
