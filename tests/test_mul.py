import numpy as np
import pytest
from node_cases import any_shape, branches, check_net

import oracles
from checks import Case, Subject, rng_of
from refimpl.graph import Graph
from refimpl.kernels.passes import ShapeError
from refimpl.ops import mul


def case(pick):
    shape, rng = any_shape(pick), rng_of(pick)
    return Case({"a": rng.normal(size=shape), "b": rng.normal(size=shape)})


subject = Subject("mul", case, oracles.mul, lambda F, t, a: t["a"] * t["b"])
test_oracle, test_slope, test_torch, test_counts, test_threads = subject.tests()


def test_each_gradient_reads_the_other_branch_alone():
    assert mul.grad_a.reads == ["dy", "b"] and mul.grad_b.reads == ["dy", "a"]


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_a_net_with_it(backend):
    check_net(branches(Graph.mul), backend, "a.w", "b.w")


def test_a_tensor_times_itself_has_both_gradients():
    g = Graph("net", (6, 5), 3)
    x = g.conv2d("c", "input", 4, 3)
    g.linear("fc", g.flatten("flat", g.mul("square", x, x)), 3)
    check_net(g, "fast", "c.w")


def test_refused():
    with pytest.raises(ShapeError, match=r"b has shape \(1, 2, 2, 1\), but a has \(1, 2, 2, 3\)"):
        mul.forward(np.ones((1, 2, 2, 3)), np.ones((1, 2, 2, 1)))
    g = Graph("net", (2, 2), 3)
    with pytest.raises(ShapeError, match=r"node y \(mul\): b has shape \(1, 3\), but a has \(1, 2, 2, 3\)"):
        g.mul("y", "input", g.global_avg_pool("mean", "input"))
