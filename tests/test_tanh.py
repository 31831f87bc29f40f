import pytest
from node_cases import FAR, any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.ops import tanh


def case(pick):
    return Case({"x": rng_of(pick).normal(size=any_shape(pick))})


subject = Subject("tanh", case, oracles.tanh, lambda F, t, a: t["x"].tanh())
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_far_out_and_for_nan_as_torch():
    check_values("tanh", (*FAR, float("inf"), float("-inf")), lambda F, x: x.tanh())


def test_backward_reads_y_alone():
    assert tanh.grad_x.reads == ["dy", "y"]


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(Graph.tanh, backend)
