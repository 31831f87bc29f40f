"""Which methods combine: every pair of the table compiles and trains a step, or is refused with its reason."""

import re
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
from nets import NETS

import refimpl as ri
from costmodel import predict
from gradledger import options
from refimpl.rules import COMBINATIONS, METHODS, check_combination, combinations_table
from refimpl.train import Trainer
from validation.counting import count_call

ROOT = Path(__file__).parent.parent
PLANS = {
    "backprop": {},
    "error-map-pruning": {"rules": (ri.ErrorMapPruning(0.5),)},
    "gradient-filter": {"rules": (ri.GradientFilter(2),)},
    "sparse-update": {"rules": (ri.SparseUpdate(0.3),)},
    "bias-only": {"bias_only": True},
}
PAIRS = [pair for pair in COMBINATIONS if set(pair) <= set(PLANS)]
SUPPORTED = [pair for pair in PAIRS if COMBINATIONS[pair].supported]
REFUSED = [pair for pair in PAIRS if not COMBINATIONS[pair].supported]


def plan(*methods, **more) -> ri.Plan:
    rules = sum((PLANS[m].get("rules", ()) for m in methods), ())
    return ri.Plan(rules=rules, bias_only="bias-only" in methods, step=ri.Backprop(ri.SGD(lr=0.05)), **more)


def test_the_table_has_every_pair_and_every_method():
    assert set(COMBINATIONS) == set(combinations_with_replacement(METHODS, 2))
    assert set(options.METHODS) <= set(METHODS) and set(PLANS) <= set(METHODS)
    assert {pair for pair, c in COMBINATIONS.items() if c.supported and "instance-filter" in pair} == {
        ("instance-filter", m) for m in METHODS[2:]
    }
    assert len(SUPPORTED) == 3


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("methods", [*SUPPORTED, tuple(METHODS[2:5])], ids=" + ".join)
@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_supported_methods_train_a_step_together(net, methods, backend):
    p = ri.compile(NETS[net](), plan(*methods), 5, backend=backend)
    assert p.plan.methods == list(methods)
    trainer = Trainer(p, seed=2)
    before = {name: a.copy() for name, a in trainer.parameters.items()}
    x = np.random.default_rng(1).normal(size=(5, *p.size, 3)).astype(np.float32)
    losses = trainer.fit(x, np.arange(5) % 3, epochs=2)
    assert np.isfinite(losses).all() and losses[1] != losses[0]
    for name in p.step.gradients:
        assert (trainer.parameters[name] != before[name]).any(), name
    if backend == "reference":
        for call in p.step:
            assert dict(predict.call_counts(call, 5)) == count_call(call, 5), call.name


@pytest.mark.parametrize("net", ["residual", "depthwise"])
@pytest.mark.parametrize("methods", [*SUPPORTED, tuple(METHODS[2:5])], ids=" + ".join)
def test_both_methods_are_at_work(net, methods):
    operators = {
        "error-map-pruning": "error_map_pruning", "gradient-filter": "gradient_filter", "sparse-update": "sparse_update"
    }  # fmt: skip
    p = ri.compile(NETS[net](), plan(*methods), 2, backend="reference")
    assert {operators[m] for m in methods} <= {c.passed.operator for c in p.step}


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
    if "backprop" not in pair and pair != ("bias-only", "bias-only"):  # which a Plan cannot say
        with pytest.raises(ValueError, match=message):
            plan(*pair)


def test_the_readme_has_the_table():
    assert combinations_table() in (ROOT / "README.md").read_text()
    for (a, b), c in COMBINATIONS.items():
        if a != b and a != "backprop":
            assert f"| {a} | {b} | {'yes' if c.supported else 'no'}: {c.text} |" in combinations_table()
