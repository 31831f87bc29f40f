"""Clips of sound as log-mel maps: what a file of that layout gives, and what is wrong with others."""

from pathlib import Path

import numpy as np
import pytest

from refimpl import data
from refimpl.data import DataError
from refimpl.data.log_mel import BANDS, FRAME, HOP, hertz, log_mel, mel, triangles

SHARED = Path(__file__).parents[2] / "shared" / "data" / "fsdd.npz"
RATE = 8000


def tone(frequency, length, loud=1000.0):
    return (loud * np.sin(2 * np.pi * frequency * np.arange(length) / RATE)).astype(np.int16)


def arrays(**changed):
    """Two speakers, two classes, four clips of each: class 0 is a low tone, class 1 a high one."""
    clips, labels, speakers = [], [], []
    for speaker in range(2):
        for label in range(2):
            for i in range(4):
                clips.append(tone(300 + 1500 * label + 20 * i, 3000 + 100 * i + 7 * speaker))
                labels.append(label)
                speakers.append(speaker)
    made = {
        "samples": np.concatenate(clips), "offsets": np.cumsum([0, *map(len, clips)]), "labels": np.array(labels),
        "speakers": np.array(speakers), "speaker_names": np.array(["ada", "bob"]),
    }  # fmt: skip
    return {k: a for k, a in (made | changed).items() if a is not None}


def saved(folder, **changed):
    np.savez(folder / "own.npz", **arrays(**changed))
    return folder / "own.npz"


def plain(clip, rate, frames):
    """Log-mel features, a bin at a time."""
    length = FRAME + (frames - 1) * HOP
    sound, start = [0.0] * length, (length - len(clip)) // 2
    for i, value in enumerate(clip):
        if 0 <= start + i < length:
            sound[start + i] = float(value)
    edges = [hertz(mel(60.0) + (mel(rate / 2) - mel(60.0)) * i / (BANDS + 1)) for i in range(BANDS + 2)]
    window = [0.5 - 0.5 * np.cos(2 * np.pi * i / FRAME) for i in range(FRAME)]
    heights = np.zeros((BANDS, FRAME // 2 + 1))
    for band in range(BANDS):
        low, middle, high = edges[band : band + 3]
        for k in range(FRAME // 2 + 1):
            f = k * rate / FRAME
            heights[band, k] = max(0.0, min((f - low) / (middle - low), (high - f) / (high - middle)))
        if not heights[band].any():  # narrower than a bin: the nearest one
            heights[band, round(middle * FRAME / rate)] = 1
    bands = np.zeros((frames, BANDS))
    for frame in range(frames):
        part = [sound[frame * HOP + i] * window[i] for i in range(FRAME)]
        for k in range(FRAME // 2 + 1):
            value = sum(part[i] * np.exp(-2j * np.pi * k * i / FRAME) for i in range(FRAME))
            bands[frame] += heights[:, k] * abs(value) ** 2
    features = np.log(bands + 1e-4 * bands.mean())
    return (features - features.mean()) / features.std()


def test_features_against_the_plain_sum():
    clip = (np.random.default_rng(0).normal(size=700) * 1000).astype(np.int16) + tone(900, 700)
    found = log_mel(clip, RATE, 4)
    assert found.shape == (4, BANDS) and found.dtype == np.float32
    np.testing.assert_allclose(found, plain(clip, RATE, 4), rtol=1e-5, atol=1e-5)


def test_loudness_and_silence_around_do_not_matter():
    clip = tone(700, 5000)
    loud = log_mel(4 * clip.astype(np.int32), RATE, 64)
    np.testing.assert_allclose(log_mel(clip, RATE, 64), loud, atol=1e-5)
    longer = np.concatenate([np.zeros(256, np.int16), clip, np.zeros(256, np.int16)])
    assert np.array_equal(log_mel(longer, RATE, 64), log_mel(clip, RATE, 64))
    assert np.isfinite(log_mel(np.zeros(900, np.int16), RATE, 8)).all()
    assert np.isfinite(log_mel(tone(700, 40000), RATE, 64)).all()


def test_a_tone_is_loudest_in_its_band():
    for frequency in (300, 1000, 3000):
        band = log_mel(tone(frequency, 8000), RATE, 16).mean(axis=0).argmax()
        first, weights = triangles(RATE)[band]
        bins = first + np.arange(len(weights))
        assert abs(bins[weights.argmax()] * RATE / FRAME - frequency) < 120


def test_one_speaker_and_the_others(tmp_path):
    path = saved(tmp_path)
    own = data.load(path, subject=2)
    assert own.name == "own, bob" and own.classes == ("0", "1")
    assert own.x_train.shape == (2, 64, BANDS, 1) and own.x_test.shape == (6, 64, BANDS, 1)
    assert own.y_train.tolist() == [0, 1] and sorted(own.y_test.tolist()) == [0, 0, 0, 1, 1, 1]
    a = arrays()
    clip = a["samples"][a["offsets"][8] : a["offsets"][9]]
    assert np.array_equal(own.x_train[0, :, :, 0], log_mel(clip, RATE, 64))
    others = data.clips_of_others(path, 2, held_out=0.25)
    assert others.name == "own without bob" and len(others.x_train) == 6 and len(others.x_test) == 2
    assert data.load(path).name == "own, ada"


@pytest.mark.parametrize(
    ("changed", "subject", "message"),
    [
        ({"labels": None}, 1, "own.npz has no array labels, which clips of sound need"),
        ({"labels": np.arange(3)}, 1, "labels of .*own.npz has 3 labels, but samples has 16 samples"),
        ({"labels": np.zeros(16, int)}, 1, r"labels of .*own.npz holds one class only \(0\)"),
        ({"offsets": np.array([0, 5, 5, 9])}, 1, "offsets of .*own.npz must rise from 0 to the"),
        ({"offsets": np.zeros((4, 4))}, 1, "offsets of .*own.npz must rise from 0 to the"),
        ({"samples": np.array([np.nan] * 100), "offsets": np.array([0, 50, 100])}, 1, "NaN or infinite value at 0"),
        ({"rate": np.array(3)}, 1, r"rate of .*own.npz must be .* but it is \[3\]"),
        ({}, 3, "own.npz has speakers 1 to 2, not 3"),
        ({}, 0, "own.npz has speakers 1 to 2, not 0"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, changed, subject, message):
    with pytest.raises(DataError, match=message) as caught:
        data.load(saved(tmp_path, **changed), subject=subject)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not SHARED.exists(), reason="needs the spoken digits in ../shared/data")
def test_spoken_digits():
    own = data.clips(SHARED, 5)
    assert own.name == "fsdd, theo" and own.x_train.shape == (50, 64, BANDS, 1) and len(own.x_test) == 450
    assert np.bincount(own.y_train).tolist() == [5] * 10
