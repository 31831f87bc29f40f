"""The compiled step: a flat list of kernel calls, in sections, and where each array lives.

Two levels. The *logical* Program lists reference passes, derived from the graph by asking for what is needed: the
output of each node, the gradient of each trained parameter, and whatever these read (`compiler.derive`; several nets of
one step are put together in `compiler.compose`). *Lowering* (`compiler.lower`) turns it into launches; each launch
names the logical calls that it covers.
"""

import copy
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..graph import Graph
from ..kernels.passes import full_shape, read_sizes, starred_axes
from ..methods.strategy import Block, Turn, turns
from ..ops import operator
from ..plan.plan import Plan
from . import arena
from .ir import Buffer, Launch, Step


class MemoryLimitError(ValueError):
    """The program does not fit into the memory limit.

    needed: the smallest limit that this compiler can place, in bytes; lower_bound: what every placement needs.
    """

    def __init__(self, message: str, needed: int, lower_bound: int):
        super().__init__(message)
        self.needed, self.lower_bound = needed, lower_bound


class LowerBound(NamedTuple):
    """Bytes that every placement needs, as they are alive at a launch. launch: the first of those."""

    nbytes: int
    launch: Launch


class Truth(NamedTuple):
    """What the loss compares an output with: "labels" below `classes`, or a "target". shape: that of one sample's."""

    name: str
    shape: tuple[int, ...]
    classes: int | None


class Program:
    """A compiled step: logical calls, launches, and the place of every array. `print(program)` shows both levels."""

    def __init__(self, graph, plan, batch, size, dtype, backend, threads, step, launches):
        self.graph: Graph = graph
        self.plan: Plan = plan
        self.batch: int = batch
        self.size: tuple[int, int] | None = size  # of the input map, where the graph has one
        self.dtype = np.dtype(dtype)
        self.backend: str = backend
        self.threads: int = threads
        self.step: Step = step
        self.launches: dict[str, list[Launch]] = launches

    @property
    def sections(self) -> tuple[str, ...]:
        """Names of its sections, in the longest order in which they run."""
        return tuple(self.step.calls)

    @property
    def graphs(self) -> dict[str, Graph]:
        """Every net of the step, by the prefix of its names."""
        return {"": self.graph} | self.plan.strategy.nets

    @cached_property
    def truth(self) -> Truth:
        """What the loss of the main net takes beside its output."""
        shapes, output = operator(self.plan.loss).shapes, self.graph.shapes(1, self.size)[self.graph.output]
        name = "labels" if "labels" in shapes else "target"
        x = {"x": np.broadcast_to(np.float32(0), output)}
        shape = full_shape(shapes[name], read_sizes(shapes, x), starred_axes(shapes, x))
        return Truth(name, shape[1:], output[-1] if name == "labels" else None)

    def schedule(self, n: float) -> tuple[Turn, ...]:
        """What a step on a mini-batch of n samples is expected to do, a turn for each section that it uses."""
        return self.plan.strategy.schedule(self, n) if self.training else turns(self.sections[:1], n)

    def over(self, steps: int, losses: np.ndarray | None = None) -> dict[str, "Program"]:
        """`low`, `mid`, `high`: the same, whose schedule is what is expected in a run of `steps` mini-batches.

        The three differ where the data or chance decide how many samples enter. losses: those of some instances before
        the first step (`methods.filter_shares.first_losses`), where they are known.
        """
        programs = {}
        for bound, plan in self.plan.over(self.batch, steps, losses).items():
            programs[bound] = copy.copy(self) if self.training else self
            programs[bound].plan = plan
        return programs

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The residual blocks that a step may leave out, where the plan says so."""
        return self.plan.strategy.blocks(self.graph)

    def without(self, dropped: frozenset[str]) -> dict[str, list[Launch]]:
        """The launches of the step that leaves these residual blocks out, by section."""
        return {
            section: [launch for launch in launches if launch.when.holds(dropped)]
            for section, launches in self.launches.items()
        }

    @property
    def training(self) -> bool:
        """Does the step learn, or only infer?"""
        return any(name.rpartition(".")[2] == "loss" for name in self.step.host_reads)

    @cached_property
    def order(self) -> list[Launch]:
        """Every launch, in the longest order of the sections."""
        return [launch for section in self.sections for launch in self.launches[section]]

    @cached_property
    def lifetimes(self) -> dict[Buffer, arena.Lifetime]:
        """First and last launch of each arena buffer; what the host fills lives from 0, what it reads to the end.

        What a section that runs several times finds there lives to its end, but the host fills its arrays each time.
        """
        first: dict[Buffer, int] = {b.root: 0 for b in self.step.host_writes.values()}
        last: dict[Buffer, int] = dict(first)
        filled = set(first)
        for i, launch in enumerate(self.order):
            for b in launch.buffers:
                if b.root.region == "arena":
                    first.setdefault(b.root, i)
                    last[b.root] = i
        start = 0
        for section in self.sections:
            launches = self.launches[section]
            end = start + len(launches)
            for b in {b.root for launch in launches for b in launch.reads} & first.keys() - filled:
                if section in self.step.repeats and first[b] < start:
                    last[b] = max(last[b], end - 1)
            start = end
        for b in self.step.host_reads.values():
            first.setdefault(b.root, 0)
            last[b.root] = len(self.order)
        return {b: arena.Lifetime(b.nbytes, first[b], last[b]) for b in first}

    @cached_property
    def _placement(self) -> tuple[dict[Buffer, int], int]:
        offsets, peak = arena.place(list(self.lifetimes.values()))
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
    def lower_bound(self) -> LowerBound:
        """The largest sum of arena bytes alive at a launch."""
        nbytes, place = arena.lower_bound(list(self.lifetimes.values()))
        return LowerBound(nbytes, self.order[place])

    def region_bytes(self, region: str) -> int:
        """Bytes of the "constant" or the "state" arrays that the program uses."""
        step = self.step
        arrays = {
            *step.parameters.values(),
            *step.state.values(),
            *(constant.buffer for constant in step.constants.values()),
        }
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
        if "backward" not in self.sections:
            return {}
        before = self.sections[: self.sections.index("forward") + 1]
        boundary = sum(len(self.launches[section]) for section in before)
        later = (launch for s in ("backward", "update") for launch in self.launches[s])
        read = {b.root for launch in later for b in launch.reads}
        read -= {self.step.host_writes[name].root for name in self.step.scalars}
        return {b: b.nbytes for b, life in self.lifetimes.items() if life.first < boundary <= life.last and b in read}

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
        return [b for b, life in self.lifetimes.items() if life.first <= i <= life.last]

    def __str__(self) -> str:
        """The ledger: every launch with the logical calls that it covers, its buffers and their bytes."""
        lines = [
            f"{self.graph.name}: batch {self.batch}, input {self._input()}, {self.dtype}, {self.backend}",
            f"arena {self.peak_bytes:,} B (lower bound {self.lower_bound.nbytes:,} B), state {self.state_bytes:,} B, "
            f"constants {self.constant_bytes:,} B, saved for backward {self.saved_bytes:,} B",
        ]
        turns = {turn.section: turn for turn in self.schedule(self.batch)}
        for section in self.sections:
            lines.append(f"{section}{self._expected(turns.get(section))}")
            for launch in self.launches[section]:
                lines.append(f"  {launch.name}")
                if [c.name for c in launch.covers] != [launch.name]:
                    lines.append(f"      covers {', '.join(c.name for c in launch.covers)}")
                lines += [f"      {kind} {self._describe(b)}" for kind, b in _listed(launch)]
        return "\n".join(lines)

    def _expected(self, turn: Turn | None) -> str:
        """What the schedule says of a section, where it is not that all of it runs once on the whole mini-batch."""
        if turn is None:
            return ""
        words = [f"on {turn.samples:.3g} of {self.batch} samples"] if turn.samples != self.batch else []
        often = f"{turn.times:.3g} times" if turn.times > 1 else f"in {100 * turn.times:.3g} % of the steps"
        words += [often] if turn.times != 1 else []
        words += ["some calls left out at random"] if turn.calls is not None else []
        return f" ({', '.join(words)})" if words else ""

    def _input(self) -> str:
        """The input map in words, or each of the inputs."""
        if self.size:
            return f"{self.size[0]}x{self.size[1]}"
        tensors = self.graph.tensors
        return ", ".join(f"{name} {'x'.join(map(str, tensors[name].shape[1:]))}" for name in self.graph.inputs)

    def _describe(self, b: Buffer) -> str:
        where = f"arena+{self.offsets[b.root]}" if b.root.region == "arena" else b.root.region
        shape = "x".join(map(str, b.shape)) or "1"
        q = b.quantized
        scaled = f", scale {q.scale.name}" + (f", zero point {q.zero_point.name}" if q.zero_point else "") if q else ""
        return f"{b.name:32s} {shape:>16s} {np.dtype(b.dtype).name:8s} {b.nbytes:>12,} B  {where}{scaled}"


def _listed(launch: Launch):
    for kind, buffers in (("reads ", launch.reads), ("writes", launch.writes), ("scratch", launch.scratch)):
        yield from ((kind, b) for b in buffers)
