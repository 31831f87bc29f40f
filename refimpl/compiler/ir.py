"""What a compiled step is made of: buffers, logical calls on them, and launches that cover calls."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..kernels.passes import Pass

REGIONS = ("constant", "state", "arena")
PHASES = ("forward", "backward", "update")  # the sections of a plain step


@dataclass(frozen=True)
class Scaled:
    """What the whole numbers q of a buffer stand for, scale·(q − zero_point) (`kernels.quantized`), both buffers too.

    each: so many consecutive elements share an entry of a scale of several, those after them have the next one, and
    after the last the first again; so it holds for every view of the memory, counted from its beginning.
    """

    scale: "Buffer"
    zero_point: "Buffer | None" = None
    each: int = 1


@dataclass(eq=False)
class Buffer:
    """An array of a program.

    batched: how many entries along its first axis belong to a sample, 0 where that axis is no batch; a call on n
    samples uses the first n·batched.

    region: "constant" (frozen weights and statistics), "state" (what training changes and keeps) or "arena".
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    region: str
    batched: int = 0
    base: "Buffer | None" = None  # the buffer whose memory this one shows under another shape
    start: int = 0  # its first element in that memory
    quantized: Scaled | None = None

    @property
    def root(self) -> "Buffer":
        """The buffer that owns the memory."""
        owner = self
        while owner.base is not None:
            owner = owner.base
        return owner

    @property
    def nbytes(self) -> int:
        """Size in bytes at the full batch."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def reshape(self, shape: tuple[int, ...]) -> "Buffer":
        """The same memory under another shape."""
        if len(shape) == len(self.shape) and shape == self.shape:
            return self
        batched = self.batched and self.batched * shape[0] // self.shape[0]
        return replace(self, shape=tuple(shape), base=self, batched=batched)

    def part(self, start: int, shape: tuple[int, ...]) -> "Buffer":
        """Some of the elements, from number `start` on, as a buffer of `shape`."""
        return replace(self, shape=tuple(shape), base=self, start=self.start + start)


@dataclass(frozen=True)
class Condition:
    """The residual blocks that a step must have, or have left out, for a call to be made.

    there: all of these must be there. gone: none of these. any: one of these at least, None where it is no matter.
    """

    there: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()
    any: frozenset[str] | None = None

    def also(
        self, there: Iterable[str] = (), gone: Iterable[str] = (), any: Iterable[str] | None = None
    ) -> "Condition":  # fmt: skip
        """The condition that adds another one. ValueError where both ask for one of several blocks, each of others."""
        there, gone = self.there | frozenset(there), self.gone | frozenset(gone)
        asked = [frozenset(blocks) for blocks in (self.any, any) if blocks is not None]
        wanted = {blocks - gone for blocks in asked if not there & blocks}
        if len(wanted) > 1:
            raise ValueError(f"a call can wait for one of several blocks, not for one of each of {wanted}")
        one_of = next(iter(wanted), None)
        if one_of is not None and len(one_of) == 1:
            return Condition(there | one_of, gone)
        return Condition(there, gone, one_of)

    @property
    def never(self) -> bool:
        """Can no step fulfil it?"""
        return bool(self.there & self.gone) or self.any == frozenset()

    def holds(self, dropped: frozenset[str]) -> bool:
        """Is it so in a step that leaves these blocks out?"""
        return not self.there & dropped and self.gone <= dropped and (self.any is None or not self.any <= dropped)

    def probability(self, survival: Mapping[str, float]) -> float:
        """That it is so, where each block is there with its own probability, whatever the others."""
        if self.never:
            return 0.0
        lost = {block: 1 - probability for block, probability in survival.items()}
        of_all = math.prod(survival[block] for block in self.there) * math.prod(lost[block] for block in self.gone)
        return of_all if self.any is None else of_all * (1 - math.prod(lost[block] for block in self.any))


ALWAYS = Condition()


@dataclass(eq=False)
class Call:
    """One logical call: a reference pass on buffers."""

    section: str  # named after its phase; a step of several nets puts the net's name before it
    node: str
    passed: Pass
    arrays: Mapping[str, Buffer]
    attrs: Mapping
    sizes: Mapping[str, int]  # at the full batch
    renamed: bool = False  # does it work on another array than the node's own under one of its names?
    when: Condition = ALWAYS

    @property
    def phase(self) -> str:
        """One of PHASES: a section with a name of its own only runs forward."""
        last = self.section.rsplit(".", 1)[-1]
        return last if last in PHASES else "forward"

    def __post_init__(self):
        """name: `node operator.pass`; reads: buffers whose values it needs; writes: those that it writes."""
        self.name = f"{self.node} {self.passed}"
        self.reads = [self.arrays[a] for a in self.passed.reads if a in self.arrays]
        self.writes = [self.arrays[a] for a in self.passed.writes]

    @property
    def present(self) -> list[str]:
        """Optional arrays that are given."""
        return [a for a in self.passed.optional if a in self.arrays]

    def sizes_at(self, n: int) -> dict[str, int]:
        """Letter sizes for a batch of n samples."""
        batched = next((b for b in self.arrays.values() if b.batched), None)
        if batched is None or "N" not in self.sizes:
            return dict(self.sizes)
        return {**self.sizes, "N": self.sizes["N"] * n * batched.batched // batched.shape[0]}


@dataclass(frozen=True)
class AtBatch:
    """Stands in a launch's arguments for a number that follows from the n samples of a run: `value(n)`."""

    value: Callable[[int], int]


@dataclass(frozen=True)
class Prefix:
    """Stands for the first `length(n)` rows of a buffer that is not a batch, such as one partial sum a slice."""

    buffer: Buffer
    length: Callable[[int], int]


@dataclass(frozen=True)
class Region:
    """Stands for all memory of a region, "arena" or "state", as a flat array of a dtype."""

    name: str
    dtype: np.dtype


class Segment(NamedTuple):
    """Some items of a launch on parts of memory: where they end, how many there are, and the arrays that they work on.

    Numbers between `items` of them and their end belong to none.
    """

    end: int
    items: int
    arrays: tuple[Buffer, ...]


@dataclass(frozen=True)
class Segments:
    """Stands for a table (rows, 2 + 2·arrays), int64: end and items of each, and of each array its place and length.

    An array's place is the number of its first element, of its dtype, in the memory of its region.
    """

    rows: tuple[Segment, ...]


@dataclass(frozen=True, eq=False)
class Launch:
    """One kernel launch on buffers, covering one or more logical calls."""

    name: str
    function: Callable
    args: tuple  # Buffer, Prefix, AtBatch, Region, Segments, or a plain value
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    covers: tuple[Call, ...]
    scratch: tuple[Buffer, ...] = ()
    when: Condition = ALWAYS  # that of the calls that it covers

    @property
    def buffers(self) -> Iterable[Buffer]:
        """Every buffer that it touches."""
        return (*self.reads, *self.writes, *self.scratch)

    @cached_property
    def moved_bytes(self) -> int:
        """What it reads and writes at the full batch, each array once."""
        return sum(b.nbytes for b in {*self.reads, *self.writes})


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant array that the plan needs: `make(parameters, seed)` computes it before the first step."""

    buffer: Buffer
    make: Callable[[Mapping[str, np.ndarray], int], np.ndarray]


class Moment(NamedTuple):
    """What the host knows before a step, by which it tells a scalar.

    updates: of the net, or of a residual block that steps may leave out, in all; planned: updates of the net in this
    run; seed: of the trainer; factor: on every learning rate (`Trainer.factor`); before: updates before this run.
    """

    updates: int
    planned: int
    seed: int
    factor: float = 1.0
    before: int = 0

    @property
    def made(self) -> int:
        """Updates in this run, by which schedules go."""
        return self.updates - self.before


@dataclass(frozen=True)
class Scalar:
    """What the host writes into an array of one element before a step: `value(moment)`."""

    value: Callable[[Moment], float]
    net: str = ""  # prefix of the net
    block: str = ""  # the residual block whose updates count, "" those of the net

    def __call__(self, updates: int, planned: int, seed: int, factor: float = 1.0, before: int = 0) -> float:
        return self.value(Moment(updates, planned, seed, factor, before))


@dataclass
class Step:
    """The logical calls of a step, by section, with the buffers that the host fills and reads."""

    calls: dict[str, list[Call]] = field(default_factory=dict)  # in the longest order in which the sections run
    host_writes: dict[str, Buffer] = field(default_factory=dict)  # input, labels, lr, step, seed, block
    host_reads: dict[str, Buffer] = field(default_factory=dict)  # output, loss, finite
    parameters: dict[str, Buffer] = field(default_factory=dict)
    state: dict[str, Buffer] = field(default_factory=dict)  # optimizer arrays, by `parameter.array`
    gradients: dict[str, Buffer] = field(default_factory=dict)
    flags: dict[str, Buffer] = field(default_factory=dict)  # gradient → the part of `finite` that tells of it
    constants: dict[str, "Constant"] = field(default_factory=dict)  # what the plan adds to the model's own constants
    scalars: dict[str, Scalar] = field(default_factory=dict)  # of those that the host writes the ones of one element
    follows: dict[str, str] = field(default_factory=dict)  # section → the one that must have run just before it
    repeats: dict[str, int] = field(default_factory=dict)  # section → how often a step runs it, where that is often

    def __iter__(self):
        return (call for calls in self.calls.values() for call in calls)
