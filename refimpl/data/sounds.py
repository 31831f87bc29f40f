"""Data from a folder of class folders with WAV files, as log-mel maps."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..storage import files
from . import groups
from .dataset import DataError, Dataset, SampleOrigin, plural
from .folders import Division, Foreign, Listing, divided, listing
from .log_mel import BANDS, HOP, log_mel
from .preprocessing import Preprocessing
from .reading import PLAIN, ReadOptions
from .wav import read_wav, resampled

SUFFIXES = (".wav", ".wave")
OTHERS = (".mp3", ".flac", ".ogg", ".oga", ".opus", ".m4a", ".aac", ".aiff", ".aif", ".wma", ".amr")
RATE = 8000  # samples a second, where --rate does not say
LEAST, MOST, STEP = 16, 256, 8  # frames of a map: bounds, and what their number is a multiple of


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

    Every clip is brought to `reading.rate`, default RATE. With `reading.window` it is cut into windows, a map each, and
    whole clips judge. Else a map has as many frames as the longest training clip needs, at most MOST; a longer one is
    cut at both ends. `reading.group` is a pattern of file names (`groups`). Layouts and problems are as with images.
    DataError.
    """
    known = reading.made if reading.made is not None and reading.made.kind == "sound" else None
    reading = reading.as_trained() if known else reading
    rate = int((known and known.rate) or reading.checked_rate() or RATE)
    if not 1000 <= rate <= 384_000:
        raise DataError(f"--rate of sound must be from 1,000 to 384,000 samples a second, got {reading.rate:g}")
    cut = windows_of(replace(reading, rate=float(rate)))
    found = listing(root, look, "clip", reading.made is not None)
    sounds, rates, bad = {}, {}, set()
    for path in found.files:
        try:
            samples, own = read_wav(path)
            sounds[path] = resampled(samples, own, rate)
            rates[own] = rates.get(own, 0) + 1
        except DataError as e:
            found.problems.add(path, str(e).removeprefix(f"{files.printable(str(path))} "))
            bad.add(path)
    group_of = groups.of_files(found, reading.group, bad, known is not None)
    usable = found.usable(bad, alone=cut is not None)
    skipped = found.problems.tell(reading.skip_bad, len(found.files), "clips")
    usable.check_classes(root, "clips")
    said = [*found.said, *groups.told(usable, group_of, reading.group)]
    if cut is None:
        together = groups.of_part(usable, group_of)
        parted = divided(usable, root, seed, groups=together, judged=known is not None)
        pieces = {part: [(path, slice(None), label) for path, label in of] for part, of in parted.parts.items()}
    else:
        parted = _windows(usable, root, seed, sounds, cut, group_of, known is not None)
        pieces = {part: [(path, place, label) for (path, place), label in of] for part, of in parted.parts.items()}
        said.append(_said_of(sounds, cut, rate, sum(map(len, pieces.values())), len(usable.files)))
    lengths = [cut[0]] if cut else [len(sounds[path]) for path, _, _ in pieces["train"]]
    frames = (known and known.frames) or frames_of(lengths)
    said += _said(sounds, rates, rate, frames, bool(cut))
    names = tuple((name, i) for i, name in enumerate(usable.classes))
    made = Preprocessing("sound", rate=float(rate), frames=frames)
    if cut:
        made = replace(made, window=cut[0], stride=cut[1])
    origin = SampleOrigin(
        "folder of sounds", parted.how, names, skipped, tuple(found.ignored), (-1, 1), tuple(said), preprocessing=made,
        files={part: tuple(title(path, place, rate) for path, place, _ in of) for part, of in pieces.items()},
    )  # fmt: skip
    maps = {}
    for part, of in pieces.items():
        x = np.empty((len(of), frames, BANDS, 1), np.float32)
        for i, (path, place, _) in enumerate(of):
            x[i, :, :, 0] = log_mel(sounds[path][place], rate, frames)
        maps |= {f"x_{part}": x, f"y_{part}": np.array([label for _, _, label in of], np.int64)}
    return Dataset(
        root.resolve().name, classes=tuple(usable.classes), groups=parted.groups, spans=parted.spans, origin=origin,
        **maps,
    )  # fmt: skip


def windows_of(reading: ReadOptions) -> tuple[int, int] | None:
    """The samples of a window of sound, and those from one to the next; None where it is not cut. DataError."""
    window, stride = (reading.samples(name) for name in ("window", "stride"))
    if window is None:
        if stride is not None:
            raise DataError("--stride goes with --window, which cuts long recordings: give it, or leave it out")
        return None
    if window > MOST * HOP:
        seconds = MOST * HOP / reading.rate
        raise DataError(f"--window {reading.window} is longer than a map of sound, at most {seconds:.2f} s here")
    return window, stride or max(1, window // 2)


def places(length: int, window: int, stride: int) -> list[slice]:
    """Where the windows of so many samples lie; those of a clip that is shorter than a window are the clip."""
    return [slice(first, min(length, first + window)) for first in range(0, max(1, length - window + 1), stride)]


def title(path: Path, place: slice, rate: int) -> str:
    """What a window of a clip is called: its file, and from where to where in seconds; of a whole clip the file."""
    return str(path) if place.start is None else f"{path}, {place.start / rate:.2f} s to {place.stop / rate:.2f} s"


def _windows(
    found: Listing, root: Path, seed: int, sounds: Mapping[Path, np.ndarray], cut: tuple[int, int],
    group_of: Mapping[Path, str], judged: bool,
) -> Division:  # fmt: skip
    """The windows of the clips, divided by group, default the clips themselves."""
    parts, spans, of = {}, [], []
    names = found.names()
    for part, clips in found.parts.items():
        parts[part] = windows = []
        for number, (path, label) in enumerate(clips):
            for place in places(len(sounds[path]), *cut):
                windows.append(((path, place), label))
                if part == "train":
                    spans.append((number, place.start, place.stop))
                    of.append(group_of[path] if group_of else f"{found.classes[label]}/{names[path]}")
    return divided(found, root, seed, parts, of, np.array(spans, np.int64), judged)


def frames_of(lengths: list[int]) -> int:
    """Frames of a map that hold the longest of clips of these lengths, within bounds."""
    return min(MOST, max(LEAST, -(-max(lengths) // (HOP * STEP)) * STEP))


def _said_of(sounds: Mapping, cut: tuple[int, int], rate: int, windows: int, clips: int) -> str:
    """How clips were cut."""
    window, stride = (f"{samples / rate:g} s" for samples in cut)
    short = sum(len(s) < cut[0] for s in sounds.values())
    shorter = f"; {plural(short, 'clip')} shorter than that, with silence around" if short else ""
    return f"{plural(windows, 'window')} of {window}, one every {stride}, of {plural(clips, 'clip')}{shorter}"


def _said(sounds: Mapping, rates: dict[int, int], rate: int, frames: int, cut: bool) -> list[str]:
    """At what rate sound was, and what a map holds of it."""
    others = {own: n for own, n in sorted(rates.items()) if own != rate}
    said = [f"{plural(n, 'clip')} of {own:,} Hz resampled to {rate:,} Hz" for own, n in others.items()]
    length = f"{frames} frames of {1000 * HOP / rate:g} ms, {frames * HOP / rate:.2f} s"
    said.append(f"a map is {'a window' if cut else 'the middle of a clip'}, {length}")
    longer = sum(len(s) > frames * HOP for s in sounds.values())
    if longer and not cut:
        said.append(f"{plural(longer, 'clip')} longer than that: both ends are cut off; --window takes all of them")
    return said
