"""IDX files, plain or gzipped: the format of MNIST and its relatives."""

import gzip
import math
from pathlib import Path

import numpy as np

from ..storage import files
from .arrays import from_arrays
from .dataset import DataError, Dataset

DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: Path) -> np.ndarray:
    """Array of an IDX file: two zero bytes, a dtype code, the number of axes, their big-endian sizes, the values."""
    with files.opened(path, str(path), DataError) as file, files.reading(str(path), DataError):
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        stream = gzip.GzipFile(fileobj=file) if zipped else file
        begin = stream.read(4)
        axes = begin[3] if len(begin) == 4 else 0
        sizes = stream.read(4 * axes)
        if begin[:2] != b"\0\0" or len(begin) < 4 or begin[2] not in DTYPES or len(sizes) < 4 * axes:
            raise DataError(f"{path} is no IDX file: it does not begin with an IDX header")
        dtype = np.dtype(DTYPES[begin[2]])
        shape = tuple(int.from_bytes(sizes[4 * i : 4 * i + 4], "big") for i in range(axes))
        need = math.prod(shape) * dtype.itemsize
        files.check_size(need, files.size_of(file), str(path), DataError)
        raw = stream.read(need + 1)
        if len(raw) != need:
            has = f"{len(raw)} bytes" if len(raw) < need else "more bytes"
            raise DataError(f"{path} has {has} of data, but its header {shape} says {need}")
        return np.frombuffer(raw, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


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
