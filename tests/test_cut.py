"""A net in two: its frozen head computed once, its tail trained on the head's maps."""

import numpy as np
import pytest

import refimpl as ri
from refimpl.surgery.cut import cut, frozen_until

NETS = {
    "resnet8": lambda: ri.models.resnet8(size=(16, 16), channels=1),
    "resnet20": lambda: ri.models.resnet20(size=(16, 16), channels=1),
    "lenet": lambda: ri.models.lenet(),
}


@pytest.mark.parametrize(
    "net, train_last, tensor",
    [
        ("resnet20", 1, "layer3.1.relu2"),  # the trained convolution's block adds its input back
        ("resnet20", 4, "layer3.0.relu2"),
        ("resnet20", 0, "layer3.2.relu2"),
        ("resnet8", 4, "layer1.0.relu2"),
        ("resnet8", "all", None),
    ],
)
def test_frozen_until_is_the_last_map_that_all_that_learns_stands_on(net, train_last, tensor):
    assert frozen_until(NETS[net](), ri.Plan(train_last)) == tensor


def test_nothing_is_frozen_before_a_batch_norm_that_trains():
    assert frozen_until(NETS["resnet8"](), ri.Plan(1, batch_norm="train")) == "conv1"


@pytest.mark.parametrize("net, train_last", [("resnet8", 4), ("resnet20", 3), ("lenet", 1)])
@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_the_tail_learns_from_the_heads_maps_what_the_whole_net_learns(net, train_last, backend):
    rng = np.random.default_rng(0)
    graph, plan = NETS[net](), ri.Plan(train_last, (ri.GradientFilter(2),), ri.Backprop(ri.SGD(0.05), clip_norm=2.0))
    whole = ri.Trainer(ri.compile(graph, plan, 4, backend=backend), seed=0)
    graph.weights = {name: w.copy() for name, w in whole.parameters.items()}
    x, y = rng.normal(size=(10, *graph.size, 1)).astype(np.float32), rng.integers(0, 10, 10)
    head, tail = cut(graph, frozen_until(graph, plan))
    assert head.nodes and len(head.nodes) + len(tail.nodes) == len(graph.nodes)
    maps = ri.Trainer(ri.compile(head, None, 4, backend=backend)).predict(x)
    part = ri.Trainer(ri.compile(tail, plan, 4, backend=backend), seed=0)
    np.testing.assert_allclose(part.predict(maps), whole.predict(x), rtol=1e-4, atol=1e-5)
    whole.fit(x, y, 3)
    part.fit(maps, y, 3)
    np.testing.assert_allclose(part.losses, whole.losses, rtol=1e-4)
    for name in part.program.step.gradients:
        before = graph.weights[name]
        moved = whole.parameters[name] - before
        assert np.abs(moved).max() > 0
        np.testing.assert_allclose(part.parameters[name] - before, moved, rtol=1e-3, atol=1e-3 * np.abs(moved).max())


def test_the_parts_keep_weights_and_pixels():
    graph = NETS["resnet8"]()
    graph.pixels = (-1.0, 1.0)
    graph.weights = {"conv1.w": np.ones((3, 3, 1, 16)), "fc.b": np.zeros(10)}
    head, tail = cut(graph, "layer2.0.relu2")
    assert (list(head.weights), list(tail.weights)) == (["conv1.w"], ["fc.b"])
    assert (head.pixels, tail.size, tail.channels) == ((-1.0, 1.0), (8, 8), 32)
    assert set(head.parameters) | set(tail.parameters) == set(graph.parameters)


@pytest.mark.parametrize(
    "tensor, message",
    [
        ("layer2.0.bn1", "cannot be cut at layer2.0.bn1: the later node layer2.0.add reads layer2.0.downsample.bn"),
        ("mean", r"can be cut at the map \(N, H, W, C\) of a node, but 'mean' is none"),
        ("layer9", "but 'layer9' is none"),
    ],
)
def test_cut_refuses(tensor, message):
    with pytest.raises(ValueError, match=f"^resnet8 .*{message}$"):
        cut(NETS["resnet8"](), tensor)


@pytest.mark.parametrize("train_last", [0, 1])
def test_a_net_in_whole_numbers_is_cut_too_with_the_same_logits_to_the_bit(train_last):
    rng = np.random.default_rng(0)
    float_net = NETS["lenet"]()
    float_net.weights = ri.Trainer(ri.compile(float_net, None, 1)).parameters
    x = rng.normal(size=(12, *float_net.size, float_net.channels)).astype(np.float32)
    y = rng.integers(0, 10, 12)
    graph = ri.surgery.quantize(float_net, float_net.weights, x, bits=16)
    plan = ri.Plan(train_last, step=ri.ForwardGradient(m=2, bits="16w8a", optimizer=ri.SGD(0.01)))
    head, tail = cut(graph, frozen_until(graph, plan))
    assert len(head.nodes) >= 2
    maps = ri.Trainer(ri.compile(head, None, 4)).predict(x)
    assert maps.dtype == np.int8
    whole, part = (ri.Trainer(ri.compile(g, plan, 4), seed=0) for g in (graph, tail))
    np.testing.assert_array_equal(part.predict(maps), whole.predict(x))
    before = {name: w.copy() for name, w in part.parameters.items()}
    part.fit(maps, y, 2)
    moved = {name for name, w in before.items() if (part.parameters[name] != w).any()}
    assert moved == {f"{node}.{local}" for node, arrays in plan.trained(graph).items() for local in arrays}
