"""Data from a folder of class folders with WAV files, as log-mel maps."""

import os
from pathlib import Path

import numpy as np

from ..storage import files
from .dataset import DataError, Dataset, SampleOrigin, plural
from .folders import Foreign, divided, listing
from .images import SUFFIXES as IMAGES
from .log_mel import BANDS, HOP, log_mel
from .preprocessing import Preprocessing
from .reading import PLAIN, ReadOptions
from .wav import read_wav, resampled

SUFFIXES = (".wav", ".wave")
OTHERS = (".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aiff", ".aif", ".wma", ".amr")
RATE = 8000  # samples a second, where --rate does not say
LEAST, MOST, STEP = 16, 256, 8  # frames of a map: bounds, and what their number is a multiple of


def is_sounds(root: Path) -> bool:
    """Are most files below a folder that are images or sounds the latter, by their names?"""
    counts = {IMAGES: 0, SUFFIXES: 0}
    for _, _, names in os.walk(root):
        for suffixes in counts:
            counts[suffixes] += sum(name.lower().endswith(suffixes) and not name.startswith(".") for name in names)
    return counts[SUFFIXES] > counts[IMAGES]


def look(path: Path) -> None:
    """Is a file a WAV? By its name, and where that says nothing, by its first bytes. Foreign or DataError: no."""
    suffix = path.suffix.lower()
    if suffix in OTHERS:
        raise DataError(f"is sound that is not read ({suffix}): convert it to WAV")
    if suffix in SUFFIXES:
        return
    with files.opened(path, str(path), DataError) as file:
        begin = file.read(12)
    if begin[:4] != b"RIFF" or begin[8:] != b"WAVE":
        raise Foreign("is no WAV file")


def sound_folder(root: Path, seed: int = 0, reading: ReadOptions = PLAIN) -> Dataset:
    """Data set of a folder of class folders with WAV files: log-mel maps (N, frames, BANDS, 1), as `clips` have them.

    Every clip is brought to `reading.rate`, default RATE. A map has as many frames as the longest training clip needs,
    at most MOST; a longer one is cut at both ends. Layouts and problems are those of folders of images. DataError.
    """
    known = reading.made if reading.made is not None and reading.made.kind == "sound" else None
    rate = int((known and known.rate) or reading.checked_rate() or RATE)
    if not 1000 <= rate <= 384_000:
        raise DataError(f"--rate of sound must be from 1,000 to 384,000 samples a second, got {reading.rate:g}")
    found = listing(root, look, "clip")
    sounds, rates, bad = {}, {}, set()
    for path in found.files:
        try:
            samples, own = read_wav(path)
            sounds[path] = resampled(samples, own, rate)
            rates[own] = rates.get(own, 0) + 1
        except DataError as e:
            found.problems.add(path, str(e).removeprefix(f"{files.printable(str(path))} "))
            bad.add(path)
    usable = found.usable(bad)
    skipped = found.problems.tell(reading.skip_bad, len(found.files), "clips")
    if len(usable.classes) < 2:
        raise DataError(f"{root} has {plural(len(usable.classes), 'class')} with clips that can be used; 2 are needed")
    parts, how = divided(usable, root, seed)
    frames = (known and known.frames) or frames_of([len(sounds[path]) for path, _ in parts["train"]])
    said = (*found.said, *_said(sounds, rates, rate, frames))
    names = tuple((name, i) for i, name in enumerate(usable.classes))
    origin = SampleOrigin(
        "folder of sounds", how, names, skipped, tuple(found.ignored), (-1, 1), said,
        preprocessing=Preprocessing("sound", rate=float(rate), frames=frames),
    )  # fmt: skip
    maps = {}
    for part, samples in parts.items():
        x = np.empty((len(samples), frames, BANDS, 1), np.float32)
        for i, (path, _) in enumerate(samples):
            x[i, :, :, 0] = log_mel(sounds[path], rate, frames)
        maps |= {f"x_{part}": x, f"y_{part}": np.array([label for _, label in samples], np.int64)}
    return Dataset(root.resolve().name, classes=tuple(usable.classes), origin=origin, **maps)


def frames_of(lengths: list[int]) -> int:
    """Frames of a map that hold the longest of clips of these lengths, within bounds."""
    return min(MOST, max(LEAST, -(-max(lengths) // (HOP * STEP)) * STEP))


def _said(sounds: dict, rates: dict[int, int], rate: int, frames: int) -> list[str]:
    """At what rate sound was, and what a map holds of it."""
    others = {own: n for own, n in sorted(rates.items()) if own != rate}
    said = [f"{plural(n, 'clip')} of {own:,} Hz resampled to {rate:,} Hz" for own, n in others.items()]
    length = f"{frames} frames of {1000 * HOP / rate:g} ms, {frames * HOP / rate:.2f} s"
    said.append(f"a map is the middle of a clip, {length}")
    longer = sum(len(s) > frames * HOP for s in sounds.values())
    if longer:
        said.append(f"{plural(longer, 'clip')} longer than that: both ends are cut off")
    return said
