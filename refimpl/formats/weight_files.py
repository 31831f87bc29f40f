"""Weights of other programs: which net they are, by the names and shapes of their arrays (`layouts`).

Files of PyTorch and of Keras are known by their first bytes, whatever their suffix. Arrays of safetensors and of `.npz`
are read elsewhere, and told apart here. Nothing that a file says is run.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..storage import files, kinds
from ..storage.checkpoint import CheckpointError
from .keras_file import read_keras
from .layouts import Fit, fitted
from .torch_file import read_torch

SUFFIXES = {".pt": kinds.TORCH, ".pth": kinds.TORCH, ".h5": kinds.HDF5, ".keras": kinds.KERAS_ARCHIVE}
ONE = 1  # output of a classifier, of which no softmax tells anything


@dataclass(frozen=True, eq=False)
class ForeignWeights:
    """Weights of another program. fit: the net; size: (H, W) that the file says, None where it does not.

    told: what was left out or is assumed, a sentence each.
    """

    fit: Fit
    size: tuple[int, int] | None = None
    told: tuple[str, ...] = ()


def of_arrays(
    arrays: Mapping[str, np.ndarray], what: str, size: tuple[int, int] | None = None, told: tuple[str, ...] = ()
) -> ForeignWeights:  # fmt: skip
    """Arrays as a net of ours; `layouts.Misfit`, which says what differs, where they are none. what: the file."""
    fit = fitted(arrays, what)
    if fit.layout.told:
        told += (fit.layout.told,)
    if fit.classes == ONE:
        head = tuple(fit.names[p] for p in fit.graph.nodes[-1].params.values())
        fit = replace(fit, missing=head, headless=True)
        told += ("its classifier has one output, which tells no classes apart, and is left out",)
    elif fit.headless:
        told += ("it has no classifier: a new one starts from the seed",)
    return ForeignWeights(fit, size, told)


def read_foreign(path: str | os.PathLike, what: str) -> ForeignWeights | None:
    """A file of PyTorch or of Keras as a net of ours; None for any other file.

    It is known by its first bytes, and by its suffix where these tell nothing. what: how messages call it.
    CheckpointError where it cannot be used, `layouts.Misfit` where it is no net of ours.
    """
    with files.opened(path, f"the weights {what}", CheckpointError) as file:
        kind = kinds.kind_of(file)
    if kind is None:
        kind = SUFFIXES.get(os.path.splitext(what)[1])
    if kind in (kinds.TORCH, kinds.PICKLE):
        saved = read_torch(path, what)
        return of_arrays(saved.tensors, what, told=saved.told)
    if kind in (kinds.KERAS_ARCHIVE, kinds.HDF5):
        kept = read_keras(path, what)
        return of_arrays(kept.arrays, what, kept.size, kept.told)
    return None


__all__ = ["SUFFIXES", "ForeignWeights", "of_arrays", "read_foreign"]
