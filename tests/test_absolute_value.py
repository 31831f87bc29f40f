import pytest
from node_cases import any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, apart, rng_of
from refimpl.graph import Graph
from refimpl.ops import absolute_value


def case(pick):
    return Case({"x": apart(rng_of(pick), any_shape(pick))})


subject = Subject("absolute_value", case, oracles.absolute_value, lambda F, t, a: t["x"].abs())
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_far_out_as_torch():
    check_values("absolute_value", (0.0, -0.0, 1.0, -1.0, 30.0, -1000.0), lambda F, x: x.abs())


def test_what_backward_reads():
    assert absolute_value.grad_x.reads == ["dy", "x"]


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(Graph.absolute_value, backend)
