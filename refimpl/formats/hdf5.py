"""The arrays of an HDF5 file, read by a small reader of its own; nothing is followed out of the file.

The library of HDF5 was not made for files that one does not trust. Weights need little of the format, and this reader
knows no more (HDF5 File Format Specification, version 3, section numbers in brackets):

    superblock   where the file's root group is [II.A]
    group        names and where their objects are: a tree of name tables beside a heap of names [III.A, III.B, III.D],
                 or links among the messages of the group itself [IV.A.2.g]
    object       a header of messages; of an array its shape, its numbers and the place of its data [IV.A]

Every address must lie within the file, no object is visited twice on one way, and the number of reads is bounded.
Arrays in one piece are read; arrays in chunks (which may be compressed), links and data in other files are refused.
"""

from dataclasses import dataclass, field

import numpy as np

from ..storage.files import quoted

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MOST_READS = 300_000  # of structures; a net of a thousand arrays takes some 60,000
MOST_DEPTH = 24  # groups in each other
NUMBERS = {(0, 1): "i1", (0, 2): "i2", (0, 4): "i4", (0, 8): "i8", (1, 2): "f2", (1, 4): "f4", (1, 8): "f8"}
EXPONENTS = {2: 5, 4: 8, 8: 11}  # bits of the exponent of IEEE's floats, by their bytes
SPACE, TYPE, LINK, EXTERNAL, LAYOUT, FILTERS, ATTRIBUTE, CONTINUED, TABLE, LINKS = 1, 3, 6, 7, 8, 11, 12, 16, 17, 2
COMPACT, CONTIGUOUS = 0, 1
HARD, SOFT = 0, 1
SHARED = 2  # flag of a message that lies elsewhere


@dataclass
class Hdf5:
    """A file's bytes, and how they are read.

    arrays: what was found, by path; left: paths of what holds no numbers. ValueError where the file is damaged, or
    holds what is not read.
    """

    raw: bytes
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    reads: int = 0
    wide: int = 8  # bytes of an address
    long: int = 8  # bytes of a length

    def number(self, at: int, count: int) -> int:
        """A whole number of `count` bytes."""
        return int.from_bytes(self.part(at, count), "little")

    def part(self, at: int, count: int) -> bytes:
        """Bytes of the file; ValueError where they do not lie in it."""
        self.inside(at, count)
        return self.raw[at : at + count]

    def inside(self, at: int, count: int) -> None:
        """ValueError unless so many bytes are there."""
        self.reads += 1
        if self.reads > MOST_READS:
            raise ValueError(f"it has more than {MOST_READS:,} structures")
        if count < 0 or at + count > len(self.raw):
            raise ValueError(f"it ends after {len(self.raw)} bytes, too early")

    def address(self, at: int) -> int:
        """An address that is kept at a place."""
        return self.number(at, self.wide)

    def root(self) -> int:
        """Where the header of the root group is [II.A]."""
        if self.part(0, 8) != SIGNATURE:
            raise ValueError("it does not begin as such a file")
        version = self.number(8, 1)
        sizes, first = {0: (13, 24), 1: (13, 28), 2: (9, 12), 3: (9, 12)}.get(version, (0, 0))
        if not sizes:
            raise ValueError(f"its format has the version {version}, which is not known")
        self.wide, self.long = self.number(sizes, 1), self.number(sizes + 1, 1)
        if self.wide not in (4, 8) or self.long not in (4, 8):
            raise ValueError("its addresses have neither 4 nor 8 bytes")
        if self.address(first):
            raise ValueError("it lies behind something else")
        # base, extension or free space, end, driver or root; before version 2 the root is an entry of a name table
        return self.address(first + 5 * self.wide if version < 2 else first + 3 * self.wide)

    def messages(self, at: int) -> list[tuple[int, int, int]]:
        """Of an object's header: kind, begin and bytes of each message [IV.A.1]."""
        found: list[tuple[int, int, int]] = []
        if self.part(at, 4) == b"OHDR":
            flags = self.number(at + 5, 1)
            begin = at + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
            width = 1 << (flags & 3)
            blocks, newer = [(begin + width, self.number(begin, width))], True
        else:
            if self.number(at, 1) != 1:
                raise ValueError("it has no header where an object should be")
            flags, blocks, newer = 0, [(at + 16, self.number(at + 8, 4))], False
        for begin, count in blocks:  # which grows
            place, end = begin, begin + count
            head = 8 if not newer else 4 + (2 if flags & 4 else 0)
            while place + head <= end:
                kind, size, kept = (
                    (self.number(place, 1), self.number(place + 1, 2), self.number(place + 3, 1)) if newer else
                    (self.number(place, 2), self.number(place + 2, 2), self.number(place + 4, 1))
                )  # fmt: skip
                place += head
                self.inside(place, size)
                if kind == CONTINUED:
                    there, more = self.address(place), self.number(place + self.wide, self.long)
                    blocks.append((there + 4, more - 8) if newer else (there, more))
                elif kept & SHARED and kind in (SPACE, TYPE, LAYOUT):
                    raise ValueError("it holds parts that objects share, which are not read")
                else:
                    found.append((kind, place, size))
                place += size
        return found

    def walk(self, at: int, path: str = "", within: tuple[int, ...] = ()) -> None:
        """Note the arrays of an object, and of all that is in it where it is a group."""
        if at in within:
            raise ValueError(f"its group {quoted(path)!r} holds itself")
        if len(within) > MOST_DEPTH:
            raise ValueError("it is nested too deeply")
        found = self.messages(at)
        kinds = {kind: (begin, size) for kind, begin, size in found}
        if LAYOUT in kinds:
            self.array(path, kinds)
            return
        links = self.links(path, found)
        if TABLE in kinds:
            begin, _ = kinds[TABLE]
            links |= self.table(path, self.address(begin), self.address(begin + self.wide))
        for name, there in links.items():
            self.walk(there, f"{path}/{name}" if path else name, (*within, at))

    def links(self, path: str, messages: list[tuple[int, int, int]]) -> dict[str, int]:
        """The objects that a group's own messages name [IV.A.2.c, IV.A.2.g]."""
        found = {}
        for kind, begin, _ in messages:
            if kind == LINKS:
                flags = self.number(begin + 1, 1)
                heap = begin + 2 + (8 if flags & 1 else 0)
                if self.part(heap, self.wide) != b"\xff" * self.wide:
                    raise ValueError(
                        f"its group {quoted(path)!r} keeps many names as new versions do: h5repack FILE NEW writes it "
                        "in a way that is read"
                    )
            elif kind == LINK:
                flags, place = self.number(begin + 1, 1), begin + 2
                link = self.number(place, 1) if flags & 8 else HARD
                place += bool(flags & 8) + (8 if flags & 4 else 0) + bool(flags & 16)
                width = 1 << (flags & 3)
                size = self.number(place, width)
                name = self.part(place + width, size).decode()
                if link != HARD:
                    self.elsewhere(path, name, link == SOFT)
                found[name] = self.address(place + width + size)
        return found

    def table(self, path: str, tree: int, heap: int) -> dict[str, int]:
        """The objects that a tree of name tables names [III.A.1, III.B, III.D]."""
        if self.part(heap, 4) != b"HEAP":
            raise ValueError("it has no names where they should be")
        size, names = self.number(heap + 8, self.long), self.address(heap + 8 + 2 * self.long)
        found, waiting = {}, [tree]
        while waiting:
            node = waiting.pop()
            if self.part(node, 4) == b"TREE":
                first = node + 8 + 2 * self.wide + self.long
                count = self.number(node + 6, 2)
                waiting += [self.address(first + i * (self.long + self.wide)) for i in range(count)]
                continue
            if self.part(node, 4) != b"SNOD":
                raise ValueError("it has no table of names where one should be")
            for i in range(self.number(node + 6, 2)):
                entry = node + 8 + i * (2 * self.wide + 24)
                offset = self.address(entry)
                text = self.part(names + offset, min(1024, max(0, size - offset)))
                name = text.partition(b"\0")[0].decode()
                if self.number(entry + 2 * self.wide, 4) == 2:
                    self.elsewhere(path, name, True)
                found[name] = self.address(entry + self.wide)
        return found

    def elsewhere(self, path: str, name: str, within: bool) -> None:
        """ValueError about a link."""
        where = "another place" if within else "another file"
        raise ValueError(f"{quoted(f'{path}/{name}'.strip('/'))!r} in it is a link to {where}, which is not followed")

    def array(self, path: str, kinds: dict[int, tuple[int, int]]) -> None:
        """Note an array: its numbers are those of the file's bytes [IV.A.2.b, d, i]."""
        if EXTERNAL in kinds:
            raise ValueError(f"{quoted(path)!r} in it has its numbers in another file, which is not read")
        kind = self.kind(*kinds[TYPE]) if TYPE in kinds else None
        if kind is None or SPACE not in kinds:
            self.left.append(path)
            return
        shape = self.shape(kinds[SPACE][0])
        need = int(np.prod(shape, dtype=object)) * kind.itemsize
        begin, _ = kinds[LAYOUT]
        version, layout = self.number(begin, 1), self.number(begin + 1, 1)
        if version not in (3, 4) or layout not in (COMPACT, CONTIGUOUS) or FILTERS in kinds:
            raise ValueError(
                f"{quoted(path)!r} in it is kept in chunks or compressed: h5repack -l CONTI -f NONE FILE NEW writes it "
                "in one piece"
            )
        there, has = (
            (begin + 4, self.number(begin + 2, 2)) if layout == COMPACT else
            (self.address(begin + 2), self.number(begin + 2 + self.wide, self.long))
        )  # fmt: skip
        if need > has or need and there + need > len(self.raw):
            raise ValueError(f"{quoted(path)!r} in it is of {quoted(shape)}, but its numbers are not there")
        self.arrays[path] = np.frombuffer(self.raw, kind, need // kind.itemsize, there if need else 0).reshape(shape)

    def shape(self, at: int) -> tuple[int, ...]:
        """The shape that a message says [IV.A.2.b]."""
        version, rank = self.number(at, 1), self.number(at + 1, 1)
        if version not in (1, 2) or rank > 32:
            raise ValueError("it holds an array whose shape is none")
        first = at + (8 if version == 1 else 4)
        return tuple(self.number(first + i * self.long, self.long) for i in range(rank))

    def kind(self, at: int, _: int) -> np.dtype | None:
        """The dtype that a message says; None where it is not one of whole numbers or of IEEE's floats [IV.A.2.d]."""
        number, flags, size = self.number(at, 1) & 15, self.number(at + 1, 3), self.number(at + 4, 4)
        if (number, size) not in NUMBERS or number == 1 and self.number(at + 13, 1) != EXPONENTS[size]:
            return None
        text = NUMBERS[number, size]
        if number == 0 and not flags & 8:
            text = text.replace("i", "u")
        return np.dtype((">" if flags & 1 else "<") + text)

    def text(self, name: str) -> str:
        """A text that the root group has as an attribute; empty where it has none [IV.A.2.m]."""
        for kind, at, _ in self.messages(self.root()):
            if kind != ATTRIBUTE:
                continue
            version = self.number(at, 1)
            sizes = [self.number(at + 2 + 2 * i, 2) for i in range(3)]  # of its name, its kind, its shape
            begin = at + (9 if version == 3 else 8)
            if self.part(begin, sizes[0]).rstrip(b"\0") != name.encode():
                continue
            kept = [-(-n // 8) * 8 if version == 1 else n for n in sizes]
            value, said = begin + sum(kept), begin + kept[0]
            number, size = self.number(said, 1) & 15, self.number(said + 4, 4)
            if number == 3:
                return self.part(value, size).rstrip(b"\0").decode()
            if number == 9:
                held = self.held(self.address(value + 4), self.number(value + 4 + self.wide, 4))
                return held[: self.number(value, 4)].decode()
        return ""

    def held(self, at: int, index: int) -> bytes:
        """An object of a heap that many share [III.E]."""
        if self.part(at, 4) != b"GCOL":
            raise ValueError("it has no heap where one should be")
        place, end = at + 8 + self.long, at + self.number(at + 8, self.long)
        while place < end:
            size = self.number(place + 8, self.long)
            if self.number(place, 2) == index:
                return self.part(place + 8 + self.long, size)
            place += 8 + self.long + -(-size // 8) * 8
        raise ValueError("it lacks a text that it names")


def read_hdf5(raw: bytes) -> Hdf5:
    """The arrays of a file by path, read-only views of its bytes; ValueError as `Hdf5`."""
    file = Hdf5(raw)
    file.walk(file.root())
    return file


__all__ = ["Hdf5", "read_hdf5"]
