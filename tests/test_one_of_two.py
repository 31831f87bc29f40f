import numpy as np
import pytest
from node_cases import any_shape, branches, check_net

import oracles
from checks import Case, Subject, rng_of
from refimpl.ops import one_of_two


def case(pick):
    rng, shape = rng_of(pick), any_shape(pick)
    c = rng.integers(-1, 2, shape).astype(float)
    return Case({"c": c, "a": rng.normal(size=shape), "b": rng.normal(size=shape)})


def by_torch(F, t, attrs):
    import torch

    return torch.where(t["c"] > 0, t["a"], t["b"])


subject = Subject("one_of_two", case, oracles.one_of_two, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def join(g, name, a, b):
    """The larger one, by a comparison."""
    return g.one_of_two(name, g.by_sign(f"{name}.larger", g.sub(f"{name}.gap", a, b), 0.0, 0.0, 1.0), a, b)


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_net(branches(join), backend, "a.w", "b.w", "c.w", "d.w")


def test_what_is_not_taken_does_no_harm():
    c, a, b = (np.array([row], np.float32) for row in ([1, 0, np.nan], [2, np.nan, 3], [np.inf, 5, 6]))
    np.testing.assert_array_equal(one_of_two.forward(c, a, b), [[2, 5, 6]])
