"""The memory of a compiled program: one block, views into it, and launches on them."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..backends.backend import Backend, Call
from ..compiler.ir import AtBatch, Buffer, Launch, Prefix
from ..compiler.lower import BACKENDS
from ..compiler.program import Program
from ..kernels.passes import check_indices

GUARD = 4096  # bytes on either side of the arena that nothing may touch
ALONE = (
    "works in memory of its own and can be neither copied nor pickled: make a new Trainer of the program with the same "
    "seed, and give it what resume_arrays() tells by resume()"
)


class Section(NamedTuple):
    """A section made ready for n samples."""

    launches: list[Call]
    ready: Sequence[Call]  # the same as the backend makes them
    before: str | None  # the section that must have run just before, for what this one finds in the arena
    # what kernels index with and the host filled, what it must lie below, and what stands for no index
    indices: list[tuple[str, object, int, int | None]]


class Runner:
    """A program with its memory: `run(section, n)` launches a section's kernels on the first n samples.

    No kernel can refuse an index, so none is launched on one that may lie outside its array: what the host fills is
    checked before each section that reads it, what kernels computed is there because `forward`, `backward` and `update`
    run in this order with nothing between them in the same memory. Every array is its backend's: what the host fills
    and reads goes through `write` and `read`. A runner belongs to its process and its memory: it
    is neither copied nor pickled, and not to be used by two threads at once.
    """

    def __init__(
        self, program: Program, parameters: Mapping[str, np.ndarray], block: np.ndarray | None = None, seed: int = 0,
        whole: "Runner | None" = None,
    ):  # fmt: skip
        """parameters: name → array of the host, used in place where the backend can; block: memory of the backend for
        the arena and its guards, else allocated.

        seed: of the random constants that the plan asks for. whole: runner of the step that leaves nothing out, for one
        that leaves blocks out: it works in the same memory.
        """
        self.program = program
        self.backend: Backend = BACKENDS[program.backend]
        self.parameters = parameters
        self.owned: dict[Buffer, object] = {}
        for name, b in program.step.parameters.items():
            self.owned[b] = whole.parameter(name) if whole else self.backend.adopt(parameters[name])
        for name, b in program.step.state.items():
            shared = whole and whole.owned[whole.program.step.state[name]]
            self.owned[b] = self.backend.adopt(np.zeros(b.shape, b.dtype)) if shared is None else shared
        for name, c in program.step.constants.items():
            shared = whole and whole.owned[whole.program.step.constants[name].buffer]
            self.owned[c.buffer] = self.backend.adopt(c.make(parameters, seed)) if shared is None else shared
        block = whole.block if whole else block
        self.block = new_block(program.peak_bytes, self.backend) if block is None else block
        self.made: Counter[tuple[str, int]] = Counter()  # (section, n) → how often its launches really ran
        self.mark = object()  # stands for this runner in `last`, which must not keep it and its memory alive
        # which section of which runner ran last in the memory, and on how many samples: shared by all that work in it
        self.last: list = whole.last if whole else [None]
        self._sections: dict[tuple[str, int], Section] = {}
        self._gradients: dict[str, list[tuple[str, object]]] = {}
        self._views: dict[tuple[str, int], object] = {}

    def parameter(self, name: str):
        """The backend's array of a parameter."""
        return self.owned[self.program.step.parameters[name]]

    def fetch(self) -> None:
        """Bring what training changed of the parameters to the host."""
        for name, b in self.program.step.parameters.items():
            if b.region == "state" and self.owned[b] is not self.parameters[name]:
                self.parameters[name][...] = self.backend.read(self.owned[b])

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

    def write(self, name: str, n: int, values) -> None:
        """Fill an array for the first n samples: `input`, `labels`, `lr`, …"""
        self.backend.write(self.host(name, n), values)

    def read(self, name: str, n: int) -> np.ndarray:
        """An array of the first n samples on the host (`output`, `loss`, …), valid until the next section runs."""
        return self.backend.read(self.host(name, n))

    def host(self, name: str, n: int):
        """The backend's array that the host fills or reads (`input`, `labels`, `lr`, `loss`, …), made once per n."""
        if (name, n) not in self._views:
            step = self.program.step
            self._views[name, n] = self.array((step.host_writes | step.host_reads)[name], n)
        return self._views[name, n]

    def run(self, section: str, n: int) -> None:
        """Launch every kernel of a section on the first n samples. After the first time nothing is allocated.

        ValueError for labels or chosen instances that are no indices, RuntimeError where the section does not follow
        the one whose results it needs. Within the backend's `work` it costs less.
        """
        if not self.backend.working(self.program.threads):
            with self.backend.work(self.program.threads):
                self.run(section, n)
            return
        ready = self.checked(section, n).ready
        self.last[0] = None
        self.backend.launch(ready)
        self.last[0] = (self.mark, section, n)
        self.made[section, n] += 1

    def checked(self, section: str, n: int) -> Section:
        """A section, once the arena is found to hold what it needs; raises as `run` does."""
        found = self.section(section, n)
        if found.before and self.last[0] != (self.mark, found.before, n):
            raise RuntimeError(
                f"{section} on {n} samples needs what {found.before} leaves: run that on them just before it"
            )
        for name, view, bound, spared in found.indices:
            check_indices(name, self.backend.read(view), bound, spared)
        return found

    def prepared(self, section: str, n: int) -> list[Call]:
        """Kernels with their arguments for n samples, to be launched within the backend's `work`, unchecked."""
        return self.section(section, n).launches

    def section(self, section: str, n: int) -> Section:
        """A section made ready for n samples, once; ValueError where they are more than the batch."""
        key = (section, n)
        if key not in self._sections:
            if not 1 <= n <= self.program.batch:
                raise ValueError(f"the program is compiled for batches of 1 to {self.program.batch} samples, not {n}")
            planned = self.program.launches[section]
            launches = [(launch.function, [self.argument(a, n) for a in launch.args]) for launch in planned]
            before = self.program.step.follows.get(section) if planned else None
            self._sections[key] = Section(
                launches, self.backend.ready(planned, launches, self.program.threads), before,
                [] if before else self._indices(section, n),
            )  # fmt: skip
        return self._sections[key]

    def _indices(self, section: str, n: int) -> list[tuple[str, object, int, int | None]]:
        """Arrays that the host fills and a section's kernels index with, as `Section.indices`."""
        found = {}
        hosts = {b: name for name, b in self.program.step.host_writes.items()}
        for call in self.program.step.calls[section]:
            for a, (bound, spared) in call.passed.bounds(call.sizes, call.attrs).items():
                if name := hosts.get(call.arrays[a].root):
                    found[name] = min((bound, spared), found.get(name, (bound, spared)))
        return [(name, self.host(name, n), *allowed) for name, allowed in found.items()]

    def first_bad(self, section: str, n: int) -> Launch | None:
        """The first launch of a section that writes a NaN or an infinity: the section runs up to it. None: no one."""
        for launch, call in zip(self.program.launches[section], self.checked(section, n).launches, strict=True):
            self.backend.launch([call])
            partial = {a.buffer: a for a in launch.args if isinstance(a, Prefix)}  # n samples fill their beginning only
            floats = (b for b in launch.writes if np.issubdtype(b.dtype, np.floating))
            if not all(self.backend.finite(self.argument(partial.get(b, b), n)) for b in floats):
                return launch
        self.last[0] = (self.mark, section, n)
        return None

    def gradients(self, net: str, names: Iterable[str]) -> list[tuple[str, object]]:
        """Those of a net's trained parameters that have a gradient here, each with a flat view of it, made once."""
        if net not in self._gradients:
            found = self.program.step.gradients
            self._gradients[net] = [(name, self.array(found[name]).reshape(-1)) for name in names if name in found]
        return self._gradients[net]

    def not_finite(self, net: str, names: Iterable[str], n: int) -> str | None:
        """The first of a net's trained parameters whose gradient its backward section found not finite; None: no one.

        Flags of gradients that a step does not have are not looked at: nobody wrote them.
        """
        if f"{net}finite" not in self.program.step.host_reads:  # nothing to train has a gradient
            return None
        bad, flags = self.read(f"{net}finite", n), self.program.step.flags
        if not bad.any():
            return None
        there = ((name, flags[name]) for name, _ in self.gradients(net, names))
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
        return value


def new_block(nbytes: int, backend: Backend = BACKENDS["fast"]):  # noqa: B008
    """Memory of a backend, by default the host's, for an arena of `nbytes` with a guard zone at both ends."""
    return backend.allocate(nbytes + 2 * GUARD)
