"""IDX files, plain or gzipped: the format of MNIST and its relatives."""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from .arrays import from_arrays, reason
from .dataset import DataError, Dataset

DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: Path) -> np.ndarray:
    """Array of an IDX file: two zero bytes, a dtype code, the number of axes, their big-endian sizes, the values."""
    try:
        with open(path, "rb") as file:
            raw = file.read()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path} cannot be read: {reason(e)}") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in DTYPES or len(raw) < 4 + 4 * raw[3]:
        raise DataError(f"{path} is no IDX file: it does not begin with an IDX header")
    dtype = np.dtype(DTYPES[raw[2]])
    shape = tuple(int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3]))
    begin, need = 4 + 4 * raw[3], math.prod(shape) * dtype.itemsize
    if len(raw) - begin != need:
        raise DataError(f"{path} has {len(raw) - begin} bytes of data, but its header {shape} says {need}")
    array = np.frombuffer(raw, dtype, offset=begin).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _idx_part(folder: Path, prefix: str, kind: str) -> Path | None:
    """File of a folder such as `train-images-idx3-ubyte.gz` or `train-images.idx3-ubyte`."""
    return next((p for p in sorted(folder.glob(f"{prefix}-{kind}*")) if "idx" in p.name and p.is_file()), None)


def is_idx(folder: Path) -> bool:
    """Does the folder hold IDX training images?"""
    return _idx_part(folder, "train", "images") is not None


def idx(folder: Path, seed: int = 0) -> Dataset:
    """Data set of a folder with `train-images…`, `train-labels…` and, optionally, `t10k-images…`, `t10k-labels…`."""
    arrays = []
    for prefix in ("train", "t10k"):
        paths = [_idx_part(folder, prefix, kind) for kind in ("images", "labels")]
        if prefix == "t10k" and paths == [None, None]:
            arrays += [None, None]
            continue
        for path, kind in zip(paths, ("images-idx3-ubyte", "labels-idx1-ubyte"), strict=True):
            if path is None:
                raise DataError(f"{folder} lacks the file {prefix}-{kind} or {prefix}-{kind}.gz")
            arrays.append(read_idx(path))
    return from_arrays(folder.resolve().name, *arrays, seed=seed, where=str(folder))
