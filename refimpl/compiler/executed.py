"""What a launch makes the processor execute: multiplications and additions on the kernel's own geometry.

Operations *counted* are those of the reference algorithm: padded taps are skipped, and each sum has as many terms as
it needs. A tuned kernel may *execute* more, for it multiplies zeros (im2col), fills vectors to their last lane, makes a
block of rows twice, or goes over things again in the backward pass; and it may execute less, where one sum serves two
calls. Each fast kernel states what it executes beside its code, as a function of its own arguments, of which only
shapes, dtypes and plain values are looked at:

    @executes(lambda y, a, b: ADD * a.size)
    @fast
    def forward(y, a, b): ...

A multiply-add is one of each (MAC, of integers IMAC). Vectors count whole where the code names them; where loops over
elements are left to LLVM, elements count. What a mask or a comparison may leave out counts as if nothing were left out.
A reference kernel executes what is counted, and one that runs a body on slices what is counted of each slice.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from .ir import AtBatch, Buffer, Call, Launch, Prefix


@dataclass(frozen=True)
class Ops:
    """Numbers of multiplications and of additions, of floats and (imul, iadd) of integers that come from arrays."""

    mul: float = 0
    add: float = 0
    imul: float = 0
    iadd: float = 0

    def __add__(self, other: "Ops") -> "Ops":
        return Ops(self.mul + other.mul, self.add + other.add, self.imul + other.imul, self.iadd + other.iadd)

    def __mul__(self, times: float) -> "Ops":
        return Ops(*(times * count for count in (self.mul, self.add, self.imul, self.iadd)))

    @staticmethod
    def of(units: Mapping[str, float]) -> "Ops":
        """Those among the units of a count."""
        return Ops(**{name: units.get(name, 0) for name in ("mul", "add", "imul", "iadd")})


MUL, ADD, IMUL, IADD = Ops(mul=1), Ops(add=1), Ops(imul=1), Ops(iadd=1)
MAC, IMAC = MUL + ADD, IMUL + IADD
NOTHING = Ops()

Counted = Callable[[Call, int], Mapping[str, float]]  # the operations by unit of a call on n samples
STATED: dict[Callable, Callable[..., Ops]] = {}  # fast kernel → what it executes, of the kernel's arguments
EACH: set[Callable] = set()  # kernels that run the bodies of all calls that a launch covers
CUT: dict[Callable, str] = {}  # kernel of a body on slices, its last argument their length → the letter (`two_stage`)


def executes(statement: Callable[..., Ops]) -> Callable:
    """Note what a fast kernel executes: `statement` takes the kernel's arguments."""

    def note(kernel: Callable) -> Callable:
        STATED[kernel] = statement
        return kernel

    return note


def stated(launch: Launch) -> Callable[..., Ops] | None:
    """The statement of a launch's kernel, None for the reference kernel of its one call; KeyError for another one."""
    function = launch.function
    if function in CUT:
        return _in_slices
    if function in EACH:
        return _of_each
    if function in STATED:
        return STATED[function]
    kernel = launch.covers[0].passed.kernel
    if len(launch.covers) == 1 and function in (kernel.cpu, kernel.gpu):
        return None
    name = getattr(function, "__name__", function)
    raise KeyError(f"the kernel {name} of {launch.name} does not state what it executes: add @executes(...) to it")


def executed(launch: Launch, n: int, counted: Counted) -> Ops:
    """What a launch executes on n samples. counted: the operations by unit of a call, for reference kernels."""
    statement = stated(launch)
    if statement is _in_slices:
        return _in_slices(launch, n, counted)
    if statement is _of_each:
        return _of_each(launch, n, counted)
    if statement is None:
        return Ops.of(counted(launch.covers[0], n))
    return statement(*(_shown(argument, n) for argument in launch.args))


def _in_slices(launch: Launch, n: int, counted: Counted) -> Ops:
    """What the body of a launch's call does on every slice."""
    call, letter, total = launch.covers[0], CUT[launch.function], NOTHING
    sizes = call.sizes_at(n)
    arrays = {a: replace(b, batched=0) for a, b in call.arrays.items()}  # the sizes are those of n samples already
    for length, times in pieces(sizes[letter], launch.args[-1]):
        piece = replace(call, arrays=arrays, sizes={**sizes, letter: length})
        total += Ops.of(counted(piece, n)) * times
    return total


def _of_each(launch: Launch, n: int, counted: Counted) -> Ops:
    """What the bodies of a launch's calls do."""
    return sum((Ops.of(counted(call, n)) for call in launch.covers), NOTHING)


def _shown(argument, n: int):
    """A launch's argument as a statement sees it: of an array shape and dtype, and no memory."""
    if isinstance(argument, AtBatch):
        return argument.value(n)
    if isinstance(argument, Prefix):
        return outline((argument.length(n), *argument.buffer.shape[1:]), argument.buffer.dtype)
    if isinstance(argument, Buffer):
        return outline(
            (n * argument.batched, *argument.shape[1:]) if argument.batched else argument.shape, argument.dtype
        )
    return argument


def outline(shape: tuple[int, ...], dtype) -> np.ndarray:
    """An array of that shape that takes no memory."""
    return np.broadcast_to(np.empty((), dtype), shape)


def pieces(total: int, size: int) -> Iterator[tuple[int, int]]:
    """(length, how many) of the pieces into which `total` is cut: whole ones of `size`, and the rest."""
    if whole := total // size:
        yield size, whole
    if rest := total % size:
        yield rest, 1
