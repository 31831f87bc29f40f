"""Stochastic depth: which blocks stay, the steps without the others, evaluation, counts, memory, resuming."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import refimpl as ri
from costmodel import predict
from gradledger import adapt, options
from refimpl.compiler import arena, compose, lower
from refimpl.compiler.ir import ALWAYS
from refimpl.methods.stochastic_depth import residual_blocks
from refimpl.storage import checkpoint
from refimpl.training import trainer as train
from validation.instruments import counting, measured

BLOCKS = ("a.add", "b.add", "c.add")
PATTERNS = [frozenset(b for b, out in zip(BLOCKS, p, strict=True) if out) for p in itertools.product((0, 1), repeat=3)]
SURVIVAL = {"a.add": 1 - 0.5 / 3, "b.add": 1 - 1 / 3, "c.add": 0.5}  # 1 − (l / 3)·(1 − 0.5)


def net(without=frozenset()) -> ri.Graph:
    """Three blocks: one that ends in a convolution, one with a projection, one without ReLU after it; built without."""
    g = ri.Graph("blocks", (6, 7), 3)
    x = g.relu("stem.relu", g.batch_norm("stem.bn", g.conv2d("stem", "input", 4, 3, pad=1)))
    if "a.add" not in without:
        y = g.relu("a.relu1", g.batch_norm("a.bn", g.conv2d("a.conv1", x, 5, 1)))
        x = g.add("a.add", g.conv2d("a.conv2", y, 4, 3, pad=1, bias=True), x)
    x = g.relu("a.relu2", x)
    shortcut = g.batch_norm("b.down.bn", g.conv2d("b.down", x, 6, 1, 2))
    if "b.add" not in without:
        y = g.relu("b.relu1", g.batch_norm("b.bn1", g.conv2d("b.conv1", x, 6, 3, 2, pad=1)))
        shortcut = g.add("b.add", g.batch_norm("b.bn2", g.conv2d("b.conv2", y, 6, 3, pad=1)), shortcut)
    x = g.relu("b.relu2", shortcut)
    if "c.add" not in without:
        y = g.relu6("c.relu6", g.conv2d("c.conv1", x, 6, 3, pad=1, groups=6))
        x = g.add("c.add", x, g.batch_norm("c.bn", g.conv2d("c.conv2", y, 6, 1)))  # the shortcut comes first here
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    return g


def samples(n=8, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6, 7, 3)).astype(np.float32), rng.integers(0, 3, n)


def trainer(backend="reference", depth=None, graph=None, seed=3, **plan) -> ri.Trainer:
    plan = {"step": ri.Backprop(ri.SGD(lr=0.1, momentum=0.9)), "batch_norm": "train", "train_bias": True} | plan
    t = ri.Trainer(ri.compile(graph or net(), ri.Plan(depth=depth, **plan), 8, backend=backend), seed)
    rng = np.random.default_rng(7)
    for name in sorted(t.parameters):  # no parameter is 0 or 1, statistics and scales included
        t.parameters[name][...] = (
            rng.uniform(0.5, 1.5, t.parameters[name].shape) * np.sign(t.parameters[name] + 1e-9)
            if name.split(".")[-1] in ("gamma", "running_var")
            else rng.normal(size=t.parameters[name].shape) / 3
        )
    return t


def made(program: ri.Program, dropped: frozenset[str]) -> list:
    """The logical calls of a step that leaves blocks out."""
    return [call for call in program.step if call.when.holds(dropped)]


def forced(monkeypatch, left_out) -> ri.StochasticDepth:
    """A stochastic depth of which every step leaves out the same blocks."""
    monkeypatch.setattr(ri.StochasticDepth, "dropped", lambda self, blocks, seed, step: left_out)
    return ri.StochasticDepth()


def test_blocks_of_nets():
    found = {b.name: (b.shortcut, sorted(b.nodes), b.last) for b in residual_blocks(net())}
    assert found == {
        "a.add": ("stem.relu", ["a.bn", "a.conv1", "a.conv2", "a.relu1"], "a.conv2"),
        "b.add": ("b.down.bn", ["b.bn1", "b.bn2", "b.conv1", "b.conv2", "b.relu1"], "b.bn2"),
        "c.add": ("b.relu2", ["c.bn", "c.conv1", "c.conv2", "c.relu6"], "c.bn"),
    }
    resnet = residual_blocks(ri.models.resnet18(classes=10, size=(32, 32)))
    assert [b.name for b in resnet] == [f"layer{s}.{i}.add" for s in (1, 2, 3, 4) for i in (0, 1)]
    assert all(b.nodes == {b.name.replace("add", k) for k in ("conv1", "bn1", "relu1", "conv2", "bn2")} for b in resnet)
    assert len(residual_blocks(ri.models.mobilenet_v2(classes=10, size=(32, 32)))) == 10
    assert residual_blocks(ri.models.lenet5()) == ()


def test_a_block_within_a_branch_belongs_to_it_and_a_branch_read_elsewhere_is_none():
    g = ri.Graph("nested", (4, 4), 3)
    x = g.conv2d("conv", "input", 3, 1)
    y = g.conv2d("outer", x, 3, 1)
    y = g.add("inner.add", g.conv2d("inner", y, 3, 1), y)
    x = g.add("add", y, x)
    z = g.conv2d("twice", x, 3, 1)
    g.add("read", z, x)
    g.conv2d("again", z, 3, 1)
    assert [(b.name, sorted(b.nodes)) for b in residual_blocks(g)] == [("add", ["inner", "inner.add", "outer"])]


def test_a_branch_of_which_an_output_of_the_net_is_made_is_none():
    g = ri.Graph("read", (4, 4), 3)
    x = g.conv2d("stem", "input", 3, 1)
    x = g.add("a.add", g.conv2d("a", x, 3, 1), x)
    g.add("b.add", g.conv2d("b", x, 3, 1), x)
    assert [b.name for b in residual_blocks(g)] == ["a.add", "b.add"]
    g.outputs = ("a", "b.add")
    assert [b.name for b in residual_blocks(g)] == ["b.add"]


def test_a_block_begins_at_an_input_of_any_name():
    g = ri.Graph("inputs")
    x, other = g.add_input("left", (4, 4, 3)), g.add_input("right", (4, 4, 3))
    x = g.add("add", g.conv2d("branch", x, 3, 3, pad=1), x)
    x = g.concat("both", x, other)
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    assert [(b.name, b.shortcut, b.nodes) for b in residual_blocks(g)] == [("add", "left", {"branch"})]
    t, rng = ri.Trainer(ri.compile(g, ri.Plan(depth=ri.StochasticDepth()), 4)), np.random.default_rng(0)
    left, right = rng.normal(size=(2, 8, 4, 4, 3)).astype(np.float32)
    losses = t.fit({"left": left, "right": right}, rng.integers(0, 3, 8), 8)
    assert losses[-1] < losses[0] and len(t.made) == 2


@pytest.mark.parametrize("first", [True, False])
def test_a_projection_is_the_shortcut_wherever_it_stands_in_the_sum(first):
    g = ri.Graph("projected", (4, 4), 3)
    down = g.batch_norm("down.bn", g.conv2d("down", "input", 4, 1))
    y = g.conv2d("b", g.relu("relu", g.conv2d("a", "input", 4, 3, pad=1)), 4, 3, pad=1)
    g.add("add", *((down, y) if first else (y, down)))
    assert [(b.shortcut, sorted(b.nodes)) for b in residual_blocks(g)] == [("down.bn", ["a", "b", "relu"])]


def test_survival_falls_linearly_and_blocks_stay_as_often_as_it_says():
    rule = ri.StochasticDepth(0.5)
    assert rule.probabilities(3) == pytest.approx(list(SURVIVAL.values()))
    assert sum(rule.probabilities(54)) == pytest.approx((3 * 54 - 1) / 4)  # the expected depth at p_L = 0.5
    blocks, steps = residual_blocks(net()), 4000
    drawn = [rule.dropped(blocks, 1, step) for step in range(steps)]
    assert drawn == [rule.dropped(blocks, 1, step) for step in range(steps)]
    assert drawn != [rule.dropped(blocks, 2, step) for step in range(steps)]
    for pattern in PATTERNS:  # each block for itself
        p = np.prod([1 - SURVIVAL[b] if b in pattern else SURVIVAL[b] for b in BLOCKS])
        assert abs(drawn.count(pattern) - steps * p) < 4 * np.sqrt(steps * p * (1 - p)), pattern


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("left_out", PATTERNS, ids=lambda p: "without " + " ".join(sorted(p)))
def test_steps_are_those_of_the_net_built_without_the_blocks(backend, left_out, monkeypatch):
    depth = forced(monkeypatch, left_out)
    x, y = samples()
    deep, shallow = trainer(backend, depth), trainer(backend, graph=net(left_out))
    before = {name: a.copy() for name, a in deep.resume_arrays().items()}
    for name, a in shallow.parameters.items():
        a[...] = deep.parameters[name]
    for _ in range(3):
        deep.runner.block.fill(0xFF)  # a step reads nothing that it did not write
        assert deep.train_step(x, y, 3) == shallow.train_step(x, y, 3)
    after, theirs = deep.resume_arrays(), shallow.resume_arrays()
    for block in BLOCKS:
        assert after.pop(f"updates/{block}")[0] == (0 if block in left_out else 3)
    for name, a in after.items():
        np.testing.assert_array_equal(a, theirs.get(name, before[name]), err_msg=name)
    changed = {name for name in theirs if (after[name] != before[name]).any()}
    assert changed == {name for name in theirs if not name.startswith("begun")}
    assert {name for name in after if name.removeprefix("optimizer/")[:1] in "abc"} - changed or not left_out
    assert deep.made[left_out] == {(s, 8): 3 for s in ("forward", "backward", "update")}


def test_the_last_convolutions_are_those_of_the_whole_net():
    t = trainer(train_last=2, train_bias=False, batch_norm="frozen", depth=ri.StochasticDepth())
    assert set(t.program.step.gradients) == {"c.conv1.w", "c.conv2.w", "fc.w", "fc.b"}
    without = frozenset({"c.add"})
    t.runner.leave_out(without)
    assert [name for name, _ in t.runner.gradients("", t.trained[""])] == ["fc.w", "fc.b"]
    assert {c.node for c in made(t.program, without) if c.section == "backward"} == {"loss", "fc", "fc.w", "fc.b"}


def gradients(t: ri.Trainer, x, y) -> dict[str, np.ndarray]:
    """The gradients of a step, by parameter, from an arena that holds nothing of use before it."""
    t.runner.block.fill(0xFF)
    t.train_step(x, y, 1)
    return {name: gradient.copy() for name, gradient in t.runner.gradients("", t.trained[""])}


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("last", range(8))
def test_backward_ends_at_the_first_trained_layer_that_is_there(batch_norm, last, monkeypatch):
    plan = {"batch_norm": batch_norm, "step": ri.Backprop(ri.SGD(lr=0.1), clip_norm=0.5)}
    x, y = samples()
    for pattern in PATTERNS:
        depth = forced(monkeypatch, pattern)
        found = gradients(trainer("reference", depth, train_last=last, **plan), x, y)
        fast = gradients(trainer("fast", depth, train_last=last, **plan), x, y)
        assert found.keys() == fast.keys()
        whole = gradients(trainer("reference", depth, **plan), x, y) if batch_norm == "frozen" else found
        for name, gradient in found.items():
            np.testing.assert_array_equal(gradient, whole[name], err_msg=f"{pattern} {name}")
            np.testing.assert_allclose(fast[name], gradient, rtol=1e-3, atol=1e-5, err_msg=f"{pattern} {name}")


def blocks_of_convolutions(shared: bool) -> ri.Graph:
    """Three blocks of two convolutions; the first one's weights shared by two blocks, and by the third and a layer."""
    g = ri.Graph("shared", (4, 4), 3)
    x = g.relu("relu", g.conv2d("stem", "input", 4, 3, pad=1))
    x = g.relu("before.relu", g.conv2d("before", x, 4, 3, pad=1, bias=True))
    for name, of in (("a", None), ("b", "a"), ("c", "before")):
        y = g.relu(f"{name}.relu", g.conv2d(name, x, 4, 3, pad=1, bias=True, shared=of if shared else None))
        x = g.add(f"{name}.add", g.conv2d(f"{name}2", y, 4, 1), x)
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    return g


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("optimizer", [ri.SGD(lr=0.1), ri.Adam(lr=0.1)])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_shared_weights_get_the_gradients_of_the_blocks_that_are_there(backend, optimizer, pattern, monkeypatch):
    depth, rng = forced(monkeypatch, pattern), np.random.default_rng(2)
    plan = ri.Plan(depth=depth, train_bias=True, step=ri.Backprop(optimizer, clip_norm=0.01))
    x, y = rng.normal(size=(8, 4, 4, 3)).astype(np.float32), rng.integers(0, 3, 8)
    one, own = (ri.Trainer(ri.compile(blocks_of_convolutions(s), plan, 8, backend=backend), 3) for s in (True, False))
    sources = {"b": "a", "c": "before"}
    for name, a in own.parameters.items():
        node, local = name.split(".")
        a[...] = one.parameters[f"{sources.get(node, node)}.{local}"]
    before = {name: a.copy() for name, a in one.parameters.items()}
    found, parts = gradients(one, x, y), gradients(own, x, y)
    total = {}
    for name, gradient in parts.items():
        node, local = name.split(".")
        total.setdefault(f"{sources.get(node, node)}.{local}", []).append(gradient)
    assert found.keys() == total.keys()
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, sum(total[name]), rtol=1e-4, atol=1e-6, err_msg=name)
    norm = np.sqrt(sum(float(np.sum(np.square(g.astype(float)))) for g in found.values()))
    clip = min(1, 0.01 / (norm + 1e-6))
    for name, a in one.parameters.items():
        moved = a - before[name]
        if name not in found:
            assert not moved.any()
        elif isinstance(optimizer, ri.SGD):
            np.testing.assert_allclose(moved.ravel(), -0.1 * clip * found[name], rtol=1e-3, atol=1e-6, err_msg=name)


A, B, C = ((name,) for name in BLOCKS)
CLAUSES = [
    {}, {"any": A + B}, {"gone": B + C}, {"there": A, "any": B + C}, {"gone": A, "any": BLOCKS},
    {"there": A, "gone": A}, {"gone": BLOCKS, "any": BLOCKS}, {"there": A, "any": BLOCKS},
]  # fmt: skip


@pytest.mark.parametrize("clause", CLAUSES)
def test_the_probability_of_a_condition_is_that_of_the_patterns_in_which_it_holds(clause):
    when, share = ALWAYS.also(**clause), 0.0
    for pattern in PATTERNS:
        p = np.prod([1 - SURVIVAL[b] if b in pattern else SURVIVAL[b] for b in BLOCKS])
        there = set(BLOCKS) - pattern
        holds = set(clause.get("there", ())) <= there and not set(clause.get("gone", ())) & there
        holds = holds and ("any" not in clause or bool(set(clause["any"]) & there))
        assert when.holds(pattern) == holds
        share += p * holds
    assert when.probability(SURVIVAL) == pytest.approx(share)
    assert when.never == (share == 0)


def in_torch(w, x, survival):
    """The net in inference mode, each branch scaled by its block's survival probability."""
    w = {name: torch.from_numpy(a.astype(float)) for name, a in w.items()}

    def conv(name, x, **kw):
        return F.conv2d(x, w[f"{name}.w"].permute(3, 2, 0, 1), w.get(f"{name}.b"), **kw)

    def norm(name, x):
        return F.batch_norm(x, *(w[f"{name}.{a}"] for a in ("running_mean", "running_var", "gamma", "beta")))

    x = torch.from_numpy(x.astype(float)).permute(0, 3, 1, 2)
    x = norm("stem.bn", conv("stem", x, padding=1)).relu()
    branch = conv("a.conv2", norm("a.bn", conv("a.conv1", x)).relu(), padding=1)
    x = (x + survival["a.add"] * branch).relu()
    branch = norm("b.bn1", conv("b.conv1", x, stride=2, padding=1)).relu()
    branch = norm("b.bn2", conv("b.conv2", branch, padding=1))
    x = (norm("b.down.bn", conv("b.down", x, stride=2)) + survival["b.add"] * branch).relu()
    branch = norm("c.bn", conv("c.conv2", F.relu6(conv("c.conv1", x, padding=1, groups=6))))
    x = (x + survival["c.add"] * branch).mean((2, 3))
    return (x @ w["fc.w"] + w["fc.b"]).numpy()


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_evaluation_scales_each_branch_by_its_survival(backend, tmp_path):
    t = trainer(backend, ri.StochasticDepth(0.5))
    x, y = samples()
    whole = dict.fromkeys(BLOCKS, 1.0)
    np.testing.assert_allclose(t.predict(x), in_torch(t.parameters, x, whole), rtol=1e-4, atol=1e-5)
    t.train_step(x, y, 2)
    kept = {name: a.copy() for name, a in t.parameters.items()}
    got = t.predict(x)
    np.testing.assert_allclose(got, in_torch(t.parameters, x, SURVIVAL), rtol=1e-4, atol=1e-5)
    assert np.abs(got - in_torch(t.parameters, x, whole)).max() > 0.01
    t.save(tmp_path / "net.safetensors")  # what is saved is the net that was evaluated
    saved, _ = checkpoint.load(tmp_path / "net.safetensors")
    plain = trainer(backend)
    for name, a in plain.parameters.items():
        a[...] = saved[name]
    np.testing.assert_array_equal(plain.predict(x), got)
    for name, a in t.parameters.items():
        np.testing.assert_array_equal(a, kept[name], err_msg=name)


def test_with_certain_survival_it_is_backprop():
    x, y = samples(24)
    plain, sure = trainer(), trainer(depth=ri.StochasticDepth(1.0))
    assert plain.fit(x, y, 2) == sure.fit(x, y, 2)
    for name, a in plain.parameters.items():
        np.testing.assert_array_equal(sure.parameters[name], a, err_msg=name)
    np.testing.assert_array_equal(plain.predict(x), sure.predict(x))
    assert predict.estimate(sure.program).flops == pytest.approx(predict.estimate(plain.program).flops, rel=1e-12)


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("last", ["all", *range(8)])
def test_the_expected_operations_are_the_mean_over_all_patterns(last, batch_norm):
    program = ri.compile(net(), ri.Plan(last, batch_norm=batch_norm, depth=ri.StochasticDepth()), 8)
    mean = {}
    for pattern in PATTERNS:
        p = np.prod([1 - SURVIVAL[b] if b in pattern else SURVIVAL[b] for b in BLOCKS])
        for call in made(program, pattern):
            for unit, k in predict.call_counts(call, 5).items():
                mean[call.section, unit] = mean.get((call.section, unit), 0) + p * k
    e = predict.estimate(program, 5)
    assert {(s, u): k for s, units in e.sections.items() for u, k in units.items()} == pytest.approx(mean, rel=1e-12)
    assert e.flops < sum(predict.arithmetic(predict.call_counts(c, 5)) for c in program.step)
    longest = ri.compile(net(), ri.Plan(last, batch_norm=batch_norm), 8)
    assert 0 < e.seconds["mid"] < predict.estimate(longest, 5).seconds["mid"]


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_operations_are_counted_from_the_steps_that_ran(backend):
    t = trainer(backend, ri.StochasticDepth(0.5))
    x, y = samples(24)
    t.fit(x, y, 10)
    rule, ran = t.program.plan.depth, 0
    for step in range(30):
        calls = made(t.program, rule.dropped(t.program.blocks, 3, step))
        ran += sum(predict.arithmetic(predict.call_counts(call, 8)) for call in calls)
    assert measured.all_flops(t.program, t.made) == ran
    assert ran < 30 * measured.run_flops(t.program, {(s, 8): 1 for s in t.program.sections})
    assert sum(ran["forward", 8] for ran in t.made.values()) == 30 and len(t.made) > 3
    for call in made(t.program, frozenset(BLOCKS)):
        assert dict(predict.call_counts(call, 3)) == counting.count_call(call, 3)


@pytest.mark.parametrize("backend", ["reference", "fast"])
def test_every_step_fits_into_the_arena_of_the_whole_net(backend):
    t = trainer(backend, ri.StochasticDepth(0.5))
    x, y = samples()
    assert measured.touched_bytes(t.program, x, y, t.parameters) == t.program.peak_bytes
    plain = trainer(backend)
    assert t.program.peak_bytes <= 1.02 * plain.program.peak_bytes


def test_no_step_compiles_or_places_anything(monkeypatch):
    t = trainer("fast", ri.StochasticDepth(0.5))
    x, y = samples(24)
    t.rehearse(x[:8], y[:8])
    t.runner.gradients("", t.trained[""])  # their views are made when they are first asked for

    def refuse(*args):
        raise AssertionError("a step compiles")

    for module, name in ((compose, "derive"), (lower, "lower"), (arena, "place")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(train.Runner, "array", refuse)
    t.fit(x, y, 10)
    assert len(t.made) > 3


def test_resuming_gives_the_bits_of_an_uninterrupted_run():
    x, y = samples(24)
    rules = {"rules": (ri.SparseUpdate(0.4),), "step": ri.Backprop(ri.SGD(lr=0.1)), "train_bias": False}
    for plan in ({}, rules):
        runs = [trainer("fast", ri.StochasticDepth(0.5), **plan) for _ in range(3)]
        runs[0].fit(x, y, 4)
        for progress in runs[1].steps(x, y, 4):
            if progress.step == 5:
                break
        runs[2].resume({n: a.copy() for n, a in runs[1].resume_arrays().items()}, 5, runs[1].losses)
        list(runs[2].steps(x, y, 4))
        assert runs[2].losses == runs[0].losses
        for name, a in runs[0].resume_arrays().items():
            np.testing.assert_array_equal(runs[2].resume_arrays()[name], a, err_msg=name)


def test_refusals():
    for bad in (0, 1.5):
        with pytest.raises(ValueError, match=f"^survival must be a probability above 0 and at most 1, got {bad}$"):
            ri.StochasticDepth(bad)
    plan = ri.Plan(depth=ri.StochasticDepth())
    with pytest.raises(
        ValueError, match="^stochastic-depth leaves residual blocks out of a step, but lenet5 has none$"
    ):
        ri.compile(ri.models.lenet5(), plan, 2)
    g = ri.Graph("bent", (4, 4), 3)
    g.linear("fc", g.flatten("flat", g.add("sum", g.relu("relu", g.conv2d("conv", "input", 3, 1)), "input")), 3)
    scaled, bent = (
        "branches that end in batch_norm or conv2d or group_norm or layer_norm or linear or mul_weight",
        r"but that of sum in bent ends in relu \(relu\)$",
    )
    with pytest.raises(ValueError, match=f"needs {scaled}, which .*{bent}"):
        ri.compile(g, plan, 2)


def test_a_branch_may_end_under_another_shape():
    def graph():
        g = ri.Graph("tokens", (4, 4), 3)
        x = g.conv2d("stem", "input", 4, 1)
        branch = g.reshape("rows", g.reshape("columns", g.conv2d("a", x, 4, 1), (16, 1)), (1, 16))
        x = g.add("a.add", branch, g.reshape("other", x, (1, 16)))
        g.linear("fc", g.global_avg_pool("mean", x), 3)
        return g

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4, 4, 3)).astype(np.float32), np.arange(8) % 3
    t = trainer(depth=ri.StochasticDepth(0.5), graph=graph())
    scales = ri.StochasticDepth(0.5).scales(graph())
    assert scales["a.w"] == 0.5 and {name.split(".")[0] for name in scales} == {"a"}
    t.train_step(x, y, 2)
    plain = trainer(graph=graph())
    for name, a in plain.parameters.items():
        a[...] = t.parameters[name] * scales.get(name, 1)
    np.testing.assert_array_equal(plain.predict(x), t.predict(x))


def test_what_is_scaled_at_evaluation_is_shared_with_nobody():
    g = ri.Graph("shared", (4, 4), 3)
    x = g.conv2d("stem", "input", 4, 1)
    x = g.add("a.add", g.conv2d("a", x, 4, 1), x)
    x = g.add("b.add", g.conv2d("b", x, 4, 1, shared="a"), x)
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    said = r"scales a.w of a.add at evaluation, but in shared b has it too: let no layer share what ends a branch$"
    with pytest.raises(ValueError, match=said):
        ri.compile(g, ri.Plan(depth=ri.StochasticDepth()), 2)


def test_adapt_trains_with_it_and_counts_what_ran(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "own.npz", x=x, y=y)
    with pytest.raises(options.Malformed, match="but lenet5 has none$"):
        adapt.prepare(adapt.AdaptSettings("lenet5", "fashion-mnist", method=["stochastic-depth"]))
    method = ["stochastic-depth:survival=0.4", "gradient-filter:patch=2"]
    data = str(tmp_path / "own.npz")
    settings = adapt.AdaptSettings("resnet8", data, method=method, epochs=3, batch=8, recipe="plain", from_scratch=True)
    record = adapt.run(settings, tmp_path / "out", False, lambda progress: None)
    assert record["method"] == "stochastic-depth:survival=0.4 + gradient-filter:patch=2,align=centre"
    job = adapt.prepare(settings)
    job.trainer.fit(job.dataset.x_train, job.dataset.y_train, 3)
    assert job.trainer.losses == record["losses"]
    assert record["measured"]["macs"] == measured.all_flops(job.program, job.trainer.made) / 2
    expected = predict.estimate(job.program).macs * record["steps"]
    assert record["predicted"]["macs"] == pytest.approx(expected, rel=1e-3) != record["measured"]["macs"]
    assert record["predicted"]["peak_bytes"] == record["measured"]["peak_bytes"]
