"""What trains and what is held out: by class, by group, by time; and what turns new samples into maps."""

import json
from dataclasses import replace

import numpy as np
import pytest

from refimpl import data
from refimpl.data import DataError, Dataset, Preprocessing, Resized, validation_split
from refimpl.data.preprocessing import PreprocessingError, moments
from refimpl.data.splits import by_time
from refimpl.saved.fitting import held_out

RNG = np.random.default_rng(0)


def numbered(y, **more):
    """A data set whose samples hold their own number."""
    y = np.asarray(y)
    x = np.arange(len(y), dtype=np.float32).reshape(-1, 1, 1, 1)
    names = tuple(map(str, range(int(y.max()) + 1)))
    return Dataset("own", x, y, x[:2].copy(), y[:2], names, **more)


def numbers(x):
    return x.reshape(-1).astype(int).tolist()


def test_each_class_gives_its_share_and_no_sample_is_lost():
    y = np.repeat([0, 1, 2, 3], [60, 30, 2, 1])
    d = numbered(y)
    found = validation_split(d, 0.2, seed=3)
    assert np.bincount(found.y_val, minlength=4).tolist() == [12, 6, 1, 0]
    train, held = numbers(found.x_train), numbers(found.x_val)
    assert sorted(train + held) == list(range(93)) and numbers(d.x_train) == list(range(93))
    assert np.array_equal(y[train], found.y_train) and np.array_equal(y[held], found.y_val)
    assert numbers(validation_split(d, 0.2, seed=3).x_val) == held
    assert numbers(validation_split(d, 0.2, seed=4).x_val) != held
    assert "validation: 20 % of each class" in found.origin.split
    assert validation_split(found, 0.5) is found  # it has some already
    reused = validation_split(d, 0.2, seed=3, reuse=True)
    assert numbers(reused.x_train) == train and np.shares_memory(reused.x_train, d.x_train)


def test_copies_are_held_out_together_and_what_has_none_is_drawn_as_ever():
    y = np.repeat([0, 1, 2], [30, 20, 2])
    alike = np.arange(52)
    held = numbers(validation_split(numbered(y), 0.2, seed=3).x_val)
    assert numbers(validation_split(numbered(y, alike=alike), 0.2, seed=3).x_val) == held
    assert held == [2, 6, 14, 15, 23, 29, 30, 35, 36, 47, 51]
    alike[[5, 31, 51]] = 0, 33, 1  # a copy in a class, and two of another class
    for seed in range(9):
        found = validation_split(numbered(y, alike=alike), 0.2, seed)
        train, kept = numbers(found.x_train), numbers(found.x_val)
        assert not set(alike[train]) & set(alike[kept]) and np.array_equal(found.alike, alike[train])
        assert set(y[train]) == {0, 1, 2} and len(train) + len(kept) == 52
        train, kept = held_out(numbered(y, alike=alike), y, seed)  # of `Model.fit`
        assert len(kept) and not set(alike[train]) & set(alike[kept])
    one = numbered(np.array([0, 0, 1, 1]), alike=np.array([0, 0, 1, 1]))
    with pytest.raises(DataError, match="own has 1 sample of each class beside copies: none can be held out"):
        validation_split(one, 0.2)
    both = numbered(np.arange(11) // 10, alike=np.arange(11) % 10)  # of class 1 there is but a copy, which stays
    assert all(validation_split(both, 0.2, seed).y_train[-1] == 1 for seed in range(9))


def test_a_group_is_never_on_both_sides_and_no_class_loses_its_last_one():
    groups = np.repeat(np.arange(10), 20)
    y = np.tile([0, 1], 100)
    y[180:] = 2  # only the last group has class 2
    for seed in range(5):
        found = validation_split(numbered(y, groups=groups), 0.2, seed)
        held = {int(groups[i]) for i in numbers(found.x_val)}
        assert len(held) == 2 and 9 not in held and not held & set(found.groups.tolist())
        assert set(found.groups.tolist()) | held == set(range(10))
        most = validation_split(numbered(y, groups=groups), 0.7, seed)
        assert set(most.y_train.tolist()) == {0, 1, 2}
    one = numbered(np.repeat([0, 1], 50), groups=np.repeat([0, 1], 50))
    with pytest.raises(DataError, match="own has too few groups or recordings to hold some out"):
        validation_split(one, 0.1)
    small = numbered(np.tile([0, 1], 50), groups=np.repeat([0, 1], [60, 40]))
    assert len(validation_split(small, 0.1).x_val) == 40  # the smaller of two, though it is more than the share


def overlap(spans, one, other):
    return [
        (i, j) for i in one for j in other
        if spans[i, 0] == spans[j, 0] and spans[i, 1] < spans[j, 2] and spans[j, 1] < spans[i, 2]
    ]  # fmt: skip


def test_windows_that_share_samples_are_never_on_both_sides():
    first = np.concatenate([np.arange(0, 1000, 25), np.arange(0, 500, 25)])
    recording = np.repeat([0, 1], [40, 20])
    spans = np.stack([recording, first, first + 100], axis=1)
    y = np.concatenate([np.repeat([0, 1], 20), np.repeat([1, 0], 10)])
    order = RNG.permutation(60)
    d = numbered(y[order], spans=spans[order])
    found = validation_split(d, 0.2)
    train, held = numbers(found.x_train), numbers(found.x_val)
    assert np.bincount(found.y_val).tolist() == [6, 6]  # a fifth of each stretch: 4 + 2
    assert not overlap(spans[order], train, held) and len(train) == 30
    dropped = set(range(60)) - set(train) - set(held)
    assert all(overlap(spans[order], [i], held) for i in dropped)  # none is dropped in vain
    assert np.array_equal(found.spans, spans[order][train])
    assert f"{len(dropped)} windows that overlap it dropped" in found.origin.split


def test_the_watch_windows_that_validate_share_no_sample_with_those_that_train():
    found = validation_split(data.watch(2), 0.2)
    kept = {(int(r), int(s)) for r, a, b in found.spans for s in range(a, b)}
    own = data.watch(2)
    train, held = by_time(own.y_train, own.spans, 0.2)
    assert np.array_equal(own.x_train[train], found.x_train) and np.array_equal(own.x_train[held], found.x_val)
    assert not kept & {(int(r), int(s)) for r, a, b in own.spans[held] for s in range(a, b)}
    assert len(np.unique(found.y_val)) == len(np.unique(found.y_train)) == 7


def test_images_that_validate_are_neither_moved_nor_mirrored():
    images = RNG.integers(0, 256, (20, 4, 5, 3), dtype=np.uint8)
    x = Resized(images, (8, 8), crop=2, flip=True)
    d = Dataset("own", x, np.arange(20) % 2, x.still(), np.arange(20) % 2, ("a", "b"), pixels=True)
    found = validation_split(d, 0.2).with_pixels(-1.0, 1.0)
    assert (found.x_val.crop, found.x_val.flip, found.x_train.crop, found.x_train.flip) == (0, False, 2, True)
    assert found.x_val[:].min() < 0 and len(found.x_val) == 4
    assert found.origin.preprocessing.black == -1


def test_what_cannot_be_split_is_refused():
    with pytest.raises(DataError, match="own has 1 sample of each class: none can be held out"):
        validation_split(numbered([0, 1, 2]))
    for share in (0, 1, -0.5, np.nan):
        with pytest.raises(DataError, match="share of validation samples must lie between 0 and 1, not"):
            validation_split(numbered([0, 0, 1, 1]), share)


def test_moments_do_not_depend_on_order_or_blocks():
    x = (RNG.standard_normal((50, 3, 7, 2)) * [1, 1e4] + [0, 1e6]).astype(np.float32)
    mean, std = moments([x])
    flat = x.reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(mean, flat.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, flat.std(0), rtol=1e-9)
    assert moments([x[::-1].copy()]) == (mean, std) == moments([x[:, :, ::-1]])
    assert moments([np.full((4, 1, 2, 1), 7.0)])[1] == (1.0,)


def test_preprocessing_survives_json_and_gives_the_same_bits_alone():
    x = RNG.integers(-3000, 3000, (9, 6, 40), dtype=np.int16)
    mean, std = moments([x.transpose(0, 2, 1)[:, None]])
    made = Preprocessing("window", axes="NCT", mean=mean, std=std, rate=50.0, window=40, columns=("a", "ß"))
    again = Preprocessing.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    maps = again(x)
    assert maps.shape == (9, 1, 40, 6) and maps.dtype == np.float32
    np.testing.assert_allclose(maps.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(maps.std((0, 1, 2)), 1, atol=1e-5)
    assert all(np.array_equal(again(x[i : i + 1]), maps[i : i + 1]) for i in range(9))


def test_preprocessing_of_pixels_is_that_of_the_data_set():
    images = RNG.integers(0, 256, (12, 5, 4, 1), dtype=np.uint8)
    d = data.from_arrays("own", images, np.arange(12) % 2, images, np.arange(12) % 2)
    made = replace(Preprocessing("image", divisor=255.0), size=(5, 4)).with_pixels(-1, 1, np.dtype(np.float32))
    eighths = replace(d, x_train=np.arange(12, dtype=np.int8).reshape(12, 1, 1, 1))
    assert validation_split(eighths).x_val.dtype == np.int8  # as a net of whole numbers takes them
    assert np.array_equal(made(images), d.with_pixels(-1.0, 1.0).x_test)
    wide = replace(made, size=(9, 9), channels=3)
    assert np.array_equal(wide(images)[..., 2:], Resized(images, (9, 9), -1.0, 1.0)[:])
    whole = made.with_pixels(-128, 127, np.dtype(np.int8))
    assert whole(images).dtype == np.int8 and np.array_equal(whole(images), images.astype(int) - 128)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((2, 3, 4)), r"the samples must be \(N, H, W, C\), but their shape is \(2, 3, 4\)"),
        (np.zeros((2, 1, 4, 3)), "have C=3 channels, but the net was made for C=2"),
        (np.zeros((2, 1, 5, 2)), "have maps of 1x5, but the net takes 1x4"),
    ],
)
def test_samples_that_do_not_fit_are_refused(samples, message):
    made = Preprocessing(mean=(0.0, 0.0), std=(1.0, 1.0), size=(1, 4))
    with pytest.raises(PreprocessingError, match=message):
        made(samples)


@pytest.mark.parametrize(
    "changed",
    [{"columns": True}, {"mean": 1.5}, {"size": "12"}, {"rate": "50"}, {"rate": -1.0}, {"std": [0.0]},
     {"std": [1.0, 1.0]}, {"axes": "NN"}, {"axes": "NTW"}, {"size": [3]}, {"dtype": "O"},
     {"mean": ["a"]}, {"divisor": float("nan")}, {"window": -1}, {"other": 1}],
)  # fmt: skip
def test_stored_preprocessing_that_is_none_is_refused(changed):
    with pytest.raises(PreprocessingError, match="the preprocessing .* (is none that|holds values that)"):
        Preprocessing.from_json(Preprocessing(mean=(0.5,), std=(1.0,)).to_json() | changed)
    with pytest.raises(PreprocessingError, match="is none that this version knows"):
        Preprocessing.from_json("NHWC")
