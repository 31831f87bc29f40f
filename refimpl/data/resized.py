"""Images that stay uint8 in memory and become maps of another size one batch at a time, float32 or whole numbers.

Resizing is bilinear with half-pixel centres (PyTorch's `align_corners=False` without antialiasing): row i of P lies at
(i + ½)·H/P − ½ between two rows of H, and is clamped to the first and the last. A sample has the same bits alone,
in any batch and on any machine.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import DTypeLike

from ..kernels import random
from .on_demand import OnDemand
from .pixels import Level, placed, reached, steps
from .resize import resize


@cache
def between(before: int, after: int, copies: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Items (2, after·copies) int64 of an axis of `before` items between which each new one lies, and its share
    (after·copies,) float32 of the way from the first to the second. copies: values that each item has.
    """
    place = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    low = place.astype(np.int64)
    items = np.stack([low, np.minimum(low + 1, before - 1)])
    wide = items[:, :, None] * copies + np.arange(copies)
    return wide.reshape(2, -1), np.repeat((place - low).astype(np.float32), copies)


@dataclass(frozen=True, eq=False)
class Resized(OnDemand):
    """Samples (N, *size, C) made on demand of images (N, H, W, C) uint8: `x[indices]` are maps, as are slices.

    size: rows and columns to which every image is stretched, default its own; black, white: what pixels of 0 and of
    255 become, one number or one for each channel (`pixels`); dtype: of the samples, of an integer one they are
    rounded, a half to the even one. `draw` is for training: with crop or flip it shifts and mirrors the images at
    random.
    crop: each image is moved by up to so many of its own pixels along each axis, its border repeated where nothing is
    left (a crop from the padded image); flip: every second one is mirrored left to right (arXiv 1512.03385 section
    4.2, which pads with zeros).
    """

    images: np.ndarray
    size: tuple[int, int] | None = None
    black: Level = 0.0
    white: Level = 1.0
    crop: int = 0
    flip: bool = False
    dtype: np.dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C) of the samples."""
        n, h, w, c = self.images.shape
        return (n, *(self.size or (h, w)), c)

    def __getitem__(self, chosen) -> np.ndarray:
        """Maps (n, H, W, C) of a slice or an array of n indices, as they are."""
        return self._maps(self.images[chosen])

    def draw(self, chosen: np.ndarray, seed: int, step: int) -> np.ndarray:
        """Maps (n, H, W, C) for a training step, moved and mirrored as (seed, step) and the place say."""
        images = self.images[chosen]
        if self.crop or self.flip:
            n, h, w, _ = images.shape
            first, second = random.words_array(seed, random.AUGMENT, step, n)
            rows, columns = (_moved(bits, self.crop, size) for bits, size in ((first >> 1, h), (second, w)))
            mirrored = (first & 1)[:, None] * self.flip
            columns = np.where(mirrored, columns[:, ::-1], columns)
            images = images[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
        return self._maps(images)

    def with_pixels(self, black: Level, white: Level, dtype: DTypeLike = np.float32) -> "Resized":
        """The same images with other values for black and white."""
        return replace(self, black=black, white=white, dtype=np.dtype(dtype))

    def take(self, index: np.ndarray) -> "Resized":
        """Some of the images, a copy."""
        return replace(self, images=self.images[index])

    def still(self) -> "Resized":
        """The same images, neither moved nor mirrored."""
        return replace(self, crop=0, flip=False)

    def made_of(self) -> tuple[np.ndarray, str]:
        """The images, and how they are stretched, scaled and drawn."""
        return self.images, f"{self.size} {self.black} {self.white} {self.crop} {self.flip}"

    def ends(self) -> tuple[float, float]:
        """Bounds: the values of the darkest and of the brightest pixel, which stretching does not leave."""
        return reached((int(self.images.min()), int(self.images.max())), self.black, self.white, 255)

    def _maps(self, images: np.ndarray) -> np.ndarray:
        return as_dtype(self._floats(images), self.dtype)

    def _floats(self, images: np.ndarray) -> np.ndarray:
        n, h, w, c = images.shape
        _, p, q, _ = self.shape
        if (p, q) == (h, w):
            return placed(images.astype(np.float32), self.black, self.white, 255)
        scales, offsets = (
            np.tile(np.broadcast_to(v.astype(np.float32), c), q) for v in steps(self.black, self.white, 255)
        )
        out, wide = np.empty((n, p, q * c), np.float32), np.empty((n, h, q * c), np.float32)
        images = np.ascontiguousarray(images).reshape(n, h, w * c)
        resize(out, wide, images, *between(h, p), *between(w, q, c), scales, offsets)
        return out.reshape(n, p, q, c)


def as_dtype(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats x in a dtype: those of an integer one rounded in place, a half to the even one, which it must hold."""
    return np.rint(x, out=x).astype(dtype) if dtype.kind in "iu" else x.astype(dtype, copy=False)


def _moved(bits: np.ndarray, crop: int, size: int) -> np.ndarray:
    """(n, size) int64: for each of n images the rows that it shows, moved by −crop to crop and held at the border."""
    return np.clip(np.arange(size) + (bits % (2 * crop + 1) - crop)[:, None], 0, size - 1)
