"""A file that `torch.save` wrote, as NumPy arrays; PyTorch is not needed, and nothing of the file is run.

Today it is a zip archive in one folder, of which three kinds of members are read:

    data.pkl   a pickle, what was saved; each tensor names its storage, and has an offset, a shape and strides in it
    data/KEY   the elements of a storage
    byteorder  of the elements, "little" where it is missing

An older one is pickles one behind the other: a number by which such a file is known, then a version, then what machine
it is from; then what was saved, as above; then the names of the storages; and behind them each storage, its number of
elements in 8 bytes and the elements.

The pickles are read by `storage.pickles`, which calls nothing; a tensor is made from what they say where all its
elements lie within its storage, which has as many at least.
"""

import io
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ..storage import files, pickles
from ..storage.checkpoint import CheckpointError
from ..storage.files import quoted
from ..storage.pickles import PickledCall

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
TENSOR, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
BRAIN = "<u2"  # of bfloat16, the upper halves of float32
DTYPES = {
    f"torch {name}Storage": dtype
    for name, dtype in {
        "Float": "<f4", "Double": "<f8", "Half": "<f2", "BFloat16": BRAIN, "Long": "<i8", "Int": "<i4", "Short": "<i2",
        "Char": "i1", "Byte": "u1", "Bool": "?",
    }.items()
}  # fmt: skip
BESIDE = (  # what checkpoints hold beside tensors: settings and figures, noted and left
    "torch Size", "torch device", "argparse Namespace", "numpy._core.multiarray scalar", "numpy dtype", pickles.ENCODE,
)  # fmt: skip
NAMES = (pickles.ORDERED, TENSOR, PARAMETER, *DTYPES, *BESIDE)
MOST_PICKLE = 2**26  # bytes; that of a state dict has some hundred for each tensor
WHERE = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights", "params")  # first ones first
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "backbone.")  # that wrappers put before every name
SHOWN = 5  # entries that are named of those that are left
SAVE = "save the state dict, torch.save(model.state_dict(), FILE), or export the model to ONNX (torch.onnx.export)"
WRONG = "are no state dict of torch.save, or are damaged"


@dataclass(frozen=True, eq=False)
class TorchArrays:
    """The tensors of a file by name, read-only; told: what was left out or taken off, a sentence each."""

    tensors: Mapping[str, np.ndarray]
    told: tuple[str, ...]


def read_torch(path: str | os.PathLike, name: str | None = None) -> TorchArrays:
    """The tensors of a file of torch.save: those of its state dict, or of the one in a checkpoint.

    name: how messages call the file, default the path. CheckpointError in one sentence where it is none, is damaged, or
    names anything that a state dict does not need.
    """
    name = str(path if name is None else name)
    what = f"the weights {name}"
    with files.opened(path, what, CheckpointError) as file, files.reading(what, CheckpointError, WRONG):
        try:
            return (_zipped if zipfile.is_zipfile(file) else _behind)(file, what)
        except pickles.RefusedName as e:
            would = f"would run {quoted(e.name)}, which is refused"
            whole = f"holds a whole model (torch.save(model)) and {would}" if e.first else would
            raise CheckpointError(f"{name} {whole}: in PyTorch, {SAVE}") from None


def read_state(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a file of torch.save by name, as `read_torch`."""
    return dict(read_torch(path).tensors)


def _zipped(file: BinaryIO, what: str) -> TorchArrays:
    """The tensors of an archive."""
    with zipfile.ZipFile(file) as archive:
        members = {m.filename: m for m in archive.infolist()}
        pickled = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
        if len(pickled) != 1:
            raise ValueError(f"it holds {len(pickled)} pickles named data.pkl, not one")
        folder = pickled[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in members:
            raise CheckpointError(f"{what} are a TorchScript program, which is never run: in PyTorch, {SAVE}")
        if members[pickled[0]].file_size > MOST_PICKLE:
            raise ValueError(f"its pickle would have more than {MOST_PICKLE:,} bytes")
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder")[:8] != b"little":
            raise ValueError("its numbers are big-endian")
        state = _state_dict(pickles.load(archive.read(pickled[0]), NAMES))
        kinds = dict(map(_stored, state.tensors.values()))
        need = sum(_wide(kind) * members[f"{folder}data/{key}"].file_size for key, kind in kinds.items())
        files.check_size(need, files.size_of(file), what, CheckpointError)
        held = {key: _numbers(archive.read(f"{folder}data/{key}"), kind) for key, kind in kinds.items()}
    return state.made(held)


def _behind(file: BinaryIO, what: str) -> TorchArrays:
    """The tensors of an older file."""
    size = files.size_of(file)
    files.check_size(size, size, what, CheckpointError)
    file.seek(0)
    raw = file.read(size)
    file = io.BytesIO(raw)
    if (first := pickles.load(file, NAMES)) != MAGIC:
        kind = type(first).__name__
        raise CheckpointError(f"{what} are a pickle (of a {kind}), but none of torch.save: in PyTorch, {SAVE}")
    if pickles.load(file) != VERSION:
        raise ValueError("its version is none that is known")
    if pickles.load(file)["little_endian"] is not True:
        raise ValueError("its numbers are big-endian")
    outside: list[PickledCall] = []
    state, order = _state_dict(pickles.load(file, NAMES, outside)), pickles.load(file)
    kinds, held = dict(map(_storage, outside)), {}
    for key in order:
        count = int.from_bytes(file.read(8), "little")
        held[key] = _numbers(raw, kinds[key], count, file.tell())
        file.seek(count * kinds[key].itemsize, os.SEEK_CUR)
    return state.made(held)


@dataclass(frozen=True, eq=False)
class StateDict:
    """The calls that would rebuild the tensors of a state dict, by name; told: as TorchArrays."""

    tensors: Mapping[str, PickledCall]
    told: tuple[str, ...]

    def made(self, held: Mapping[str, np.ndarray]) -> TorchArrays:
        """Its tensors, of these storages."""
        return TorchArrays({name: _tensor(call, held) for name, call in self.tensors.items()}, self.told)


def _state_dict(said) -> StateDict:
    """The state dict in what was saved: all of it, or the entry of a checkpoint that holds one."""
    if not isinstance(said, dict):
        raise ValueError("it holds no dictionary")
    own, told = _tensors(said), []
    inner = {key: tensors for key, value in said.items() if (tensors := _tensors(value))}
    where = next((key for key in WHERE if key in inner), max(inner, key=lambda key: len(inner[key]), default=None))
    tensors = inner.get(where, {})
    if len(own) >= len(tensors):
        tensors, left = own, [key for key in said if key not in own]
    else:
        left = [key for key in said if key != where]
        told.append(f"of the checkpoint {where!r} is read")
    if not tensors:
        raise ValueError("it holds no tensors by name")
    if left:
        shown = ", ".join(quoted(key) for key in left[:SHOWN])
        told.append(f"left out: {shown}" + (f" and {len(left) - SHOWN} more" if len(left) > SHOWN else ""))
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): call for name, call in tensors.items()}
            told.append(f"{prefix} is taken off every name")
    return StateDict(tensors, tuple(told))


def _tensors(said) -> dict[str, PickledCall]:
    """The entries of a dictionary that are tensors, or parameters, which hold one."""
    found = {}
    for name, value in said.items() if isinstance(said, dict) else ():
        if isinstance(value, PickledCall) and value.name == PARAMETER:
            value = value.arguments[0]
        if isinstance(name, str) and isinstance(value, PickledCall) and value.name == TENSOR:
            found[name] = value
    return found


def _stored(call: PickledCall) -> tuple[str, np.dtype]:
    """The name of a tensor's storage, and its dtype."""
    return _storage(call.arguments[0])


def _storage(persistent: PickledCall) -> tuple[str, np.dtype]:
    kind, storage, key, *_ = persistent.arguments
    if persistent.name != pickles.PERSISTENT or kind != "storage" or not isinstance(key, str):
        raise ValueError("it holds a tensor without a storage")
    return key, np.dtype(DTYPES[storage.text])


def _wide(kind: np.dtype) -> int:
    """How many times the bytes of a storage its numbers take."""
    return 3 if kind == BRAIN else 1


def _numbers(raw: bytes, kind: np.dtype, count: int = -1, begin: int = 0) -> np.ndarray:
    """The elements of a storage: bfloat16 as float32, others as they are."""
    found = np.frombuffer(raw, kind, count, begin)
    return (found.astype("<u4") << 16).view("<f4") if kind == BRAIN else found


def _tensor(call: PickledCall, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    """The array of a tensor, a view; ValueError where it does not lie within its storage."""
    _, offset, shape, strides, *_ = call.arguments
    if not all(type(n) is int and n >= 0 for n in (offset, *shape, *strides)):
        raise ValueError("it holds a tensor whose shape is none")
    storage = storages[_stored(call)[0]]
    if 0 in shape:
        return np.zeros(shape, storage.dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if math.prod(shape) > len(storage) or last >= len(storage):
        raise ValueError("it holds a tensor that is larger than its storage")
    steps = tuple(stride * storage.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


__all__ = ["TorchArrays", "read_state", "read_torch"]
