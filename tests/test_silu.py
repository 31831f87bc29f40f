import pytest
from node_cases import FAR, any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph


def case(pick):
    return Case({"x": 3 * rng_of(pick).normal(size=any_shape(pick))})


subject = Subject("silu", case, oracles.silu, lambda F, t, a: F.silu(t["x"]))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_far_out_and_for_nan_as_torch():
    check_values("silu", FAR, lambda F, x: F.silu(x))


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(Graph.silu, backend)
