import numpy as np
import pytest

import oracles
from checks import Case, Subject, map_shape, rng_of
from refimpl.kernels.passes import ShapeError
from refimpl.ops import dropout


def case(pick):
    shape = map_shape(pick) if pick(0, 1) else (pick(1, 3), pick(1, 20))
    arrays = {"step": np.array([pick(0, 2**31)]), "seed": np.array([pick(0, 2**40)])}
    attrs = {"rate": (0.0, 0.1, 0.5, 0.9)[pick(0, 3)], "stream": pick(0, 9)}
    return Case({"x": rng_of(pick).normal(size=shape), **arrays}, attrs)


def torch_dropout(F, t, attrs):
    """PyTorch draws other numbers, so it takes the oracle's mask."""
    arrays = {
        "x": np.ones(t["x"].shape),
        "step": t["step"].numpy(),
        "seed": t["seed"].numpy(),
        "dy": np.ones(t["x"].shape),
    }
    return t["x"] * t["x"].new_tensor(oracles.dropout(arrays, attrs)["y"])


subject = Subject("dropout", case, oracles.dropout, torch_dropout)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_share_and_mean():
    x = np.ones((100, 1000), np.float32)
    y = dropout.forward(x, np.array([7]), np.array([0]), rate=0.3)
    assert abs((y == 0).mean() - 0.3) < 0.005  # 3.4 standard deviations of 100,000 draws
    assert abs(y.mean() - 1) < 0.008


def test_every_step_stream_and_seed_draws_its_own_mask():
    x = np.ones((4, 500))
    zero, one = np.array([0]), np.array([1])
    base = dropout.forward(x, zero, zero)
    others = [
        dropout.forward(x, one, zero),
        dropout.forward(x, zero, zero, stream=1),
        dropout.forward(x, zero, one),
        dropout.forward(x, zero, np.array([2**32])),
    ]
    for other in others:
        assert 0.4 < (base == other).mean() < 0.6


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_refused_like_torch(rate):
    with pytest.raises(ShapeError, match=f"rate must be at least 0 and below 1, got {rate}"):
        dropout.forward(np.ones((1, 2)), np.array([0]), np.array([0]), rate=rate)
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1"):
        torch.nn.functional.dropout(torch.ones(2), rate)
