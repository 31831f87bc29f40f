"""Calls that the backward section asks for and the forward section does, where what they read is at hand."""

from dataclasses import replace

from .ir import Buffer, Call


class Moves:
    """The calls of a forward section, with those that move into it from a backward section."""

    def __init__(self, forward: list[Call], backward: list[Call]):
        """forward, backward: the calls of the two sections, which `finish` changes in place."""
        self.forward, self.backward = forward, backward
        self.writers: dict[Buffer, list[int]] = {}  # memory → numbers of the backward calls that write it …
        self.seen = 0  # … of so many of them
        self.moved: set[int] = set()
        # A place sorts after that which it begins with, and the later it was given the sooner after it.
        self.places: dict[Call, tuple[int, ...]] = {}
        self.last: dict[str | Buffer, tuple[int, ...]] = {}  # node or memory → the last place of what writes it

    def bring(self, call: Call) -> None:
        """Insert a call into the forward section behind its node and what it reads, after what only it asked for."""
        if not self.places:
            for i, earlier in enumerate(self.forward):
                self.put(earlier, (i,))
        for i in range(self.seen, len(self.backward)):
            for b in self.backward[i].writes:
                self.writers.setdefault(b.root, []).append(i)
        self.seen = len(self.backward)
        read = {b.root for b in call.reads}
        for i in sorted({i for b in read for i in self.writers.get(b, ())} - self.moved):
            self.moved.add(i)
            self.bring(replace(self.backward[i], section=call.section))
        behind = max((self.last[key] for key in (call.node, *read) if key in self.last), default=())
        self.put(call, (*behind, -len(self.places)))

    def put(self, call: Call, place: tuple[int, ...]) -> None:
        """Note where a call of the forward section stands."""
        self.places[call] = place
        for key in (call.node, *(b.root for b in call.writes)):
            self.last[key] = max(self.last.get(key, ()), place)

    def finish(self) -> None:
        """Move them."""
        if self.places:
            self.forward[:] = sorted(self.places, key=self.places.__getitem__)
            self.backward[:] = [call for i, call in enumerate(self.backward) if i not in self.moved]
