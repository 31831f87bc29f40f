import numpy as np
import pytest
from node_cases import any_shape

import oracles
from checks import Case, Subject, rng_of
from refimpl.kernels.passes import ShapeError
from refimpl.ops import staircase


def case(pick):
    halves = rng_of(pick).integers(-9, 10, any_shape(pick)) / 2  # which tell the roundings apart
    return Case({"x": halves.astype(float)}, {"kind": pick(0, 3)})


def by_torch(F, t, attrs):
    import torch

    return (torch.floor, torch.ceil, torch.round, torch.trunc)[attrs["kind"]](t["x"])


subject = Subject("staircase", case, oracles.staircase, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_what_is_no_number_stays():
    x = np.array([[np.nan, np.inf, -np.inf, 1e30, -0.0]], np.float32)
    for kind in range(4):
        np.testing.assert_array_equal(staircase.forward(x, kind=kind), x)


def test_a_kind_that_is_none():
    with pytest.raises(ShapeError, match="kind must be 0 to 3, got 4"):
        staircase.forward(np.ones((1, 2)), kind=4)
