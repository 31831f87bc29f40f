"""Files of the user: read within a stated limit, and whatever is wrong with them told in one sentence.

A file may be damaged or made to harm. Every reader therefore opens it by `opened` (regular files only: nothing waits
for a pipe), asks `check_size` before anything is expanded, runs its parser inside `reading`, which turns whatever the
parser raises into one sentence, and shows what the file holds by `quoted`. Nothing that a file says is ever run.
"""

import contextlib
import json
import math
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from . import kinds

LIMIT = "GRADLEDGER_MAX_BYTES"  # the environment's word for the most bytes that a file may expand to
EXPANSION = 100  # times its own size that a file may expand to: images and recordings stay below 30
SMALL, LARGE = 2**26, 2**32  # bytes that any file may expand to, and that none may unless it is as large itself
MEMORY = 0.75  # share of the memory that is free which a file may take
MOST_JSON = 2**24  # bytes; the parser takes some twenty times as many
SHOWN = 60  # characters of a foreign text
KINDS = "biufcSUmM"  # of dtypes that are read: plain numbers, times and texts


class InputError(ValueError):
    """What was given cannot be used; the message is one line, without the control characters that it may quote."""

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    """`text` with every character that could steer a terminal written out as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def quoted(text, most: int = SHOWN) -> str:
    """A foreign text for a message: printable, and its middle left out where it is longer than `most`."""
    text = str(text)
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[-(most // 3) :]}"
    return printable(text)


def reason(error: BaseException) -> str:
    """First line of what a reader said, shortened; the class name where it said nothing."""
    if isinstance(error, KeyError) and error.args:
        return f"it lacks {quoted(error.args[0])!r}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "there is not enough memory for what it says it holds"
    text = str(error).strip().split("\n")[0].split(" <_io.")[0]  # what Pillow says of a file that has no name
    return quoted(text, 3 * SHOWN) or type(error).__name__


@contextlib.contextmanager
def reading(what: str, error: type[InputError], wrong: str = "cannot be read") -> Iterator[None]:
    """Whatever is raised inside becomes `error`: `what` (the file, in words), `wrong` and the reason.

    An InputError passes as it is; what the system says of a file, such as "Permission denied", is said as that.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as e:  # parsers of damaged files raise almost anything
        if isinstance(e, OSError) and e.strerror:
            raise error(f"cannot read {what}: {e.strerror}") from None
        raise error(f"{what} {wrong}: {reason(e)}") from None


@contextlib.contextmanager
def opened(path: str | os.PathLike, what: str, error: type[InputError]) -> Iterator[BinaryIO]:
    """A regular file, open for reading; `error` for a pipe, a device, a folder, or one that cannot be read."""
    with reading(what, error):
        file = open(path, "rb", opener=_at_once)
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise error(f"cannot read {what}: it is no regular file but a pipe or a device")
        yield file


def _at_once(path: str, flags: int) -> int:
    """Open without waiting, as a pipe that nobody writes to would have it."""
    return os.open(path, flags | os.O_NONBLOCK)


def free_memory() -> int:
    """Bytes of memory that are free, as Linux tells them; elsewhere half of what is there."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text()
        return 1024 * int(text.split("MemAvailable:")[1].split()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def most_bytes(file_bytes: int) -> int:
    """Bytes that a file of `file_bytes` may expand to: what `GRADLEDGER_MAX_BYTES` says, else by its size and memory.

    Raises InputError where the variable is no number of bytes.
    """
    if given := os.environ.get(LIMIT):
        if not (given.isascii() and given.isdigit() and len(given) < 19):
            raise InputError(f"{LIMIT} must be a number of bytes, got {quoted(given)!r}")
        return int(given)
    return min(int(MEMORY * free_memory()), max(SMALL, file_bytes, min(LARGE, EXPANSION * file_bytes)))


def check_size(need: int, file_bytes: int, what: str, error: type[InputError]) -> None:
    """`error` where the content of a file, `need` bytes, is more than `most_bytes` allows."""
    most = most_bytes(file_bytes)
    if need > most:
        raise error(
            f"{what} would take {need:,} bytes of memory, but at most {most:,} are read from a file of "
            f"{file_bytes:,}: set {LIMIT} to a larger number if you trust it"
        )


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def read_bytes(path: str | os.PathLike, what: str, error: type[InputError], most: int | None = None) -> bytes:
    """All of a regular file; `error` where it has more than `most` bytes, default what memory allows."""
    with opened(path, what, error) as file, reading(what, error):
        size = size_of(file)
        if most is not None and size > most:
            raise error(f"{what} has {size:,} bytes, and at most {most:,} are read of such a file")
        check_size(size, size, what, error)
        return file.read(size)


def parsed(text: str, what: str, error: type[InputError]):
    """The value of a JSON text, its own texts printable; `error` where it is none. what: the text, in words."""
    with reading(what, error, "is no JSON"):
        return _printable(json.loads(text))


def read_json(path: str | os.PathLike, what: str, error: type[InputError], hint: str):
    """The value of a JSON file, its texts printable. hint: what would be right, for the message."""
    raw = read_bytes(path, what, error, MOST_JSON)
    with reading(what, error):
        try:
            return _printable(json.loads(raw))
        except ValueError as e:
            raise error(f"{what} is not JSON ({reason(e)}): {hint}") from None


def _printable(value):
    """A JSON value whose texts cannot steer a terminal."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_printable(v) for v in value]
    if isinstance(value, dict):
        return {printable(k): _printable(v) for k, v in value.items()}
    return value


def plain_dtype(dtype: np.dtype, what: str, error: type[InputError]) -> None:
    """`error` unless a dtype is one of plain numbers or texts: objects would be pointers of the file's choice."""
    if dtype.hasobject:
        raise error(
            f"{what} holds Python objects, which are never loaded: labels must be numbers or strings, other arrays too"
        )
    if dtype.kind not in KINDS or not dtype.itemsize or dtype.shape:
        raise error(f"{what} holds {quoted(dtype)}, but it must be an array of plain numbers or texts")


class Archive:
    """The arrays of a `.npz`, open: names, and each array on demand. What is wrong is `error`.

    what: how messages call the file.
    """

    def __init__(self, file: BinaryIO, what: str, error: type[InputError]):
        self.what, self.error, self.file_bytes = what, error, size_of(file)
        self.zip = zipfile.ZipFile(file)
        self.members = {m.filename.removesuffix(".npy"): m for m in self.zip.infolist()}

    def read(self, names: list[str]) -> dict[str, np.ndarray]:
        """Those arrays, after the bytes that they state were allowed together."""
        check_size(sum(self.members[n].file_size for n in names), self.file_bytes, self.what, self.error)
        return {name: self._array(name) for name in names}

    def _array(self, name: str) -> np.ndarray:
        member, what = self.members[name], f"{quoted(name)} of {self.what}"
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self.error(f"{what} is compressed as numpy does not: write it by numpy.savez_compressed")
        with self.zip.open(member) as stream:
            shape, dtype = _header(stream)
            plain_dtype(dtype, what, self.error)
            need, has = math.prod(shape) * dtype.itemsize, member.file_size - stream.tell()
            if min(shape, default=0) < 0 or need != has:
                raise self.error(f"{what} has {has} bytes of data, but its header {quoted(shape)} says {need}")
        with self.zip.open(member) as stream:  # its end is compared with the checksum
            return np.lib.format.read_array(stream, allow_pickle=False)


def _header(stream) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype that begin an array in a file."""
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"it has version {version} of the format, and (1, 0) and (2, 0) are known")
    shape, _, dtype = read[version](stream)
    return shape, dtype


@contextlib.contextmanager
def archive(path: str | os.PathLike, what: str, error: type[InputError], verb: str = "is") -> Iterator[Archive]:
    """An `Archive` of a file; `error` where it is none or is damaged. verb: what `what` takes, "is" or "are"."""
    with opened(path, what, error) as file:
        if told := kinds.foreign(file, but=kinds.NPZ):
            raise error(f"{path} {told}")
        if not zipfile.is_zipfile(file):
            raise error(f"{what} {verb} no .npz file, or it is truncated; numpy.savez writes one")
        with reading(what, error, f"{verb} damaged or no arrays of numbers or texts"):
            yield Archive(file, what, error)
