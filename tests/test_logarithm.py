import numpy as np
import pytest
from node_cases import any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, rng_of
from refimpl.ops import logarithm


def case(pick):
    return Case({"x": rng_of(pick).uniform(0.1, 4.0, any_shape(pick))})


subject = Subject("logarithm", case, oracles.logarithm, lambda F, t, a: t["x"].log())
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_far_out_as_torch():
    check_values("logarithm", (1.0, 0.25, 30.0, 1000.0, np.nan), lambda F, x: x.log())


def test_what_backward_reads():
    assert logarithm.grad_x.reads == ["dy", "x"]


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(
        lambda g, name, x: g.logarithm(name, g.affine(f"{name}.above", g.sigmoid(f"{name}.gate", x), 4.0, 0.5)), backend
    )
