"""What an update is: optimizers, schedules and cycles go by updates, not by the mini-batches that were looked at."""

import numpy as np
import pytest
import torch
from nets import NETS

import refimpl as ri
from refimpl.methods.optim import Adam
from refimpl.training.trainer import Trainer

BATCH = 4


def linear(inputs=3, name="linear") -> ri.Graph:
    g = ri.Graph(name, (1, 1), inputs)
    g.linear("fc", g.flatten("flat", "input"), 2)
    return g


def batches(trainer: Trainer, count: int, seed=0):
    rng = np.random.default_rng(seed)
    shape = (BATCH, *trainer.program.size, trainer.program.graph.channels)
    for _ in range(count):
        yield rng.normal(size=shape), rng.integers(0, 2, BATCH)


def skipping(optimizer, skip, seed=0, rules=(), net=linear, dtype=np.float64, **plan) -> Trainer:
    plan = ri.Plan(rules=rules, step=ri.Backprop(optimizer), instances=ri.RandomSkip(skip), **plan)
    return Trainer(ri.compile(net(), plan, BATCH, backend="reference", dtype=dtype), seed)


def changed(trainer: Trainer, x, y, total) -> bool:
    before = {name: a.copy() for name, a in trainer.parameters.items()}
    trainer.train_step(x, y, total)
    return any((a != before[name]).any() for name, a in trainer.parameters.items())


def in_torch(trainer: Trainer, make):
    """The linear net in PyTorch with the same weights, and an optimizer."""
    w, b = (torch.tensor(trainer.parameters[f"fc.{a}"], requires_grad=True) for a in "wb")
    return w, b, make([w, b])


def torch_step(w, b, optimizer, x, y):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(torch.from_numpy(x.reshape(BATCH, -1)) @ w + b, torch.from_numpy(y)).backward()
    optimizer.step()


@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_under_random_skipping_is_torchs_on_the_mini_batches_that_train(decoupled):
    seed = next(s for s in range(99) if (ri.RandomSkip(0.7)._skips(s, np.arange(3)) == [True, True, False]).all())
    t = skipping(Adam(lr=0.1, weight_decay=0.01, decoupled=decoupled), 0.7, seed)
    w, b, adam = in_torch(
        t, lambda p: (torch.optim.AdamW if decoupled else torch.optim.Adam)(p, 0.1, weight_decay=0.01)
    )
    trained = 0
    for x, y in batches(t, 30):
        if changed(t, x, y, 30):
            trained += 1
            torch_step(w, b, adam, x, y)
        for ours, theirs in ((t.parameters["fc.w"], w), (t.parameters["fc.b"], b)):
            np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12, atol=1e-14)
    assert t.updates[""][0] == trained == 30 - t.skipped and 0 < trained < 20 and t.step == 30


@pytest.mark.parametrize("kind", ["constant", "cosine", "step"])
def test_a_schedule_and_its_warm_up_go_by_updates(kind):
    """Of SGD the change tells the rate: the k-th update takes the k-th rate of a run of all updates."""
    total, schedule = 40, ri.Schedule(kind, warmup=3, every=4)
    t = skipping(ri.SGD(lr=0.1, schedule=schedule), 0.6)
    w, b, sgd = in_torch(t, lambda p: torch.optim.SGD(p, 1.0))
    updates = sum(~ri.RandomSkip(0.6)._skips(0, np.arange(total)))
    assert t.planned(total) == updates and 8 < updates < 30
    rates = [t.program.plan.step.optimizer.rate(k, updates) for k in range(updates)]
    assert rates[0] == pytest.approx(0.1 / 3) and len(set(rates)) >= 3
    for x, y in batches(t, total):
        if changed(t, x, y, total):
            sgd.param_groups[0]["lr"] = rates.pop(0)
            torch_step(w, b, sgd, x, y)
        np.testing.assert_allclose(t.parameters["fc.w"], w.detach().numpy(), rtol=1e-12, atol=1e-14)
    assert not rates  # a cosine comes to its end with the run


def test_a_cycle_of_channels_goes_by_updates():
    """Ten channels, one a step, half of the mini-batches skipped: ten updates visit all ten, each once."""
    rule = ri.SparseUpdate(0.1, "random", fixed_first=0, fixed_last=0)

    def net():
        g = ri.Graph("ten", (2, 2), 10)
        g.linear("fc", g.global_avg_pool("mean", g.conv2d("conv", "input", 3, 1)), 2)
        return g

    t = skipping(ri.SGD(lr=0.1), 0.5, rules=(rule,), net=net)
    visited, w = [], t.parameters["conv.w"]
    for x, y in batches(t, 1000):
        before = w.copy()
        if changed(t, x, y, 1000):
            visited += np.flatnonzero((w != before).any((0, 1, 3))).tolist()
        if t.updates[""][0] == 10:
            break
    assert sorted(visited) == list(range(10)) and t.skipped > 3


def test_stages_of_sparse_update_are_shares_of_the_updates():
    rule = ri.SparseUpdate(0.25, "norm", fixed_first=0.25, fixed_last=0.25)
    t = skipping(ri.SGD(lr=0.1), 0.5, rules=(rule,), net=NETS["residual"])
    total, seen = 60, []
    run = t.runner.run

    def watching(section, n):
        if section == "forward":
            seen.append(int(t.runner.host("block", n)[0]))
        run(section, n)

    t.runner.run = watching
    for x, y in batches(t, total):
        t.train_step(x, y, total)
    updates = t.planned(total)
    assert seen == [rule.block(k, updates) for k in range(updates)] and len(seen) < 45
    assert seen[0] == seen[-1] == 0 and max(seen) > 10


# ---- stochastic depth: a block counts its own updates


def blocks() -> ri.Graph:
    g = ri.Graph("blocks", (3, 3), 2)
    x = g.conv2d("stem", "input", 2, 1, bias=True)
    for i in "ab":
        x = g.add(f"{i}.add", g.conv2d(f"{i}.conv", g.relu(f"{i}.relu", x), 2, 1, bias=True), x)
    g.linear("fc", g.global_avg_pool("mean", x), 2)
    return g


class Blocks(torch.nn.Module):
    def __init__(self, parameters):
        super().__init__()
        self.p = torch.nn.ParameterDict(
            {name.replace(".", "_"): torch.nn.Parameter(torch.tensor(a)) for name, a in parameters.items()}
        )

    def forward(self, x, dropped):
        p = self.p
        x = torch.from_numpy(x) @ p["stem_w"][0, 0] + p["stem_b"]
        for i in "ab":
            if f"{i}.add" not in dropped:
                x = x + x.relu() @ p[f"{i}_conv_w"][0, 0] + p[f"{i}_conv_b"]
        return x.mean((1, 2)) @ p["fc_w"] + p["fc_b"]


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_under_stochastic_depth_is_torchs(decoupled, backend):
    """PyTorch counts the steps of each parameter that had a gradient."""
    rule = ri.StochasticDepth(0.3)
    step = ri.Backprop(Adam(lr=0.05, weight_decay=0.01, decoupled=decoupled), clip_norm=0.5)
    t = Trainer(ri.compile(blocks(), ri.Plan(step=step, depth=rule, train_bias=True), BATCH, backend=backend,
                           dtype=np.float64), seed=2)  # fmt: skip
    model = Blocks(t.parameters)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    adam, out = kind(model.parameters(), 0.05, weight_decay=0.01), {"a.add": 0, "b.add": 0}
    first = {}
    for x, y in batches(t, 12):
        dropped = rule.dropped(t.program.blocks, t.seed, t.step)
        before = t.parameters["b.conv.b"].copy()
        t.train_step(x, y, 12)
        adam.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(x, dropped), torch.from_numpy(y)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        adam.step()
        for name in dropped:
            out[name] += 1
        if "b.add" not in dropped:
            first.setdefault("b", t.parameters["b.conv.b"] - before)
        for name, theirs in model.p.items():
            ours = t.parameters[name.replace("_", ".")]
            np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-10, atol=1e-12, err_msg=name)
    assert {name: 12 - t.updates[name][0] for name in out} == out and out["b.add"] > 2 and t.updates[""][0] == 12
    if decoupled is False:
        assert np.abs(first["b"]).max() == pytest.approx(0.05, rel=1e-3)  # the first step of Adam is lr


def test_a_step_without_blocks_prices_and_runs_the_same_counts():
    from costmodel import predict
    from validation.instruments import counting

    step = ri.Backprop(Adam(lr=0.05))
    p = ri.compile(blocks(), ri.Plan(step=step, depth=ri.StochasticDepth(0.5), train_bias=True), BATCH)
    for dropped in ((), ("a.add",), ("a.add", "b.add")):
        for call in (call for call in p.step if call.when.holds(frozenset(dropped))):
            assert dict(predict.call_counts(call, BATCH)) == counting.count_call(call, BATCH)
    calls = [c for c in p.step if str(c.passed) == "adam.bias_correction"]
    assert len(calls) == 3
    expected = {c: predict.estimate(p).turns["update"].occurs(c) for c in calls}
    survival = {"factors": 1, "a.add.factors": 0.75, "b.add.factors": 0.5}
    assert {c.arrays["factors"].name: expected[c] for c in calls} == survival


# ---- the instance filter: the main net and the filter net each count their own


def filtered(optimizer, own) -> Trainer:
    rule = ri.InstanceFilter(linear(name="judge"), keep=0.3, optimizer=own)
    plan = ri.Plan(step=ri.Backprop(optimizer), instances=rule)
    return Trainer(ri.compile(linear(), plan, BATCH, backend="reference", dtype=np.float64), 3)


def test_the_filter_and_the_main_net_count_their_own_updates():
    warm = ri.Schedule("constant", warmup=50)
    t = filtered(Adam(lr=0.1, schedule=warm), Adam(lr=0.1, schedule=warm))
    w, b, adam = in_torch(t, lambda p: torch.optim.Adam(p, 0.1))
    high, main, own = [], 0, 0
    put = t.put

    def watching(y, net="", chosen=None):
        if not net:
            high.append((y, chosen))
        put(y, net, chosen)

    t.put = watching
    for x, y in batches(t, 40):
        if t.step % 3 == 0:  # no High in this mini-batch
            t.parameters["filter.fc.b"][...] = [50, -50]
        elif t.step % 3 == 1:
            t.parameters["filter.fc.b"][...] = [-50, 50]
        high.clear()
        t.train_step(x, y, 40)
        own += 1
        for labels, chosen in high:
            main += 1
            adam.param_groups[0]["lr"] = 0.1 * main / 50
            adam.zero_grad()
            out = torch.from_numpy(x.reshape(BATCH, -1)[chosen]) @ w + b
            torch.nn.functional.cross_entropy(out, torch.from_numpy(labels)).backward()
            adam.step()
        np.testing.assert_allclose(t.parameters["fc.w"], w.detach().numpy(), rtol=1e-10, atol=1e-13)
    assert (t.updates[""][0], t.updates["filter."][0], t.step) == (main, own, 40)
    assert 10 < main < 30 and t.skipped == 40 - main


# ---- resuming


@pytest.mark.parametrize("plan", [
    {"instances": ri.RandomSkip(0.5)},
    {"instances": ri.InstanceFilter(linear(54, "judge"), keep=0.3)},
    {"instances": ri.RandomSkip(0.5), "rules": (ri.SparseUpdate(0.3),)},
    {"depth": ri.StochasticDepth(0.3)},
], ids=["skip", "filter", "skip+sparse", "depth"])  # fmt: skip
def test_a_resumed_run_goes_on_counting(plan):
    optimizer = ri.SGD(lr=0.1) if "rules" in plan else Adam(lr=0.1, schedule=ri.Schedule("cosine", warmup=2))
    if "instances" in plan and plan["instances"].method == "instance-filter":
        g = ri.Graph("judge", (7, 6), 3)
        g.linear("fc", g.flatten("flat", "input"), 2)
        plan = {"instances": ri.InstanceFilter(g, keep=0.3)}
    program = ri.compile(NETS["residual"](), ri.Plan(step=ri.Backprop(optimizer), **plan), BATCH)
    whole, first, second = (Trainer(program, 3) for _ in range(3))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(18, 7, 6, 3)).astype(np.float32), rng.integers(0, 2, 18)
    whole.fit(x, y, 4)
    for progress in first.steps(x, y, 4):
        if progress.step == 9:
            break
    second.resume({name: a.copy() for name, a in first.resume_arrays().items()}, 9, first.losses)
    assert second.updates == first.updates and second.skipped == first.skipped
    list(second.steps(x, y, 4))
    for name, a in whole.resume_arrays().items():
        np.testing.assert_array_equal(second.resume_arrays()[name], a, err_msg=name)
    assert second.losses == whole.losses


def test_counts_of_a_saved_run_fit_its_steps():
    t = skipping(ri.SGD(lr=0.1), 0.5)
    saved = {name: a.copy() for name, a in t.resume_arrays().items()}
    for count in (-1, 4):
        saved["updates/"][0] = count
        with pytest.raises(ValueError, match=f"^the saved run counts {count} in updates/, but it has made 3 steps$"):
            t.resume(saved, 3, [])


def test_a_diverged_run_goes_back_to_the_counts_of_the_weights_it_keeps():
    t = Trainer(ri.compile(linear(), ri.Plan(step=ri.Backprop(ri.SGD(lr=3e38))), BATCH), 0)
    x = np.random.default_rng(0).normal(size=(4 * BATCH, 1, 1, 3)).astype(np.float32)
    with pytest.raises(ri.NonFiniteError, match=r"the weights of step (\d+) are kept"):
        t.fit(x, np.arange(4 * BATCH) % 2, 50)
    assert t.updates[""][0] == t.step
