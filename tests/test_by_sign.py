import numpy as np
from node_cases import any_shape

import oracles
from checks import Case, Subject, rng_of
from refimpl.ops import by_sign


def case(pick):
    x = rng_of(pick).integers(-2, 3, any_shape(pick)).astype(float)
    return Case({"x": x}, {"below": pick(-2, 2) / 2, "at": pick(-2, 2) / 2, "above": pick(-2, 2) / 2})


def by_torch(F, t, attrs):
    import torch

    return torch.where(t["x"] > 0, attrs["above"], torch.where(t["x"] < 0, attrs["below"], attrs["at"])).to(t["x"])


subject = Subject("by_sign", case, oracles.by_sign, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_the_sign_of_what_is_far_out():
    x = np.array([[np.nan, np.inf, -np.inf, -0.0, 1e-40]], np.float32)
    np.testing.assert_array_equal(by_sign.forward(x), [[np.nan, 1, -1, 0, 1]])
