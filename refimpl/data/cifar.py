"""CIFAR-10 and CIFAR-100 as they come unpacked: binary or pickled batches of 32×32 RGB images, channels first."""

from pathlib import Path

import numpy as np

from ..storage import files
from ..storage.pickles import arrays_of
from .arrays import from_arrays
from .dataset import DataError, Dataset

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PIXELS = 3 * 32 * 32


def _binary(path: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3072) and labels of a binary batch; of two label bytes (CIFAR-100) the last counts, the fine label."""
    raw = np.frombuffer(files.read_bytes(path, str(path), DataError), np.uint8)
    row = PIXELS + label_bytes
    if not raw.size or raw.size % row:
        raise DataError(f"{path} has {raw.size} bytes, which is no multiple of {row}: it is no whole CIFAR batch")
    rows = raw.reshape(-1, row)
    return rows[:, label_bytes:], rows[:, label_bytes - 1]


def _pickled(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3072) and labels of a pickled batch."""
    raw = files.read_bytes(path, str(path), DataError)
    with files.reading(str(path), DataError, "is no CIFAR batch, or it is damaged"):
        batch = arrays_of(raw)
        labels = batch.get("fine_labels", batch.get("labels"))
        if "data" not in batch or labels is None:
            raise ValueError("it has no data and labels that are arrays or lists of whole numbers")
        return batch["data"].reshape(-1, PIXELS), labels


def cifar_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Training and test batches of a folder, as files; empty lists where it holds none."""
    names = [("data_batch_*.bin", "test_batch.bin"), ("data_batch_[1-9]", "test_batch"), ("train.bin", "test.bin")]
    for train, test in [*names, ("train", "test")]:
        batches = [[p for p in sorted(folder.glob(pattern)) if p.is_file()] for pattern in (train, test)]
        if all(batches):
            return batches[0], batches[1]
    return [], []


def cifar(folder: Path) -> Dataset:
    """CIFAR-10 or CIFAR-100 (fine labels) of a folder of batches: (N, 32, 32, 3), 0 to 1. Raises DataError."""
    parts = []
    for paths in cifar_files(folder):
        ten = "batch" in paths[0].name
        read = [_binary(p, 1 if ten else 2) if p.suffix == ".bin" else _pickled(p) for p in paths]
        x = np.concatenate([images for images, _ in read]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        parts += [x, np.concatenate([labels for _, labels in read])]
    return from_arrays(folder.resolve().name, *parts, classes=NAMES if ten else None, where=str(folder))
