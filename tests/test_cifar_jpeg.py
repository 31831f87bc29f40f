"""CIFAR-10 as JPEG: what a file of that layout gives, and what is wrong with others."""

import sys
from pathlib import Path

import numpy as np
import pytest
from pretrained_files import LABELS, cifar_arrays, streams

from refimpl import data
from refimpl.data import DataError
from refimpl.data.cifar_jpeg import decode

SHARED = Path(__file__).parents[2] / "shared" / "data" / "cifar10_jpeg.npz"


def broken(i):
    """The training streams, of which image i has lost its header."""
    stream, offsets = streams(12)
    stream = stream.copy()
    stream[offsets[i] : offsets[i] + 20] = 0
    return stream


def saved(folder, **changed):
    np.savez(folder / "own.npz", **{k: a for k, a in cifar_arrays(**changed).items() if a is not None})
    return folder / "own.npz"


def test_images_are_decoded_and_stretched_on_demand(tmp_path):
    found = data.load(saved(tmp_path), size=(48, 40))
    assert found.name == "CIFAR-10 re-encoded as JPEG" and found.classes[9] == "truck"
    assert (found.size, found.channels, found.pixels) == ((48, 40), 3, True)
    assert found.x_train.shape == (12, 48, 40, 3) and found.x_train.images.dtype == np.uint8
    assert np.array_equal(found.y_train, LABELS) and found.y_train.dtype == np.int64
    colours = found.x_test[:].mean(axis=(1, 2)) * 255
    np.testing.assert_allclose(colours, [(20 * i, 100, 50) for i in range(10)], atol=4)
    assert (found.x_train.crop, found.x_train.flip) == (4, True)
    assert (found.x_test.crop, found.x_test.flip) == (0, False)
    assert data.load(saved(tmp_path)).size == (32, 32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"test_labels": None}, "own.npz has no array test_labels, which CIFAR-10 as JPEG needs"),
        ({"train_labels": LABELS[:11]}, "train_labels of .*own.npz has 11 labels, but train_jpeg has 12 samples"),
        ({"train_labels": LABELS + 1}, "train_labels of .*own.npz has the label 10, but CIFAR-10 has 0 to 9"),
        ({"train_labels": 0 * LABELS}, r"train_labels of .*own.npz holds one class only \(0\)"),
        ({"test_offsets": np.array([0, 10**6])}, "test_jpeg of .*own.npz must be bytes, cut by rising offsets"),
        ({"test_offsets": np.array([5, 0])}, "test_jpeg of .*own.npz must be bytes, cut by rising offsets"),
        ({"test_offsets": np.zeros(11)}, "test_jpeg of .*own.npz must be bytes, cut by rising offsets"),
        ({"train_jpeg": broken(3)}, "image 3 of train_jpeg of .*own.npz cannot be read: cannot identify"),
        ({"test_jpeg": streams(10)[0] * 0}, "image 0 of test_jpeg of .*own.npz cannot be read: cannot identify"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(tmp_path, changed, message):
    with pytest.raises(DataError, match=message) as caught:
        data.load(saved(tmp_path, **changed))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "mode", "shape"), [((16, 32), "RGB", r"\(32, 16, 3\)"), ((32, 32), "L", r"\(32, 32\)")]
)
def test_images_of_another_shape_are_refused(size, mode, shape):
    with pytest.raises(DataError, match=f"image 0 of own is {shape}, but CIFAR-10 has images of"):
        decode(*streams(2, size, mode), "own")


def test_without_pillow_the_message_says_how_to_install_it(tmp_path, monkeypatch):
    path = saved(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match="images are read by Pillow.*gradledger.images."):
        data.load(path)


def test_the_shared_images():
    if not SHARED.is_file():
        pytest.skip("the folder shared/ with the data is not beside the project")
    with np.load(SHARED) as file:
        labels, offsets = file["test_labels"], file["test_offsets"]
        images = decode(file["test_jpeg"], offsets[:101], "test_jpeg")
    assert np.bincount(labels).tolist() == [1000] * 10
    # the first test image of CIFAR-10 is a cat on a floor, the second a ship: the sea and the sky are blue
    assert labels[:2].tolist() == [3, 8]
    assert images[1, ..., 2].mean() > images[1, ..., 0].mean()
    assert 0.4 < images.mean() / 255 < 0.55
