"""Samples that are not held as float32 maps but made of something smaller, a batch at a time."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import DTypeLike

from .pixels import Level


class OnDemand(ABC):
    """Samples (N, H, W, C): `x[indices]` and slices are maps, with the same bits alone and in any batch."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype:
        """Of the maps."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C) of the samples."""

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def __getitem__(self, chosen) -> np.ndarray:
        """Maps (n, H, W, C) of a slice or an array of n indices, as evaluation sees them."""

    def draw(self, chosen: np.ndarray, seed: int, step: int) -> np.ndarray:
        """Maps (n, H, W, C) for a training step; here as they are."""
        return self[chosen]

    @abstractmethod
    def take(self, index: np.ndarray) -> "OnDemand":
        """Some of the samples."""

    def still(self) -> "np.ndarray | OnDemand":
        """The same samples for evaluation, of which nothing is drawn."""
        return self

    @abstractmethod
    def with_pixels(self, black: Level, white: Level, dtype: DTypeLike = np.float32) -> "OnDemand":
        """The same samples with other values for black and white."""

    @abstractmethod
    def made_of(self) -> tuple[np.ndarray, str]:
        """What decides the samples' bits: an array, and the settings in words."""

    @abstractmethod
    def ends(self) -> tuple[float, float]:
        """The least and the largest value of the samples, or bounds of them."""


def taken(x: np.ndarray | OnDemand, index: np.ndarray) -> np.ndarray | OnDemand:
    """Some of the samples: a copy of an array's, the rest on demand as before."""
    return x.take(index) if isinstance(x, OnDemand) else x[index]


def ends(x: np.ndarray | OnDemand) -> tuple[float, float]:
    """The least and the largest value, or bounds of them."""
    return x.ends() if isinstance(x, OnDemand) else (float(x.min()), float(x.max()))


def still(x: np.ndarray | OnDemand) -> np.ndarray | OnDemand:
    """The samples for evaluation, of which nothing is drawn."""
    return x.still() if isinstance(x, OnDemand) else x
