"""Files that are either old or new, never half-written; weights as safetensors.

A file is written beside its destination, flushed to the disk and renamed over it, so that neither a full disk nor a
power cut can leave a broken file under its name.
"""

import contextlib
import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors

from . import files, kinds

FORMAT = "2"  # of our metadata: the checksum covers them too; of format 1 it covers the arrays alone
FORMATS = ("1", FORMAT)  # that are read; a file that names another one is refused
OURS = ("gradledger_format", "gradledger_sha256")  # keys of every file of ours
DTYPES = {
    np.dtype(native).newbyteorder("<"): name for native, name in (
        ("f8", "F64"), ("f4", "F32"), ("f2", "F16"), ("i8", "I64"), ("i4", "I32"), ("i2", "I16"), ("i1", "I8"),
        ("u8", "U64"), ("u4", "U32"), ("u2", "U16"), ("u1", "U8"), ("?", "BOOL"),
    )
}  # fmt: skip
ALIGN = 8  # bytes; where the data of a file begin


class CheckpointError(files.InputError):
    """A file cannot be read or written; the message says which, why, and what would be right."""


def write_atomic(path: str | os.PathLike, chunks: Iterable[bytes | memoryview]) -> None:
    """Write `chunks` to `path` at once: afterwards it holds all of them, or what it held before.

    Raises CheckpointError where the folder is missing or cannot be written, or the disk is full.
    """
    path = Path(os.path.realpath(path))  # through a link to the file that it means
    if path.is_dir():
        raise CheckpointError(f"cannot write {path}: it is a folder; name a file")
    if not path.parent.is_dir():
        raise CheckpointError(f"cannot write {path}: there is no folder {path.parent}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    for left, writer in leftovers(path):
        if not _lives(writer):
            _remove(left)
    try:
        try:
            with open(temporary, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # an interrupt too must leave nothing behind
            _remove(temporary)
            raise
        sync_folder(path.parent)
    except OSError as e:
        kept = "the old file is unchanged" if path.exists() else "nothing was written"
        raise CheckpointError(
            f"cannot write {path}: {e.strerror or e}; {kept}, make room or choose another folder"
        ) from None


def leftovers(path: Path) -> Iterator[tuple[Path, int]]:
    """The half-written files beside `path` that its writers have not renamed, each with its writer's process id."""
    for found in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if (writer := found.name[len(path.name) + 2 : -4]).isdecimal():
            yield found, int(writer)


def _lives(pid: int) -> bool:
    """Is there a process of this id? Without the right to signal it, yes."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def sync_folder(folder: Path) -> None:
    """Bring a rename to the disk. File systems that cannot sync a folder order renames themselves."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write `value` as indented JSON, atomically; CheckpointError where JSON cannot hold it, such as NaN."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise CheckpointError(f"cannot write {path}: JSON cannot hold this record: {e}") from None
    write_atomic(path, [text.encode() + b"\n"])


def digest(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> str:
    """SHA-256 of the arrays' names, dtypes, shapes and bytes, and of the metadata, whatever their order."""
    found = hashlib.sha256()
    if metadata is not None:
        found.update(f"{json.dumps(dict(metadata), sort_keys=True)}\n".encode())
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def sha256(path: str | os.PathLike) -> str:
    """Digest of a file, as `sha256sum` prints it."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def serialized(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, a piece at a time; the same for the same content, in whatever order it comes.

    A file is the header's length in 8 bytes, the header (JSON, padded with spaces) and the arrays' bytes. The largest
    items come first, so that each array is aligned. CheckpointError for a dtype that the format has no name for.
    """
    arrays = _plain(arrays)
    names = sorted(arrays, key=lambda n: (-arrays[n].itemsize, n))
    header: dict[str, Any]
    header, start = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}, 0
    for name in names:
        a = arrays[name]
        if a.dtype not in DTYPES:
            raise CheckpointError(f"{name} holds {a.dtype}, which a safetensors file cannot: convert it to numbers")
        header[name] = {"dtype": DTYPES[a.dtype], "shape": a.shape, "data_offsets": (start, start := start + a.nbytes)}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGN)
    yield len(text).to_bytes(8, "little") + text
    for name in names:
        yield arrays[name].reshape(-1).view(np.uint8).data


def _plain(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays as a file holds them: contiguous and little-endian."""
    found = {n: np.ascontiguousarray(a, a.dtype.newbyteorder("<")) for n, a in arrays.items()}
    return {n: a.reshape(arrays[n].shape) for n, a in found.items()}  # which had made arrays of no axis 1-d


def save(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping | None = None) -> None:
    """Save arrays as safetensors, atomically. Metadata values become strings; `gradledger_format` and
    `gradledger_sha256`, which covers them and the arrays, are added. The same content gives the same bytes.

    Raises CheckpointError as `write_atomic` does.
    """
    arrays = _plain(arrays)
    notes = {str(k): str(v) for k, v in (metadata or {}).items() if k not in OURS} | {"gradledger_format": FORMAT}
    write_atomic(path, serialized(arrays, notes | {"gradledger_sha256": digest(arrays, notes)}))


def load(path: str | os.PathLike, ours: bool = False) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a safetensors file, ours or another program's, which states no checksum.

    ours: only a file of ours will do. Raises CheckpointError where the file is missing, unreadable, truncated or no
    safetensors, where its content is not that whose checksum it states, where a file of ours states none, or where a
    later version of this library wrote it.
    """
    what = f"the weights {path}"
    with files.opened(path, what, CheckpointError) as opened:
        if told := kinds.foreign(opened):
            raise CheckpointError(f"{path} {told}")
        size = files.size_of(opened)
        files.check_size(size, size, what, CheckpointError)
        with files.reading(what, CheckpointError, "are no safetensors file or are damaged"):
            if _truncated(opened, size):
                raise ValueError(f"it ends after {size} bytes, too early")
            with safetensors.safe_open(path, framework="numpy") as file:
                metadata = dict(file.metadata() or {})
                version = metadata.get("gradledger_format", FORMAT)
                if version not in FORMATS:
                    raise CheckpointError(
                        f"{path} has format {files.quoted(version)}, but this version of gradledger reads format "
                        f"{FORMAT}: update it"
                    )
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    if ours or any(key in metadata for key in OURS):  # one damaged letter must not turn the check off
        for key in OURS:
            if key not in metadata:
                raise CheckpointError(f"the weights {path} are damaged: their metadata lack {key}; copy them again")
        notes = {k: v for k, v in metadata.items() if k != "gradledger_sha256"}
        if metadata["gradledger_sha256"] != digest(arrays, notes if version != "1" else None):
            raise CheckpointError(f"the weights {path} are damaged: their checksum does not fit; copy them again")
    return arrays, metadata


def _truncated(file: BinaryIO, size: int) -> bool:
    """Is the file shorter than its own header says? It begins with the header's length, then its JSON, then data."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length <= files.MOST_JSON and size < 8 + length:
        return True
    if length > files.MOST_JSON:
        raise ValueError(f"its header would have {length:,} bytes, and at most {files.MOST_JSON:,} are read")
    try:
        entries = json.loads(file.read(length))
        return size < 8 + length + max(e["data_offsets"][1] for n, e in entries.items() if n != "__metadata__")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return False  # it is no header


def check_arrays(arrays: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    """CheckpointError unless `arrays` has exactly the names and shapes of `shapes`; it names the first that differs.

    what: how the message calls the arrays, such as a path.
    """
    for name, shape in shapes.items():
        if name not in arrays:
            missing = sum(n not in arrays for n in shapes)
            raise CheckpointError(f"{what} lacks {name} {tuple(shape)} ({missing} of {len(shapes)} arrays are missing)")
        if tuple(arrays[name].shape) != tuple(shape):
            raise CheckpointError(
                f"{name} of {what} has shape {tuple(arrays[name].shape)}, but the model needs {tuple(shape)}"
            )
    for name in arrays:
        if name not in shapes:
            raise CheckpointError(
                f"{what} has {files.quoted(name)} {tuple(arrays[name].shape)}, which the model does not know"
            )


def check_floats(arrays: Mapping[str, np.ndarray], what: str, whole: Mapping[str, np.dtype] | None = None) -> None:
    """CheckpointError unless each array holds floats that are finite as float32; it names the first that does not.

    whole: those that hold integers instead, with their dtypes.
    """
    most = np.finfo(np.float32).max
    for name, array in arrays.items():
        if whole and name in whole:
            if array.dtype != whole[name]:
                raise CheckpointError(f"{name} of {what} holds {array.dtype}, but {whole[name]} is needed")
            continue
        if array.dtype.kind != "f":
            raise CheckpointError(f"{name} of {what} holds {array.dtype}, but floats are needed")
        if array.size and not -most <= array.min() <= array.max() <= most:
            raise CheckpointError(f"{name} of {what} holds NaN or infinite values: such weights cannot be adapted")
