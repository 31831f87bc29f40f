"""Sound in WAV files: samples as floats, one channel, at the rate that is asked for."""

import math
import struct
from functools import cache
from pathlib import Path

import numpy as np

from ..storage import files
from .dataset import DataError

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # formats; the last one says which in a longer header
READ = "PCM of 8, 16, 24 or 32 bits and floats are read"
CROSSINGS = 16  # zeros of the sinc on each side
AT_ONCE = 1 << 13  # resampled at a time


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """Samples (L,) float64 from −1 to 1, the mean of the channels, and their rate. DataError where it is no such file.

    Own chunks, for the `wave` of Python 3.11 knows no extensible headers, which most files of 24 bits have.
    """
    raw = files.read_bytes(path, str(path), DataError)
    if raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        raise DataError(f"{path} cannot be read: it is no WAV file, or it is damaged")
    header, data, at = b"", None, 12
    while at + 8 <= len(raw) and data is None:
        name, size = raw[at : at + 4], int.from_bytes(raw[at + 4 : at + 8], "little")
        body = memoryview(raw)[at + 8 : at + 8 + size]
        if name == b"fmt ":
            header = bytes(body)
        elif name == b"data":
            if len(body) < size and size < 0xFFFFFF00:  # what writes into a pipe does not know the size
                raise DataError(f"{path} is cut off: it states {size:,} bytes of sound and has {len(body):,}")
            data = body
        at += 8 + size + size % 2
    if len(header) < 16 or data is None:
        raise DataError(f"{path} cannot be read: it has no {'sound' if len(header) >= 16 else 'format'}")
    form, channels, rate, _, frame, bits = struct.unpack("<HHIIHH", header[:16])
    if form == EXTENSIBLE and len(header) >= 26:
        form = int.from_bytes(header[24:26], "little")
    if not 1 <= channels <= 64 or not 1000 <= rate <= 384_000 or frame != channels * (bits // 8):
        raise DataError(f"{path} cannot be read: {channels} channels at {rate} Hz in {bits} bits is no sound")
    if len(data) < frame:
        raise DataError(f"{path} holds no sound")
    values = _values(np.frombuffer(data[: len(data) // frame * frame], np.uint8), form, bits, path)
    return values.reshape(-1, channels).sum(axis=1) / channels, rate


def _values(raw: np.ndarray, form: int, bits: int, path: Path) -> np.ndarray:
    """Values (L·channels,) float64 of the bytes of a file."""
    if form == FLOAT and bits in (32, 64):
        values = raw.view(f"<f{bits // 8}").astype(np.float64)
        if not np.isfinite(values).all():
            raise DataError(f"{path} has a value that is NaN or infinite")
        return values
    if form != PCM or bits not in (8, 16, 24, 32):
        raise DataError(f"{path} cannot be read: it has the format {form} with {bits} bits; {READ}")
    if bits == 8:
        return raw / 128.0 - 1
    wide = np.zeros((raw.size // (bits // 8), 4), np.uint8)  # the value in the upper bytes, so that its sign is there
    wide[:, 4 - bits // 8 :] = raw.reshape(len(wide), -1)
    return wide.view("<i4")[:, 0] / 2.0**31


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Samples (L,) float64 at another rate, (⌈L·wanted/rate⌉,): a sinc under a Hann window, below half the lower rate.

    The weights of a phase add up to 1, so that silence and steady values stay as they are.
    """
    if rate == wanted:
        return samples
    step = math.gcd(rate, wanted)
    up, down = wanted // step, rate // step
    table = _phases(up, down)
    half = table.shape[1] // 2
    padded = np.concatenate([np.zeros(half), samples, np.zeros(half + 1)])
    out = np.empty(-(-len(samples) * up // down))
    for start in range(0, len(out), AT_ONCE):
        j = np.arange(start, min(start + AT_ONCE, len(out)))
        first, phase = j * down // up, j * down % up
        out[j] = (padded[first[:, None] + 1 + np.arange(2 * half)] * table[phase]).sum(axis=1)
    return out


@cache
def _phases(up: int, down: int) -> np.ndarray:
    """Weights (up, taps) of the samples around each place between two of them that resampling asks for."""
    low = min(1.0, up / down)
    half = math.ceil(CROSSINGS / low)
    distance = np.arange(1 - half, half + 1) - np.arange(up)[:, None] / up
    inside = np.clip(distance / half, -1, 1)
    weights = np.sinc(low * distance) * (0.5 + 0.5 * np.cos(np.pi * inside))
    return weights / weights.sum(axis=1, keepdims=True)
