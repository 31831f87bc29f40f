import pytest
from node_cases import FAR, any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, apart, rng_of
from refimpl.graph import Graph


def case(pick):
    return Case({"x": apart(rng_of(pick), any_shape(pick), span=7.5)})  # away from −3 and 3


subject = Subject("hard_swish", case, oracles.hard_swish, lambda F, t, a: F.hardswish(t["x"]))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_far_out_and_at_the_kinks_as_torch():
    numbers = [
        v for v in FAR if v == v
    ]  # PyTorch's gradient of NaN is 1 or NaN, as it is in the end of an array or not
    check_values("hard_swish", (*numbers, 3.0, -3.0, 2.9, -2.9, float("inf")), lambda F, x: F.hardswish(x))


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(Graph.hard_swish, backend)
