"""Which methods combine: every pair of the table compiles and trains a step, or is refused with its reason."""

import re
from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest
from nets import NETS, bare

import refimpl as ri
from costmodel import predict
from gradledger import options
from refimpl.kernels import random
from refimpl.plan.combinations import COMBINATIONS, INSTANCES, METHODS, check_combination, combinations_table
from refimpl.surgery.for_step import made_for
from refimpl.training.trainer import Trainer
from tools.docs import site
from validation.instruments.counting import count_call


def judge(size, channels=3) -> ri.Graph:
    """A filter net."""
    g = ri.Graph("judge", size, channels)
    g.linear("fc", g.flatten("flat", g.relu("relu", g.conv2d("conv", "input", 4, 3, pad=1))), 2)
    return g


PLANS = {
    "backprop": {},
    "instance-filter": {"instances": lambda g: ri.InstanceFilter(judge(g.size), keep=0.5)},
    "hard-examples": {"instances": lambda g: ri.HardExamples(0.5)},
    "random-skip": {"instances": lambda g: ri.RandomSkip(0.5)},
    "error-map-pruning": {"rules": (ri.ErrorMapPruning(0.5),)},
    "gradient-filter": {"rules": (ri.GradientFilter(2),)},
    "sparse-update": {"rules": (ri.SparseUpdate(0.3),)},
    "quantized": {"rules": (ri.QuantizedTraining(),)},
    "bias-only": {"bias_only": True},
    "stochastic-depth": {"depth": ri.StochasticDepth(0.5)},
    "forward-gradient": {"step": ri.ForwardGradient(m=2, optimizer=ri.SGD(lr=0.05))},
    "niti": {"step": ri.Niti(optimizer=ri.SGD(lr=0.05))},
}
SUPPORTED = [pair for pair, c in COMBINATIONS.items() if c.supported]
REFUSED = [pair for pair, c in COMBINATIONS.items() if not c.supported]
OF_RULES = [pair for pair in SUPPORTED if not set(pair) & {*INSTANCES, "stochastic-depth", "forward-gradient"}]
ALL_RULES = ("error-map-pruning", "gradient-filter", "sparse-update", "quantized")
OPERATORS = {m: m.replace("-", "_") for m in ALL_RULES}


def net_for(methods, otherwise="depthwise") -> ri.Graph:
    """A net that the methods train."""
    step = next((PLANS[m]["step"] for m in methods if "step" in PLANS[m]), ri.Backprop())
    return NETS[otherwise]() if step.quantizes is None else made_for(step, bare(), np.ones((1, 8, 6, 3), np.float32))


def plan(graph, *methods) -> ri.Plan:
    rules = sum((PLANS[m].get("rules", ()) for m in methods), ())
    chosen = [PLANS[m]["instances"](graph) for m in methods if m in INSTANCES]
    step = next((PLANS[m]["step"] for m in methods if "step" in PLANS[m]), ri.Backprop(ri.SGD(lr=0.05)))
    depth = PLANS["stochastic-depth"]["depth"] if "stochastic-depth" in methods else None
    chosen = chosen[0] if chosen else None
    return ri.Plan(rules=rules, bias_only="bias-only" in methods, step=step, instances=chosen, depth=depth)


def test_the_table_has_every_pair_and_every_method():
    assert set(COMBINATIONS) == set(combinations_with_replacement(METHODS, 2))
    assert set(METHODS) == set(PLANS)
    assert {b for a, b in SUPPORTED if a == "instance-filter"} == {*ALL_RULES, "bias-only", "forward-gradient", "niti"}
    assert OF_RULES == list(combinations(ALL_RULES, 2))


def trained(net, methods, backend):
    graph = NETS[net]()
    p = ri.compile(graph, plan(graph, *methods), 5, backend=backend)
    assert p.plan.methods == list(methods)
    trainer = Trainer(p, seed=2)
    before = {name: a.copy() for name, a in trainer.parameters.items()}
    x = np.random.default_rng(1).normal(size=(5, *p.size, 3)).astype(np.float32)
    losses = trainer.fit(x, np.arange(5) % 3, epochs=3)
    assert np.isfinite(losses).all() and len(set(losses)) > 1
    for name in p.step.gradients:
        assert (trainer.parameters[name] != before[name]).any(), name
    assert {OPERATORS[m] for m in methods if m in OPERATORS} <= {c.passed.operator for c in p.step}
    return p


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("methods", [*OF_RULES, ALL_RULES], ids=" + ".join)
@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_supported_rules_train_together(net, methods, backend):
    for call in trained(net, methods, backend).step:
        assert dict(predict.call_counts(call, 5)) == count_call(call, 5), call.name


def hardest(trainer, x, y):
    """Half of the instances: those of the highest loss."""
    logits = trainer.predict(x).astype(float)
    output = trainer.evaluator.runner.program.step.host_reads["output"]
    if output.quantized:  # of the mini-batch that was looked at last
        logits = trainer.evaluator.runner.real(output, len(y))
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]
    return np.sort(np.argsort(-losses)[: round(0.5 * len(y))])


def all_or_none(trainer, x, y):
    """Every second mini-batch, as the seed says."""
    return np.arange(len(y) if random.uniform(trainer.seed, random.SKIP, trainer.step, 1)[0] >= 0.5 else 0)


def predicted_high(trainer, x, y):
    """What the filter net holds to be High."""
    net = trainer.program.plan.instances.graph
    net.weights = {name: trainer.parameters[f"filter.{name}"] for name in net.parameters}
    logits = Trainer(ri.compile(net, None, len(y))).predict(x)
    return np.flatnonzero(logits[:, 1] > logits[:, 0])


CHOSEN = {"instance-filter": predicted_high, "hard-examples": hardest, "random-skip": all_or_none}


def steps(trainer, count):
    """Mini-batches of five for so many steps, drawn anew for each."""
    for i in range(count):
        rng = np.random.default_rng(i)
        yield rng.normal(size=(5, *trainer.program.size, 3)).astype(np.float32), rng.integers(0, 3, 5)


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("methods", [pair for pair in SUPPORTED if pair[0] in CHOSEN], ids=" + ".join)
def test_a_step_is_the_methods_own_step_on_what_the_other_chooses(methods, backend):
    chooser, method = methods
    graph, own = net_for(methods), net_for(methods)
    both = Trainer(ri.compile(graph, plan(graph, *methods), 5, backend=backend), seed=2)
    alone = Trainer(ri.compile(own, plan(own, method), 5, backend=backend), seed=2)
    assert both.program.plan.methods == list(methods)
    sizes = set()
    for x, y in steps(both, 8):
        chosen, before = CHOSEN[chooser](both, x, y), {name: a.copy() for name, a in both.parameters.items()}
        sizes.add(len(chosen))
        alone.step = both.step
        for name in own.parameters:
            alone.parameters[name][...] = before[name]
        both.train_step(x, y, 8)
        if len(chosen):
            alone.train_step(x[chosen], y[chosen], both.planned(8))
        for name in own.parameters:
            change = alone.parameters[name] - before[name]
            np.testing.assert_allclose(
                both.parameters[name] - before[name], change, rtol=1e-3, atol=1e-6 + 1e-4 * np.abs(change).max()
            )
    assert min(sizes) < 5 and max(sizes) > 0
    for call in both.program.step:
        assert dict(predict.call_counts(call, 3)) == count_call(call, 3), call.name


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("method", [a for a, b in SUPPORTED if b == "stochastic-depth" and a not in CHOSEN])
def test_a_step_leaves_blocks_out_and_the_method_works_on_the_others(method, backend):
    graph = NETS["depthwise"]()
    both = Trainer(ri.compile(graph, plan(graph, method, "stochastic-depth"), 5, backend=backend), seed=2)
    block, changed = both.program.blocks[0], set()
    inside = [p for p in both.program.step.gradients if p.rsplit(".", 1)[0] in block.nodes]
    assert inside
    for x, y in steps(both, 8):
        out = block.name in both.program.plan.depth.dropped(both.program.blocks, both.seed, both.step)
        before = {name: a.copy() for name, a in both.parameters.items()}
        both.train_step(x, y, 8)
        moved = {name for name, a in before.items() if (a != both.parameters[name]).any()}
        assert moved and bool(moved.intersection(inside)) != out
        changed.add(out)
    assert changed == {True, False}
    assert {OPERATORS[method]} <= {c.passed.operator for c in both.program.step} if method in OPERATORS else True


@pytest.mark.parametrize("pair", REFUSED, ids=" + ".join)
def test_refused_pairs_say_why(pair):
    a, b = pair
    head = f"{a} is named twice: " if a == b else f"{a} and {b} do not combine: "
    message = f"^{re.escape(head + COMBINATIONS[pair].text)}$"
    for order in (pair, pair[::-1]):
        with pytest.raises(ValueError, match=message):
            check_combination(order)
        with pytest.raises(options.Malformed, match=message):
            options.methods(list(order))
    rules = set(pair) & set(ALL_RULES)
    if rules and set(pair) <= {*rules, "bias-only"}:  # what else is refused, a Plan cannot say
        with pytest.raises(ValueError, match=message):
            plan(NETS["residual"](), *pair)


def test_the_page_of_the_methods_has_the_table():
    assert combinations_table() in site.filled("methods/index.md")
    for (a, b), c in COMBINATIONS.items():
        if a != b and a != "backprop":
            row = rf"^\| (.*, )?{a}(, .*)? \| {b} \| {'yes' if c.supported else 'no'}: {re.escape(c.text)} \|$"
            assert re.search(row, combinations_table(), re.MULTILINE), (a, b)
