"""Images that become maps a batch at a time: sizes, values, augmentation, and a trainer that takes them."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import refimpl as ri
from refimpl.data import Dataset, Resized
from refimpl.graph import Graph

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(6, 5), (18, 15), (7, 11), (4, 3), (1, 1), (6, 20)])
def test_resizing_is_that_of_pytorch(size):
    x = torch.from_numpy(IMAGES.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    expected = torch.nn.functional.interpolate(x, size, mode="bilinear", align_corners=False)
    found = Resized(IMAGES, size)[:]
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1), atol=2e-6)


def test_samples_look_like_an_array():
    x = Resized(IMAGES, (9, 8))
    assert (len(x), x.shape) == (7, (7, 9, 8, 3)) and Resized(IMAGES).shape == IMAGES.shape
    whole = x[:]
    assert whole.shape == x.shape
    assert np.array_equal(x[2:5], whole[2:5]) and np.array_equal(x[np.array([4, 0])], whole[[4, 0]])


@pytest.mark.parametrize("core", ["", "Haswell", "Nehalem"])
def test_a_sample_has_the_same_bits_alone_in_any_batch_and_with_any_blas(core):
    """One digest of every slice's samples, whatever kernels OpenBLAS would choose."""
    code = """
import hashlib, numpy as np
from refimpl.data import Resized
images = np.random.default_rng(3).integers(0, 256, (13, 32, 31, 3), dtype=np.uint8)
digest = hashlib.sha256()
for size in ((96, 96), (33, 29), (16, 50), (32, 31), (1, 7)):
    x = Resized(images, size, -1.0, 1.0)
    whole = x[:]
    assert all((x[a:b] == whole[a:b]).all() for a in range(13) for b in range(a + 1, 14)), size
    assert (x[np.array([5, 2])] == whole[[5, 2]]).all() and (x[::2] == whole[::2]).all()
    digest.update(whole)
print(digest.hexdigest())
"""
    environment = os.environ | ({"OPENBLAS_CORETYPE": core} if core else {})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "a9d83219ecac51d23d254173aae093c7394e102065b1dc78b4c9c0dfe0a75ee0"


def test_black_and_white_become_what_the_model_takes():
    x = Resized(np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)).with_pixels(-1.0, 1.0)
    np.testing.assert_allclose(x[:].ravel(), [-1, -0.6, 1], atol=1e-6)


def test_training_draws_are_crops_of_the_padded_image_or_its_mirror():
    x = Resized(IMAGES, crop=2, flip=True)
    padded = np.pad(IMAGES / 255, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    chosen, seen = np.arange(7), set()
    for step in range(200):
        for i, sample in zip(chosen, x.draw(chosen, 5, step), strict=True):
            crops = {
                (dy, dx, flip): padded[i, dy : dy + 6, dx : dx + 5][:, :: -1 if flip else 1]
                for dy in range(5) for dx in range(5) for flip in (False, True)
            }  # fmt: skip
            fits = [key for key, crop in crops.items() if np.allclose(crop, sample, atol=1e-6)]
            assert len(fits) == 1
            seen.add(fits[0])
    assert len(seen) == 50


def test_training_draws_follow_seed_and_step_alone():
    x = Resized(IMAGES, (8, 8), crop=2, flip=True)
    chosen = np.array([3, 3, 3, 6])
    first = x.draw(chosen, 5, 9)
    assert np.array_equal(x.draw(chosen, 5, 9), first)
    assert not np.array_equal(x.draw(chosen, 5, 10), first) and not np.array_equal(x.draw(chosen, 6, 9), first)
    plain = replace(x, crop=0, flip=False)
    assert np.array_equal(plain.draw(chosen, 5, 9), x[chosen])
    mirrored = replace(x, crop=0).draw(chosen, 5, 9)
    assert all(np.array_equal(a, b) or np.allclose(a, b[:, ::-1], atol=1e-6)
               for a, b in zip(mirrored, x[chosen], strict=True))  # fmt: skip


def net():
    g = Graph("small", (12, 12), 3)
    g.linear("fc", g.global_avg_pool("mean", g.relu("relu", g.conv2d("conv", "input", 4, 3, 2))), 3)
    return g


def trainer(seed=1):
    return ri.Trainer(ri.compile(net(), ri.Plan(), batch=3, backend="reference"), seed)


def test_a_trainer_takes_them_as_it_takes_arrays():
    x, y = Resized(IMAGES, (12, 12), -1.0, 1.0), np.arange(7) % 3
    lazy, plain = trainer(), trainer()
    assert lazy.fit(x, y, 2) == plain.fit(x[:], y, 2)
    assert np.array_equal(lazy.predict(x), plain.predict(x[:]))
    assert lazy.evaluate(x, y) == plain.evaluate(x[:], y)


def test_an_augmented_run_goes_on_to_the_same_bits():
    x, y = Resized(IMAGES, (12, 12), crop=2, flip=True), np.arange(7) % 3
    whole, first, rest = trainer(), trainer(), trainer()
    losses = whole.fit(x, y, 3)
    assert losses != trainer().fit(replace(x, crop=0, flip=False), y, 3)
    steps = first.steps(x, y, 3)
    for _ in range(4):
        next(steps)
    rest.resume(first.resume_arrays(), first.step, first.losses)
    assert len(list(rest.steps(x, y, 3))) == len(losses) - 4 and rest.losses == losses
    assert all(np.array_equal(a, rest.parameters[n]) for n, a in whole.parameters.items())


def test_a_trainer_refuses_another_size():
    with pytest.raises(ValueError, match=r"H, W, C = \(12, 12, 3\) and M ≥ 1, but its shape is \(7, 6, 5, 3\)"):
        trainer().predict(Resized(IMAGES))
    with pytest.raises(ValueError, match="x has 7 samples, but y has 6"):
        trainer().fit(Resized(IMAGES, (12, 12)), np.zeros(6, np.int64), 1)


def dataset(x, pixels):
    return Dataset("own", x, np.arange(len(x)), x[:2].copy(), np.arange(2), ("a",), pixels)


def test_a_data_set_is_scaled_to_the_pixels_of_a_model():
    x = (IMAGES / np.float32(255)).copy()
    found = dataset(x.copy(), True).with_pixels(-1.0, 1.0)
    np.testing.assert_allclose(found.x_train, 2 * x - 1, atol=1e-6)
    own = dataset(x.copy(), False)
    assert own.with_pixels(-1.0, 1.0) is own and np.array_equal(own.x_train, x)
    lazy = Dataset("own", Resized(IMAGES), np.arange(7), Resized(IMAGES[:2]), np.arange(2), ("a",), True)
    np.testing.assert_allclose(lazy.with_pixels(-1.0, 1.0).x_test[:], 2 * x[:2] - 1, atol=1e-6)
