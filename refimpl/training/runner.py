"""The memory of a compiled program: one block, views into it, and launches on them."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..backends.backend import Backend, Prepared
from ..compiler.arena import ALIGN, end_to_end
from ..compiler.ir import AtBatch, Buffer, Condition, Launch, Prefix, Region, Segment, Segments
from ..compiler.lower import BACKENDS
from ..compiler.program import Program
from ..kernels import quantized
from ..kernels.passes import check_indices

GUARD = 4096  # bytes on either side of the arena that nothing may touch
ALONE = (
    "works in memory of its own and can be neither copied nor pickled: make a new Trainer of the program with the same "
    "seed, and give it what resume_arrays() tells by resume()"
)


class HostIndex(NamedTuple):
    """An array that the host fills and kernels index with: each entry below `bound`, or `spared`, which is no index."""

    name: str
    view: object
    bound: int
    spared: int | None


class HostFill(NamedTuple):
    """What the host filled an array with for so many samples, and what had run in the memory before that."""

    after: "LastRun | None"
    samples: int
    values: object


class Section(NamedTuple):
    """A section made ready for n samples."""

    launches: list[Launch]
    prepared: list[Prepared]  # of each launch
    conditions: set[Condition]  # when they are made
    before: str | None  # the section that must have run just before, for what this one finds in the arena
    indices: list[HostIndex]


class LastRun(NamedTuple):
    """What ran last in a memory: which runner's section, on how many samples, without which residual blocks."""

    runner: object  # its mark
    section: str
    samples: int
    dropped: frozenset[str]


class Gradient(NamedTuple):
    """The gradient of a trained parameter: a flat view of it, and when it is there."""

    name: str
    view: object
    when: Condition


class Runner:
    """A program with its memory: `run(section, n)` launches a section's kernels on the first n samples.

    No kernel can refuse an index, so none is launched on one that may lie outside its array: what the host fills is
    checked before each section that reads it, what kernels computed is there because `forward`, `backward` and `update`
    run in this order with nothing between them in the same memory. Every array is its backend's: what the host fills
    and reads goes through `write` and `read`. A runner belongs to its process and its memory: it
    is neither copied nor pickled, and not to be used by two threads at once.
    """

    def __init__(
        self, program: Program, parameters: Mapping[str, np.ndarray], block: np.ndarray | None = None, seed: int = 0
    ):  # fmt: skip
        """parameters: name → array of the host, used in place where the backend can; block: memory of the backend for
        the arena and its guards, else allocated.

        seed: of the random constants that the plan asks for.
        """
        self.program = program
        self.backend: Backend = BACKENDS[program.backend]
        self.parameters = parameters
        self.owned: dict[Buffer, object] = {}
        for name, b in program.step.parameters.items():
            if b.region != "state":
                self.owned[b] = self.backend.adopt(parameters[name])
        state = {b: parameters[name] for name, b in program.step.parameters.items() if b.region == "state"}
        state |= {b: np.zeros(b.shape, b.dtype) for b in program.step.state.values()}
        self.state, arrays = self.backend.gather(list(state.values()))  # its memory, where that is one piece
        self.owned |= dict(zip(state, arrays, strict=True))
        self._places = dict(zip(state, end_to_end(b.nbytes for b in state)[0], strict=True))
        for constant in program.step.constants.values():
            self.owned[constant.buffer] = self.backend.adopt(constant.make(parameters, seed))
        self.block = new_block(program.peak_bytes, self.backend) if block is None else block
        self.dropped: frozenset[str] = frozenset()  # residual blocks that what runs now leaves out
        # blocks left out → (section, n) → how often its launches really ran without them
        self.made: dict[frozenset[str], Counter[tuple[str, int]]] = {self.dropped: Counter()}
        self.mark = object()  # stands for this runner in `last`, which must not keep it and its memory alive
        self.last: list[LastRun | None] = [None]  # shared by all runners in the memory
        self._told: dict[str, HostFill] = {}  # what the host filled last, where to read it back would make it wait
        self._sections: dict[tuple[str, int], Section] = {}
        self._ready: dict[tuple[str, int], tuple[frozenset[str], Sequence[Prepared]]] = {}  # as last asked for
        self._gradients: dict[str, list[Gradient]] = {}
        self._views: dict[tuple[str, int], object] = {}

    def parameter(self, name: str):
        """The backend's array of a parameter."""
        return self.owned[self.program.step.parameters[name]]

    def fetch(self) -> None:
        """Bring what training changed of the parameters to the host."""
        for name, b in self.program.step.parameters.items():
            if b.region == "state" and self.owned[b] is not self.parameters[name]:
                self.backend.copy(self.parameters[name], self.owned[b])
        self.backend.synchronise()

    def push(self) -> None:
        """Bring the host's parameters to the backend."""
        for name, b in self.program.step.parameters.items():
            if self.owned[b] is not self.parameters[name]:
                self.backend.write(self.owned[b], self.parameters[name])

    def array(self, buffer: Buffer, n: int | None = None):
        """View of a buffer; of its first n samples where it holds a batch."""
        root = buffer.root
        if root.region == "arena":
            whole = self.backend.view(self.block, GUARD + self.program.offsets[root], root.nbytes, root.dtype)
        else:
            whole = self.owned[root]
        count = math.prod(buffer.shape)
        view = whole.reshape(-1)[buffer.start : buffer.start + count].reshape(buffer.shape)
        return view if n is None or not buffer.batched else view[: n * buffer.batched]

    def real(self, buffer: Buffer, n: int | None = None) -> np.ndarray:
        """The real numbers, float64, that a quantized buffer stands for; of its first n samples where it is a batch."""
        q, read = buffer.quantized, lambda b: self.backend.read(self.array(b))
        values = self.backend.read(self.array(buffer, n))
        return quantized.real(values, read(q.scale), q.zero_point and read(q.zero_point), q.each, buffer.start)

    def write(self, name: str, n: int, values) -> None:
        """Fill an array for the first n samples: `input`, `labels`, `lr`, …"""
        self.backend.write(self.host(name, n), values)
        if self.backend.ahead > 1:
            self._told[name] = HostFill(self.last[0], n, values)

    def read(self, name: str, n: int) -> np.ndarray:
        """An array of the first n samples on the host (`output`, `loss`, …), valid until the next section runs."""
        return self.backend.read(self.host(name, n))

    def host(self, name: str, n: int):
        """The backend's array that the host fills or reads (`input`, `labels`, `lr`, `loss`, …), made once per n."""
        if (name, n) not in self._views:
            step = self.program.step
            self._views[name, n] = self.array((step.host_writes | step.host_reads)[name], n)
        return self._views[name, n]

    def leave_out(self, dropped: frozenset[str]) -> None:
        """Run sections without these residual blocks from now on."""
        self.dropped = dropped
        self.made.setdefault(dropped, Counter())

    def run(self, section: str, n: int) -> None:
        """Launch the kernels of a section on the first n samples. After the first time no array is allocated.

        ValueError for labels or chosen instances that are no indices, RuntimeError where the section does not follow
        the one whose results it needs. Within the backend's `work` it costs less.
        """
        if not self.backend.working(self.program.threads):
            with self.backend.work(self.program.threads):
                self.run(section, n)
            return
        self.checked(section, n)
        self.last[0] = None
        self.backend.launch(self.ready(section, n))
        self.last[0] = LastRun(self.mark, section, n, self.dropped)
        self.made[self.dropped][section, n] += 1

    def checked(self, section: str, n: int) -> Section:
        """A section, once the arena is found to hold what it needs; raises as `run` does."""
        made = self.section(section, n)
        if made.before and self.last[0] != LastRun(self.mark, made.before, n, self.dropped):
            raise RuntimeError(
                f"{section} on {n} samples needs what {made.before} leaves: run that on them just before it"
            )
        for index in made.indices:
            check_indices(index.name, self._held(index, n), index.bound, index.spared)
        return made

    def _held(self, index: HostIndex, n: int) -> np.ndarray:
        """The values of an array that the host fills: those that it gave, while nothing ran since."""
        told = self._told.get(index.name)
        if told is None or told.after is None or told.after is not self.last[0] or told.samples != n:
            return self.backend.read(index.view)
        return np.asarray(told.values).astype(index.view.dtype, copy=False)

    def prepared(self, section: str, n: int) -> list[Prepared]:
        """Kernels with their arguments for n samples, to be launched within the backend's `work`, unchecked."""
        return [prepared for _, prepared in self.present(section, n)]

    def present(self, section: str, n: int) -> list[tuple[Launch, Prepared]]:
        """The launches of a section that run now, with their kernels and arguments for n samples."""
        made = self.section(section, n)
        there = {when for when in made.conditions if when.holds(self.dropped)}
        pairs = zip(made.launches, made.prepared, strict=True)
        return [(launch, prepared) for launch, prepared in pairs if launch.when in there]

    def ready(self, section: str, n: int) -> Sequence[Prepared]:
        """The same as the backend makes them."""
        dropped, ready = self._ready.get((section, n), (None, ()))
        if dropped != self.dropped:
            present = self.present(section, n)
            launches = [launch for launch, _ in present]
            ready = self.backend.ready(launches, [prepared for _, prepared in present], self.program.threads)
            self._ready[section, n] = self.dropped, ready
        return ready

    def section(self, section: str, n: int) -> Section:
        """A section made ready for n samples, once; ValueError where they are more than the batch."""
        key = (section, n)
        if key not in self._sections:
            if not 1 <= n <= self.program.batch:
                raise ValueError(f"the program is compiled for batches of 1 to {self.program.batch} samples, not {n}")
            launches = self.program.launches[section]
            prepared = [(launch.function, [self.argument(value, n) for value in launch.args]) for launch in launches]
            before = self.program.step.follows.get(section) if launches else None
            conditions, indices = {launch.when for launch in launches}, [] if before else self._indices(section, n)
            self._sections[key] = Section(launches, prepared, conditions, before, indices)
        return self._sections[key]

    def _indices(self, section: str, n: int) -> list[HostIndex]:
        """Arrays that the host fills and a section's kernels index with."""
        limits = {}
        hosts = {b: name for name, b in self.program.step.host_writes.items()}
        for call in self.program.step.calls[section]:
            for a, (bound, spared) in call.passed.bounds(call.sizes, call.attrs).items():
                if name := hosts.get(call.arrays[a].root):
                    limits[name] = min((bound, spared), limits.get(name, (bound, spared)))
        return [HostIndex(name, self.host(name, n), bound, spared) for name, (bound, spared) in limits.items()]

    def first_bad(self, section: str, n: int) -> Launch | None:
        """The first launch of a section that writes a NaN or an infinity: the section runs up to it. None: no one."""
        self.checked(section, n)
        for launch, prepared in self.present(section, n):
            self.backend.launch([prepared])
            # n samples fill their beginning only
            partial = {value.buffer: value for value in launch.args if isinstance(value, Prefix)}
            floats = (b for b in launch.writes if np.issubdtype(b.dtype, np.floating))
            if not all(self.backend.finite(self.argument(partial.get(b, b), n)) for b in floats):
                return launch
        self.last[0] = LastRun(self.mark, section, n, self.dropped)
        return None

    def gradients(self, net: str, names: Iterable[str]) -> list[tuple[str, object]]:
        """Those of a net's trained parameters that have a gradient now, each with a flat view of it, made once."""
        if net not in self._gradients:
            read = {b.root: call.when for call in self.program.step if call.phase == "update" for b in call.reads}
            buffers = {name: self.program.step.gradients[name] for name in names}
            self._gradients[net] = [
                Gradient(name, self.array(b).reshape(-1), read[b.root]) for name, b in buffers.items()
            ]
        return [(name, view) for name, view, when in self._gradients[net] if when.holds(self.dropped)]

    def not_finite(self, net: str, names: Iterable[str], n: int) -> str | None:
        """The first of a net's trained parameters whose gradient its backward section found not finite; None: no one.

        Flags of gradients that a step does not have are not looked at: nobody wrote them.
        """
        if f"{net}finite" not in self.program.step.host_reads:  # nothing to train has a gradient
            return None
        return self.flagged(net, names, self.read(f"{net}finite", n))

    def flagged(self, net: str, names: Iterable[str], bad: np.ndarray) -> str | None:
        """The same, told by the flags of gradients that the backward section left."""
        if not bad.any():
            return None
        flags = self.program.step.flags
        there = ((name, flags[name]) for name, _ in self.gradients(net, names) if name in flags)
        return next((name for name, b in there if bad[b.start : b.start + b.shape[0]].any()), None)

    def __reduce_ex__(self, protocol):
        raise TypeError(f"a {type(self).__name__} {ALONE}")

    def argument(self, value, n: int):
        """A launch's argument at run time."""
        if isinstance(value, Buffer):
            return self.array(value, n)
        if isinstance(value, Prefix):
            return self.array(value.buffer)[: value.length(n)]
        if isinstance(value, AtBatch):
            return value.value(n)
        if isinstance(value, Region):
            return self._memory(value)
        if isinstance(value, Segments):
            return np.array([self._row(segment) for segment in value.rows], np.int64)
        return value

    def _memory(self, region: Region):
        """All of a region's memory as a flat array."""
        if region.name == "arena":
            return self.backend.view(self.block, GUARD, -(-self.program.peak_bytes // ALIGN) * ALIGN, region.dtype)
        return self.backend.view(self.state, 0, end_to_end(b.nbytes for b in self._places)[1], region.dtype)

    def _row(self, segment: Segment) -> list[int]:
        """The row of a table of segments."""
        row = [segment.end, segment.items]
        for b in segment.arrays:
            places = self.program.offsets if b.root.region == "arena" else self._places
            row += [places[b.root] // b.dtype.itemsize + b.start, math.prod(b.shape)]
        return row


def new_block(nbytes: int, backend: Backend = BACKENDS["fast"]):  # noqa: B008
    """Memory of a backend, by default the host's, for an arena of `nbytes` with a guard zone at both ends."""
    return backend.allocate(nbytes + 2 * GUARD)
