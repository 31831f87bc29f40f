"""What a run really did: operations of the launches it made, and the arena bytes it touched."""

from collections.abc import Callable, Mapping

import numpy as np

from costmodel.advice import integers
from refimpl.compiler.executed import executed
from refimpl.compiler.ir import Launch
from refimpl.compiler.program import Program
from refimpl.kernels.running import threads
from refimpl.training.inputs import Inputs, taken
from refimpl.training.trainer import GUARD, Trainer

from .counting import count_call

PATTERNS = (0x5A, 0xA5)
BLOCK = 1 << 20  # bytes compared at a time


def counted_flops(launch: Launch, n: int) -> int:
    """Multiplications and additions of a launch on n samples by the reference algorithm.

    Each distinct call is counted by running its reference body on counting arrays; no formula is evaluated.
    """
    units = [count_call(call, n) for call in launch.covers]
    return sum(u.get("mul", 0) + u.get("add", 0) for u in units)


def weighed_flops(launch: Launch, n: int, ratio: str = "width") -> float:
    """`counted_flops` with the products of whole numbers, each as the share of a multiply-add that its bits make.

    ratio: of `costmodel.advice.integers.RATIOS`.
    """
    found = counted_flops(launch, n)
    for call in launch.covers:
        found += 2 * integers.as_macs(integers.products_of(call, count_call(call, n)), ratio)
    return found


def counted_imacs(launch: Launch, n: int) -> int:
    """Product-accumulates of whole numbers of a launch on n samples, counted as `counted_flops` are."""
    return sum(sum(integers.products_of(call, count_call(call, n)).values()) for call in launch.covers)


def executed_flops(launch: Launch, n: int) -> int:
    """Multiplications and additions that the kernel of a launch executes on n samples (`refimpl.compiler.executed`)."""
    ops = executed(launch, n, count_call)
    return ops.mul + ops.add


def run_flops(
    program: Program,
    made: Mapping[tuple[str, int], int],
    of: Callable[[Launch, int], float] = counted_flops,
    dropped: frozenset[str] = frozenset(),
) -> float:
    """Multiplications and additions of every launch that a runner made, with its real sizes.

    made: how often each (section, samples) ran. of: `counted_flops` or another of one launch. dropped:
    residual blocks that were left out.
    """
    launches = program.without(dropped)
    return sum(times * of(launch, n) for (section, n), times in made.items() for launch in launches[section])


def all_flops(
    program: Program,
    made: Mapping[frozenset[str], Mapping[tuple[str, int], int]],
    of: Callable[[Launch, int], int] = counted_flops,
) -> int:
    """`run_flops` of everything that a trainer made, steps that left residual blocks out included (`Trainer.made`)."""
    return sum(run_flops(program, ran, of, dropped) for dropped, ran in made.items())


def touched_bytes(
    program: Program, x: Inputs, y: np.ndarray, parameters: dict[str, np.ndarray], block: np.ndarray | None = None
) -> int:
    """Highest arena byte that a training step on (x, y) changes, plus one.

    The arena and its guards are filled with one pattern and a step is run, then again with another: a byte that keeps
    both patterns was not written. AssertionError where a guard zone changed. block: memory for that, as for `Trainer`.
    """
    highest = 0
    for pattern in PATTERNS:
        trainer = Trainer(program, block=block)
        for name, a in trainer.parameters.items():
            a[...] = parameters[name]
        block = trainer.runner.block
        highest = max(highest, _touched(trainer, x, y, pattern))
        del trainer  # before the next one: two of them hold their weights twice
    return highest


def touched_by(trainer: Trainer, x: Inputs, y: np.ndarray) -> int:
    """`touched_bytes` of a trainer that has done its work: its weights change, and nothing is allocated for it.

    NonFiniteError where they become infinite by that.
    """
    trainer.step = 0
    return max(_touched(trainer, x, y, pattern) for pattern in PATTERNS)


def _touched(trainer: Trainer, x: Inputs, y: np.ndarray, pattern: int) -> int:
    """Number of the last arena byte that a step changes from `pattern`, plus one."""
    program, block, backend = trainer.program, trainer.runner.block, trainer.backend
    for start in range(0, block.size, BLOCK):  # of a GPU, and large
        backend.write(block[start : start + BLOCK], pattern)
    with threads(program.threads):
        trainer.rehearse(taken(x, slice(program.batch)), y[: program.batch])
    end = GUARD + program.peak_bytes
    if any((backend.read(block[at : at + GUARD]) != pattern).any() for at in (0, end)):
        raise AssertionError("a kernel wrote outside the arena")
    return _end_of_other(block[GUARD:end], pattern, backend.read)


def _end_of_other(values, value: int, read: Callable) -> int:
    """Number of the last entry that is not `value`, plus one; 0 where there is none. read: of a part its numbers."""
    for start in range((values.size - 1) // BLOCK * BLOCK, -1, -BLOCK):
        other = np.flatnonzero(read(values[start : start + BLOCK]) != value)
        if len(other):
            return start + int(other[-1]) + 1
    return 0
