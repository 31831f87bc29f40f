import numpy as np
import pytest

from refimpl import assets, data
from refimpl.data import DataError
from refimpl.data import watch_windows as watch

WATCH = watch.recordings()


def spans(first):
    """Every sample index that the windows cover."""
    return set((first[:, None] + np.arange(watch.WINDOW)).ravel().tolist())


@pytest.mark.parametrize("subject", watch.SUBJECTS)
def test_watch_windows_of_adaptation_and_evaluation_share_no_sample(subject):
    (adapt, y_adapt), (evaluate, y_evaluate) = watch.watch_split(subject)
    assert not spans(adapt) & spans(evaluate)
    edges = WATCH["offsets"]
    for first, y, begin, end in ((adapt, y_adapt, 0.0, 0.3), (evaluate, y_evaluate, 0.3, 1.0)):
        record = np.searchsorted(edges, first, side="right") - 1
        offset, length = edges[record], edges[record + 1] - edges[record]
        assert (WATCH["subject"][record] == subject).all() and (WATCH["y"][record] == y).all()
        assert (first >= offset + np.floor(begin * length)).all()
        assert (first + watch.WINDOW <= offset + np.floor(end * length)).all()
        # both arms of every exercise, and no recording left out
        assert {(int(a), int(b)) for a, b in zip(y, WATCH["side"][record], strict=True)} == {
            (a, b) for a in range(7) for b in (0, 1)
        }


def test_watch_windows_are_the_recorded_samples_standardised_without_the_held_out_person():
    physical = WATCH["x"] * WATCH["scale"]
    others = np.repeat(WATCH["subject"] != 4, np.diff(WATCH["offsets"]))
    mean, deviation = physical[others].mean(axis=0), physical[others].std(axis=0)
    (first, _), _ = watch.watch_split(4)
    x = data.watch(4).x_train
    assert x.dtype == np.float32 and x.shape == (len(first), 1, 100, 6)
    expected = (physical[first[-1] : first[-1] + 100] - mean) / deviation
    np.testing.assert_allclose(x[-1, 0], expected, rtol=1e-4, atol=1e-4)


def test_watch_others_never_shows_the_held_out_person():
    chosen = data.watch_others(2)
    assert chosen.x_train.shape[0] > 5000 and len(np.unique(chosen.y_train)) == 7
    own = {row.tobytes() for row in data.watch(2).x_train}
    assert not own & {row.tobytes() for row in chosen.x_train}
    assert data.watch_others(2, stride=50, held_out=0).x_test.shape == (0, 1, 100, 6)


def test_watch_others_holds_out_the_end_of_each_recording():
    others = np.flatnonzero(WATCH["subject"] != 2)
    first, rest = watch.starts(others, 0.0, 0.85, 25)[0], watch.starts(others, 0.85, 1.0, 25)[0]
    assert not spans(first) & spans(rest)
    chosen = data.watch_others(2)
    assert len(chosen.x_train) == len(first) and len(chosen.x_test) == len(rest)
    assert len(np.unique(np.searchsorted(WATCH["offsets"], rest, side="right"))) == len(others)


@pytest.mark.parametrize("subject", [0, 11, "3", None])
def test_watch_refuses_an_unknown_subject(subject):
    with pytest.raises(DataError, match=f"the watch data has subjects 1 to 10, not {subject!r}"):
        data.watch(subject)


def test_watch_refuses_strides_and_shares_that_make_no_windows():
    with pytest.raises(DataError, match="stride of at least 1 and a share from 0 to below 1, not 0 and 0.3"):
        data.watch(1, stride=0)
    with pytest.raises(DataError, match="not 25 and 1"):
        data.watch_others(1, held_out=1)


@pytest.mark.parametrize("name", ["watch_int16", "fashion_mnist_2000_1000"])
def test_every_embedded_data_file_has_its_licence_beside_it(name):
    assert assets.path(f"{name}.npz").is_file()
    assert "copyright" in assets.path(f"{name}.LICENSE.txt").read_text(encoding="utf-8").lower()
