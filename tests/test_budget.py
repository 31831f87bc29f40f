"""Memory terms add up to the byte; the planner's choice fits, and nothing larger that it could have chosen does."""

import re
from dataclasses import replace

import pytest
from nets import MOMENTUM, NETS
from test_combinations import plan

import refimpl as ri
from costmodel.advice import budget
from costmodel.device import device

PLAIN = ri.Backprop(ri.SGD(lr=0.1))
SPARSE = ri.SparseUpdate(0.3)
PLANS = {
    "dense, momentum": ri.Plan(step=MOMENTUM),
    "batch statistics": ri.Plan(2, step=MOMENTUM, batch_norm="train", train_bias=True),
    "filtered": ri.Plan(rules=(ri.GradientFilter(2),), class_weights=(1.0, 2.0, 0.5)),
    "pruned": ri.Plan(rules=(ri.ErrorMapPruning(0.5),)),
    "sparse": ri.Plan(rules=(SPARSE,), step=PLAIN),
    "all three": ri.Plan(rules=(SPARSE, ri.ErrorMapPruning(0.5), ri.GradientFilter(2)), step=PLAIN),
    "biases": ri.Plan(bias_only=True),
    "classifier": ri.Plan(0),
}
RATIOS = (0.1, 0.3, 0.5, 0.8, 1.0)


def program(net, plan, backend="fast", batch=3):
    return ri.compile(NETS[net](), plan, batch, backend=backend)


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_terms_add_up_to_the_byte(net, plan, backend):
    p = program(net, plan, backend)
    found = budget.terms(p)
    assert sum(found["state"].values()) == p.state_bytes
    assert sum(found["constants"].values()) == p.constant_bytes
    assert sum(found["arena"].values()) == p.peak_bytes
    assert all(n >= 0 for part in ("state", "constants", "arena") for n in found[part].values())
    assert all(found["arena"][kind] <= most for kind, most in found["arena_most"].items())
    assert found["arena_most"].keys() == found["arena"].keys() - {"slack"}
    assert found["peak_at"] in [launch.name for launch in p.order]


@pytest.mark.parametrize("instances", ["instance-filter", "hard-examples"])
def test_terms_of_a_step_of_several_nets_add_up(instances):
    graph = NETS["residual"]()
    p = ri.compile(graph, plan(graph, instances, "sparse-update"), 4, backend="fast")
    found = budget.terms(p)
    for part, whole in (("state", p.state_bytes), ("constants", p.constant_bytes), ("arena", p.peak_bytes)):
        assert sum(found[part].values()) == whole
    own = sum(b.nbytes for name, b in p.step.parameters.items() if name.startswith("filter."))
    assert found["state"]["filter_net"] == own and (own > 0) == (instances == "instance-filter")


def test_terms_of_a_sparse_update_are_those_of_its_arrays():
    """Two layers of the residual net at ratio 0.5, worked out by hand: 3 of 6 channels of conv1 (4) and conv2 (6)."""
    p = program("residual", ri.Plan(2, rules=(ri.SparseUpdate(0.5),), step=PLAIN), "reference", batch=2)
    found = budget.terms(p)
    updated = 4 * (3 * 3 * 2 * 6 + 3 * 3 * 3 * 6)
    whole = 4 * (3 * 3 * 4 * 6 + 3 * 3 * 6 * 6)
    assert found["state"] == {
        "convolutions_updated": updated, "convolutions_waiting": whole - updated, "classifier": 4 * (6 * 3 + 3),
        "norms": 0, "others": 0, "filter_net": 0, "optimizer": 0,
    }  # fmt: skip
    assert found["constants"]["plan"] == 4 * (4 + 6)  # the order of the channels
    assert found["arena_most"]["weight_gradients"] == updated + 4 * (6 * 3 + 3)
    chosen = 4 * 2 * (8 * 7 * 2 + 4 * 4 * 3)  # x of conv1 behind the pool, x of conv2
    pooled, logits, lse = 4 * 2 * 6, 4 * 2 * 3, 4 * 2  # what the gradients of classifier and loss read
    assert found["arena_most"]["stored_features"] == chosen + pooled + logits + lse
    assert found["arena_most"]["indices"] == 4 * (2 + 3)
    assert found["arena_most"]["masks"] == 2 * 2 * (4 * 4 * 6 // 8)
    assert found["arena_most"]["host_scalars"] == 4 + 8  # lr, block
    assert found["arena_most"]["input"] == 4 * 2 * 7 * 6 * 3 + 8 * 2  # samples, labels


def fit(net, limit, **keywords):
    return budget.fit(NETS[net](), limit, 2, ratios=RATIOS, backend="fast", threads=2, **keywords)


def need(net, k, ratio, weights):
    plan = ri.Plan(k, rules=(ri.SparseUpdate(ratio),), step=PLAIN)
    return budget.needed(ri.compile(NETS[net](), plan, 2, backend="fast", threads=2), weights)


@pytest.mark.parametrize("weights", budget.WEIGHTS)
@pytest.mark.parametrize("net", ["residual", "depthwise", "watch"])
def test_memory_budget_is_kept_and_the_next_larger_plan_does_not_fit(net, weights):
    layers = sum(n.op == "conv2d" for n in NETS[net]().nodes)
    least, most = need(net, 1, RATIOS[0], weights), need(net, layers, 1.0, weights)
    for limit in (least, (3 * least + most) // 4, (least + most) // 2, most - 1, most):
        found = fit(net, limit, weights=weights)
        k, ratio = found.plan.train_last, found.plan.rules[0].ratio
        assert found.needed == need(net, k, ratio, weights) <= limit
        assert found.terms == budget.terms(found.program)
        if k < layers:
            assert need(net, k + 1, RATIOS[0], weights) > limit
        if ratio < 1:
            assert need(net, k, RATIOS[RATIOS.index(ratio) + 1], weights) > limit
    assert (k, ratio) == (layers, 1.0)


@pytest.mark.parametrize("weights", budget.WEIGHTS)
@pytest.mark.parametrize("net", ["residual", "depthwise"])
def test_a_larger_limit_gives_no_less(net, weights):
    least = need(net, 1, RATIOS[0], weights)
    found = [fit(net, least + extra, weights=weights).plan for extra in range(0, 12_000, 1_000)]
    chosen = [(p.train_last, p.rules[0].ratio) for p in found]
    assert chosen == sorted(chosen) and len(set(chosen)) > 2


def test_fewer_weights_are_covered_when_the_others_wait_in_flash():
    p = program("residual", PLANS["sparse"])
    waiting = budget.terms(p)["state"]["convolutions_waiting"]
    assert budget.needed(p) == p.state_bytes + p.peak_bytes
    assert budget.needed(p) - budget.needed(p, "updated") == waiting > 0
    assert budget.needed(program("residual", PLANS["dense, momentum"]), "updated") == budget.needed(
        program("residual", PLANS["dense, momentum"])
    )


def test_the_limit_of_what_is_found_is_one_that_compiles():
    found = fit("residual", 20_000)
    assert ri.compile(NETS["residual"](), found.plan, 2, memory_limit=20_000, backend="fast", threads=2)
    with pytest.raises(ri.MemoryLimitError):
        ri.compile(NETS["residual"](), found.plan, 2, memory_limit=found.needed - 1, backend="fast", threads=2)


def test_other_rules_and_bounds_are_kept():
    plan = ri.Plan(rules=(ri.GradientFilter(2), SPARSE), step=PLAIN, train_bias=True)
    found = fit("residual", 10**6, plan=plan, max_layers=2)
    assert found.plan.rules == (ri.GradientFilter(2), ri.SparseUpdate(1.0)) and found.plan.train_bias
    assert found.plan.train_last == 2


@pytest.mark.parametrize("weights", budget.WEIGHTS)
def test_a_refusal_names_the_smallest_limit_and_the_largest_term(weights):
    least = need("residual", 1, RATIOS[0], weights)
    with pytest.raises(ri.MemoryLimitError) as refused:
        fit("residual", least - 1, weights=weights)
    assert refused.value.needed == least >= refused.value.lower_bound
    assert fit("residual", least, weights=weights).needed == least
    text = str(refused.value)
    assert f"no sparse update fits into {least - 1:,} bytes: the last convolution alone at ratio 0.1 needs" in text
    assert f"the smallest limit that would do is {least:,} bytes" in text
    p = fit("residual", least, weights=weights).program
    terms = budget.terms(p)
    counted = {**terms["arena"], **terms["state"]}
    if weights == "updated":
        del counted["convolutions_waiting"]
    name = max(counted, key=counted.get)
    assert f"of which {name.replace('_', ' ')} take {counted[name]:,} (the peak is at {terms['peak_at']})" in text


@pytest.mark.parametrize(
    "keywords, message",
    [
        ({"weights": "all"}, "weights must be trained or updated, got 'all'"),
        ({"plan": ri.Plan()}, "the plan has no rule of sparse-update, whose layers and ratio are to be chosen"),
        ({"max_layers": 0}, "there is nothing to choose from: 5 ratios, 0 layers"),
    ],
)
def test_bad_values(keywords, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        fit("residual", 10**6, **keywords)


def test_fits_by_hand():
    plan = ri.Plan(2, rules=[ri.SparseUpdate(0.25)], step=ri.Backprop(ri.SGD(lr=0.1)))
    p = ri.compile(ri.models.build("resnet8"), plan, 1, threads=1)
    chip, board = device.find("microcontroller-256k"), device.find("raspberry-pi-zero-2")
    everything = p.state_bytes + p.peak_bytes + p.constant_bytes
    found = budget.fits(p, chip)
    weights = sum(b.nbytes for b in p.step.parameters.values())
    orders = sum(c.buffer.nbytes for c in p.step.constants.values())
    assert found["needs"] == {"ram": budget.needed(p, "updated"), "flash": weights + orders} and orders
    assert found["has"] == {"ram": 256 * 1024, "flash": 2**20}
    assert found["ok"] == (found["needs"]["ram"] <= 256 * 1024 and found["needs"]["flash"] <= 2**20)
    assert budget.fits(p, board, 1000) == {
        "needs": {"ram": 1000}, "has": {"ram": 427 * 2**20}, "at_least": False, "ok": True
    }  # fmt: skip
    assert budget.fits(p, board, 2**29 + 1)["ok"] is False
    found = budget.fits(p, board)
    assert (found["needs"], found["at_least"], found["ok"]) == ({"ram": everything + board.base.fixed}, True, None)
    assert budget.fits(p, replace(board, ram_bytes=10**6))["ok"] is False
    assert chip.base is None
    unknown = replace(board, ram_bytes=None)
    assert budget.fits(p, unknown)["ok"] is None


def test_a_net_without_convolutions_has_no_layers_to_choose():
    graph = ri.Graph("features", (1, 1), 12)
    graph.linear("classifier", graph.flatten("flat", "input"), 3)
    with pytest.raises(ValueError, match="^features has no convolutions, of which layers could be chosen"):
        budget.fit(graph, 10**6)
