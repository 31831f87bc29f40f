import numpy as np
import pytest
from node_cases import any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, rng_of
from refimpl.ops import exponential


def case(pick):
    return Case({"x": rng_of(pick).normal(size=any_shape(pick))})


subject = Subject("exponential", case, oracles.exponential, lambda F, t, a: t["x"].exp())
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_far_out_as_torch():
    check_values("exponential", (0.0, -0.0, 1.0, -1.0, 30.0, -30.0, -1000.0, np.nan), lambda F, x: x.exp())


def test_what_backward_reads():
    assert exponential.grad_x.reads == ["dy", "y"]


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(lambda g, name, x: g.exponential(name, g.tanh(f"{name}.bounded", x)), backend)
