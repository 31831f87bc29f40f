"""Training samples that differ a little each time they are seen, so that a net learns what stays the same.

What is drawn is a function of (seed, step, place in the batch), so a resumed run draws the same bits. Pictures are
mirrored, moved, cropped, turned in one bilinear sampling whose border is repeated, and recoloured; measurements are
moved in time, scaled, and jittered. Evaluation sees the samples as they are.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import DTypeLike

from ..kernels import random
from ..storage.files import quoted
from .dataset import DataError, Dataset
from .on_demand import OnDemand, ends, still, taken
from .pixels import Level
from .preprocessing import with_ends
from .resized import as_dtype

# name → default, most, what it is of; in the order in which they are drawn
IMAGES = {
    "flip": (0.5, 1.0, "the share of samples that is mirrored left to right"),
    "shift": (0.1, 0.5, "the largest move along each axis, as a share of it"),
    "crop": (0.2, 0.9, "the most that is cut off of each axis, as a share of it"),
    "rotate": (10.0, 180.0, "the largest turn, in degrees"),
    "colour": (0.2, 1.0, "the largest change of brightness, contrast and each channel, as a share"),
}
SENSORS = {
    "time-shift": (0.1, 0.5, "the largest move in time, as a share of the window"),
    "scale": (0.1, 0.9, "the largest change of size, as a share"),
    "jitter": (0.05, 10.0, "the deviation of noise, of values whose own is 1"),
}
EVERY = IMAGES | SENSORS
APART = 1 << 24  # draws between the first of one kind and that of the next: more than a batch has samples
NOISE = 1 << 31  # the first draw of noise, of which there is one a value


def read(text: str) -> tuple[tuple[str, float], ...]:
    """Names and amounts of `flip,shift=0.1,…`, in the order in which they are drawn; DataError for any other text."""
    found = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, amount = part.partition("=")
        if name not in EVERY:
            raise DataError(f"--augment knows {', '.join(EVERY)}, not {quoted(name)!r}")
        default, most, of = EVERY[name]
        try:
            value = float(amount) if amount else default
        except ValueError:
            value = -1.0
        if not 0 < value <= most:
            raise DataError(f"--augment {name} takes {of}, more than 0 and at most {most:g}, got {quoted(amount)!r}")
        if name in found:
            raise DataError(f"--augment names {name} twice: name it once")
        found[name] = value
    if not found:
        raise DataError(f"--augment must name some of {', '.join(EVERY)}")
    return tuple((name, found[name]) for name in EVERY if name in found)


def augmented(dataset: Dataset, text: str) -> Dataset:
    """The data set whose training samples are drawn as `text` says, before `with_pixels`; DataError where they cannot.

    Pictures take those of IMAGES, and jitter; windows and sound those of SENSORS.
    """
    draws = read(text)
    sensor = dataset.size[0] == 1 or dataset.origin.preprocessing.kind in ("window", "sound")
    allowed = [*SENSORS] if sensor else [*IMAGES, "jitter"]
    for name, _ in draws:
        if name not in allowed:
            kind = "windows of measurements" if sensor else "pictures"
            raise DataError(f"--augment {name} means nothing for {kind}: {', '.join(allowed)} do")
        if name == "colour" and not dataset.pixels:
            raise DataError(f"--augment colour needs pixels, but the values of {dataset.name} are none")
    drawn = Augmented(dataset.x_train, draws, (0.0, 1.0) if dataset.pixels else None, dataset.size[0] == 1)
    return replace(dataset, x_train=drawn)


@dataclass(frozen=True, eq=False)
class Augmented(OnDemand):
    """Samples of which `draw` gives altered ones: `base` as it is otherwise.

    draws: names and amounts; span: the values of black and white, None where they are no pixels; wide: is time the axis
    of columns? Else it is that of rows.
    """

    base: np.ndarray | OnDemand
    draws: tuple[tuple[str, float], ...]
    span: tuple[Level, Level] | None = None
    wide: bool = False

    @property
    def dtype(self) -> np.dtype:
        """Of the maps."""
        return self.base.dtype

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C) of the samples."""
        return self.base.shape

    def __getitem__(self, chosen) -> np.ndarray:
        """Maps (n, H, W, C) as they are."""
        return self.base[chosen]

    def draw(self, chosen: np.ndarray, seed: int, step: int) -> np.ndarray:
        """Maps (n, H, W, C) for a training step, altered as (seed, step) and the place in the batch say."""
        x = self.base.draw(chosen, seed, step) if isinstance(self.base, OnDemand) else self.base[chosen]
        x = x.astype(np.float32)
        amounts = dict(self.draws)
        drawn = Drawn(seed, step, len(x))
        if amounts.keys() & {"flip", "shift", "crop", "rotate"}:
            x = moved(x, amounts, drawn)
        if "colour" in amounts:
            recolour(x, amounts["colour"], *self.span, drawn)
        if "time-shift" in amounts:
            x = later(x, amounts["time-shift"], self.wide, drawn)
        if "scale" in amounts:
            x *= (1 + amounts["scale"] * drawn.pair("scale")[0])[:, None, None, None].astype(np.float32)
        if "jitter" in amounts:
            low, high = self.span or (0.0, 1.0)
            x += (amounts["jitter"] * np.abs(np.subtract(high, low))).astype(np.float32) * drawn.noise(x.shape)
        if self.span:
            np.clip(x, *(end(*self.span).astype(np.float32) for end in (np.minimum, np.maximum)), out=x)
        return as_dtype(x, self.dtype)

    def take(self, index: np.ndarray) -> "Augmented":
        """Some of the samples."""
        return replace(self, base=taken(self.base, index))

    def still(self) -> np.ndarray | OnDemand:
        """The samples as they are."""
        return still(self.base)

    def with_pixels(self, black: Level, white: Level, dtype: DTypeLike = np.float32) -> "Augmented":
        """The same samples with other values for black and white; those of an array change in place."""
        held, base = np.dtype(dtype), self.base
        base = (
            base.with_pixels(black, white, held) if isinstance(base, OnDemand)
            else as_dtype(with_ends(base, black, white), held)
        )  # fmt: skip
        return replace(self, base=base, span=(black, white))

    def made_of(self) -> tuple[np.ndarray, str]:
        """What the samples are made of, and what is drawn."""
        array, words = self.base.made_of() if isinstance(self.base, OnDemand) else (self.base, "")
        return array, f"{words} {self.draws} {self.span} {self.wide}"

    def ends(self) -> tuple[float, float]:
        """The least and the largest value of the samples as they are."""
        return ends(self.base)


class Drawn:
    """The random numbers of a step for n samples."""

    def __init__(self, seed: int, step: int, n: int):
        self.key, self.n = (seed, random.AUGMENT, step), n

    def pair(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Two arrays (n,) float64 in [−1, 1), the same for the same name; `Resized` draws the first n words itself."""
        start = APART * (1 + [*EVERY, *MORE].index(name))
        first, second = random.words_array(*self.key, self.n, start)
        return first / 2.0**31 - 1, second / 2.0**31 - 1

    def noise(self, shape: tuple[int, ...]) -> np.ndarray:
        """Float32 of this shape, of mean 0 and deviation 1: sums of eight bytes, equal on every machine."""
        words = random.words_array(*self.key, int(np.prod(shape)), NOISE)
        return (random.bell(*words) / np.sqrt(random.BELL_VARIANCE)).astype(np.float32).reshape(shape)


MORE = ("contrast", "channels")  # what colour draws beside


def moved(x: np.ndarray, amounts: dict[str, float], drawn: Drawn) -> np.ndarray:
    """Maps (n, H, W, C) mirrored, moved, cropped and turned, each by one sampling of its own."""
    n, h, w, _ = x.shape
    mirrored = drawn.pair("flip")[0] < 2 * amounts.get("flip", 0) - 1
    down, right = drawn.pair("shift")
    share = amounts.get("shift", 0)
    down, right = np.rint(down * share * h), np.rint(right * share * w)
    kept, turn = 1 - amounts.get("crop", 0) * (drawn.pair("crop")[1] + 1) / 2, drawn.pair("rotate")[0]
    place, angle = drawn.pair("crop")[0], np.radians(amounts.get("rotate", 0) * turn)
    rows, columns = np.arange(h)[:, None] - (h - 1) / 2, np.arange(w)[None] - (w - 1) / 2
    out = np.empty_like(x)
    for i in range(n):
        across = -columns if mirrored[i] else columns
        cosine, sine, size = np.cos(angle[i]), np.sin(angle[i]), kept[i]
        slack = (1 - size) / 2 * place[i]
        r = size * (cosine * rows - sine * across) + (h - 1) / 2 + down[i] + slack * (h - 1)
        c = size * (sine * rows + cosine * across) + (w - 1) / 2 + right[i] + slack * (w - 1)
        out[i] = sampled(x[i], r, c)
    return out


def sampled(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Values (P, Q, C) float32 of a map (H, W, C) at places (P, Q), bilinear, its border repeated."""
    h, w, _ = x.shape
    rows, columns = np.clip(rows, 0, h - 1), np.clip(columns, 0, w - 1)
    top, left = rows.astype(np.int64), columns.astype(np.int64)
    bottom, right = np.minimum(top + 1, h - 1), np.minimum(left + 1, w - 1)
    lower, later = ((p - q).astype(np.float32)[..., None] for p, q in ((rows, top), (columns, left)))
    upper = x[top, left] + later * (x[top, right] - x[top, left])
    under = x[bottom, left] + later * (x[bottom, right] - x[bottom, left])
    return upper + lower * (under - upper)


def recolour(x: np.ndarray, amount: float, black: Level, white: Level, drawn: Drawn) -> None:
    """Pixels (n, H, W, C) with other brightness and contrast, and each channel brighter or darker, in place."""
    bright, _ = drawn.pair("colour")
    contrast, _ = drawn.pair("contrast")
    red, blue = drawn.pair("channels")
    range_, middle = np.subtract(white, black), np.add(white, black) / 2  # () or (C,)
    each = np.zeros((len(x), x.shape[3]))
    if x.shape[3] > 1:
        each[:, 0], each[:, -1] = red, blue
    gain = 1 + amount * contrast
    offset = middle * (1 - gain)[:, None] + amount * range_ * (bright[:, None] + each) / 2
    x *= gain[:, None, None, None].astype(np.float32)
    x += offset[:, None, None].astype(np.float32)


def later(x: np.ndarray, amount: float, wide: bool, drawn: Drawn) -> np.ndarray:
    """Maps (n, H, W, C) moved along their axis of time by whole samples, their ends repeated."""
    axis = 2 if wide else 1
    length = x.shape[axis]
    move = np.rint(drawn.pair("time-shift")[0] * amount * length).astype(np.int64)
    place = np.clip(np.arange(length) + move[:, None], 0, length - 1)
    return np.take_along_axis(x, place[:, None, :, None] if wide else place[:, :, None, None], axis)
