"""A file that an older `torch.save` wrote, as NumPy arrays; PyTorch is not needed, and nothing of the file is run.

    pickle    a number by which such a file is known, then a version, then what machine it is from
    pickle    the state dict; each tensor names its storage, and has an offset, a shape and strides in it
    pickle    the names of the storages, in the order in which they follow
    storages  each its number of elements, 8 bytes, and the elements, little-endian

The pickles are read by `storage.pickles`, which calls nothing; a tensor is made from what they say where all its
elements lie within its storage, which has as many at least.
"""

import io
import math
import os
from collections.abc import Mapping

import numpy as np

from ..storage import files, pickles
from ..storage.checkpoint import CheckpointError
from ..storage.pickles import PickledCall

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
TENSOR = "torch._utils _rebuild_tensor_v2"
DTYPES = {
    f"torch {name}Storage": dtype
    for name, dtype in {
        "Float": "<f4", "Double": "<f8", "Half": "<f2", "Long": "<i8", "Int": "<i4", "Short": "<i2", "Char": "i1",
        "Byte": "u1",
    }.items()
}  # fmt: skip
NAMES = (pickles.ORDERED, TENSOR, *DTYPES)


def read_state(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The tensors of a state dict by name, as read-only views of one copy of the file; others of its entries are left.

    CheckpointError where the file is none, is damaged or names anything that a state dict does not need.
    """
    what = f"the weights {path}"
    raw = files.read_bytes(path, what, CheckpointError)
    with files.reading(what, CheckpointError, "are no state dict of an older torch.save, or are damaged"):
        return _state(raw)


def _state(raw: bytes) -> dict[str, np.ndarray]:
    file = io.BytesIO(raw)
    if (pickles.load(file), pickles.load(file)) != (MAGIC, VERSION):
        raise ValueError("its first numbers are not those of such a file")
    if pickles.load(file)["little_endian"] is not True:
        raise ValueError("its numbers are big-endian")
    said, order = pickles.load(file, NAMES), pickles.load(file)
    if not isinstance(said, dict):
        raise ValueError("it holds no dictionary")
    tensors = {name: call for name, call in said.items() if isinstance(call, PickledCall) and call.name == TENSOR}
    kinds = dict(_stored(call) for call in tensors.values())
    storages = {}
    for key in order:
        count = int.from_bytes(file.read(8), "little")
        storages[key] = np.frombuffer(raw, kinds[key], count, file.tell())
        file.seek(storages[key].nbytes, os.SEEK_CUR)
    return {name: _tensor(call, storages) for name, call in tensors.items()}


def _stored(call: PickledCall) -> tuple[str, np.dtype]:
    """The name of a tensor's storage, and its dtype."""
    persistent = call.arguments[0]
    kind, storage, key, *_ = persistent.arguments
    if persistent.name != pickles.PERSISTENT or kind != "storage":
        raise ValueError("it holds a tensor without a storage")
    return key, np.dtype(DTYPES[storage.text])


def _tensor(call: PickledCall, storages: Mapping[str, np.ndarray]) -> np.ndarray:
    """The array of a tensor, a view; ValueError where it does not lie within its storage."""
    _, offset, shape, strides, *_ = call.arguments
    if not all(type(n) is int and n >= 0 for n in (offset, *shape, *strides)):
        raise ValueError("it holds a tensor whose shape is none")
    storage = storages[_stored(call)[0]]
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if 0 in shape or math.prod(shape) > len(storage) or last >= len(storage):
        raise ValueError("it holds a tensor that is larger than its storage")
    steps = tuple(stride * storage.itemsize for stride in strides)
    return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)


__all__ = ["read_state"]
