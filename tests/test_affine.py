import pytest
from node_cases import any_shape, check_in_a_net

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import affine


def case(pick):
    x = rng_of(pick).normal(size=any_shape(pick))
    return Case({"x": x}, {"factor": pick(-8, 8) / 4, "offset": pick(-8, 8) / 4})


def by_torch(F, t, attrs):
    return attrs["factor"] * t["x"] + attrs["offset"]


subject = Subject("affine", case, oracles.affine, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_backward_reads_nothing_of_forward():
    assert affine.grad_x.reads == ["dy"]


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(lambda g, name, x: g.affine(name, x, -1.5, 0.25), backend)


def test_refused():
    with pytest.raises(ShapeError, match="factor must be a number like 1.0, got 'two'"):
        Graph("net", (2, 2), 3).affine("y", "input", "two")
