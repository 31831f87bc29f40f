"""What a compiled step holds: which calls, in which order, covered by which launches, kept where."""

import gc
import importlib
from itertools import cycle, product

import numpy as np
import pytest
from nets import NETS, RULES, STEPS, step_for

import refimpl as ri
from refimpl.compiler.program import Program
from refimpl.plan.plan import counted, of_kind
from refimpl.surgery.cut import cut, frozen_until
from refimpl.surgery.prune import with_block_pruning
from validation.instruments import approximation

compiling = importlib.import_module("refimpl.compiler.compile")  # the package has a function of that name
PLANS = {
    f"{rules}, {norm}, last {last}": ri.Plan(
        last, RULES[rules], step_for(RULES[rules], STEPS[step]), batch_norm=norm, train_bias=True
    )
    for (rules, norm), last, step in zip(product(RULES, ("frozen", "train")), cycle(("all", 2, 1)), cycle(STEPS))
}
BACKENDS = ("reference", "fast")


def program(net="residual", plan=None, batch=4, backend="reference", **keywords) -> Program:
    return ri.compile(NETS[net](), plan or ri.Plan(), batch, backend=backend, **keywords)


def every(test):
    """Run a test on every net, plan and backend."""
    for mark in (("backend", BACKENDS, None), ("plan", list(PLANS.values()), list(PLANS)), ("net", list(NETS), None)):
        test = pytest.mark.parametrize(mark[0], mark[1], ids=mark[2])(test)
    return test


@every
def test_each_call_is_covered_once_and_in_its_section(net, plan, backend):
    p = program(net, plan, backend=backend)
    covered = [call for launch in p.order for call in launch.covers]
    assert len(covered) == len(set(covered))
    assert set(covered) == set(p.step)


@every
def test_nobody_reads_what_was_not_written(net, plan, backend):
    p = program(net, plan, backend=backend)
    filled = {b.root for b in p.step.host_writes.values()}
    check_order(((call.name, call.reads, call.writes) for call in p.step), set(filled))
    check_order(((launch.name, launch.reads, launch.writes) for launch in p.order), filled)


def check_order(steps, written):
    for name, reads, writes in steps:
        fresh = set(writes)
        for b in reads:
            if b.root.region == "arena" and b not in fresh:
                assert b.root in written, f"{name} reads {b.name}, which nobody has written"
        written |= {b.root for b in writes}


SIZES = {"resnet18": (64, 64), "mobilenet_v2": (64, 64), "efficientnet_lite0": (64, 64)}  # smaller than their own


@pytest.mark.parametrize(
    "plan",
    [
        ri.Plan(0, RULES["patch 2"]),
        ri.Plan(1),
        ri.Plan(),
        ri.Plan(batch_norm="train"),
        ri.Plan(rules=RULES["patch 2"]),
        ri.Plan(rules=RULES["patch 2"], batch_norm="train"),
        *(ri.Plan(rules=RULES[r], batch_norm=n) for r in ("keep", "keep, ratio, patch") for n in ("frozen", "train")),
    ],
)
@pytest.mark.parametrize("model", ri.models.MODELS)
def test_every_model_lowers(model, plan):
    graph = ri.models.build(model, size=SIZES.get(model))
    p = ri.compile(graph, plan, 2, backend="fast")
    assert sorted(c.name for launch in p.order for c in launch.covers) == sorted(c.name for c in p.step)
    check_order(
        ((launch.name, launch.reads, launch.writes) for launch in p.order),
        {b.root for b in p.step.host_writes.values()},
    )


@every
def test_calls_write_no_constants(net, plan, backend):
    for launch in program(net, plan, backend=backend).order:
        assert all(b.root.region != "constant" for b in launch.writes), launch.name


@every
def test_what_is_saved_is_read_later(net, plan, backend):
    p = program(net, plan, backend=backend)
    later = {b.root for s in ("backward", "update") for launch in p.launches[s] for b in launch.reads}
    earlier = {b.root for launch in p.launches["forward"] for b in launch.writes} | {
        b.root for b in p.step.host_writes.values()
    }
    per_step = {p.step.host_writes[name].root for name in ("lr", "step", "seed") if name in p.step.host_writes}
    kept = {b for b in later & earlier if b.region == "arena"} - per_step
    assert set(p.saved) == kept
    assert p.saved_bytes == sum(b.nbytes for b in kept)


def test_inference_has_a_forward_section_only():
    p = ri.compile(NETS["depthwise"](), None, 4, backend="reference")
    assert not p.step.calls["backward"] and not p.step.calls["update"] and not p.training
    names = {call.name for call in p.step}
    assert not any("mask" in n or "dropout" in n or "loss" in n for n in names)
    assert p.state_bytes == 0


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_backward_stops_at_the_first_trained_layer(rules):
    p = program("residual", ri.Plan(1, rules))
    assert {c.node for c in p.step.calls["backward"]} == {
        "conv2", "bn2", "relu2", "mean", "fc", "loss", "conv2.w", "fc.w", "fc.b",
    }  # fmt: skip
    written = {b.name for c in p.step for b in c.writes}
    assert "conv2.dw" in written and "conv2.dx" not in written and "conv1.dw" not in written
    # what only earlier gradients would read is not made
    assert "relu2.mask" in written and "relu1.mask" not in written and "pool0.argmax" not in written
    assert {b.name for b in p.step.parameters.values() if b.region == "state"} == {"conv2.w", "fc.w", "fc.b"}


def test_train_last_counts_convolutions_in_node_order():
    order = ["conv0", "down", "conv1", "conv2"]
    graph = NETS["residual"]()
    assert [n.name for n in graph.nodes if n.op == "conv2d"] == order
    for k in range(5):
        trained = {name.rsplit(".", 1)[0] for name in program("residual", ri.Plan(k)).step.gradients}
        assert trained == {"fc", *order[4 - k :]}
    assert (
        program("residual", ri.Plan("all")).step.gradients.keys()
        == program("residual", ri.Plan(4)).step.gradients.keys()
    )
    with pytest.raises(ValueError, match="train_last is 5, but residual has 4 convolutions"):
        program("residual", ri.Plan(5))


def test_of_a_net_without_convolutions_the_last_linear_layer_is_the_classifier():
    g = ri.Graph("perceptron", (1, 1), 6)
    x = g.flatten("flat", "input")
    for name in ("fc1", "fc2"):
        x = g.relu(f"{name}.relu", g.linear(name, x, 5))
    g.linear("fc3", x, 3)
    names = ["fc1", "fc2", "fc3"]
    assert counted(g) == names[:2] and of_kind(g) == "hidden layers"
    for k in (0, 1, 2, "all"):
        trained = names if k == "all" else names[2 - k :]
        assert ri.Plan(k).trained(g) == {name: ["w", "b"] for name in trained}
    assert ri.Plan(1, bias_only=True).trained(g) == {"fc2": ["b"], "fc3": ["w", "b"]}
    with pytest.raises(ValueError, match="train_last is 3, but perceptron has 2 hidden layers$"):
        ri.Plan(3).trained(g)
    assert cut(g, frozen_until(g, ri.Plan(0), features=True))[1].nodes[0].name == "fc3"
    assert with_block_pruning(g, 2, 0.1).nodes[-1].name == "fc3"  # it reads no map
    assert counted(cut(g, "fc1.relu")[1]) == ["fc2"]
    for build, classifier in (("depthwise", ["hidden", "fc"]), ("residual", ["fc"])):  # as ever beside convolutions
        net = NETS[build]()
        assert [*ri.Plan(0).trained(net)] == classifier and of_kind(net) == "convolutions"
        tail = cut(net, frozen_until(net, ri.Plan(0), features=True))[1]
        assert [*ri.Plan(0).trained(tail)] == classifier and not counted(tail)


def test_only_the_classifier_trains_with_train_last_0():
    p = program("residual", ri.Plan(0))
    assert {c.node for c in p.step.calls["backward"]} == {"loss", "fc", "fc.w", "fc.b"}
    assert "fc.dx" not in {b.name for c in p.step for b in c.writes}


def test_a_frozen_branch_gets_no_gradient():
    # the projection is before conv1 and conv2: with the last two trained it is frozen, and so is its way back
    p = program("residual", ri.Plan(2))
    assert not {"down", "down.bn"} & {c.node for c in p.step.calls["backward"]}
    assert not any(str(c.passed) == "add.forward" for c in p.step.calls["backward"])


def test_gradients_of_two_readers_are_added():
    p = program("residual")
    added = [c for c in p.step.calls["backward"] if str(c.passed) == "add.forward"]
    assert [c.node for c in added] == ["pool0"]
    assert {b.name for b in added[0].reads} == {"conv1.dx", "down.dx"}


def test_a_filtered_convolution_keeps_its_pooled_input():
    dense, filtered = program("residual"), program("residual", ri.Plan(rules=RULES["patch 2"]))
    for node, x in (("conv1", "pool0"), ("conv2", "relu1")):
        assert x in {b.name for b in dense.saved}
        assert x not in {b.name for b in filtered.saved}
        assert f"{node}.x_sum" in {b.name for b in filtered.saved}
    pooled = next(c for c in filtered.step if c.name == "conv1 gradient_filter.pool_x")
    assert pooled.section == "forward"
    assert filtered.saved_bytes < dense.saved_bytes


def test_running_statistics_change_in_training_only():
    p = program("residual", ri.Plan(batch_norm="train"))
    assert p.step.parameters["bn1.running_mean"].region == "state"
    assert {"bn1.gamma", "bn1.beta"} <= set(p.step.gradients)
    frozen = program("residual")
    assert frozen.step.parameters["bn1.running_mean"].region == "constant"
    assert "bn1.gamma" not in frozen.step.gradients


def test_regions_hold_every_byte():
    p = program("residual", ri.Plan(1, step=STEPS["adam"]))
    trained = 3 * 3 * 6 * 6 + 6 * 3 + 3
    weights = sum(b.nbytes for b in p.step.parameters.values())
    assert p.state_bytes == 4 * 3 * trained  # the weights and two moments
    assert p.constant_bytes == weights - 4 * trained


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_limit(backend):
    p = program("residual", backend=backend)
    need, bound = p.state_bytes + p.peak_bytes, p.state_bytes + p.lower_bound.nbytes
    assert program("residual", backend=backend, memory_limit=need).peak_bytes == p.peak_bytes
    with pytest.raises(ri.MemoryLimitError) as refused:
        program("residual", backend=backend, memory_limit=need - 1)
    text = str(refused.value)
    launch = p.lower_bound.launch
    for part in (
        f"needs {need:,} bytes", f"the memory limit is {need - 1:,} bytes", f"less than {bound:,} bytes",
        f"the smallest limit that this compiler can place is {need:,} bytes", f"at {launch.name}",
    ):  # fmt: skip
        assert part in text
    largest = max(p.alive_at(launch), key=lambda b: b.nbytes)
    assert f"where {largest.name} ({largest.nbytes:,})" in text or f"({largest.nbytes:,})" in text
    assert (refused.value.needed, refused.value.lower_bound) == (need, bound)
    assert sum(b.nbytes for b in p.alive_at(launch)) == p.lower_bound.nbytes


@every
def test_the_arena_has_room_for_everything_at_once(net, plan, backend):
    p = program(net, plan, backend=backend)
    for i, launch in enumerate(p.order):
        spans = sorted((p.offsets[b], p.offsets[b] + b.nbytes) for b in p.alive_at(launch) if b.nbytes)
        assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False)), launch.name
        assert all(end <= p.peak_bytes for _, end in spans)
        for b in launch.buffers:
            assert b.root.region != "arena" or p.lifetimes[b.root].first <= i <= p.lifetimes[b.root].last


def test_bad_values():
    with pytest.raises(ValueError, match="batch must be a whole number from 1 up, got 0"):
        program(batch=0)
    with pytest.raises(ValueError, match="backend must be one of fast, reference, rows, cuda, got 'gpu'"):
        program(backend="gpu")
    with pytest.raises(ValueError, match="train_last must be a number of convolutions from 0 up, or 'all', got -1"):
        ri.Plan(-1)
    with pytest.raises(ri.ShapeError, match="node pool1 .max_pool.: window 2 does not fit into x with W=1"):
        ri.compile(NETS["watch"](), ri.Plan(), 2, size=(1, 1), backend="reference")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_prints_every_launch_and_buffer(backend):
    p = program("depthwise", ri.Plan(rules=RULES["patch 2"]), backend=backend)
    text = str(p)
    for launch in p.order:
        assert f"  {launch.name}\n" in text
        for b in launch.buffers:
            assert b.name in text
    assert f"arena {p.peak_bytes:,} B" in text


def test_a_sum_behind_a_trained_norm_and_a_bare_convolution_is_done_once():
    g = ri.Graph("bare", (5, 4), 3)
    x = g.conv2d("stem", "input", 4, 3, pad=1)
    down = g.conv2d("down", x, 6, 1)
    x = g.relu("relu", g.add("sum", g.batch_norm("bn", g.conv2d("conv", x, 6, 3, pad=1)), down))
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 5, 4, 3)).astype(np.float32), np.arange(4) % 3
    assert max(approximation.kernel_errors(g, ri.Plan(batch_norm="train"), x, y).values()) < 1e-5


@pytest.mark.parametrize("enabled", [True, False])
def test_compiling_leaves_the_collector_as_it_was(enabled, monkeypatch):
    seen = []
    lower = compiling.lower
    monkeypatch.setattr(compiling, "lower", lambda *args: (seen.append(gc.isenabled()), lower(*args))[1])
    try:
        if not enabled:
            gc.disable()
        ri.compile(ri.models.lenet5(), ri.Plan(), 2)
        with pytest.raises(ri.ShapeError):
            ri.compile(ri.models.lenet5(), ri.Plan(), 2, size=(2, 2))
        assert (seen, gc.isenabled()) == ([False], enabled)
    finally:
        gc.enable()
