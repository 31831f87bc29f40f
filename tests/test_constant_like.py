from node_cases import any_shape

import oracles
from checks import Case, Subject, rng_of


def case(pick):
    return Case({"x": rng_of(pick).normal(size=any_shape(pick))}, {"value": pick(-4, 4) / 4})


def by_torch(F, t, attrs):
    import torch

    return torch.full_like(t["x"], attrs["value"])


subject = Subject("constant_like", case, oracles.constant_like, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()
