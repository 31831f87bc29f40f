"""Files that are either old or new, never half-written; weights as safetensors.

A file is written beside its destination, flushed to the disk and renamed over it, so that neither a full disk nor a
power cut can leave a broken file under its name.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save as serialize

FORMAT = "1"  # of our metadata; a file that names another one is refused
MAX_HEADER = 100_000_000  # bytes; safetensors allows no more


class CheckpointError(ValueError):
    """A file cannot be read or written; the message says which, why, and what would be right."""


def write_atomic(path: str | os.PathLike, chunks: Iterable[bytes]) -> None:
    """Write `chunks` to `path` at once: afterwards it holds all of them, or what it held before.

    Raises CheckpointError where the folder is missing or cannot be written, or the disk is full.
    """
    path = Path(os.path.realpath(path))  # through a link to the file that it means
    if path.is_dir():
        raise CheckpointError(f"cannot write {path}: it is a folder; name a file")
    if not path.parent.is_dir():
        raise CheckpointError(f"cannot write {path}: there is no folder {path.parent}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            with open(temporary, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:  # an interrupt too must leave nothing behind
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(path.parent)
    except OSError as e:
        kept = "the old file is unchanged" if path.exists() else "nothing was written"
        raise CheckpointError(
            f"cannot write {path}: {e.strerror or e}; {kept}, make room or choose another folder"
        ) from None


def _sync_folder(folder: Path) -> None:
    """Bring a rename to the disk. File systems that cannot sync a folder order renames themselves."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: str | os.PathLike, value) -> None:
    """Write `value` as indented JSON, atomically; CheckpointError where JSON cannot hold it, such as NaN."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except (TypeError, ValueError) as e:
        raise CheckpointError(f"cannot write {path}: JSON cannot hold this record: {e}") from None
    write_atomic(path, [text.encode() + b"\n"])


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the arrays' names, dtypes, shapes and bytes, whatever their order."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return found.hexdigest()


def save(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping | None = None) -> None:
    """Save arrays as safetensors, atomically. Metadata values become strings; `gradledger_format` and
    `gradledger_sha256` are added.

    Raises CheckpointError as `write_atomic` does.
    """
    arrays = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    notes = {str(k): str(v) for k, v in (metadata or {}).items()} | {
        "gradledger_format": FORMAT,
        "gradledger_sha256": digest(arrays),
    }
    write_atomic(path, [serialize(arrays, metadata=notes)])


def load(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of a safetensors file, ours or another program's.

    Raises CheckpointError where the file is missing, unreadable, truncated or no safetensors, where its arrays are not
    those whose checksum it states, or where a later version of this library wrote it.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
    except OSError as e:
        raise CheckpointError(f"cannot read the weights {path}: {e.strerror or e}") from None
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            version = metadata.get("gradledger_format", FORMAT)
            if version != FORMAT:
                raise CheckpointError(
                    f"{path} has format {version}, but this version of gradledger reads format {FORMAT}: update it"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no mapping)
    except CheckpointError:
        raise
    except Exception as e:  # the reader's errors are of several kinds, one of them made by its Rust part
        reason = f"it ends after {size} bytes, too early" if _truncated(path, size) else f"{e}"
        raise CheckpointError(f"the weights {path} are no safetensors file or are damaged: {reason}") from None
    if "gradledger_sha256" in metadata and metadata["gradledger_sha256"] != digest(arrays):
        raise CheckpointError(f"the weights {path} are damaged: their checksum does not fit; copy them again")
    return arrays, metadata


def _truncated(path: Path, size: int) -> bool:
    """Is the file shorter than its own header says? It begins with the header's length, then its JSON, then data."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length < MAX_HEADER and size < 8 + length:
            return True
        try:
            entries = json.loads(file.read(length if length < MAX_HEADER else 0))
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
            raise CheckpointError(f"{what} has {name} {tuple(arrays[name].shape)}, which the model does not know")
