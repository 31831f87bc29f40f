"""What a run really did: operations of the launches it made, and the arena bytes it touched."""

from collections.abc import Mapping

import numpy as np

from refimpl.program import Program
from refimpl.train import GUARD, Trainer, threads

from .counting import count_call

PATTERNS = (0x5A, 0xA5)
BLOCK = 1 << 20  # bytes compared at a time


def run_flops(program: Program, made: Mapping[tuple[str, int], int]) -> int:
    """Multiplications and additions of every launch that a runner made, with its real sizes.

    made: `Runner.made`, how often each (section, samples) ran. Each distinct call is counted by running its reference
    body on counting arrays; no formula is evaluated.
    """
    total = 0
    for (section, n), times in made.items():
        for launch in program.launches[section]:
            for call in launch.covers:
                units = count_call(call, n)
                total += times * (units.get("mul", 0) + units.get("add", 0))
    return total


def all_flops(program: Program, made: Mapping[frozenset[str], Mapping[tuple[str, int], int]]) -> int:
    """`run_flops` of everything that a trainer made, steps that left residual blocks out included (`Trainer.made`)."""
    return sum(run_flops(program.without(dropped), ran) for dropped, ran in made.items())


def touched_bytes(
    program: Program, x: np.ndarray, y: np.ndarray, parameters: dict[str, np.ndarray], block: np.ndarray | None = None
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
        block[...] = pattern
        with threads(program.threads):
            trainer.rehearse(x[: program.batch], y[: program.batch])
        end = GUARD + program.peak_bytes
        if (block[:GUARD] != pattern).any() or (block[end : end + GUARD] != pattern).any():
            raise AssertionError("a kernel wrote outside the arena")
        highest = max(highest, _end_of_other(block[GUARD:end], pattern))
        del trainer  # before the next one: two of them hold their weights twice
    return highest


def _end_of_other(values: np.ndarray, value: int) -> int:
    """Number of the last entry that is not `value`, plus one; 0 where there is none."""
    for start in range((len(values) - 1) // BLOCK * BLOCK, -1, -BLOCK):
        found = np.flatnonzero(values[start : start + BLOCK] != value)
        if len(found):
            return start + int(found[-1]) + 1
    return 0
