"""Samples of an array that stays on the disk: only those of a batch are in memory."""

import hashlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import DTypeLike

from .on_demand import OnDemand
from .pixels import Level, reached
from .preprocessing import Preprocessing, to_maps


@dataclass(frozen=True, eq=False)
class Mapped(OnDemand):
    """Samples (N, H, W, C) of a mapped array (M, …): those of `index` (N,), made by `made` when they are asked for.

    bounds: the least and the largest value in the array.
    """

    array: np.ndarray
    index: np.ndarray
    made: Preprocessing
    bounds: tuple[float, float]

    @property
    def dtype(self) -> np.dtype:
        """Of the maps."""
        return np.dtype(self.made.dtype)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C) of the samples."""
        _, h, w, c = to_maps(self.array[:0], self.made.axes).shape
        return (len(self.index), h, w, self.made.channels or c)

    def __getitem__(self, chosen) -> np.ndarray:
        """Maps (n, H, W, C) of a slice or an array of n indices."""
        return self.made(self.array[self.index[chosen]])

    def take(self, index: np.ndarray) -> "Mapped":
        """Some of the samples; nothing is read."""
        return replace(self, index=self.index[index])

    def with_pixels(self, black: Level, white: Level, dtype: DTypeLike = np.float32) -> "Mapped":
        """The same samples with other values for black and white."""
        return replace(self, made=self.made.with_pixels(black, white, np.dtype(dtype)))

    def made_of(self) -> tuple[np.ndarray, str]:
        """The array, and which of its samples are taken, and how."""
        return self.array, f"{hashlib.sha256(self.index.tobytes()).hexdigest()} {self.made.to_json()}"

    def ends(self) -> tuple[float, float]:
        """Bounds of what the least and the largest value become."""
        ends = np.array(self.bounds, np.float64) / self.made.divisor
        if not self.made.mean:
            return reached(tuple(ends), self.made.black, self.made.white)
        ends = np.subtract.outer(ends, self.made.mean) / self.made.std
        return float(ends.min()), float(ends.max())
