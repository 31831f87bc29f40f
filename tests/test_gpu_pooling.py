"""What poolings become on a GPU, told without one."""

import numpy as np
import pytest
from test_quantize import with_weights

import refimpl as ri
from refimpl.backends.cuda import pooling
from refimpl.graph import INPUT, Graph
from refimpl.surgery.for_step import outlined_for
from refimpl.surgery.quantize import quantize


def lenet(kind):
    """LeNet-5 of floats, as NITI trains it, or of whole numbers, and its plan."""
    graph, plan = ri.models.build("lenet5", classes=10, size=(28, 28)), ri.Plan("all")
    if kind == "niti":
        plan = ri.Plan("all", step=ri.Niti())
        graph = outlined_for(plan.step, graph)
    elif kind == "whole":
        x = np.random.default_rng(0).normal(size=(8, 28, 28, 1)).astype(np.float32)
        graph = with_weights(graph)
        graph = quantize(graph, graph.weights, x, 8, headroom=1.5)
    return graph, plan


@pytest.mark.parametrize("kind", ["floats", "niti", "whole"])
def test_a_maximum_and_its_place_are_one_launch(kind):
    order = ri.compile(*lenet(kind), 4, backend="cuda", threads=1).order
    found = [[c.passed.name for c in launch.covers] for launch in order if launch.function is pooling.MAX_FORWARD]
    assert found == 2 * [["forward", "argmax"]]
    gradients = [launch for launch in order if launch.function is pooling.MAX_GRAD_X]
    assert len(gradients) == 2
    assert all(("mask" in launch.covers[0].arrays) == (kind == "whole") for launch in gradients)


def test_no_place_is_kept_where_nothing_trains():
    graph, _ = lenet("floats")
    order = ri.compile(graph, None, 4, backend="cuda", threads=1).order
    found = [launch for launch in order if launch.function is pooling.MAX_FORWARD]
    assert len(found) == 2 and all(launch.args[2].size == 0 and len(launch.covers) == 1 for launch in found)


def test_whole_numbers_are_saturated_where_a_rectifier_follows():
    g = Graph("rectified", (6, 6), 2)
    x = g.relu("relu", g.max_pool("pool", g.conv2d("conv", INPUT, 8, 3, pad=1), 2))
    g.linear("fc", g.flatten("flat", x), 3)
    g = with_weights(g)
    samples = np.random.default_rng(0).normal(size=(8, 6, 6, 2)).astype(np.float32)
    g = quantize(g, g.weights, samples, 8, headroom=1.5)
    order = ri.compile(g, ri.Plan("all"), 4, backend="cuda", threads=1).order
    (launch,) = (launch for launch in order if launch.function is pooling.MAX_FORWARD)
    low, high = launch.args[-2:]
    assert (low, high) == (launch.covers[0].attrs["low"], launch.covers[0].attrs["high"]) and low > -128


def test_each_maximum_of_a_tensor_has_its_own_place():
    g = Graph("twice", (6, 6), 2)
    x = g.conv2d("conv", INPUT, 4, 3, pad=1)
    x = g.add("sum", g.max_pool("wide", x, 3, 1, pad=1), g.max_pool("same", x, 1))
    g.linear("fc", g.flatten("flat", x), 3)
    order = ri.compile(g, ri.Plan("all"), 4, backend="cuda", threads=1).order
    found = [{c.node for c in launch.covers} for launch in order if launch.function is pooling.MAX_FORWARD]
    assert found == [{"wide"}, {"same"}]
