"""What poolings become on a GPU, told without one."""

import numpy as np
import pytest
from test_quantize import with_weights

import refimpl as ri
from refimpl.backends.cuda import pooling
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
