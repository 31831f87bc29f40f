"""Pixels of any range come to a net in its own; what cannot be pixels of its range is refused in one sentence."""

from dataclasses import replace

import numpy as np
import pytest
from small_model import NAMES, PIXELS, images, net

from gradledger import models
from gradledger.job import prepare
from gradledger.settings import AdaptSettings
from refimpl import data
from refimpl.data import new_samples
from refimpl.data.dataset import DataError
from refimpl.saved.model import Model

X, Y = images(10)
BLACK, WHITE = PIXELS.black, PIXELS.white
MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
NORMALISED = (X / np.float32(255) - MEAN) / STD  # for another net
SENTENCE = (
    "has values from -2.* to 1.*, but the net takes pixels: give them from 0 to 255, from 0 to 1, or as they enter the "
    "net, from -1 to 1$"
)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "net.safetensors"
    Model(net(), PIXELS, seed=3).fit(X, Y, epochs=2, batch=10, recipe="plain").save(path)
    return path


def saved(tmp_path, x):
    np.savez(tmp_path / "own.npz", x=x, y=Y, classes=np.array(NAMES))
    return str(tmp_path / "own.npz")


RANGES = {
    "0 to 255": X.astype(np.float32), "integers": X.astype(np.int32), "0 to 1": X / np.float32(255),
    "its own": X / np.float32(255) * (WHITE - BLACK) + BLACK,
}  # fmt: skip


@pytest.mark.parametrize("x", RANGES.values(), ids=RANGES)
def test_pixels_of_every_range_are_the_same_to_a_net(file, tmp_path, x):
    assert (BLACK, WHITE) == (-1, 1)
    model = Model(net(), PIXELS, seed=3)
    np.testing.assert_allclose(model.predict_proba(x), model.predict_proba(X), rtol=1e-4)
    path = saved(tmp_path, x)
    maps = np.concatenate([m for _, m in new_samples.new_batches(path, PIXELS, 7)])
    np.testing.assert_allclose(maps, X / np.float32(255) * 2 - 1, atol=1e-5)
    if x.min() >= 0:  # else they are maps, as they are
        job = prepare(AdaptSettings(str(file), path, method=["backprop"], batch=8, threads=1))
        ends = job.dataset.x_train.min(), job.dataset.x_train.max()
        assert ends == pytest.approx((BLACK, X.max() / 127.5 - 1), abs=0.05)


def test_pictures_that_were_normalised_for_another_net_are_refused(refused, file, tmp_path):
    path = saved(tmp_path, NORMALISED)
    settings = AdaptSettings(str(file), path, method=["backprop"])
    with pytest.raises(DataError, match=f"own.npz {SENTENCE}"):
        prepare(settings)
    with pytest.raises(DataError, match=f"^the array {SENTENCE}"):
        Model(net(), PIXELS).predict(NORMALISED)
    with pytest.raises(DataError, match=f"^own {SENTENCE}"):
        new_samples.judged_set(path, PIXELS)


def test_a_net_without_weights_or_of_numbers_takes_any_range(tmp_path):
    path = saved(tmp_path, NORMALISED)
    job = prepare(AdaptSettings("resnet8", path, method=["backprop"], batch=8, threads=1))
    assert job.dataset.x_train.min() < -2
    numbers = Model(net(), replace(PIXELS, divisor=1.0, black=0.0, white=1.0), seed=3)
    numbers.save(tmp_path / "numbers.safetensors")
    graph = models.pretrained(str(tmp_path / "numbers.safetensors"), data.load(path), None, None)
    assert models.pixel_range(graph, str(tmp_path / "numbers.safetensors")) is None
    assert numbers.predict(NORMALISED).shape == (len(X),)
