import numpy as np
import pytest

import oracles
from checks import Case, Subject, rng_of
from refimpl.kernels.passes import ShapeError
from refimpl.ops import softmax_cross_entropy


def case(pick):
    n, k, weighted = pick(1, 5), pick(1, 6), pick(0, 1)
    smoothing = (0.0, 0.0, 0.1, 1.0)[pick(0, 3)]
    rng = rng_of(pick)
    arrays = {"x": rng.normal(size=(n, k)) * (1, 30)[pick(0, 1)], "labels": rng.integers(0, k, n)}
    if weighted:
        arrays["class_weights"] = rng.random(k) + 0.1
    return Case(arrays, {"label_smoothing": smoothing})


def torch_loss(F, t, attrs):
    weight = t.get("class_weights")
    return F.cross_entropy(t["x"], t["labels"], weight, label_smoothing=attrs["label_smoothing"]).reshape(1)


def scale(a, attrs):
    """Absolute values of the terms: of the loss lse and x, of dx the probability and the target."""
    size = np.abs(a["x"]).max(1) + np.log(a["x"].shape[1])
    weights = a.get("class_weights", np.ones(1)).max()
    least = a.get("class_weights", np.ones(1)).min() * len(size)
    n, k = a["x"].shape
    return {
        "lse": size,
        "losses": 2 * size * weights,
        "loss": 2 * size.sum() * weights / least,
        "dx": np.full((n, k), weights / least / np.sqrt(k)),
    }


subject = Subject("softmax_cross_entropy", case, oracles.softmax_cross_entropy, torch_loss, scale, output="loss")
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_large_logits_do_not_overflow():
    x = np.array([[-1e30, 1e30, 0.0], [-1000.0, -1000.0, -1000.0]], np.float32)
    lse = softmax_cross_entropy.log_sum_exp(x)
    assert lse[0] == np.float32(1e30) and abs(lse[1] + 1000 - np.log(3)) < 1e-3


@pytest.mark.parametrize(
    ("labels", "smoothing", "error", "message", "torch_error", "torchs"),
    [
        ([0, 5], 0.0, ValueError, "label 5 of sample 1 is out of bounds: there are 3 classes from 0", IndexError,
         "Target 5 is out of bounds"),
        ([0, 1, 2], 0.0, ShapeError, r"labels has shape \(3,\), but x has \(2, 3\)", ValueError,
         r"Expected input batch_size \(2\) to match target batch_size \(3\)"),
        ([0, 1], 1.5, ShapeError, r"label_smoothing must be between 0 and 1, got 1\.5", RuntimeError,
         "label_smoothing must be between 0.0 and 1.0"),
    ],
)  # fmt: skip
def test_refused_like_torch(labels, smoothing, error, message, torch_error, torchs):
    x, labels = np.ones((2, 3)), np.array(labels)
    with pytest.raises(error, match=message):
        softmax_cross_entropy.check_labels(labels, 3)
        lse = softmax_cross_entropy.log_sum_exp(x)
        softmax_cross_entropy.sample_losses(x, labels, lse, label_smoothing=smoothing)
    torch = pytest.importorskip("torch")
    with pytest.raises(torch_error, match=torchs):
        torch.nn.functional.cross_entropy(torch.tensor(x), torch.tensor(labels), label_smoothing=smoothing)
