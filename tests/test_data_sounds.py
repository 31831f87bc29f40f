"""WAV files: every width and rate, resampling against the sine that it should be, folders, and what is wrong."""

import json
import struct
import wave

import numpy as np
import pytest

from refimpl import data
from refimpl.data import DataError, Preprocessing, ReadOptions, new_samples
from refimpl.data.log_mel import BANDS, log_mel
from refimpl.data.sounds import frames_of
from refimpl.data.wav import read_wav, resampled

RNG = np.random.default_rng(0)


def sine(frequency, seconds=0.5, rate=8000, loud=0.5):
    return loud * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def write(path, samples, rate=8000, width=2):
    """A WAV of samples (L,) or (L, channels) from −1 to 1, by the standard library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.asarray(samples).reshape(len(samples), -1)
    whole = np.rint(samples * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    raw = (whole + 128 if width == 1 else whole).astype("<i8").reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((samples.shape[1], width, rate, 0, "NONE", ""))
        file.writeframes(raw)
    return path


def riff(form, channels, rate, bits, data, extra=b"", before=b""):
    header = (
        struct.pack("<HHIIHH", form, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits) + extra
    )
    body = b"WAVE" + before + b"fmt " + struct.pack("<I", len(header)) + header
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(("width", "error"), [(1, 0.01), (2, 1e-4), (3, 1e-6), (4, 1e-8)])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_width_is_read_and_channels_are_averaged(tmp_path, width, error, channels):
    left = sine(440)
    both = np.stack([left, 0.2 * left], axis=1)[:, :channels]
    found, rate = read_wav(write(tmp_path / "a.wav", both, 11025, width))
    assert rate == 11025 and found.dtype == np.float64
    np.testing.assert_allclose(found, both.mean(1), atol=error)


def test_floats_extensible_headers_and_chunks_between_are_read(tmp_path):
    samples = sine(440).astype("<f4")
    path = tmp_path / "a.wav"
    path.write_bytes(riff(3, 1, 8000, 32, samples.tobytes(), before=b"LIST" + struct.pack("<I", 3) + b"odd\0"))
    assert np.array_equal(read_wav(path)[0], samples)
    long = struct.pack("<HHI", 22, 24, 4) + struct.pack("<H", 1) + b"\0" * 14
    path.write_bytes(riff(0xFFFE, 1, 8000, 24, b"\0\0\x40\0\0\xc0", long))
    assert read_wav(path)[0].tolist() == [0.5, -0.5]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "a.wav cannot be read: it is no WAV file, or it is damaged"),
        (b"RIFF\0\0\0\0WAVE", "a.wav cannot be read: it has no format"),
        (riff(1, 1, 8000, 16, b"\0\0")[:36], "a.wav cannot be read: it has no sound"),
        (riff(1, 1, 8000, 16, b""), "a.wav holds no sound"),
        (riff(1, 1, 8000, 16, bytes(100))[:-20], "a.wav is cut off: it states 100 bytes of sound and has 80"),
        (
            riff(85, 1, 8000, 16, bytes(100)),
            "it has the format 85 with 16 bits; PCM of 8, 16, 24 or 32 bits and floats",
        ),
        (riff(1, 1, 8000, 12, bytes(100)), "it has the format 1 with 12 bits"),
        (riff(1, 0, 8000, 16, bytes(100)), "0 channels at 8000 Hz in 16 bits is no sound"),
        (riff(1, 1, 7, 16, bytes(100)), "1 channels at 7 Hz in 16 bits is no sound"),
        (riff(3, 1, 8000, 32, struct.pack("<f", float("nan"))), "a.wav has a value that is NaN or infinite"),
    ],
)
def test_files_that_hold_no_sound_are_refused(tmp_path, raw, message):
    (tmp_path / "a.wav").write_bytes(raw)
    with pytest.raises(DataError, match=message):
        read_wav(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("rate", "wanted"), [(44100, 8000), (16000, 8000), (11025, 16000), (8000, 22050), (48000, 44100)]
)
def test_resampling_gives_the_sine_at_the_other_rate(rate, wanted):
    found = resampled(sine(700, rate=rate), rate, wanted)
    expected = sine(700, rate=wanted)
    assert abs(len(found) - len(expected)) <= 1
    middle = slice(len(expected) // 5, -len(expected) // 5)
    np.testing.assert_allclose(found[: len(expected)][middle], expected[middle], atol=2e-3)


def test_resampling_lets_nothing_through_that_the_lower_rate_cannot_hold():
    high = resampled(sine(6000, rate=16000), 16000, 8000)
    assert np.abs(high[400:-400]).max() < 0.01
    assert np.array_equal(resampled(np.ones(500), 8000, 8000), np.ones(500))
    np.testing.assert_allclose(resampled(np.ones(3000), 12000, 8000)[100:-100], 1, rtol=1e-12)


def clips(root, rates=(8000,), count=5, seconds=0.3):
    for i, name in enumerate(("high", "low")):
        for j in range(count):
            rate = rates[j % len(rates)]
            write(root / name / f"{j}.wav", sine(2000 - 1500 * i + 30 * j, seconds, rate), rate)
    return root


def test_a_folder_of_clips_becomes_log_mel_maps(tmp_path):
    root = clips(tmp_path / "tones")
    found = data.load(root, seed=1)
    assert found.x_train.shape == (8, 24, BANDS, 1) and found.classes == ("high", "low")
    loudest = found.x_train[..., 0].mean(1).argmax(1)
    assert loudest[found.y_train == 0].min() > loudest[found.y_train == 1].max()
    samples, rate = read_wav(root / "high" / "0.wav")
    own = log_mel(samples, rate, 24)
    assert any(np.array_equal(own, m[..., 0]) for m in (*found.x_train, *found.x_test))
    made = found.origin.preprocessing
    assert (made.kind, made.rate, made.frames) == ("sound", 8000.0, 24)
    assert found.origin.said == ("a map is the middle of a clip, 24 frames of 16 ms, 0.38 s",)


def test_clips_of_several_rates_end_at_one(tmp_path):
    found = data.load(clips(tmp_path / "tones", (8000, 16000, 44100)), reading=ReadOptions(rate=16000.0))
    assert found.x_train.shape[1] == 40 and found.origin.preprocessing.rate == 16000
    assert "2 clips of 44,100 Hz resampled to 16,000 Hz" in found.origin.said
    assert "4 clips of 8,000 Hz resampled to 16,000 Hz" in found.origin.said


def test_the_longest_clip_decides_within_bounds():
    assert [frames_of(n) for n in ([10], [128 * 24], [128 * 24 + 1, 5], [10**7])] == [16, 24, 32, 256]


def test_problems_and_foreign_files_are_those_of_images(tmp_path):
    root = clips(tmp_path / "tones")
    (root / "low" / "a.wav").write_bytes(b"")
    (root / "low" / "b.mp3").write_bytes(b"ID3")
    (root / "low" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="2 problems with the 11 clips of .*tones: low/b.mp3 is sound that is not read"):
        data.load(root)
    found = data.load(root, reading=ReadOptions(skip_bad=True))
    assert len(found.x_train) + len(found.x_test) == 10 and len(found.origin.skipped) == 2
    assert found.origin.ignored == ((str(root / "low" / "notes.txt"), "is no WAV file"),)
    for name in ("train", "val", "test"):
        clips(tmp_path / "split" / name, count=3)
    split = data.load(tmp_path / "split")
    assert (len(split.x_train), len(split.x_val), len(split.x_test)) == (6, 6, 6)


def test_rates_that_are_none_are_refused(tmp_path):
    with pytest.raises(DataError, match="--rate of sound must be from 1,000 to 384,000 samples a second, got 50"):
        data.load(clips(tmp_path), reading=ReadOptions(rate=50.0))


# Windows of long clips


def long_clips(root, seconds=(1.0, 2.5, 4.0)):
    for i, name in enumerate(("high", "low")):
        for j, length in enumerate(seconds):
            write(root / name / f"{j}.wav", sine(2000 - 1500 * i + 30 * j, length))
    return root


def test_long_clips_are_cut_into_windows_of_which_none_is_on_both_sides(tmp_path):
    root = long_clips(tmp_path / "tones")
    d = data.load(root, reading=ReadOptions(window="1s", stride="0.5s"))
    assert d.x_train.shape[1:] == (64, BANDS, 1) and len(d.x_train) + len(d.x_test) == 2 * (1 + 4 + 7)
    clip = {part: {name.split(", ")[0] for name in d.origin.files[part]} for part in ("train", "test")}
    assert not clip["train"] & clip["test"] and len(clip["test"]) == 2 == len({c.split("/")[-2] for c in clip["test"]})
    assert d.origin.split.startswith("judging: 2 whole groups, drawn: high/") and len(np.unique(d.groups)) == 4
    assert "24 windows of 1 s, one every 0.5 s, of 6 clips" in d.origin.said
    for name, window in zip(d.origin.files["train"], d.x_train, strict=True):
        path, times = name.split(", ")
        first, last = (round(8000 * float(t.removesuffix(" s"))) for t in times.split(" to "))
        assert np.array_equal(window[..., 0], log_mel(read_wav(path)[0][first:last], 8000, 64))
    made = d.origin.preprocessing
    assert (made.window, made.stride, made.frames) == (8000, 4000, 64)
    held = data.validation_split(d, 0.2)
    assert len(np.unique(held.groups)) < 4 and len(held.x_val)


def test_a_long_recording_is_told_window_by_window_with_its_time(tmp_path):
    d = data.load(long_clips(tmp_path / "tones"), reading=ReadOptions(window="1s", stride="0.5s"))
    made = Preprocessing.from_json(json.loads(json.dumps(d.origin.preprocessing.to_json())))
    path = write(tmp_path / "street.wav", sine(500, 2.2, 16000), 16000)
    found = data.read_samples(path, made)
    assert found.names == tuple(
        f"street.wav, {a} s to {b} s" for a, b in (("0.00", "1.00"), ("0.50", "1.50"), ("1.00", "2.00"))
    )
    sound = resampled(*read_wav(path), 8000)
    assert np.array_equal(found.x[1, ..., 0], log_mel(sound[4000:12000], 8000, 64))
    short = data.read_samples(write(tmp_path / "s.wav", sine(500, 0.3)), made)
    assert short.names[0].endswith(", 0.00 s to 0.30 s") and len(short.x) == 1
    judged = new_samples.judged_set(str(tmp_path / "tones"), made, options={"window": "1s", "stride": "0.5s"})
    assert np.array_equal(judged.x_test, d.x_test) and judged.origin.files == d.origin.files
    (names, maps), *_ = new_samples.new_batches(path, made, 2)
    assert names == list(found.names[:2]) and np.array_equal(maps, found.x[:2])


def test_one_clip_of_each_class_is_split_in_time(tmp_path):
    d = data.load(long_clips(tmp_path / "tones", (6.0,)), reading=ReadOptions(window="0.5s"))
    assert set(d.y_test.tolist()) == {0, 1} and "the end of each stretch of one class" in d.origin.split
    last = [float(n.rsplit(" ", 2)[1]) for n in d.origin.files["train"]]
    first = [float(n.split(", ")[1].split(" ")[0]) for n in d.origin.files["test"]]
    assert max(last) <= min(first)
    with pytest.raises(DataError, match="high holds 1 clip; at least 2 are needed"):
        data.load(tmp_path / "tones")


def test_clips_of_one_speaker_stay_together(tmp_path):
    root = clips(tmp_path / "tones", count=6)
    for path in root.rglob("*.wav"):
        path.rename(path.with_name(f"p{int(path.stem) % 3}-{path.name}"))
    for options in ({}, {"window": "0.1s"}):
        d = data.load(root, reading=ReadOptions(group="(p[0-9])-", **options))
        who = [{name.rsplit("/")[-1][:2] for name in d.origin.files[part]} for part in ("train", "test")]
        assert len(who[0]) == 2 and len(who[1]) == 1 and not who[0] & who[1]
        assert "3 groups by --group '(p[0-9])-': none of them trains and judges" in d.origin.said
