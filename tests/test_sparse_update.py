"""Dynamic gradient sparse update (arXiv 2503.17959): selection, stages, what is stored, NumPy, PyTorch, errors."""

import copy
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import NETS
from rule_cases import Together, block_of, cases, chosen_part, dense, groups_of, magnitudes, statement, thorough

import refimpl as ri
from checks import check_close, check_counts, check_threads, distance, nchw, nhwc, padding
from refimpl.methods import sparse_update as su
from refimpl.methods.optim import Adam
from refimpl.methods.sparse_update import SparseUpdate
from refimpl.training.trainer import Trainer

BOUND = {"float64": 1e-12, "float32": 1e-5}
GRADIENTS = ("dx", "dw", "db")
BACKENDS = ("reference", "fast")
rules = st.builds(SparseUpdate, st.sampled_from([0.01, 0.25, 0.5, 0.8, 1.0]))


def computed(rule, c) -> Together:
    together = Together([rule], c)
    for name in GRADIENTS:
        together[name]
    return together


# ---- which channels, when


def test_input_channel_selection_is_by_the_norm_of_their_weights():
    rng = np.random.default_rng(0)
    for groups, depth, width in ((1, 6, 4), (5, 1, 1), (3, 2, 4)):
        w = rng.normal(size=(3, 2, depth, groups * width)) * 10
        of_channel = [w[:, :, c % depth, c // depth * width : (c // depth + 1) * width] for c in range(groups * depth)]
        norms = np.array([np.linalg.norm(part) for part in of_channel])
        assert su.order(w, groups, "norm", 0, 0).tolist() == np.argsort(-norms).tolist()


def test_input_channel_selection_takes_the_lower_of_equal_channels():
    w = np.ones((1, 1, 4, 2)) * np.array([1.0, 3.0, -3.0, 1.0])[:, None]
    assert su.order(w, 1, "norm", 0, 0).tolist() == [1, 2, 0, 3]


def test_input_channel_selection_at_random_follows_the_seed():
    w = np.ones((1, 1, 40, 2))
    draw = lambda seed, stream: su.order(w, 1, "random", seed, stream).tolist()  # noqa: E731
    assert sorted(draw(1, 0)) == list(range(40))
    assert draw(1, 0) == draw(1, 0) != draw(2, 0)
    assert draw(1, 0) != draw(1, 1)


@given(st.integers(1, 200), st.floats(0.001, 1))
def test_input_channel_selection_trains_and_stores_a_share_of_the_channels(channels, ratio):
    count = SparseUpdate(ratio).count(channels)
    assert 1 <= count <= channels
    assert count == 1 or abs(count - ratio * channels) <= 0.5
    x = np.random.default_rng(channels).normal(size=(2, 3, 2, channels)).astype(np.float32)
    chosen = np.random.default_rng(count).permutation(channels)[:count].astype(np.int32)
    np.testing.assert_array_equal(su.take_x(x, chosen), x[..., chosen])


@given(st.integers(1, 40), st.floats(0.01, 1), st.integers(0, 99))
def test_cyclic_traversal_visits_every_channel_once_a_cycle(channels, ratio, start):
    rule = SparseUpdate(ratio, fixed_first=0, fixed_last=0)
    count, cycle = rule.count(channels), rule.cycle(channels)
    order = np.random.default_rng(start).permutation(channels).astype(np.int32)
    blocks = [su.choose(order, np.array([start + i]), M=count) for i in range(cycle)]
    for i, block in enumerate(blocks):
        np.testing.assert_array_equal(block, block_of(order, start + i, count))
        assert len(set(block.tolist())) == count
    visits = np.bincount(np.concatenate(blocks), minlength=channels)
    assert visits.min() == 1, "a channel is left out"
    assert visits.max() <= 2 and visits.sum() == cycle * count  # only what wraps round is there twice
    if channels % count == 0:
        assert visits.max() == 1
    # over as many steps as there are channels, each has been trained equally often
    several = [su.choose(order, np.array([start + i]), M=count) for i in range(channels)]
    assert set(np.bincount(np.concatenate(several))) == {count}


def test_stages_fixed_dynamic_fixed():
    rule, steps = SparseUpdate(), 50
    assert [rule.block(i, steps) for i in range(steps)] == [0] * 5 + list(range(35)) + [0] * 10
    dynamic, fixed = SparseUpdate(fixed_first=0, fixed_last=0), SparseUpdate(fixed_first=1, fixed_last=0)
    assert [dynamic.block(i, 7) for i in range(7)] == list(range(7))
    assert [fixed.block(i, 7) for i in range(7)] == [0] * 7
    assert [rule.block(0, 1), SparseUpdate(fixed_first=0.5, fixed_last=0.5).block(1, 3)] == [0, 0]
    # a second run has the stages again, and its cycle goes on
    assert [rule.block(i, 10, before=50) for i in range(10)] == [0, *range(50, 57), 0, 0]


def test_stages_reach_the_kernels():
    """The block that a step trains is the one of its stage: the trained weights show it."""
    trainer = sparse_trainer("fast", SparseUpdate(0.25, fixed_first=0.25, fixed_last=0.25))
    x, y = samples(trainer)
    order = trainer.runner.owned[trainer.program.step.constants["conv1.order"].buffer]
    for step, block in enumerate([0, 0, 0, 1, 2, 3, 0, 0]):
        before = trainer.parameters["conv1.w"].copy()
        trainer.train_step(x, y, 8)
        changed = np.flatnonzero((trainer.parameters["conv1.w"] != before).any((0, 1, 3)))
        assert changed.tolist() == sorted(block_of(order, block, 1).tolist()), f"step {step}"


def sparse_trainer(backend="fast", rule=None, net="residual", seed=0, step=None, dtype=np.float32) -> Trainer:
    plan = ri.Plan(rules=[rule or SparseUpdate(0.4)], step=step or ri.Backprop(ri.SGD(lr=0.1)), train_bias=True)
    return Trainer(ri.compile(NETS[net](), plan, 4, backend=backend, dtype=dtype), seed)


def samples(trainer, seed=0):
    p, rng = trainer.program, np.random.default_rng(seed)
    x = rng.normal(size=(p.batch, *p.size, p.graph.channels)).astype(p.dtype)
    return x, rng.integers(0, 3, p.batch)


def test_order_of_a_layer_is_that_of_its_pretrained_weights_or_of_the_seed():
    trainer = sparse_trainer(net="depthwise")
    for name, constant in trainer.program.step.constants.items():
        w = trainer.parameters[name.replace(".order", ".w")]
        groups = trainer.program.graph.shape(trainer.program.graph.node(name[:-6]).inputs[0])[3] // w.shape[2]
        np.testing.assert_array_equal(trainer.runner.owned[constant.buffer], su.order(w, groups, "norm", 0, 0))
    orders = []
    for seed in (1, 1, 2):
        trainer = sparse_trainer(rule=SparseUpdate(0.4, "random"), net="depthwise", seed=seed)
        found = [trainer.runner.owned[c.buffer].tolist() for c in trainer.program.step.constants.values()]
        orders.append(found)
    assert orders[0] == orders[1] != orders[2]
    by_name = dict(zip(trainer.program.step.constants, found, strict=True))
    assert by_name["dw.order"] != by_name["project.order"]  # eight channels each, and a stream of its own


def by_gradient(backend="reference", batch_norm="frozen"):
    """A trainer that orders channels by gradients, with a dense one that has the same weights."""
    rule = SparseUpdate(0.4, "gradient", fixed_first=0.0)
    plans = [ri.Plan(rules=rules, batch_norm=batch_norm, step=ri.Backprop(ri.SGD(lr=0.1))) for rules in ((rule,), ())]
    return [Trainer(ri.compile(NETS["depthwise"](), plan, 4, backend=backend), seed=5) for plan in plans]


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_order_by_gradient_is_that_of_the_dense_gradient_of_the_first_mini_batch(backend, batch_norm):
    trainer, dense = by_gradient(backend, batch_norm)
    before = {name: a.copy() for name, a in trainer.parameters.items()}
    x, y = samples(trainer)
    trainer.train_step(x[:3], y[:3], 10)
    dense.fill(dense.runner, x[:3])
    dense.runner.host("labels", 3)[...] = y[:3]
    dense.runner.run("forward", 3)
    dense.runner.run("backward", 3)
    graph, differs = trainer.program.graph, False
    for name, constant in trainer.program.step.constants.items():
        w = name.replace(".order", ".w")
        groups = graph.shape(graph.node(name[:-6]).inputs[0])[3] // before[w].shape[2]
        dw = dense.runner.array(dense.program.step.gradients[w]).astype(float)
        r, s, depth, k = dw.shape
        size = (dw.reshape(r, s, depth, groups, k // groups) ** 2).sum((0, 1, 4)).T.ravel()
        found = trainer.runner.owned[constant.buffer]
        assert (np.diff(size[found]) <= 1e-4 * size.max()).all() and sorted(found) == list(range(len(size)))
        differs |= found.tolist() != su.order(before[w], groups, "norm", 0, 0).tolist()
        moved = (trainer.parameters[w] != before[w]).any((0, 1))  # (depth, k)
        chosen = {int(c) % depth for c in found[: max(1, round(0.4 * len(size)))]}
        assert set(np.flatnonzero(moved.any(1))) <= chosen
    assert differs
    first = [trainer.runner.owned[c.buffer].copy() for c in trainer.program.step.constants.values()]
    trainer.train_step(x[1:], y[1:], 10)
    for a, c in zip(first, trainer.program.step.constants.values(), strict=True):
        np.testing.assert_array_equal(trainer.runner.owned[c.buffer], a)  # once


def test_a_resumed_run_keeps_its_order_by_gradient():
    (whole, _), (first, _), (second, _) = (by_gradient() for _ in range(3))
    x, y = (np.concatenate(part) for part in zip(*(samples(whole, seed) for seed in range(3)), strict=True))
    whole.fit(x, y, 2)
    for progress in first.steps(x, y, 2):
        if progress.step == 2:
            break
    second.resume({name: a.copy() for name, a in first.resume_arrays().items()}, first.step, first.losses)
    list(second.steps(x, y, 2))
    assert second.losses == whole.losses


# ---- what is stored, what changes


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("net", ["watch", "residual", "depthwise"])
def test_only_the_chosen_channels_are_stored(net, backend, batch_norm):
    rule = SparseUpdate(0.3)
    plan = ri.Plan(rules=[rule], batch_norm=batch_norm)
    p = ri.compile(NETS[net](), plan, 4, backend=backend)
    saved = {b.name: b for b in p.saved}
    shapes = p.graph.shapes(4)
    inputs = {n.name: n.inputs[0] for n in p.graph.nodes if n.op == "conv2d"}
    own = set()  # what a batch norm over it, or the loss, reads itself
    for call in p.step.calls["backward"]:
        if call.passed.operator != "conv2d":
            own |= {b.root.name for b in call.reads}
    for node, x in inputs.items():
        n, h, w, c = shapes[x]
        assert saved[f"{node}.x_chosen"].shape == (n, h, w, rule.count(c)), node
        assert x in own or x not in saved, f"{x}, the input of {node}, is kept whole"
    if batch_norm == "frozen":
        dense = ri.compile(NETS[net](), ri.Plan(), 4, backend=backend)
        assert set(inputs.values()) <= {b.name for b in dense.saved}
        assert p.saved_bytes < 0.7 * dense.saved_bytes


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_an_update_touches_only_the_chosen_channels(net, backend):
    trainer = sparse_trainer(backend, net=net, step=ri.Backprop(ri.SGD(lr=0.1, weight_decay=0.1)))
    x, y = samples(trainer)
    for step in range(5):
        before = {n: a.copy() for n, a in trainer.parameters.items()}
        trainer.train_step(x, y, 5)
        for node in (n for n in trainer.program.graph.nodes if n.op == "conv2d"):
            old, new = before[f"{node.name}.w"], trainer.parameters[f"{node.name}.w"]
            channels = trainer.program.graph.shape(node.inputs[0])[3]
            groups = channels // old.shape[2]
            constant = trainer.program.step.constants[f"{node.name}.order"]
            rule = trainer.program.plan.rules[0]
            chosen = block_of(trainer.runner.owned[constant.buffer], rule.block(step, 5), rule.count(channels))
            rest = np.setdiff1d(np.arange(channels), chosen)
            assert (
                chosen_part(new, rest, groups).tobytes() == chosen_part(old, rest, groups).tobytes()
                if len(rest)
                else True
            )
            part = chosen_part(new, chosen, groups) != chosen_part(old, chosen, groups)
            assert part.mean() > 0.9, f"{node.name}: the chosen channels {chosen} did not change"


@thorough
@given(cases(), rules, st.sampled_from([None, 0.3]), st.sampled_from([0.0, 0.1]))
def test_update_is_sgd_at_the_chosen_channels(c, rule, clip, decay):
    together, w, groups = computed(rule, c), c.arrays["w"], groups_of(c.arrays)
    dw, chosen, lr = together["dw"], together["chosen"], np.array([0.2])
    arrays = {"w": w, "dw": dw, "chosen": chosen, "lr": lr} | ({"clip": np.array([clip])} if clip else {})
    found = su.update(**arrays, weight_decay=decay, G=groups)
    assert found is not w
    part = chosen_part(w, chosen, groups)
    expected = part - 0.2 * ((clip or 1) * dw + decay * part)
    assert distance(chosen_part(found, chosen, groups), expected, part) <= 1e-12
    changed = (found != w).sum()
    assert changed <= expected.size
    letters = {"G": groups}
    check_counts(su.update, arrays, {"weight_decay": decay}, letters)
    check_threads(su.update, arrays, {"weight_decay": decay}, letters)


# ---- values


@thorough
@given(rules, cases())
def test_the_whole_rule_is_the_plain_statement(rule, c):
    together, expected = computed(rule, c), statement([rule], c.arrays, c.attrs)
    np.testing.assert_array_equal(together["chosen"], expected.pop("chosen"))
    np.testing.assert_array_equal(together["x_chosen"], c.arrays["x"][..., together["chosen"]])
    check_close(together, expected, 1e-12, magnitudes([rule], c))


@thorough
@given(cases())
def test_ratio_1_is_the_dense_gradient(c):
    together, expected = computed(SparseUpdate(1), c), dense(c.arrays, c.attrs)
    assert sorted(together["chosen"]) == list(range(c.arrays["x"].shape[3]))
    scale = magnitudes([], c)
    check_close(together, {"dx": expected["dx"], "db": expected["db"]}, 1e-12, scale)
    found = su.update(
        np.zeros_like(c.arrays["w"]), together["dw"], together["chosen"], -np.ones(1), G=groups_of(c.arrays)
    )
    assert distance(found, expected["dw"], scale["dw"]) <= 1e-12


@given(rules, cases())
def test_counts_of_every_pass(rule, c):
    for made in computed(rule, c).calls:
        check_counts(*made)


@given(rules, cases())
def test_threads(rule, c):
    for made in computed(rule, c.cast(np.float32)).calls:
        check_threads(*made)


@thorough
@given(rules, cases(), st.sampled_from(list(BOUND)))
def test_as_pytorch_at_the_chosen_channels(rule, c, dtype):
    torch = pytest.importorskip("torch")
    c = c.cast(dtype)
    together, groups = computed(rule, c), groups_of(c.arrays)
    x, w = (torch.tensor(c.arrays[a], requires_grad=True) for a in ("x", "w"))
    padded = torch.nn.functional.pad(nchw(x), padding(c.attrs["pad"]))
    kernel = w.permute(3, 2, 0, 1).contiguous()
    y = nhwc(torch.conv2d(padded, kernel, None, c.attrs["stride"], 0, c.attrs["dilation"], groups))
    dx, dw = torch.autograd.grad(y, (x, w), torch.tensor(c.arrays["dy"]))
    theirs = {"dx": dx.numpy(), "dw": chosen_part(dw.numpy(), together["chosen"], groups)}
    assert all(together[name].dtype == dtype for name in theirs)
    check_close(together, theirs, BOUND[dtype], magnitudes([rule], c))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_ratio_1_trains_as_dense_sgd(net, backend):
    step = ri.Backprop(ri.SGD(lr=0.1, weight_decay=0.05), clip_norm=0.5)
    sparse = sparse_trainer(backend, SparseUpdate(1), net, step=step, dtype=np.float64)
    plan = ri.Plan(step=step, train_bias=True)
    dense = Trainer(ri.compile(NETS[net](), plan, 4, backend=backend, dtype=np.float64))
    x, y = samples(dense)
    for _ in range(4):
        assert sparse.train_step(x, y, 4) == pytest.approx(dense.train_step(x, y, 4), rel=1e-11)
    for name, a in dense.parameters.items():
        assert distance(sparse.parameters[name], a) <= 1e-11, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_clip_norm_is_that_of_the_compact_gradients(backend):
    step = ri.Backprop(ri.SGD(lr=0.1), clip_norm=1e-2)
    trainer = sparse_trainer(backend, step=step, dtype=np.float64)
    before = copy.deepcopy(trainer.parameters)
    free = sparse_trainer(backend, dtype=np.float64)
    x, y = samples(trainer)
    trainer.train_step(x, y, 1)
    free.train_step(x, y, 1)
    moved = {n: trainer.parameters[n] - before[n] for n in before}
    length = np.sqrt(sum(np.sum(d**2) for d in moved.values()))
    assert length == pytest.approx(0.1 * 1e-2, rel=1e-3)  # lr times the clipped norm; 1e-6 is added to the norm
    full = {n: free.parameters[n] - before[n] for n in before}
    factor = length / np.sqrt(sum(np.sum(d**2) for d in full.values()))
    assert factor < 0.5
    for name, d in moved.items():
        assert distance(d, factor * full[name], 1e-6) <= 1e-9, name


# ---- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 0}, "ratio must be a share above 0 and at most 1, got 0"),
        ({"ratio": 1.1}, "ratio must be a share above 0 and at most 1, got 1.1"),
        ({"order": "size"}, "order must be norm, random or gradient, got 'size'"),
        ({"fixed_first": -0.1}, "fixed_first must be a share of the steps from 0 to 1, got -0.1"),
        ({"fixed_last": 2}, "fixed_last must be a share of the steps from 0 to 1, got 2"),
        ({"fixed_first": 0.7, "fixed_last": 0.4}, "fixed_first and fixed_last are 0.7 and 0.4: more than 1"),
    ],
)
def test_rule_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        SparseUpdate(**arguments)


@pytest.mark.parametrize("optimizer", [ri.SGD(lr=0.1, momentum=0.9), Adam(lr=0.1)], ids=["momentum", "adam"])
def test_a_plan_refuses_an_optimizer_that_keeps_arrays(optimizer):
    message = (
        "sparse-update needs plain SGD without momentum: the trained channels change from step to step, and the "
        f"arrays that {type(optimizer).__name__} keeps for all of them would cost the memory that it saves"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ri.Plan(rules=[SparseUpdate()], step=ri.Backprop(optimizer))
    ri.Plan(rules=[SparseUpdate()], step=ri.Backprop(ri.SGD(lr=0.1, weight_decay=0.1), clip_norm=1.0))
