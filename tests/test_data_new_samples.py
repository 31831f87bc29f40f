"""New samples of a trained net: the bits that they would have among those that it was trained on."""

import json
import shutil
import wave
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from refimpl import data
from refimpl.data import DataError, Preprocessing, ReadOptions, new_samples, read_samples
from refimpl.storage.files import InputError

RNG = np.random.default_rng(0)


def stored(dataset):
    """The preprocessing of a data set as a record gives it back."""
    return Preprocessing.from_json(json.loads(json.dumps(dataset.origin.preprocessing.to_json())))


def bits(*arrays):
    return {m.tobytes() for a in arrays for m in a}


def pets(root):
    for name in ("cat", "dog"):
        for i in range(5):
            path = root / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)).save(path)
    return root


@pytest.mark.parametrize("channels", [1, 3])
def test_photographs(tmp_path, channels):
    root = pets(tmp_path / "pets")
    d = data.load(root, size=(6, 6), channels=channels).with_pixels(-1.0, 1.0)
    found = read_samples(root, stored(d))
    assert bits(found.x) == bits(d.x_train, d.x_test) and found.x.shape == (10, 6, 6, channels)
    assert found.names[0] == "cat/0.png"
    one = read_samples(root / "dog" / "3.png", stored(d))
    assert np.array_equal(one.x[0], found.x[8]) and one.names == ("3.png",)
    shutil.copy(root / "dog" / "3.png", root / "dog" / "3")  # by its first bytes
    again = read_samples(root, stored(d))
    assert again.names[8:10] == ("dog/3", "dog/3.png") and np.array_equal(again.x[8], again.x[9])
    (root / "dog" / "3").unlink()
    (root / "cat" / "x.jpg").write_bytes(b"no")
    (root / "cat" / ".hidden.png").write_bytes(b"no")
    (root / "notes.txt").write_text("no")
    with pytest.raises(DataError, match="cat/x.jpg cannot be read: cannot identify image file; --skip-bad"):
        read_samples(root, stored(d))
    left = read_samples(root, stored(d), skip_bad=True)
    assert len(left.x) == 10 and len(left.skipped) == 1
    with pytest.raises(DataError, match="notes.txt is no image"):
        read_samples(root / "notes.txt", stored(d))
    with pytest.raises(DataError, match="^the image .*x.jpg cannot be read: cannot identify image file$"):
        read_samples(root / "cat" / "x.jpg", stored(d), skip_bad=True)  # which would leave nothing
    (root / "dog" / "a.heic").write_bytes(b"no")
    with pytest.raises(DataError, match=r"a.heic is an image that is not read \(.heic; .*\): convert it$"):
        read_samples(root / "dog" / "a.heic", stored(d))
    told = (
        r"2 problems with the 12 images of .*pets: cat/x.jpg cannot be .*; dog/a.heic is an .*; --skip-bad leaves such"
    )
    with pytest.raises(DataError, match=told):
        read_samples(root, stored(d))


def test_a_folder_is_read_a_batch_at_a_time(tmp_path):
    """Samples that are good are there before one that is not is reached; then all that are not are told."""
    root = pets(tmp_path / "pets")
    d = data.load(root, size=(6, 6))
    (root / "dog" / "5.png").write_bytes(b"no")
    found = new_samples.new_batches(root, stored(d), 4)
    assert [next(found)[0], next(found)[0][1:]] == [
        [f"cat/{i}.png" for i in range(4)],
        [f"dog/{i}.png" for i in range(3)],
    ]
    with pytest.raises(DataError, match="5.png cannot be read"):
        next(found), next(found)
    left = []
    assert [len(names) for names, _ in new_samples.new_batches(root, stored(d), 4, left=left)] == [4, 4, 2]
    assert left == [(str(root / "dog" / "5.png"), "cannot be read: cannot identify image file")]


def test_samples_of_another_kind_than_the_net_was_trained_on(tmp_path):
    root = pets(tmp_path / "pets")
    sound, numbers = Preprocessing("sound", rate=8000.0, frames=16), Preprocessing(axes="NTC", channels=2)
    with pytest.raises(DataError, match="pets holds no clip that can be used"):
        read_samples(root, sound)
    with pytest.raises(DataError, match="0.png is no WAV file"):
        read_samples(root / "cat" / "0.png", sound)
    with pytest.raises(DataError, match="trained on maps of HxWx2 numbers, not on pixels: .*cat/0.png is an image"):
        read_samples(root, numbers)
    with pytest.raises(InputError, match="the preprocessing does not say how files are read"):
        read_samples(root, Preprocessing("sound"))


def test_photographs_of_12_bits_keep_their_scale(tmp_path):
    for name, level in (("a", 1000), ("b", 4000)):
        for i in range(3):
            path = tmp_path / "deep" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((5, 5), level + i, np.uint16)).save(path)
    d = data.load(tmp_path / "deep", size=(5, 5))
    dark = read_samples(tmp_path / "deep" / "a" / "0.png", stored(d)).x  # which alone would be 10 bits
    assert dark.max() == np.float32(1000 >> 4) / 255


@pytest.mark.parametrize("form", ["npz", "npy"])
def test_arrays_of_counts(tmp_path, form):
    x = RNG.integers(-800, 800, (20, 3, 40), dtype=np.int16)
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(20) % 2)
    d = data.load(tmp_path / "own.npz")
    new = tmp_path / f"new.{form}"
    np.save(new, x[:4]) if form == "npy" else np.savez(new, x=x[:4])
    found = read_samples(new, stored(d))
    assert found.x.shape == (4, 1, 40, 3) and bits(found.x) < bits(d.x_train, d.x_test)
    assert found.names == tuple(f"new.{form} {i}" for i in range(4))
    np.save(tmp_path / "one.npy", x[7])
    assert bits(read_samples(tmp_path / "one.npy", stored(d)).x) < bits(d.x_train, d.x_test)


def table(path, rows, header="when,ax,ay,activity"):
    path.write_text("\n".join([header, *rows]))
    return path


def test_a_row_of_a_table_whatever_the_order_of_its_columns(tmp_path):
    values = RNG.standard_normal((20, 2)).round(3) * 90
    rows = [f"{i},{a},{b},{'no' if i % 2 else 'yes'}" for i, (a, b) in enumerate(values.tolist())]
    d = data.load(table(tmp_path / "a.csv", rows, "id,ax,ay,label"))
    new = table(tmp_path / "new.csv", [f"{b};{a}" for a, b in values[:5].tolist()], "ay;ax")
    found = read_samples(new, stored(d))
    assert bits(found.x) < bits(d.x_train, d.x_test) and found.names[0] == "line 2"
    with pytest.raises(DataError, match="b.csv has no column 'ay', which the net was trained on: it has ax"):
        read_samples(table(tmp_path / "b.csv", ["1,2"], "ax,az"), stored(d))


def test_a_recording_is_cut_as_the_training_one(tmp_path):
    values = RNG.standard_normal((400, 2)).round(3) * 90
    rows = [f"{a},{b},{'walk' if i < 200 else 'sit'}" for i, (a, b) in enumerate(values.tolist())]
    d = data.load(table(tmp_path / "a.csv", rows, "ax,ay,activity"), reading=ReadOptions(window="20", stride="10"))
    found = read_samples(table(tmp_path / "b.csv", [r.rsplit(",", 1)[0] for r in rows[:200]], "ax,ay"), stored(d))
    assert len(found.x) == 19 and found.names[1] == "lines 12 to 31"
    assert bits(d.x_train[d.y_train == 1]) < bits(found.x)
    short = table(tmp_path / "c.csv", rows[:9], "ax,ay,activity")
    with pytest.raises(DataError, match="c.csv has 9 rows, and a window is 20 samples long"):
        read_samples(short, stored(d))
    plain = [r.rsplit(",", 1)[0] for r in rows]
    hole = table(tmp_path / "d.csv", [*plain[:25], "x,1", *plain[25:40], "x,1", *plain[40:60]], "ax,ay")
    with pytest.raises(DataError, match="2 problems .*d.csv: line 27 has 'x' in .*; --skip-bad leaves such out"):
        read_samples(hole, stored(d))
    found = read_samples(hole, stored(d), skip_bad=True)
    assert found.names == ("lines 2 to 21", "lines 44 to 63") and len(found.skipped) == 2
    torn = table(tmp_path / "e.csv", [*plain[:15], "x,1", *plain[15:34]], "ax,ay")
    with pytest.raises(DataError, match="e.csv has no more than 19 rows without a gap, and a window is 20 samples lo"):
        read_samples(torn, stored(d), skip_bad=True)


def test_no_window_of_new_samples_reaches_over_a_jump_in_time(tmp_path):
    values = RNG.standard_normal((400, 2)).round(3) * 90
    when = np.arange(400) / 25 + 60 * (np.arange(400) >= 130)
    rows = [f"{t:.2f},{a},{b}" for t, (a, b) in zip(when, values.tolist(), strict=True)]
    kinds = [f"{row},{'walk' if i < 200 else 'sit'}" for i, row in enumerate(rows)]
    d = data.load(table(tmp_path / "a.csv", kinds, "Zeit,ax,ay,activity"), reading=ReadOptions(window="20"))
    assert d.channels == 2
    found = read_samples(table(tmp_path / "b.csv", rows[100:170], "Zeit,ax,ay"), stored(d))
    assert found.names == ("lines 2 to 21", "lines 12 to 31", "lines 32 to 51", "lines 42 to 61", "lines 52 to 71")


def test_the_rate_of_the_training_data_is_held_against_the_time_of_new_samples(tmp_path):
    rows = [f"{i / 25:.2f},{a},{i // 200}" for i, a in enumerate(RNG.standard_normal(400).round(3).tolist())]
    d = data.load(table(tmp_path / "a.csv", rows, "time,ax,label"), reading=ReadOptions(window="2s", rate=25.0))
    assert len(read_samples(tmp_path / "a.csv", stored(d)).x) == 15
    fast = table(tmp_path / "b.csv", [f"{i / 100:.2f},{i % 7}" for i in range(100)], "time,ax")
    with pytest.raises(DataError, match="b.csv has a row every 0.01 by its column time, 100 .*, but the rate is 25"):
        read_samples(fast, stored(d))


def test_a_recording_in_an_array_is_cut_as_the_training_one(tmp_path):
    x, y = RNG.standard_normal((400, 2)) * 9, np.repeat([0, 1], 200)
    np.savez(tmp_path / "a.npz", x=x, y=y)
    d = data.load(tmp_path / "a.npz", reading=ReadOptions(window="20", stride="10"))
    made = replace(stored(d), size=d.size, channels=d.channels)  # as a file of weights says it
    np.save(tmp_path / "b.npy", x[:200])
    found = read_samples(tmp_path / "b.npy", made)
    assert len(found.x) == 19 and found.names[1] == "b.npy 10 to 29"
    assert bits(d.x_train[d.y_train == 0]) < bits(found.x)
    np.save(tmp_path / "c.npy", x[:20])
    assert read_samples(tmp_path / "c.npy", made).names == ("c.npy 0",)


def test_pictures_in_a_table(tmp_path):
    pixels = RNG.integers(0, 256, (20, 64))
    header = ",".join(["label", *(f"p{i}" for i in range(64))])
    rows = [",".join(map(str, [i % 2, *p])) for i, p in enumerate(pixels)]
    d = data.load(table(tmp_path / "a.csv", rows, header)).with_pixels(-1.0, 1.0)
    assert bits(read_samples(tmp_path / "a.csv", stored(d)).x) == bits(d.x_train, d.x_test)
    rows[3] = rows[3].replace(",", ",-1,", 1).rsplit(",", 1)[0]
    with pytest.raises(DataError, match="a row must be a picture, whole numbers from 0 to 255"):
        read_samples(table(tmp_path / "b.csv", rows, header), stored(d))


def test_sounds(tmp_path):
    for name, tone in (("high", 1500), ("low", 400)):
        for i in range(5):
            path = tmp_path / "tones" / name / f"{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, 11025, 0, "NONE", ""))
                file.writeframes((np.sin(np.arange(3000) * tone / 1750 + i) * 9000).astype("<i2").tobytes())
    d = data.load(tmp_path / "tones")
    assert bits(read_samples(tmp_path / "tones", stored(d)).x) == bits(d.x_train, d.x_test)
    assert bits(read_samples(tmp_path / "tones" / "low" / "2.wav", stored(d)).x) < bits(d.x_train, d.x_test)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.npz", "there is no file or folder .*none.npz"),
        (
            "a.txt.gz",
            "a.txt.gz holds no samples for this net: an image, a WAV file, a table .*, a .npz with x, a .npy or",
        ),
        ("a.csv", "a.csv is a table, but the net was not trained on one"),
        ("other.npz", "other.npz has no array x: it holds y"),
        ("nan.npy", r"nan.npy has nan at index \(1, 0, 0\); every value must be finite"),
        ("wide.npy", "the samples have C=3 channels, but the net was made for C=2"),
        ("text.npy", "text.npy holds <U1, but samples must be integers .* or floats"),
    ],
)
def test_what_holds_no_samples_is_refused(tmp_path, name, message):
    (tmp_path / "a.txt.gz").write_bytes(b"")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    np.savez(tmp_path / "other.npz", y=np.arange(3))
    np.save(tmp_path / "nan.npy", np.array([[[0.0]], [[np.nan]]]).repeat(2, 2))
    np.save(tmp_path / "wide.npy", np.zeros((2, 4, 3)))
    np.save(tmp_path / "text.npy", np.array(["a"]))
    with pytest.raises(InputError, match=message):
        read_samples(tmp_path / name, Preprocessing(axes="NTC", mean=(0.0, 0.0), std=(1.0, 1.0)))
