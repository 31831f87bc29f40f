"""Log-mel features of sound: how much energy there is in each band of the mel scale, a row a frame.

A frame is FRAME samples under a Hann window, one every HOP; its power spectrum is added up in BANDS triangles that are
evenly spaced on the mel scale (2595·log10(1 + f/700), O'Shaughnessy 1987) from LOWEST to half the sampling rate. The
logarithm is natural, over FLOOR of the clip's mean power, and each clip is standardised by itself, so that loudness
does not matter.

Sums run in NumPy's own loops in float64, band by band, so a clip has the same features alone and among others.
"""

import numpy as np

FRAME, HOP, BANDS = 256, 128, 32  # samples, samples, bands; 32 ms and 16 ms at 8 kHz
LOWEST = 60.0  # Hz
FLOOR = 1e-4  # of a clip's mean power in a band: what is below is silence


def mel(hertz):
    """Pitch in mel of a frequency in Hz."""
    return 2595 * np.log10(1 + np.asarray(hertz) / 700)


def hertz(mels):
    """Frequency in Hz of a pitch in mel."""
    return 700 * (10 ** (np.asarray(mels) / 2595) - 1)


def triangles(rate: int) -> list[tuple[int, np.ndarray]]:
    """Of each band its first bin of the spectrum and the weights from there on; rate: samples a second."""
    edges = hertz(np.linspace(mel(LOWEST), mel(rate / 2), BANDS + 2))
    bins = np.arange(FRAME // 2 + 1) * rate / FRAME
    found = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        weights = np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clip(0)
        if not weights.any():  # narrower than a bin: the nearest one
            weights[np.abs(bins - middle).argmin()] = 1
        reached = np.flatnonzero(weights)
        found.append((int(reached[0]), weights[reached[0] : reached[-1] + 1]))
    return found


def log_mel(clip: np.ndarray, rate: int, frames: int) -> np.ndarray:
    """Features (frames, BANDS) float32 of the samples of a clip (L,), any real dtype, at `rate` samples a second.

    A clip is put into the middle of frames·HOP samples and more: what is missing is silence, what is too much is cut
    off at both ends.
    """
    length = FRAME + (frames - 1) * HOP
    padded, start = np.zeros(length), (length - len(clip)) // 2
    padded[max(0, start) : max(0, start) + len(clip)] = clip[max(0, -start) : max(0, -start) + length]
    window = np.hanning(FRAME + 1)[:-1]
    views = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    power = np.square(np.abs(np.fft.rfft(views * window, axis=1)))
    bands = np.empty((frames, BANDS))
    for i, (first, weights) in enumerate(triangles(rate)):
        bands[:, i] = (power[:, first : first + len(weights)] * weights).sum(axis=1)
    features = np.log(bands + max(FLOOR * bands.mean(), np.finfo(np.float64).tiny))
    deviation = features.std()
    return ((features - features.mean()) / (deviation if deviation > 0 else 1)).astype(np.float32)
