"""Arrays as people have them: labels, orders of axes, counts, pixels, groups, recordings, files on the disk."""

import numpy as np
import pytest

from refimpl import data
from refimpl.data import DataError, ReadOptions, validation_split
from refimpl.data.labels import read_labels
from refimpl.data.mapped import Mapped
from refimpl.data.recordings import cut

RNG = np.random.default_rng(0)
NUMBERS = np.arange(24) % 3


def npz(folder, **arrays):
    np.savez(folder / "own.npz", **arrays)
    return folder / "own.npz"


def labels(y, classes=None):
    return read_labels([(np.asarray(y), len(y), "y", "x")], classes)


# Labels

SAME = {
    "numbers": (NUMBERS, ("0", "1", "2")),
    "bytes": (NUMBERS.astype(np.uint8), ("0", "1", "2")),
    "a column": (NUMBERS[:, None], ("0", "1", "2")),
    "from 1": (NUMBERS + 1, ("1", "2", "3")),
    "with gaps": (np.array([2, 40, 7000])[NUMBERS], ("2", "40", "7000")),
    "negative": (NUMBERS - 1, ("-1", "0", "1")),
    "whole floats": (NUMBERS + 0.0, ("0", "1", "2")),
    "one-hot": (np.eye(3, dtype=int)[NUMBERS], ("0", "1", "2")),
    "one-hot floats": (np.eye(3)[NUMBERS], ("0", "1", "2")),
    "one-hot with a class that nothing has": (np.eye(4)[np.array([0, 2, 3])[NUMBERS]], ("0", "2", "3")),
    "texts": (np.array(["ant", "bee", "cow"])[NUMBERS], ("ant", "bee", "cow")),
    "byte texts": (np.array([b"ant", b"bee", b"cow"])[NUMBERS], ("ant", "bee", "cow")),
    "numbers as texts": (np.array(["2", "9", "10"])[NUMBERS], ("2", "9", "10")),
    "texts with blanks": (np.array([" ant", "bee ", "cow"])[NUMBERS], ("ant", "bee", "cow")),
    "largest of 64 bits": (np.array([0, 5, 2**40])[NUMBERS], ("0", "5", str(2**40))),
}


@pytest.mark.parametrize("kind", SAME)
def test_every_kind_of_label_ends_as_the_same_classes_without_ghosts(kind):
    y, names = SAME[kind]
    found = labels(y)
    assert found.parts[0].dtype == np.int64 and np.array_equal(found.parts[0], NUMBERS)
    assert found.classes == names and found.given == tuple(zip(names, range(3), strict=True))


def test_what_is_done_to_labels_is_said():
    assert labels(NUMBERS + 1).said == ("labels 1, 2, 3 are classes 0 to 2",)
    assert labels(NUMBERS).said == ()
    assert "one-hot" in labels(np.eye(3)[NUMBERS]).said[0] and "floats" in labels(NUMBERS + 0.0).said[0]


def test_parts_are_numbered_together():
    parts = [(np.array([5, 9]), 2, "y", "x"), (np.array([7, 9]), 2, "y_test", "x_test")]
    found = read_labels(parts)
    assert [p.tolist() for p in found.parts] == [[0, 2], [1, 2]] and found.classes == ("5", "7", "9")


def test_labels_of_named_classes():
    names = ["ant", "bee", "cow"]
    assert labels(NUMBERS, names).parts[0].tolist() == NUMBERS.tolist()
    one = labels(NUMBERS + 1, names)
    assert np.array_equal(one.parts[0], NUMBERS) and "labels begin at 1" in one.said[0]
    assert labels(["cow", "ant", "cow"], names).parts[0].tolist() == [2, 0, 2]
    assert labels([0, 2, 0], names).classes == ("ant", "bee", "cow")  # named, so it is no ghost


@pytest.mark.parametrize(
    ("y", "classes", "message"),
    [
        ([0, 1.5], None, "y has the label 1.5 at index 1, but labels must be whole numbers"),
        ([0, np.nan], None, "y has the label nan at index 1"),
        ([[1, 0], [1, 1]], None, r"y is \(2, 2\), but row 1 is not one-hot"),
        ([["a", "b"], ["a", "b"]], None, r"y is \(2, 2\), but row 0 is not one-hot"),
        (["a", " "], None, "y has an empty label at index 1; every sample needs one"),
        (np.zeros((2, 2, 2)), None, r"y must be \(N,\), one label for each sample, or one-hot \(N, K\), but its shape"),
        (np.array([1, 2], "M8[s]"), None, "but labels must be numbers or texts"),
        (np.arange(5000), None, "y has 5,000 different labels, and at most 4,096 are classes"),
        (np.array([1, 2**64 - 1], np.uint64), None, "y has the label 18446744073709551615, which is no class number"),
        ([0, 3], ["a", "b", "c"], "classes has 3 names, but the labels go up to 3"),
        ([-1, 0], ["a", "b"], "y has the label -1, but labels must number the names of classes"),
        (["a", "d"], ["a", "b"], "y has the label 'd', which is not among the names of classes"),
    ],
)
def test_labels_that_are_none_are_refused(y, classes, message):
    with pytest.raises(DataError, match=message):
        labels(y, classes)


def test_texts_and_numbers_do_not_mix():
    with pytest.raises(DataError, match="y holds <U1, but y_test holds int64"):
        read_labels([(np.array(["a"]), 1, "y", "x"), (np.array([1]), 1, "y_test", "x_test")])


# Axes

T, C = 40, 6
WINDOWS = (RNG.standard_normal((24, T, C)) * 0.5).astype(np.float32)


@pytest.mark.parametrize(
    "x", [WINDOWS, WINDOWS.transpose(0, 2, 1), WINDOWS[:, None], np.ascontiguousarray(WINDOWS.transpose(0, 2, 1))]
)
def test_every_order_of_a_windows_axes_gives_the_same_maps(tmp_path, x):
    found = data.load(npz(tmp_path, x=x, y=NUMBERS, x_test=x[:6], y_test=NUMBERS[:6]))
    assert np.array_equal(found.x_train[:, 0], WINDOWS) and found.x_train.shape == (24, 1, T, C)
    assert np.array_equal(found.origin.preprocessing(x[:6]), found.x_test)
    assert x.ndim == 4 or "the longer axis is time" in found.origin.said[0]


def test_axes_that_were_given_are_taken(tmp_path):
    square = RNG.standard_normal((24, 6, 6)).astype(np.float32)
    path = npz(tmp_path, x=square, y=NUMBERS)
    assert data.load(path).size == (6, 6) and data.load(path, reading=ReadOptions(axes="ntc")).size == (1, 6)
    across = data.load(path, reading=ReadOptions(axes="NCT", values="keep"))
    along = data.load(path, reading=ReadOptions(axes="NTC", values="keep"))
    assert np.array_equal(across.x_train[:, 0], along.x_train[:, 0].transpose(0, 2, 1))
    for axes, message in (("NTW", "--axes must name each axis"), ("NHWC", r"x of .* must be \(N, H, W, C\), but its")):
        with pytest.raises(DataError, match=message):
            data.load(path, reading=ReadOptions(axes=axes))


def test_images_whose_channels_come_first(tmp_path):
    x = RNG.integers(0, 256, (24, 3, 8, 10), dtype=np.uint8)
    found = data.load(npz(tmp_path, x=x, y=NUMBERS, x_test=x, y_test=NUMBERS))
    assert np.array_equal(found.x_test, x.transpose(0, 2, 3, 1) / np.float32(255))
    assert found.origin.said == (f"x of {tmp_path / 'own.npz'} (24, 3, 8, 10) is (N, C, H, W): channels come first",)


# Values


def test_counts_are_standardised_and_new_samples_get_the_same_bits(tmp_path):
    counts = np.rint(WINDOWS * 3000 + 500).astype(np.int16)
    found = data.load(npz(tmp_path, x=counts, y=NUMBERS))
    np.testing.assert_allclose(found.x_train.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.x_train.std((0, 1, 2)), 1, atol=1e-5)
    made = found.origin.preprocessing
    again = {m.tobytes() for m in np.concatenate([found.x_train, found.x_test])}
    assert again == {made(counts[i : i + 1])[0].tobytes() for i in range(24)}
    assert "int16 counts are standardised" in found.origin.said and found.origin.values == (counts.min(), counts.max())
    kept = data.load(npz(tmp_path, x=counts, y=NUMBERS), reading=ReadOptions(values="keep"))
    assert kept.x_train.max() > 1000 and not kept.origin.preprocessing.mean


def test_the_means_are_those_of_the_training_samples(tmp_path):
    path = npz(tmp_path, x=WINDOWS * 100, y=NUMBERS, x_test=WINDOWS[:6] * 900, y_test=NUMBERS[:6])
    found = data.load(path)
    np.testing.assert_allclose(found.x_train.std((0, 1, 2)), 1, atol=1e-5)
    assert found.x_test.std() > 5 and "channel 0 has the mean" in found.origin.said[-1]


def test_floats_that_are_fit_keep_their_bits(tmp_path):
    found = data.load(npz(tmp_path, x=WINDOWS[:, None], y=NUMBERS, x_test=WINDOWS[:6, None], y_test=NUMBERS[:6]))
    assert np.array_equal(found.x_train[:, 0], WINDOWS) and not found.origin.preprocessing.mean
    asked = data.load(npz(tmp_path, x=WINDOWS, y=NUMBERS), reading=ReadOptions(values="standardise"))
    np.testing.assert_allclose(asked.x_train.std((0, 1, 2)), 1, atol=1e-5)


PIXELS = RNG.integers(0, 256, (24, 6, 5, 3), dtype=np.uint8)
PIXELS[0, 0, 0] = 255


@pytest.mark.parametrize(
    ("x", "divisor"),
    [
        (PIXELS, 255), (PIXELS.astype(np.float32), 255), (PIXELS.astype(np.int64), 255),
        (PIXELS.astype(np.float64) / 255, 1), (PIXELS.astype(np.uint16) * 257, 65535),
        (PIXELS.astype(np.uint16) * 16, 4095), (PIXELS.astype(np.uint16), 255),
    ],
)  # fmt: skip
def test_pixels_of_every_range_are_what_a_net_expects(tmp_path, x, divisor):
    d = data.load(npz(tmp_path, x=x, y=NUMBERS, x_test=x, y_test=NUMBERS))
    assert d.pixels and d.origin.preprocessing.divisor == divisor
    found = d.with_pixels(-1.0, 1.0)
    np.testing.assert_allclose(found.x_test, PIXELS / 127.5 - 1, atol=0.01)
    assert np.array_equal(found.origin.preprocessing(x), found.x_test)


def test_values_that_are_no_pixels_stay_and_may_be_asked_for(tmp_path):
    x = (PIXELS / 127.5 - 1).astype(np.float32)
    found = data.load(npz(tmp_path, x=x, y=NUMBERS, x_test=x, y_test=NUMBERS))
    assert not found.pixels and np.array_equal(found.with_pixels(-1.0, 1.0).x_test, x)
    with pytest.raises(DataError, match="--values pixels: values from -1 to 1 of float32 are no pixels"):
        data.load(npz(tmp_path, x=x, y=NUMBERS), reading=ReadOptions(values="pixels"))
    with pytest.raises(DataError, match="--values must be keep, standardise or pixels, got 'raw'"):
        data.load(npz(tmp_path, x=x, y=NUMBERS), reading=ReadOptions(values="raw"))


# Groups


def test_nobody_is_on_both_sides(tmp_path):
    people = np.array(["ann", "bob", "cem", "dee"])[np.arange(24) // 6]
    found = data.load(npz(tmp_path, x=WINDOWS, y=NUMBERS, subject=people))
    assert len(found.x_test) == 6 and len(np.unique(found.groups)) == 3
    held = ({0, 1, 2, 3} - set(found.groups.tolist())).pop()
    assert found.origin.split == f"judging: 1 whole group, drawn: {'ann bob cem dee'.split()[held]}"
    assert np.array_equal(found.x_test[:, 0], WINDOWS[6 * held : 6 * held + 6])
    again = validation_split(found, 0.3)
    assert not set(again.groups.tolist()) & {held} and len(again.x_val) == 6
    with pytest.raises(DataError, match="has no array who, the groups: it holds x, y"):
        data.load(npz(tmp_path, x=WINDOWS, y=NUMBERS), reading=ReadOptions(group="who"))
    with pytest.raises(
        DataError, match=r"groups must name the group of each of the 24 samples, but it is int64 \(3,\)"
    ):
        data.load(npz(tmp_path, x=WINDOWS, y=NUMBERS, group=np.arange(3)))


# Recordings


def test_windows_lie_in_one_stretch_and_one_recording():
    y = np.repeat([0, 1, 0], [10, 4, 11])
    first = cut(y, np.repeat([0, 1], [19, 6]), 4, 3)
    assert first.tolist() == [0, 3, 6, 10, 14, 19]  # 14 to 18 leaves one sample, 19 begins the other recording
    assert all(len({*y[f : f + 4]}) == 1 for f in first)


def test_a_long_recording_is_cut_and_split_in_time(tmp_path):
    x = RNG.integers(-500, 500, (4000, 3), dtype=np.int16)
    y = np.repeat([3, 8], 2000)
    path = npz(tmp_path, x=x, y=y)
    found = data.load(path, reading=ReadOptions(window="2s", stride="0.5s", rate=50.0))
    assert found.size == (1, 100) and found.channels == 3 and found.classes == ("3", "8")
    made = found.origin.preprocessing
    assert (made.kind, made.window, made.stride, made.rate) == ("window", 100, 25, 50.0)
    assert "windows that overlap it dropped" in found.origin.split
    ends = [found.spans[found.y_train == c][:, 2].max() for c in (0, 1)]
    assert ends[0] <= 1700 and ends[1] <= 3700 and len(found.x_test) == 30
    assert data.load(path, reading=ReadOptions(window="100")).spans[1, 1] == 50  # half a window is the default stride


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": "2s"}, "--window 2s is in seconds: --rate must say the samples a second"),
        ({"window": "two"}, "--window must be samples, such as 100, or seconds, such as 2s, got 'two'"),
        ({"window": "2.5"}, "--window must be samples"),
        ({"window": "0"}, "--window 0 is no sample long"),
        ({"window": "100", "stride": "0s", "rate": 50.0}, "--stride 0s is no sample long"),
        ({"window": "2s", "rate": -1.0}, "--rate must be the samples a second, more than 0, got -1"),
        ({"window": "3000"}, "has no stretch of one class that is as long as a window of 3000 samples"),
        ({"window": "100", "axes": "NTC"}, "--axes means nothing for one long recording"),
    ],
)
def test_windows_that_cannot_be_cut_are_refused(tmp_path, options, message):
    path = npz(tmp_path, x=np.zeros((4000, 3)), y=np.repeat([0, 1], 2000))
    with pytest.raises(DataError, match=message):
        data.load(path, reading=ReadOptions(**options))


# On the disk


@pytest.mark.parametrize("x", [PIXELS, PIXELS.transpose(0, 3, 1, 2), WINDOWS, (WINDOWS * 900).astype(np.int16)])
def test_arrays_on_the_disk_give_the_same_bits_as_in_memory(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", NUMBERS)
    found = data.load(tmp_path, seed=2).with_pixels(-1.0, 1.0)
    held = data.load(npz(tmp_path, x=x, y=NUMBERS), seed=2).with_pixels(-1.0, 1.0)
    assert isinstance(found.x_train, Mapped) and found.x_train.shape == held.x_train.shape
    for part in ("x_train", "x_test"):
        assert np.array_equal(getattr(found, part)[:], getattr(held, part))
    low, high = found.x_train.ends()
    assert low <= held.x_train.min() and held.x_train.max() <= high
    assert np.array_equal(found.x_train[np.array([3, 1])], held.x_train[[3, 1]])
    apart = validation_split(found, 0.2)
    assert np.array_equal(apart.x_val[:], validation_split(held, 0.2).x_val)


def test_files_that_are_no_pair_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", WINDOWS)
    with pytest.raises(DataError, match=r"has no y.npy: it holds x.npy, but x.npy and y.npy are needed"):
        data.load(tmp_path)
    np.save(tmp_path / "y.npy", NUMBERS)
    whole = (tmp_path / "x.npy").read_bytes()
    (tmp_path / "x.npy").write_bytes(whole[:-50])
    with pytest.raises(DataError, match="x.npy is no .npy file: "):
        data.load(tmp_path)
    np.save(tmp_path / "x.npy", np.array([{}] * 24), allow_pickle=True)
    with pytest.raises(DataError, match="x.npy is no .npy file: "):
        data.load(tmp_path)
    bad = WINDOWS.copy()
    bad[3, 2, 1] = np.nan
    np.save(tmp_path / "x.npy", bad)
    with pytest.raises(DataError, match=r"has nan at index \(3, 0, 2, 1\); every value must be finite"):
        data.load(tmp_path)
