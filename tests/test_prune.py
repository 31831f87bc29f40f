"""Pruned graphs compute what the whole graph computes where nothing was lost, and are as small as was asked for."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import NETS

import refimpl as ri
from refimpl.graph import Node
from refimpl.surgery import prune as pr
from refimpl.training.trainer import Runner

SMALL = {
    "lenet5": {},
    "resnet8": {"size": (9, 7)},
    "resnet18": {"size": (33, 33), "classes": 3},
    "mobilenet_v2": {"size": (33, 33), "classes": 3, "width": 0.35},
}


def net(name) -> ri.Graph:
    return NETS[name]() if name in NETS else ri.models.build(name, **SMALL[name])


every = pytest.mark.parametrize("name", [*SMALL, *(n for n in NETS if n not in SMALL)])


def random_weights(graph, seed=0) -> dict:
    """Float64 values for every parameter; none is zero, variances are positive."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, p in graph.parameters.items():
        values = rng.normal(size=p.shape) / np.sqrt(p.fan_in / 2)
        found[name] = rng.uniform(0.5, 1.5, p.shape) if name.endswith("running_var") else values
    return found


def output(graph, seed=1) -> np.ndarray:
    """Output in float64 for three random samples, by the reference kernels."""
    program = ri.compile(graph, None, 3, backend="reference", dtype=np.float64)
    runner = Runner(program, graph.weights)
    x = runner.host("input", 3)
    x[...] = np.random.default_rng(seed).normal(size=x.shape)
    runner.run("forward", 3)
    return runner.host("output", 3).copy()


def whole(graph, weights) -> np.ndarray:
    """Output of the unpruned graph."""
    graph.weights = weights
    return output(graph)


def free(graph) -> list:
    return [g for g in pr.groups(graph) if not g.fixed]


def chosen(graph, seed=2) -> dict:
    """Some channels of every group, never all."""
    rng = np.random.default_rng(seed)
    return {g: rng.permutation(g.channels)[: rng.integers(0, g.channels)].tolist() for g in free(graph)}


def silence(weights, gone, everywhere=False) -> None:
    """Zero what makes the channels (filters, biases, gamma, beta: the last axis), or every slice that they have."""
    for group, channels in gone.items():
        for m in group.members:
            if (everywhere or m.axis == weights[m.parameter].ndim - 1) and "running" not in m.parameter:
                np.moveaxis(weights[m.parameter], m.axis, 0)[m.index[channels].ravel()] = 0


def check_unchanged(pruned, before) -> None:
    after = output(pruned)
    assert np.abs(before).min() > 0
    assert np.linalg.norm(after - before) <= 1e-12 * np.linalg.norm(before)


def check_consistent(graph, pruned) -> None:
    """Every tensor has a shape, every parameter an array of its own shape, and nothing is shared with the original."""
    assert pruned.shapes(2)[pruned.output] == graph.shapes(2)[graph.output]
    assert [(n.name, n.op, n.inputs, n.attrs, n.params) for n in pruned.nodes] == [
        (n.name, n.op, n.inputs, n.attrs, n.params) for n in graph.nodes
    ]
    assert set(pruned.weights) == set(pruned.parameters) == set(graph.parameters)
    for name, p in pruned.parameters.items():
        assert pruned.weights[name].shape == p.shape and p.init == graph.parameters[name].init
        assert p.init != "he" or p.fan_in == np.prod(p.shape[:-1])


# What the groups are


def slices(group) -> set:
    return {(m.parameter, m.axis) for m in group.members}


def norm(name) -> set:
    return {(f"{name}.{p}", 0) for p in ("gamma", "beta", "running_mean", "running_var")}


def test_dependency_graph_groups_of_a_residual_net():
    first, out, inner = free(NETS["residual"]())
    assert slices(first) == {("conv0.w", 3), ("down.w", 2), ("conv1.w", 2)} | norm("bn0")
    assert slices(inner) == {("conv1.w", 3), ("conv2.w", 2)} | norm("bn1")
    assert slices(out) == {("down.w", 3), ("conv2.w", 3), ("fc.w", 0)} | norm("down.bn") | norm("bn2")
    assert [g.channels for g in (first, inner, out)] == [4, 6, 6]


def test_depthwise_goes_with_its_input_and_grouped_stays():
    graph = NETS["depthwise"]()
    found = {g.name: g for g in pr.groups(graph)}
    assert slices(found["expand.w axis 3"]) == (
        {("expand.w", 3), ("dw.w", 3), ("project.w", 2)} | norm("expand.bn") | norm("dw.bn")
    )
    why = "grouped is a convolution of 2 groups of 2 channels, which prune leaves whole"
    assert found["stem.w axis 3"].fixed == found["grouped.w axis 3"].fixed == why
    assert found["stem.w axis 2"].fixed == "they are the graph's input"
    assert found["fc.w axis 1"].fixed == "they are the graph's output"
    assert [g.name for g in free(graph)] == ["expand.w axis 3", "dilated.w axis 3", "hidden.w axis 1"]


def test_flatten_gives_each_channel_its_features():
    graph = ri.models.lenet5()
    group = free(graph)[1]
    member = next(m for m in group.members if m.parameter == "fc1.w")
    places = np.arange(5 * 5 * 16).reshape(5, 5, 16)  # the features of a flattened (5, 5, 16) map
    assert member.axis == 0
    assert all(np.array_equal(member.index[c], places[:, :, c].ravel()) for c in range(16))


def multiplied() -> ri.Graph:
    """A depthwise convolution that makes two channels of each, added to a branch whose channels are paired by it."""
    g = ri.Graph("multiplied", (5, 5), 2)
    x = g.conv2d("narrow", "input", 3, 3)
    x = g.conv2d("double", x, 6, 3, pad=1, groups=3, bias=True)
    y = g.conv2d("wide", "input", 6, 3)
    x = g.relu("relu", g.add("sum", x, y))
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    return g


def test_a_channel_may_have_several_places():
    graph = multiplied()
    (group,) = free(graph)
    index = {(m.parameter, m.axis): m.index.tolist() for m in group.members}
    pairs = [[0, 1], [2, 3], [4, 5]]
    assert index == {
        ("narrow.w", 3): [[0], [1], [2]], ("double.w", 3): pairs, ("double.b", 0): pairs, ("wide.w", 3): pairs,
        ("fc.w", 0): pairs,
    }  # fmt: skip
    weights, gone = random_weights(graph), {group: [1]}
    silence(weights, gone)
    check_unchanged(pr.remove(graph, weights, gone), whole(graph, weights))


@every
def test_every_axis_of_channels_is_in_one_group_once(name):
    graph = net(name)
    seen = {}
    for group in pr.groups(graph):
        for m in group.members:
            seen.setdefault((m.parameter, m.axis), []).append(m.index.ravel())
    for (parameter, axis), found in seen.items():
        found = np.sort(np.concatenate(found))
        assert np.array_equal(found, np.arange(graph.parameters[parameter].shape[axis]))
    last = {(p, len(a.shape) - 1) for p, a in graph.parameters.items()}
    assert last <= seen.keys()


# Removing channels


@every
def test_removing_silent_channels_changes_nothing(name):
    graph = net(name)
    weights, gone = random_weights(graph), chosen(graph)
    silence(weights, gone)
    pruned = pr.remove(graph, weights, gone)
    check_consistent(graph, pruned)
    for group, channels in gone.items():
        m = group.members[0]
        assert pruned.parameters[m.parameter].shape[m.axis] == group.channels - len(channels)
    check_unchanged(pruned, whole(graph, weights))


@every
def test_channels_that_are_zero_everywhere_go_first(name):
    graph = net(name)
    weights, gone = random_weights(graph), chosen(graph)
    silence(weights, gone, everywhere=True)
    wanted = pr.remove(graph, weights, gone)
    pruned = pr.prune(graph, weights, parameters=pr.count(wanted))
    assert pruned.parameters == wanted.parameters
    assert all(np.array_equal(pruned.weights[p], wanted.weights[p]) for p in pruned.weights)
    check_unchanged(pruned, whole(graph, weights))


def test_the_check_sees_channels_that_matter():
    graph = net("resnet8")
    weights = random_weights(graph)
    before = whole(graph, weights)
    for group in free(graph):
        with pytest.raises(AssertionError):
            check_unchanged(pr.remove(graph, weights, {group: range(group.channels // 2)}), before)


@st.composite
def graphs(draw) -> ri.Graph:
    """Small graphs of every operator that passes channels on, with branches and sums."""
    pick = lambda *of: draw(st.sampled_from(of))  # noqa: E731
    g = ri.Graph("drawn", (pick(5, 6), pick(4, 7)), pick(1, 2, 4))
    x, maps = g.conv2d("first", "input", pick(2, 4, 6), 3, pad=1, bias=True), []
    for i in range(draw(st.integers(1, 7))):
        name, maps, c = f"n{i}", [*maps, x], g.shape(x)[3]
        op = pick("conv", "depthwise", "grouped", "norm", "relu", "relu6", "max", "avg", "sum", "sum", "block")
        if op == "conv":
            x = g.conv2d(name, x, pick(2, 4, 6), pick(1, 3), pick(1, 2), pad=1, bias=pick(True, False))
        elif op == "depthwise":
            x = g.conv2d(name, x, c * pick(1, 2), 3, pad=1, groups=c, bias=pick(True, False))
        elif op == "grouped":
            x = g.conv2d(name, x, 4, 1, groups=2)
        elif op == "norm":
            x = g.batch_norm(name, x)
        elif op == "relu":
            x = g.relu(name, x)
        elif op == "relu6":
            x = g.relu6(name, x)
        elif op == "max":
            x = g.max_pool(name, x, 2, 1, pad=1)
        elif op == "avg":
            x = g.avg_pool(name, x, 2, 1, pad=1)
        elif op == "block":
            x = g.block_prune(name, x, 2, 0.5)
        else:
            x = g.add(name, x, pick(*(m for m in maps if g.shape(m) == g.shape(x))))
    x = g.flatten("flat", x) if pick(True, False) else g.global_avg_pool("mean", x)
    g.linear("fc", g.linear("hidden", x, 5) if pick(True, False) else x, 3)
    return g


@given(graph=graphs(), seed=st.integers(0, 99))
def test_removing_silent_channels_of_drawn_graphs_changes_nothing(graph, seed):
    weights, gone = random_weights(graph, seed), chosen(graph, seed)
    silence(weights, gone)
    pruned = pr.remove(graph, weights, gone)
    check_consistent(graph, pruned)
    check_unchanged(pruned, whole(graph, weights))


# Which and how many


def test_importance_is_the_norm_of_all_slices_over_its_mean():
    graph = ri.models.lenet5()
    w = random_weights(graph)
    norms = []
    for c in range(16):
        parts = [w["conv2.w"][:, :, :, c], w["conv2.b"][c], *(w["fc1.w"][d] for d in range(400) if d % 16 == c)]
        norms.append(np.sqrt(sum(np.sum(p**2) for p in parts)))
    found = pr.importance(graph, w, free(graph)[1])
    assert np.allclose(found, norms / np.mean(norms), rtol=1e-13)


def test_running_statistics_say_nothing_about_importance():
    graph = net("residual")
    w = random_weights(graph)
    before = [pr.importance(graph, w, g) for g in free(graph)]
    w["bn0.running_mean"][1] = 1e6
    after = [pr.importance(graph, w, g) for g in free(graph)]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


def largest_step(graph, w, channels) -> int:
    """The most values that go with so many channels of one group."""
    groups = [g for g in free(graph) if g.channels > channels]
    return max(pr.count(graph) - pr.count(pr.remove(graph, w, {g: range(channels)})) for g in groups)


sized = pytest.mark.parametrize("name", ["lenet5", "resnet8", "mobilenet_v2"])


@sized
def test_the_least_important_go_and_no_more_than_needed(name):
    graph = net(name)
    w = random_weights(graph)
    limit = round(pr.count(graph) * 0.6)
    pruned = pr.prune(graph, w, parameters=limit)
    check_consistent(graph, pruned)
    assert limit - largest_step(graph, w, 1) < pr.count(pruned) <= limit
    gone, could_go = [], []
    for g in free(graph):
        score = pr.importance(graph, w, g)
        order = np.argsort(score)
        vector = next(m.parameter for m in g.members if w[m.parameter].ndim == 1)
        left = len(pruned.weights[vector])
        assert np.array_equal(pruned.weights[vector], w[vector][np.sort(order[-left:])])
        gone += score[order[:-left]].tolist()
        could_go += score[order[-left:-1]].tolist()
    assert max(gone) <= min(could_go)


@sized
def test_groups_that_lose_channels_keep_a_multiple(name):
    graph = net(name)
    w = random_weights(graph)
    limit = round(pr.count(graph) * 0.6)
    pruned = pr.prune(graph, w, share=0.4, round_to=8)
    check_consistent(graph, pruned)
    assert limit - largest_step(graph, w, 8) - 1 < pr.count(pruned) <= limit
    left = [(g.channels, h.channels) for g, h in zip(pr.groups(graph), pr.groups(pruned), strict=True)]
    assert any(a != b for a, b in left)
    assert all(a == b or (b < a and b % 8 == 0) for a, b in left)


def test_mobilenet_v2_from_3_5_to_2_01_million():
    graph = ri.models.mobilenet_v2()
    pruned = pr.prune(graph, random_weights(graph), parameters=2_010_000)
    assert 2_000_000 < pr.count(pruned) <= 2_010_000
    assert pruned.shapes(1)[pruned.output] == (1, 1000)


def test_as_far_as_it_goes_one_channel_stays():
    graph = net("mobilenet_v2")
    w = random_weights(graph)
    smallest = pr.remove(graph, w, {g: range(1, g.channels) for g in free(graph)})
    pruned = pr.prune(graph, w, parameters=pr.count(smallest))
    assert pruned.parameters == smallest.parameters
    check_consistent(graph, pruned)
    assert np.isfinite(output(pruned)).all()


def test_nothing_to_remove():
    graph = net("residual")
    w = random_weights(graph)
    pruned = pr.prune(graph, w, share=0)
    assert pruned.parameters == graph.parameters
    assert all(np.array_equal(pruned.weights[p], w[p]) and pruned.weights[p] is not w[p] for p in w)


@pytest.mark.parametrize("norm", ["frozen", "train"])
@every
def test_a_pruned_net_trains(name, norm):
    graph = net(name)
    pruned = pr.prune(graph, random_weights(graph), share=0.5)
    trainer = ri.Trainer(ri.compile(pruned, ri.Plan(batch_norm=norm), 4), seed=0)
    before = {p: a.copy() for p, a in trainer.parameters.items()}
    x = np.random.default_rng(0).normal(size=(4, *graph.shape("input")[1:])).astype(np.float32)
    (loss,) = trainer.fit(x, np.arange(4) % 3, 1)
    assert np.isfinite(loss)
    moved = [p for p in pr.trainable(pruned) if not np.array_equal(before[p], trainer.parameters[p])]
    assert "fc.w" in moved or "fc3.w" in moved
    assert any(pruned.parameters[p].shape != graph.parameters[p].shape for p in moved)


# Refusals


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "prune takes either share, of the trainable values to remove, or parameters, to remain"),
        ({"share": 0.5, "parameters": 100}, "prune takes either share"),
        ({"share": 1.0}, "share must be at least 0 and below 1, got 1.0"),
        ({"share": -0.1}, "share must be at least 0 and below 1, got -0.1"),
        ({"share": 0.5, "round_to": 0}, "round_to must be at least 1, got 0"),
        ({"share": 0.5, "round_to": 1.5}, "round_to must be a whole number like 1, got 1.5"),
        ({"parameters": 10}, "residual has 737 trainable values and cannot be pruned to 10: 60 remain where each "
                             "group of channels keeps 1"),
    ],
)  # fmt: skip
def test_refused(wanted, message):
    graph = net("residual")
    with pytest.raises(ValueError, match=message):
        pr.prune(graph, random_weights(graph), **wanted)


def test_weights_that_do_not_fit_are_refused():
    graph = net("residual")
    w = random_weights(graph)
    with pytest.raises(ValueError, match=r"weights has no array conv0.w, which residual needs with shape \(3, 3, 3, 4"):
        pr.prune(graph, {}, share=0.1)
    w["fc.b"] = np.zeros(4)
    with pytest.raises(ValueError, match=r"weights has fc.b with shape \(4,\), but residual has \(3,\)"):
        pr.prune(graph, w, share=0.1)


def test_channels_that_cannot_go_are_refused():
    graph = net("residual")
    w = random_weights(graph)
    given, first = pr.groups(graph)[:2]
    with pytest.raises(ValueError, match=r"no channel of conv0.w axis 2 may go: they are the graph's input"):
        pr.remove(graph, w, {given: [0]})
    with pytest.raises(ValueError, match=r"conv0.w axis 3 has channels 0 to 3, but \[1, 4\] are to go"):
        pr.remove(graph, w, {first: [4, 1]})
    with pytest.raises(ValueError, match=r"all 4 channels of conv0.w axis 3 are to go, but one must stay"):
        pr.remove(graph, w, {first: [0, 1, 2, 3]})


def test_an_operator_that_nobody_told_about_is_refused(monkeypatch):
    graph = net("residual")
    found = graph.node("pool0").operator
    monkeypatch.setattr(Node, "operator", property(lambda node: replace(found, channels=None)))
    with pytest.raises(ValueError, match="node conv0 of residual is a conv2d, of which prune does not know how"):
        pr.groups(graph)
