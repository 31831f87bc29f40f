import numpy as np
import pytest
from node_cases import FAR, any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, apart, rng_of
from refimpl.ops import leaky_relu


def case(pick):
    return Case({"x": apart(rng_of(pick), any_shape(pick))}, {"slope": pick(-2, 4) / 8})


subject = Subject("leaky_relu", case, oracles.leaky_relu, lambda F, t, a: F.leaky_relu(t["x"], a["slope"]))
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("slope", [0.01, 0.0, -0.25])
def test_far_out_and_for_nan_as_torch(slope):
    check_values("leaky_relu", FAR, lambda F, x: F.leaky_relu(x, slope), {"slope": slope}, (0, 0))


def test_what_backward_keeps_is_a_bit_an_element():
    assert leaky_relu.grad_x.reads == ["dy", "mask"]
    assert leaky_relu.pack_mask(np.ones((3, 5, 5, 2))).shape == (3, 7)  # ⌈50 / 8⌉


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(lambda g, name, x: g.leaky_relu(name, x, 0.1), backend)
