"""Turn the logical calls of a step into kernel launches.

The reference backend launches each call's own kernel. The fast backend replaces groups of calls by hand-tuned kernels:
each rule begins at calls of some passes, asks which calls belong together (`compiler.grouping`), and returns the launch
that covers those of them that one kernel can do, with launches that must follow it. Every logical call is covered by
exactly one launch; what no rule takes runs its reference kernel.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..kernels.kernel import Kernel
from ..kernels.passes import Pass
from .executed import stated
from .ir import AtBatch, Buffer, Call, Launch, Step

if TYPE_CHECKING:
    from ..backends.backend import Backend

BACKENDS: "dict[str, Backend]" = {}  # name → what runs a program (`backends.backend.Backend`)


def register_backend(name: str, backend: "Backend") -> None:
    """Let `compile(backend=name)` compile for a backend. ValueError where another one has the name."""
    if BACKENDS.setdefault(name, backend) is not backend:
        raise ValueError(f"there is a backend {name!r} already: give yours another name")


def lower(step: Step, backend: str, threads: int) -> dict[str, list[Launch]]:
    """Launches of each section, in order."""
    return BACKENDS[backend].lower(step, threads)


def on_cpu(kernel: Kernel) -> Callable:
    """The form of a kernel for threads of the CPU."""
    return kernel.cpu


def on_gpu(kernel: Kernel) -> Callable:
    """The form of a kernel that a GPU runs."""
    return kernel.gpu


def reference(call: Call, form: Callable[[Kernel], Callable] = on_cpu) -> Launch:
    """The launch of a call's own kernel. form: what of it the backend launches."""
    passed = call.passed
    dtype = next((b.dtype for a, b in call.arrays.items() if ":" not in passed.shapes[a]), None)
    args = passed.arguments(call.arrays, call.attrs, dtype)
    items = AtBatch(lambda n: passed.count_items(call.sizes_at(n)))
    reads, writes = tuple(call.reads), tuple(call.writes)
    return Launch(call.name, form(passed.kernel), (items, *args), reads, writes, covers=(call,), when=call.when)


class Lowering:
    """The calls of a step, and who reads what, for the rules."""

    def __init__(self, step: Step, threads: int, form: Callable[[Kernel], Callable] = on_cpu):
        """form: what is launched of the kernel of a call that no rule takes."""
        self.step, self.threads, self.form = step, threads, form
        self.batch = next(b.shape[0] // b.batched for b in step.host_writes.values() if b.batched)
        self.notes: dict = {}  # what rules find out once
        self.calls = list(step)
        self._nodes: dict[str, list[Call]] = {}
        for call in self.calls:
            self._nodes.setdefault(call.node, []).append(call)
        self.place = {call: i for i, call in enumerate(self.calls)}
        self._readers: dict[Buffer, list[Call | None]] = {}  # None: the host
        self._writer: dict[Buffer, Call] = {}
        for call in self.calls:
            for b in call.reads:
                self._readers.setdefault(b.root, []).append(call)
            for b in call.writes:
                self._writer[b.root] = call  # the last one, where several fill parts of it
        for b in step.host_reads.values():
            self._readers.setdefault(b.root, []).append(None)
        self.groups: dict[Call, Launch] = {}  # every covered call → its launch
        self._stands: dict[Call, int] = {}  # every covered call → the place where its launch stands
        self._made: dict[Buffer, Call] = {}  # what launches write → the call at whose place that launch stands
        self._overlaid: set[Buffer] = set()  # arrays that took over another's memory
        self._shared: dict[Buffer, list[Buffer]] = {}  # memory → the arrays that took it over
        self._needed: dict[Buffer, list[Call]] = {}  # calls whose launch will read an array though they do not

    def launches(self, rules: Mapping[Pass, Iterable[Callable]]) -> dict[str, list[Launch]]:
        """Try the rules of its pass, in their order, on each call in turn that no launch covers yet."""
        anchors: dict[Call, list[Launch]] = {}
        for call in self.calls:
            if call in self.groups:
                continue
            made = next(filter(None, (rule(self, call) for rule in rules.get(call.passed, ()))), None)
            made = made or [reference(call, self.form)]
            group = [replace(launch, when=call.when) for launch in made]
            for launch in group:
                if any(covered.when != call.when for covered in launch.covers):
                    raise AssertionError(f"{launch.name} covers calls that steps may leave out for themselves")
                stated(launch)  # a fast kernel that does not say what it executes is an error here, never equal
                for covered in launch.covers:
                    if covered in self.groups:
                        raise AssertionError(
                            f"{covered.name} is covered by {launch.name} and {self.groups[covered].name}"
                        )
                    self.groups[covered] = launch
            anchor = self.anchor(group[0])
            anchors.setdefault(anchor, []).extend(group)
            self._stands |= {c: self.place[anchor] for launch in group for c in launch.covers}
            for b in (self.value(b) for launch in group for b in launch.writes):
                self._made[b] = max(self._made.get(b, anchor), anchor, key=self.place.get)
        return {s: [launch for c in calls for launch in anchors.get(c, ())] for s, calls in self.step.calls.items()}

    def anchor(self, launch: Launch) -> Call:
        """The first covered call at which everything that the launch reads has been written: there it stands."""
        written = {self.value(b) for b in launch.writes}  # in place: with others, each its part
        arena = [b for b in map(self.value, launch.reads) if b.root.region == "arena" and b not in written]
        writers = [self._made.get(b) or self._writer.get(b) for b in arena]
        ready = max((self.place[c] for c in writers if c is not None and c not in launch.covers), default=-1)
        return next(c for c in sorted(launch.covers, key=self.place.get) if self.place[c] >= ready)

    def of_node(self, node: str) -> list[Call]:
        """The calls of a node, in order."""
        return self._nodes[node]

    def free(self, call: Call | None) -> bool:
        """Is there such a call, and has no launch taken it yet?"""
        return call is not None and call not in self.groups

    def value(self, buffer: Buffer) -> Buffer:
        """The array of which a buffer is a view, whosever memory it took over."""
        while buffer.base is not None and buffer not in self._overlaid:
            buffer = buffer.base
        return buffer

    def writer(self, buffer: Buffer) -> Call | None:
        """The call that writes an array, the last one where several fill parts of it; None where the host does."""
        return self._writer.get(self.value(buffer))

    def readers(self, buffer: Buffer) -> list[Call | None]:
        """The calls that read an array, in order; None stands for the host."""
        return self._readers.get(self.value(buffer), [])

    def reader(self, buffer: Buffer, *passes: Pass) -> Call | None:
        """The only call that reads an array, if it is of one of `passes` and may go with the one that writes it."""
        readers = self.all_readers(buffer, *passes)
        return readers[0] if len(readers) == 1 else None

    def all_readers(self, buffer: Buffer, *passes: Pass) -> list[Call]:
        """The calls that read an array, if all are of `passes` and may go with the one that writes it; else none."""
        readers = [c for c in self.readers(buffer) if c and c.passed in passes and self.together(buffer, c)]
        return readers if len(readers) == len(self.readers(buffer)) else []

    def find(self, buffer: Buffer, passed: Pass) -> Call | None:
        """A call of `passed` among the readers of an array that may go with the one that writes it."""
        return next((c for c in self.readers(buffer) if c and c.passed is passed and self.together(buffer, c)), None)

    def together(self, buffer: Buffer, reader: Call) -> bool:
        """Can a launch do a call that reads an array and the one that writes it: is it free, and do both always run?"""
        writer = self._writer.get(self.value(buffer))
        return self.free(reader) and (writer is None or writer.when == reader.when)

    def written_before(self, buffer: Buffer, call: Call) -> bool:
        """Is an array written before `call` stands?"""
        writer = self._writer.get(self.value(buffer))
        return writer is None or self.place[writer] < self.place[call]

    def scratch(self, call: Call, name: str, shape: tuple[int, ...], dtype) -> Buffer:
        """A buffer that lives during one launch."""
        return Buffer(f"{call.node}.{name}", tuple(map(int, shape)), np.dtype(dtype), "arena")

    def needed_by(self, buffer: Buffer, calls: Iterable[Call]) -> None:
        """Note that the launches of `calls` will read an array that the calls themselves do not read."""
        self._needed.setdefault(self.value(buffer), []).extend(calls)

    def overlay(self, buffer: Buffer, old: Buffer, call: Call) -> bool:
        """Put `buffer`, which a launch at `call` writes, into the memory of `old` if nobody needs `old` after that."""
        root = old.root
        if root.region != "arena" or buffer.root is root:
            return False
        for value in (root, *self._shared.get(root, ())):
            for c in (*self._readers.get(value, ()), *self._needed.get(value, ())):
                if c is None or (c is not call and self._stands.get(c, self.place[c]) >= self.place[call]):
                    return False
        buffer.base = root
        self._overlaid.add(buffer)
        self._shared.setdefault(root, []).extend((buffer, *self._shared.pop(buffer, ())))
        return True
