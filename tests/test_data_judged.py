"""Data that judge a trained net are read as its training data were: its means, columns, windows and sizes of maps."""

import wave
from pathlib import Path

import numpy as np
import pytest

from refimpl import data
from refimpl.data import ReadOptions, new_samples
from refimpl.data.dataset import DataError

RATE = 8000


def recording(path: Path, people=("a", "b", "c"), scale=1.0, turned=False, seconds=4):
    """A table of a recording of ten samples a second: two channels, an exercise and a person."""
    rng, rows = np.random.default_rng(0), []
    for person in people:
        for label, offset in (("rest", 0), ("run", 40)):
            x = scale * (offset + 10 * rng.normal(size=(10 * seconds, 2)) + [300, -7])
            rows += [(*values, label, person) for values in np.rint(x).astype(int)]
    names = ["ax", "ay", "exercise", "person"]
    order = [1, 0, 2, 3] if turned else [0, 1, 2, 3]
    lines = [",".join(names[i] for i in order), *(",".join(str(row[i]) for i in order) for row in rows)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def tone(path: Path, hertz: float, seconds: float):
    t = np.arange(round(RATE * seconds)) / RATE
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(RATE)
        file.writeframes((12000 * np.sin(2 * np.pi * hertz * t)).astype("<i2").tobytes())


@pytest.fixture
def trained(tmp_path):
    """What a net that was trained on a recording keeps: its preprocessing and its options."""
    options = {"window": "1s", "stride": "5", "rate": 10.0, "lr": 0.1}
    reading = ReadOptions(window="1s", stride="5", rate=10.0)
    made = data.load(recording(tmp_path / "train.csv"), reading=reading).origin.preprocessing
    assert len(made.mean) == 2 and made.window == 10 and made.columns == ("ax", "ay")
    return made, options


def test_other_scales_keep_the_means_that_were_learnt(tmp_path, trained):
    made, options = trained
    d = new_samples.judged_set(str(recording(tmp_path / "other.csv", scale=3.0)), made, options=options)
    own = data.load(tmp_path / "other.csv", reading=ReadOptions(window="1s", stride="5", rate=10.0))
    assert d.origin.preprocessing.mean == made.mean != own.origin.preprocessing.mean
    assert "as those that the net was trained on" in d.origin.said[-1]
    raw = own.x_test * np.float32(own.origin.preprocessing.std) + np.float32(own.origin.preprocessing.mean)
    np.testing.assert_allclose(d.x_test, (raw - np.float32(made.mean)) / np.float32(made.std), rtol=1e-4, atol=1e-4)
    assert abs(own.x_train.mean()) < 0.1 < abs(d.x_train.mean())


def test_columns_are_found_by_name(tmp_path, trained):
    made, options = trained
    plain, turned = (
        new_samples.judged_set(str(recording(tmp_path / f"{t}.csv", turned=t)), made, options=options)
        for t in (False, True)
    )
    np.testing.assert_array_equal(plain.x_test, turned.x_test)
    text = (tmp_path / "False.csv").read_text(encoding="utf-8").replace("ay", "az")
    (tmp_path / "az.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="az.csv has no column 'ay', which the net was trained on"):
        new_samples.judged_set(str(tmp_path / "az.csv"), made, options=options)


def test_one_person_alone_judges_with_all_samples(tmp_path, trained):
    made, options = trained
    path = recording(tmp_path / "one.csv", people=("d",), seconds=1)
    d = new_samples.judged_set(str(path), made, options=options)
    assert len(d.x_train) == 0 and len(d.x_test) == 2 and "none can be parted" in d.origin.split
    with pytest.raises(DataError, match="too few groups"):
        data.load(path, reading=ReadOptions(window="10"))


def test_a_prediction_sees_the_maps_of_an_evaluation(tmp_path, trained):
    made, options = trained
    path = recording(tmp_path / "new.csv", people=("d",), scale=2.0)
    names, maps = zip(*new_samples.new_batches(path, made, 4), strict=True)
    names, maps = [name for batch in names for name in batch], np.concatenate(maps)
    assert names[:2] == ["lines 2 to 11", "lines 7 to 16"] and len(names) == len(maps) == 15
    d = new_samples.judged_set(str(path), made, options=options)
    both = {m.tobytes() for m in np.concatenate([d.x_train, d.x_test])}
    assert both <= {m.tobytes() for m in maps}  # all but the windows that lie in two exercises


def test_options_of_another_kind_of_source_do_not_count(tmp_path, trained):
    made, _ = trained
    np.savez(tmp_path / "x.npz", x=np.zeros((12, 1, 10, 2), np.float32), y=np.arange(12) % 2)
    d = new_samples.judged_set(str(tmp_path / "x.npz"), made, options={"skip_bad": True, "label": "exercise"})
    assert len(d.x_train) + len(d.x_test) == 12
    np.testing.assert_allclose(d.x_test[0, 0, 0], -np.float32(made.mean) / np.float32(made.std), rtol=1e-6)
    with pytest.raises(DataError, match="--skip-bad means nothing for arrays: leave it out"):
        data.load(tmp_path / "x.npz", reading=ReadOptions(skip_bad=True))
    np.savez(tmp_path / "c.npz", x=np.zeros((12, 1, 10, 3), np.float32), y=np.arange(12) % 2)
    with pytest.raises(DataError, match="have C=3 channels, but the net was made for C=2"):
        new_samples.judged_set(str(tmp_path / "c.npz"), made)


def test_values_that_were_kept_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(20, 30, 2)).astype(np.float32), "y": np.arange(20) % 2}
    np.savez(tmp_path / "near.npz", **arrays)
    np.savez(tmp_path / "far.npz", **arrays | {"x": 100 + arrays["x"]})
    made = data.load(tmp_path / "near.npz").origin.preprocessing
    assert not made.mean and data.load(tmp_path / "far.npz").origin.preprocessing.mean
    assert new_samples.judged_set(str(tmp_path / "far.npz"), made).x_test.mean() > 99


def test_sounds_get_maps_of_the_size_that_the_net_takes(tmp_path):
    for i in range(4):
        for name, hertz in (("low", 300), ("high", 2000)):
            tone(tmp_path / "long" / name / f"{i}.wav", hertz + 10 * i, 0.8)
            tone(tmp_path / "short" / name / f"{i}.wav", hertz + 10 * i, 0.3)
    made = data.load(tmp_path / "long").origin.preprocessing
    assert data.load(tmp_path / "short").origin.preprocessing.frames < made.frames
    d = new_samples.judged_set(str(tmp_path / "short"), made)
    assert d.x_test.shape[1] == made.frames
    ((names, maps),) = new_samples.new_batches(tmp_path / "short" / "low" / "0.wav", made, 4)
    assert len(names) == 1 and maps.shape[1:] == d.x_test.shape[1:]
    _, maps = zip(*new_samples.new_batches(tmp_path / "short", made, 3), strict=True)
    assert [len(m) for m in maps] == [3, 3, 2]


@pytest.mark.parametrize("window", [None, "0.2s"])
def test_one_class_of_sounds_judges_alone(tmp_path, window):
    for name, hertz in (("low", 300), ("high", 2000)):
        for i in range(5):
            tone(tmp_path / "both" / name / f"{i}.wav", hertz, 0.4)
            tone(tmp_path / name / name / f"{i}.wav", hertz, 0.4)
    made = data.load(tmp_path / "both", reading=ReadOptions(window=window)).origin.preprocessing
    d = new_samples.judged_set(str(tmp_path / "high"), made)
    assert d.classes == ("high",) and len(d.x_test) == (3 if window else 1) and not d.y_test.any()
    (tmp_path / "high" / "high" / "0.wav").write_bytes(b"no")
    with pytest.raises(DataError, match="0.wav .* is no WAV file"):
        new_samples.judged_set(str(tmp_path / "high"), made)
    with pytest.raises(DataError, match=r"low holds 1 class folder only \(low\); at least two are needed"):
        data.load(tmp_path / "low")


def test_what_is_judged_needs_no_groups_of_the_training_data(tmp_path, trained):
    made, options = trained
    text = recording(tmp_path / "own.csv").read_text(encoding="utf-8").replace("person", "device")
    (tmp_path / "own.csv").write_text(text, encoding="utf-8")
    assert len(new_samples.judged_set(str(tmp_path / "own.csv"), made, options=options | {"group": "person"}).x_test)
    with pytest.raises(DataError, match="own.csv has no column 'person' for --group"):
        data.load(tmp_path / "own.csv", reading=ReadOptions(window="10", group="person"))
    for i in range(4):
        for name, hertz in (("low", 300), ("high", 2000)):
            tone(tmp_path / "tones" / name / f"ann_{i}.wav", hertz + 10 * i, 0.3)
            tone(tmp_path / "other" / name / f"{i}.wav", hertz + 10 * i, 0.3)
    for window, count in ((None, 8), ("0.2s", 16)):
        made = data.load(tmp_path / "tones", reading=ReadOptions(window=window)).origin.preprocessing
        d = new_samples.judged_set(str(tmp_path / "other"), made, options={"group": "(.+)_", "window": window})
        assert 0 < len(d.x_test) < count  # each file is a group of its own
        d = new_samples.judged_set(str(tmp_path / "tones"), made, options={"group": "(.+)_", "window": window})
        assert len(d.x_train) == 0 and len(d.x_test) == count and "none can be parted" in d.origin.split


def test_photographs_of_one_group_judge_with_all_samples(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name in ("cat", "dog"):
        for i in range(3):
            (tmp_path / "pets" / name).mkdir(parents=True, exist_ok=True)
            image.fromarray(np.full((5, 5, 3), 50 * i, np.uint8)).save(tmp_path / "pets" / name / f"ann_{i}.png")
    made = data.load(tmp_path / "pets", size=(4, 4)).origin.preprocessing
    d = new_samples.judged_set(str(tmp_path / "pets"), made, options={"group": "(.+)_"})
    assert d.x_train.shape == (0, 4, 4, 3) and len(d.x_test) == 6 and "none can be parted" in d.origin.split
