import numpy as np
import pytest
from node_cases import any_shape, branches, check_net

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import sub


def case(pick):
    shape, rng = any_shape(pick), rng_of(pick)
    return Case({"a": rng.normal(size=shape), "b": rng.normal(size=shape)})


subject = Subject("sub", case, oracles.sub, lambda F, t, a: t["a"] - t["b"])
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    """The gradient of its first branch is dy itself, of which no pass tells."""
    check_net(branches(Graph.sub), backend, "a.w", "b.w")


def test_refused():
    with pytest.raises(ShapeError, match=r"b has shape \(1, 2, 2, 1\), but a has \(1, 2, 2, 3\)"):
        sub.forward(np.ones((1, 2, 2, 3)), np.ones((1, 2, 2, 1)))
