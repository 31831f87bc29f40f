import numpy as np
import pytest
from node_cases import FAR, any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, apart, rng_of
from refimpl.ops import hard_sigmoid


def case(pick):
    alpha, beta = pick(1, 5) / 6, pick(0, 4) / 4
    line = apart(rng_of(pick), any_shape(pick), span=2.5)  # away from 0 and 1
    return Case({"x": (line - beta) / alpha}, {"alpha": alpha, "beta": beta})


def by_torch(F, t, attrs):
    return (attrs["alpha"] * t["x"] + attrs["beta"]).clamp(0, 1)


subject = Subject("hard_sigmoid", case, oracles.hard_sigmoid, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_far_out_and_for_nan_as_torch_by_default():
    values = (*FAR, 3.0, 2.9, -2.9, 3.1, -3.1, np.inf, -np.inf)
    bounds = (1e-6, 1e-7)  # PyTorch's sixth is one of float32 in the gradient
    check_values("hard_sigmoid", values, lambda F, x: F.hardsigmoid(x), bounds=bounds)


def test_what_backward_keeps_is_a_bit_an_element():
    assert hard_sigmoid.grad_x.reads == ["dy", "mask"]
    assert hard_sigmoid.pack_mask(np.ones((3, 5, 5, 2))).shape == (3, 7)  # ⌈50 / 8⌉


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(lambda g, name, x: g.hard_sigmoid(name, x, 0.2), backend)
