"""A FlatBuffer, read within its bounds: tables of numbered fields, vectors, texts.

A table begins with the way back to the places of its fields, 2 bytes each, behind their own size and that of the table;
a field that is missing has its default. Every place must lie within the file, and the number of reads is bounded.
"""

import struct
from dataclasses import dataclass

MOST_READS = 300_000  # of structures; a net of a hundred nodes takes some 10,000


@dataclass
class FlatBuffer:
    """The bytes of a file; ValueError where what is asked for does not lie in them."""

    raw: bytes
    reads: int = 0

    def inside(self, at: int, count: int) -> None:
        """ValueError unless so many bytes are there."""
        self.reads += 1
        if self.reads > MOST_READS:
            raise ValueError(f"it has more than {MOST_READS:,} structures")
        if at < 0 or count < 0 or at + count > len(self.raw):
            raise ValueError(f"it points to what lies behind its {len(self.raw)} bytes")

    def number(self, at: int, kind: str) -> int | float:
        """A number, of a kind of `struct`."""
        self.inside(at, struct.calcsize("<" + kind))
        return struct.unpack_from("<" + kind, self.raw, at)[0]

    def root(self) -> "FlatTable":
        """The table with which the file begins."""
        return FlatTable(self, int(self.number(0, "I")))


@dataclass(frozen=True)
class FlatTable:
    """A table at a place of the file; field: numbered from 0."""

    file: FlatBuffer
    at: int

    def place(self, field: int) -> int | None:
        """Where a field is; None where it is missing."""
        fields = self.at - int(self.file.number(self.at, "i"))
        if 4 + 2 * field >= self.file.number(fields, "H"):
            return None
        offset = int(self.file.number(fields + 4 + 2 * field, "H"))
        return self.at + offset if offset else None

    def number(self, field: int, kind: str, default: int = 0) -> int:
        """A whole number, of a kind of `struct`."""
        place = self.place(field)
        return default if place is None else int(self.file.number(place, kind))

    def table(self, field: int) -> "FlatTable | None":
        """Another table."""
        place = self.place(field)
        return None if place is None else FlatTable(self.file, place + int(self.file.number(place, "I")))

    def span(self, field: int, size: int) -> tuple[int, int]:
        """Where the items of a vector begin, and how many there are; size: bytes of an item."""
        place = self.place(field)
        if place is None:
            return 0, 0
        begin = place + int(self.file.number(place, "I"))
        count = int(self.file.number(begin, "I"))
        self.file.inside(begin + 4, count * size)
        return begin + 4, count

    def numbers(self, field: int, kind: str) -> tuple:
        """The numbers of a vector, of a kind of `struct`."""
        begin, count = self.span(field, struct.calcsize("<" + kind))
        return struct.unpack_from(f"<{count}{kind}", self.file.raw, begin)

    def tables(self, field: int) -> list["FlatTable"]:
        """The tables of a vector."""
        begin, _ = self.span(field, 4)
        return [FlatTable(self.file, begin + 4 * i + n) for i, n in enumerate(self.numbers(field, "I"))]


__all__ = ["FlatBuffer", "FlatTable"]
