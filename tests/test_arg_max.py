import numpy as np

import oracles
from checks import Case, Subject, map_shape, rng_of
from refimpl.ops import arg_max


def case(pick):
    x = rng_of(pick).integers(0, 4, map_shape(pick)).astype(float)  # some of which are equal
    return Case({"x": x}, {"over": (pick(0, 1), pick(0, 1), pick(0, 1)), "last": bool(pick(0, 1))})


def by_torch(F, t, attrs):
    import torch

    found = oracles.arg_max({"x": t["x"].numpy()}, attrs)["y"]  # PyTorch does not say which of equal ones it takes
    return torch.from_numpy(found)


subject = Subject("arg_max", case, oracles.arg_max, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_nan_wins():
    x = np.array([1, np.nan, 3], np.float32).reshape(1, 1, 1, 3)
    assert arg_max.forward(x, over=(0, 0, 1)) == arg_max.forward(x, over=(0, 0, 1), last=True) == 1
