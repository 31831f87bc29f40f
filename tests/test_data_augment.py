"""Augmentation: what each kind does to a sample, that draws depend on seed and step alone, and what refuses."""

import numpy as np
import pytest

from refimpl import data
from refimpl.data import DataError, Dataset, Resized, validation_split
from refimpl.data.augment import EVERY, Augmented, augmented, sampled
from refimpl.data.preprocessing import Preprocessing

RNG = np.random.default_rng(0)
ALL = np.arange(64)
PICTURES = RNG.integers(0, 256, (64, 9, 8, 3), dtype=np.uint8)


def pictures(text, x=PICTURES):
    y = np.arange(len(x)) % 2
    return augmented(data.from_arrays("own", x, y, x[:2].copy(), y[:2]), text)


def windows(text, wide=True):
    x = RNG.standard_normal((64, 1, 50, 3) if wide else (64, 50, 8, 1)).astype(np.float32)
    origin = data.SampleOrigin(preprocessing=Preprocessing("window" if wide else "sound"))
    return augmented(Dataset("own", x, ALL % 2, x[:2].copy(), ALL[:2] % 2, ("a", "b"), origin=origin), text)


@pytest.mark.parametrize(
    "text", ["flip", "shift", "crop", "rotate", "colour", "jitter", "flip,shift,crop,rotate,colour"]
)
def test_draws_of_pictures_depend_on_seed_and_step_alone(text):
    d = pictures(text)
    first = d.x_train.draw(ALL, 3, 5)
    assert np.array_equal(d.x_train.draw(ALL, 3, 5), first) and first.dtype == np.float32
    assert not np.array_equal(d.x_train.draw(ALL, 3, 6), first) and not np.array_equal(d.x_train.draw(ALL, 4, 5), first)
    assert np.array_equal(d.x_train.draw(ALL[:7], 3, 5), first[:7])  # the same place in a smaller batch
    assert not np.array_equal(first, d.x_train[ALL])
    assert np.array_equal(d.x_train[:], PICTURES / np.float32(255)) and first.min() >= 0 and first.max() <= 1


@pytest.mark.parametrize("text", ["time-shift", "scale", "jitter", "time-shift,scale,jitter"])
@pytest.mark.parametrize("wide", [True, False])
def test_draws_of_windows_depend_on_seed_and_step_alone(text, wide):
    x = windows(text, wide).x_train
    first = x.draw(ALL, 3, 5)
    assert np.array_equal(x.draw(ALL, 3, 5), first) and np.array_equal(x.draw(ALL[:7], 3, 5), first[:7])
    assert not np.array_equal(x.draw(ALL, 3, 6), first) and not np.array_equal(first, x[ALL])


def test_half_of_the_pictures_are_mirrored_exactly():
    d = pictures("flip")
    found, plain = d.x_train.draw(ALL, 0, 0), d.x_train[ALL]
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(found, plain, strict=True)]
    assert 20 < sum(mirrored) < 44
    assert all(m or np.array_equal(a, b) for m, a, b in zip(mirrored, found, plain, strict=True))


def test_a_move_is_by_whole_pixels_and_repeats_the_border():
    d = pictures("shift=0.25")
    found, plain = d.x_train.draw(ALL, 0, 0), d.x_train[ALL]
    moves = set()
    for a, b in zip(found, plain, strict=True):
        fits = [
            (r, c) for r in range(-2, 3) for c in range(-2, 3)
            if np.array_equal(a, b[np.clip(np.arange(9) + r, 0, 8)][:, np.clip(np.arange(8) + c, 0, 7)])
        ]  # fmt: skip
        assert fits
        moves |= set(fits)
    assert len(moves) > 15  # of 25


def test_a_quarter_turn_is_exact_and_a_crop_enlarges():
    square = RNG.random((7, 7, 2), dtype=np.float32)
    rows, columns = np.meshgrid(np.arange(7.0), np.arange(7.0), indexing="ij")
    assert np.array_equal(sampled(square, 6 - columns, rows), np.rot90(square, -1))
    ramp = np.repeat(np.linspace(0, 1, 41, dtype=np.float32)[None, :, None], 41, 0)[None]
    for name, most in (("crop=0.5", 1.0), ("rotate=20", 1.001)):
        d = pictures(name, np.rint(ramp * 255).astype(np.uint8).repeat(64, 0))
        slopes = np.diff(d.x_train.draw(ALL, 0, 0)[:, 20, 15:26, 0], axis=1).mean(1) * 40
        assert slopes.max() <= most + 0.01 and slopes.min() >= 0.49 and np.ptp(slopes) > 0.02


def test_colours_stay_pixels_and_change_brightness():
    d = pictures("colour=0.4").with_pixels(-1.0, 1.0)
    found = d.x_train.draw(ALL, 0, 0)
    assert found.min() == -1 and found.max() == 1
    means = found.mean((1, 2, 3)) - d.x_train[ALL].mean((1, 2, 3))
    assert means.std() > 0.1 and abs(means.mean()) < 0.15


def test_jitter_has_the_deviation_that_was_asked_for():
    x = windows("jitter=0.3").x_train
    noise = x.draw(ALL, 0, 0) - x[ALL]
    assert abs(noise.std() - 0.3) < 0.01 and abs(noise.mean()) < 0.01
    a, b = (noise[:, 0, :-1, 0].ravel(), noise[:, 0, 1:, 0].ravel())
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.05


def test_time_moves_along_time_and_size_by_one_factor():
    for wide in (True, False):
        x = windows("time-shift=0.2", wide).x_train
        found, plain = x.draw(ALL, 0, 0), x[ALL]
        axis, moves = (1 if wide else 0), set()
        for a, b in zip(found, plain, strict=True):
            fits = [m for m in range(-10, 11) if np.array_equal(a, np.take(b, np.clip(np.arange(50) + m, 0, 49), axis))]
            assert len(fits) == 1
            moves.add(fits[0])
        assert len(moves) > 12
    x = windows("scale=0.5").x_train
    factors = x.draw(ALL, 0, 0) / x[ALL]
    np.testing.assert_allclose(np.ptp(factors, axis=(1, 2, 3)), 0, atol=1e-5)
    assert 0.5 <= factors.min() < 0.6 and 1.4 < factors.max() <= 1.5


def test_validation_and_evaluation_see_the_samples_as_they_are():
    d = validation_split(pictures("flip,rotate"), 0.25)
    assert isinstance(d.x_train, Augmented) and isinstance(d.x_val, np.ndarray) and isinstance(d.x_test, np.ndarray)
    images = Resized(PICTURES, (12, 12), crop=1, flip=True)
    y = ALL % 2
    d = augmented(Dataset("own", images, y, images.still(), y, ("a", "b"), pixels=True), "rotate,colour")
    whole = validation_split(d).with_pixels(-128.0, 127.0, np.int8)
    assert whole.x_train.draw(ALL[:5], 0, 0).dtype == np.int8 == whole.x_val[:].dtype and whole.x_val.crop == 0
    assert whole.x_train.shape[1:] == (12, 12, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flop", "--augment knows flip, shift, crop, rotate, colour, time-shift, scale, jitter, not 'flop'"),
        ("shift=0.9", "--augment shift takes the largest move along each axis, .*at most 0.5, got '0.9'"),
        ("shift=x", "--augment shift takes .* got 'x'"), ("rotate=nan", "--augment rotate takes .* got 'nan'"),
        ("flip,flip", "--augment names flip twice"), (" , ", "--augment must name some of flip"),
        ("scale", "--augment scale means nothing for pictures: flip, shift, crop, rotate, colour, jitter do"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        pictures(text)


def test_windows_are_not_mirrored_and_values_not_recoloured():
    with pytest.raises(DataError, match="--augment flip means nothing for windows of measurements: time-shift, scale"):
        windows("flip")
    with pytest.raises(DataError, match="--augment colour needs pixels, but the values of own are none"):
        pictures("colour", RNG.standard_normal((64, 9, 8, 3)).astype(np.float32))
    assert set(EVERY) == {"flip", "shift", "crop", "rotate", "colour", "time-shift", "scale", "jitter"}
