import numpy as np
import pytest
from node_cases import any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, apart, rng_of
from refimpl.ops import reciprocal


def case(pick):
    return Case({"x": apart(rng_of(pick), any_shape(pick))})


subject = Subject("reciprocal", case, oracles.reciprocal, lambda F, t, a: t["x"].reciprocal())
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_far_out_as_torch():
    check_values("reciprocal", (1.0, -2.0, 30.0, -1000.0, np.nan), lambda F, x: x.reciprocal())


def test_what_backward_reads():
    assert reciprocal.grad_x.reads == ["dy", "x"]


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(
        lambda g, name, x: g.reciprocal(name, g.affine(f"{name}.above", g.sigmoid(f"{name}.gate", x), 1.0, 0.5)),
        backend,
    )
