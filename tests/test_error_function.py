import pytest
from node_cases import FAR, any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.ops import error_function


def case(pick):
    return Case({"x": rng_of(pick).normal(size=any_shape(pick))})


subject = Subject("error_function", case, oracles.error_function, lambda F, t, a: t["x"].erf())
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_far_out_as_torch():
    check_values("error_function", FAR, lambda F, x: x.erf())


def test_what_backward_reads():
    assert error_function.grad_x.reads == ["dy", "x"]


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(Graph.error_function, backend)
