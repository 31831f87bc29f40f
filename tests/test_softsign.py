import pytest
from node_cases import FAR, any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, apart, rng_of
from refimpl.graph import Graph
from refimpl.ops import softsign


def case(pick):
    return Case({"x": apart(rng_of(pick), any_shape(pick))})


subject = Subject("softsign", case, oracles.softsign, lambda F, t, a: F.softsign(t["x"]))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_far_out_as_torch():
    check_values("softsign", FAR, lambda F, x: F.softsign(x))


def test_what_backward_reads():
    assert softsign.grad_x.reads == ["dy", "x"]


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(Graph.softsign, backend)
