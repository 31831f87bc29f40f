"""The compiled step: a flat list of kernel calls, in sections, and where each array lives.

Two levels. The *logical* Program lists reference passes, derived from the graph by asking for what is needed: the
output of each node, the gradient of each trained parameter, and whatever these read (`refimpl.derive`; several nets of
one step are put together in `refimpl.compose`). *Lowering* (`refimpl.lower`) turns it into launches; each launch names
the logical calls that it covers.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from . import arena, arguments
from .graph import Graph
from .methods.stochastic_depth import Block
from .passes import Pass
from .plan import Plan

REGIONS = ("constant", "state", "arena")
BOUNDS = ("low", "mid", "high")
PHASES = ("forward", "backward", "update")  # the sections of a plain step


class MemoryLimitError(ValueError):
    """The program does not fit into the memory limit.

    needed: the smallest limit that this compiler can place, in bytes; lower_bound: what every placement needs.
    """

    def __init__(self, message: str, needed: int, lower_bound: int):
        super().__init__(message)
        self.needed, self.lower_bound = needed, lower_bound


@dataclass(eq=False)
class Buffer:
    """An array of a program. `batched`: its first axis is the batch, and a call with n samples uses the first n.

    region: "constant" (frozen weights and statistics), "state" (what training changes and keeps) or "arena".
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    region: str
    batched: bool = False
    base: "Buffer | None" = None  # the buffer whose memory this one shows under another shape
    start: int = 0  # its first element in that memory

    @property
    def root(self) -> "Buffer":
        """The buffer that owns the memory."""
        found = self
        while found.base is not None:
            found = found.base
        return found

    @property
    def nbytes(self) -> int:
        """Size in bytes at the full batch."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def reshape(self, shape: tuple[int, ...]) -> "Buffer":
        """The same memory under another shape."""
        same = len(shape) == len(self.shape) and shape == self.shape
        return self if same else replace(self, shape=tuple(shape), base=self)

    def part(self, start: int, shape: tuple[int, ...]) -> "Buffer":
        """Some of the elements, from number `start` on, as a buffer of `shape`."""
        return replace(self, shape=tuple(shape), base=self, start=self.start + start)


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
        batched = any(b.batched for b in self.arrays.values())
        return {**self.sizes, "N": n} if batched and "N" in self.sizes else dict(self.sizes)


@dataclass(frozen=True)
class AtBatch:
    """Stands in a launch's arguments for a number that follows from the n samples of a run: `value(n)`."""

    value: Callable[[int], int]


@dataclass(frozen=True)
class Prefix:
    """Stands for the first `length(n)` rows of a buffer that is not a batch, such as one partial sum a slice."""

    buffer: Buffer
    length: Callable[[int], int]


@dataclass(frozen=True, eq=False)
class Launch:
    """One kernel launch on buffers, covering one or more logical calls."""

    name: str
    function: Callable
    args: tuple  # Buffer, Prefix, AtBatch, or a plain value
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    covers: tuple[Call, ...]
    scratch: tuple[Buffer, ...] = ()

    @property
    def buffers(self) -> Iterable[Buffer]:
        """Every buffer that it touches."""
        return (*self.reads, *self.writes, *self.scratch)


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant array that the plan needs: `make(parameters, seed)` computes it before the first step."""

    buffer: Buffer
    make: Callable[[Mapping[str, np.ndarray], int], np.ndarray]


@dataclass(frozen=True)
class Scalar:
    """What the host writes into an array of one element before a step: `value(updates, planned, seed)`.

    updates: of the net, or of a residual block that steps may leave out; planned: updates of the net in the whole run.
    """

    value: Callable[[int, int, int], float]
    net: str = ""  # prefix of the net
    block: str = ""  # the residual block whose updates count, "" those of the net

    def __call__(self, updates: int, planned: int, seed: int) -> float:
        return self.value(updates, planned, seed)


@dataclass
class Step:
    """The logical calls of a step, by section, with the buffers that the host fills and reads."""

    calls: dict[str, list[Call]]  # in the longest order in which the sections run
    host_writes: dict[str, Buffer]  # input, labels, lr, step, seed, block
    host_reads: dict[str, Buffer]  # output, loss
    parameters: dict[str, Buffer]
    state: dict[str, Buffer]  # optimizer arrays, by `parameter.array`
    gradients: dict[str, Buffer]
    constants: dict[str, "Constant"]  # what the plan adds to the model's own constants
    scalars: dict[str, Scalar]  # of those the ones of one element

    def __iter__(self):
        return (call for calls in self.calls.values() for call in calls)


class Program:
    """A compiled step: logical calls, launches, and the place of every array. `print(program)` shows both levels."""

    def __init__(self, graph, plan, batch, size, dtype, backend, threads, step, launches, dropped=frozenset(), room=0):
        self.graph: Graph = graph
        self.plan: Plan = plan
        self.batch: int = batch
        self.size: tuple[int, int] = size
        self.dtype = np.dtype(dtype)
        self.backend: str = backend
        self.threads: int = threads
        self.step: Step = step
        self.launches: dict[str, list[Launch]] = launches
        self.dropped: frozenset[str] = dropped  # residual blocks that this step leaves out
        self.room: int = room  # bytes of arena that are there anyway: no smaller placement is looked for
        self._known: dict = {}  # what is the same in every step of the plan, whatever blocks that leaves out

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of its sections, in the longest order in which they run."""
        return tuple(self.step.calls)

    @property
    def graphs(self) -> dict[str, Graph]:
        """Every net of the step, by the prefix of its names."""
        return {"": self.graph} | ({f.prefix: f.graph for f in [self.plan.instances] if hasattr(f, "graph")})

    def samples(self, n: int) -> dict[str, float]:
        """Samples that each section is reckoned to run on, of a mini-batch of n; a mean where the data decide."""
        chosen = self.plan.instances.samples(n) if self.plan.instances and self.training else {}
        return dict.fromkeys(self.sections, n) | chosen

    def over(self, steps: int, losses: np.ndarray | None = None) -> dict[str, "Program"]:
        """`low`, `mid`, `high`: the same, whose price reckons with what is expected to enter in a run of `steps`.

        The three differ where the data or chance decide how many samples enter. losses: those of some instances before
        the first step (`methods.filter_shares.first_losses`), where they are known.
        """
        if not self.plan.instances or not self.training:
            return dict.fromkeys(BOUNDS, self)
        found = {}
        for bound, rule in self.plan.instances.over(self.batch, steps, losses).items():
            found[bound] = copy.copy(self)
            found[bound].plan = replace(self.plan, instances=rule)
        return found

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The residual blocks that a step may leave out, where the plan says so."""
        return self.plan.depth.blocks(self.graph) if self.plan.depth else ()

    def step_without(self, dropped: frozenset[str]) -> Step:
        """The logical calls of the step that leaves these blocks out."""
        from .compose import derive

        return derive(self.graph, self.plan, self.batch, self.size, self.dtype, dropped, self._known)

    def without(self, dropped: frozenset[str]) -> "Program":
        """The step that leaves these blocks out. It fits into the memory of this one: its arena is no larger."""
        from .lower import lower

        if dropped == self.dropped:
            return self
        step = self.step_without(dropped)
        launches = lower(step, self.backend, self.threads)
        p = Program(
            self.graph, self.plan, self.batch, self.size, self.dtype, self.backend, self.threads, step, launches,
            dropped, self.peak_bytes,
        )  # fmt: skip
        if p.peak_bytes > self.peak_bytes:
            raise AssertionError(f"without {', '.join(dropped)} the arena grows to {p.peak_bytes:,} bytes")
        return p

    @property
    def training(self) -> bool:
        """Does the step learn, or only infer?"""
        return "loss" in self.step.host_reads

    @cached_property
    def order(self) -> list[Launch]:
        """Every launch, in the longest order of the sections."""
        return [launch for section in self.sections for launch in self.launches[section]]

    @cached_property
    def lifetimes(self) -> dict[Buffer, arena.Lifetime]:
        """First and last launch of each arena buffer; what the host fills lives from 0, what it reads to the end."""
        first: dict[Buffer, int] = {b.root: 0 for b in self.step.host_writes.values()}
        last: dict[Buffer, int] = dict(first)
        for i, launch in enumerate(self.order):
            for b in launch.buffers:
                if b.root.region == "arena":
                    first.setdefault(b.root, i)
                    last[b.root] = i
        for b in self.step.host_reads.values():
            first.setdefault(b.root, 0)
            last[b.root] = len(self.order)
        return {b: arena.Lifetime(b.nbytes, first[b], last[b]) for b in first}

    @cached_property
    def _placement(self) -> tuple[dict[Buffer, int], int]:
        offsets, peak = arena.place(list(self.lifetimes.values()), self.room)
        return dict(zip(self.lifetimes, offsets, strict=True)), peak

    @property
    def offsets(self) -> dict[Buffer, int]:
        """Offset of each arena buffer in bytes."""
        return self._placement[0]

    @property
    def peak_bytes(self) -> int:
        """Size of the arena: the end of its highest buffer, reached at a full batch."""
        return self._placement[1]

    @cached_property
    def lower_bound(self) -> tuple[int, Launch]:
        """Largest sum of arena bytes alive at one launch, and the first such launch."""
        most, index = arena.lower_bound(list(self.lifetimes.values()))
        return most, self.order[index]

    def region_bytes(self, region: str) -> int:
        """Bytes of the "constant" or the "state" arrays that the program uses."""
        step = self.step
        arrays = {*step.parameters.values(), *step.state.values(), *(c.buffer for c in step.constants.values())}
        return sum(b.nbytes for b in arrays if b.region == region)

    @property
    def state_bytes(self) -> int:
        """Trained weights, optimizer arrays and running statistics that change, in bytes."""
        return self.region_bytes("state")

    @property
    def constant_bytes(self) -> int:
        """Frozen weights and statistics, in bytes."""
        return self.region_bytes("constant")

    @cached_property
    def saved(self) -> dict[Buffer, int]:
        """Buffers kept from the forward to the backward section, with their bytes; inputs that the host fills too."""
        before = self.sections[: self.sections.index("forward") + 1]
        boundary = sum(len(self.launches[section]) for section in before)
        later = (launch for s in ("backward", "update") for launch in self.launches[s])
        read = {b.root for launch in later for b in launch.reads}
        read -= {self.step.host_writes[name].root for name in self.step.scalars}
        return {b: b.nbytes for b, t in self.lifetimes.items() if t.first < boundary <= t.last and b in read}

    @property
    def saved_bytes(self) -> int:
        """Everything kept from forward to backward, in bytes."""
        return sum(self.saved.values())

    def check_memory(self, limit: int) -> None:
        """MemoryLimitError where state and arena do not fit into `limit` bytes."""
        need = self.state_bytes + self.peak_bytes
        if need <= limit:
            return
        bound, launch = self.lower_bound
        alive = sorted(self.alive_at(launch), key=lambda b: -b.nbytes)
        arrays = ", ".join(f"{b.name} ({b.nbytes:,})" for b in alive[:3])
        more = f" and {len(alive) - 3} more" if len(alive) > 3 else ""
        raise MemoryLimitError(
            f"this step needs {need:,} bytes (state {self.state_bytes:,}, arena {self.peak_bytes:,}), the memory limit "
            f"is {limit:,} bytes; the largest sum of live arrays is {bound:,} bytes at {launch.name}, where {arrays}"
            f"{more} are alive, so no placement needs less than {self.state_bytes + bound:,} bytes; the smallest limit "
            f"that this compiler can place is {need:,} bytes. A smaller batch, fewer trained layers or a larger patch "
            f"need less",
            need,
            self.state_bytes + bound,
        )

    def alive_at(self, launch: Launch) -> list[Buffer]:
        """Arena buffers that live during a launch."""
        i = self.order.index(launch)
        return [b for b, t in self.lifetimes.items() if t.first <= i <= t.last]

    def __str__(self) -> str:
        """The ledger: every launch with the logical calls that it covers, its buffers and their bytes."""
        lines = [
            f"{self.graph.name}: batch {self.batch}, input {self.size[0]}x{self.size[1]}, {self.dtype}, {self.backend}",
            f"arena {self.peak_bytes:,} B (lower bound {self.lower_bound[0]:,} B), state {self.state_bytes:,} B, "
            f"constants {self.constant_bytes:,} B, saved for backward {self.saved_bytes:,} B",
        ]
        for section in self.sections:
            lines.append(f"{section}")
            for launch in self.launches[section]:
                lines.append(f"  {launch.name}")
                if [c.name for c in launch.covers] != [launch.name]:
                    lines.append(f"      covers {', '.join(c.name for c in launch.covers)}")
                lines += [f"      {kind} {self._describe(b)}" for kind, b in _listed(launch)]
        return "\n".join(lines)

    def _describe(self, b: Buffer) -> str:
        where = f"arena+{self.offsets[b.root]}" if b.root.region == "arena" else b.root.region
        shape = "x".join(map(str, b.shape)) or "1"
        return f"{b.name:32s} {shape:>16s} {np.dtype(b.dtype).name:8s} {b.nbytes:>12,} B  {where}"


def _listed(launch: Launch):
    for kind, buffers in (("reads ", launch.reads), ("writes", launch.writes), ("scratch", launch.scratch)):
        yield from ((kind, b) for b in buffers)


DTYPES = (np.dtype(np.float32), np.dtype(np.float64))  # that a step may be compiled for


def compile(
    graph: Graph,
    plan: Plan | None,
    batch: int,
    size: tuple[int, int] | None = None,
    memory_limit: int | None = None,
    backend: str | None = None,
    threads: int | None = None,
    dtype=np.float32,
) -> Program:
    """Compile a training step (or, with `plan=None`, inference) for batches of up to `batch` samples.

    size: rows and columns of the input, default the graph's. memory_limit: bytes that state and arena may take.
    backend: "fast" (default) or "reference". threads: default all. dtype: float32, or float64 for gradient checks.
    Raises ShapeError where the model does not fit the size, MemoryLimitError, ValueError for bad values.
    """
    import numba

    from .compose import derive
    from .lower import BACKENDS, lower

    backend = backend or "fast"
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    arguments.offers("graph", graph, "nodes", "a Graph, such as models.build makes")
    if not graph.nodes:
        raise ValueError(f"the graph {graph.name} has no nodes: add layers to it by its methods, such as conv2d")
    if plan is not None:
        arguments.offers("plan", plan, "train_last", "a Plan, or None for inference")
    arguments.whole("batch", batch)
    if size is not None:
        if not isinstance(size, (tuple, list)) or len(size) != 2:
            raise ValueError(f"size must be rows and columns (H, W), got {size!r}")
        for side in size:
            arguments.whole("each of size", side)
    size = tuple(size or graph.size)
    if dtype is None or dtype not in DTYPES:
        raise ValueError(f"dtype must be float32 or float64, got {dtype!r}")
    dtype = np.dtype(dtype).type
    if memory_limit is not None:
        arguments.whole("memory_limit, in bytes,", memory_limit)
    if threads is None:
        threads = numba.config.NUMBA_NUM_THREADS
    arguments.whole("threads", threads)
    if plan is not None and plan.instances is not None:
        plan = replace(plan, instances=plan.instances.for_net(graph, size))
    step = derive(graph, plan, batch, size, dtype)
    launches = lower(step, backend, threads)
    program = Program(graph, plan or Plan(), batch, size, dtype, backend, threads, step, launches)
    if memory_limit is not None:
        program.check_memory(memory_limit)
    return program
