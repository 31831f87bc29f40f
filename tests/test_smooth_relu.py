import pytest
from node_cases import FAR, any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.ops import smooth_relu


def case(pick):
    return Case({"x": 3 * rng_of(pick).normal(size=any_shape(pick))})


subject = Subject("smooth_relu", case, oracles.smooth_relu, lambda F, t, a: F.softplus(t["x"], threshold=100))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_far_out_as_torch():
    check_values("smooth_relu", FAR, lambda F, x: F.softplus(x, threshold=100))


def test_what_backward_reads():
    assert smooth_relu.grad_x.reads == ["dy", "x"]


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(Graph.smooth_relu, backend)
