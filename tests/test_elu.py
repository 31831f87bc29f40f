import pytest
from node_cases import FAR, any_shape, check_in_a_net, check_values

import oracles
from checks import Case, Subject, apart, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError


def case(pick):
    return Case({"x": apart(rng_of(pick), any_shape(pick))}, {"alpha": pick(1, 8) / 4})


def by_torch(F, t, attrs):
    return F.elu(t["x"], attrs["alpha"])


subject = Subject("elu", case, oracles.elu, by_torch)
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("alpha", [1.0, 1.6732632])
def test_far_out_and_for_nan_as_torch(alpha):
    check_values("elu", FAR, lambda F, x: F.elu(x, alpha), {"alpha": alpha}, (1e-6, 1e-12))


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_in_a_net(Graph.elu, backend)


def test_refused():
    with pytest.raises(ShapeError, match="alpha must be at least 0, got -1.0"):
        Graph("net", (2, 2), 3).elu("y", "input", -1)
