"""Rules together: one convolution against the plain statement, whole nets in both tiers, and what they reduce to."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import KEEP, NETS, PATCH, RATIO, RULES
from rule_cases import Together, cases, chosen_part, dense, groups_of, magnitudes, statement, thorough

import refimpl as ri
from checks import check_close, check_counts, distance
from refimpl.kernels.running import threads
from refimpl.methods.error_map_pruning import ErrorMapPruning
from refimpl.methods.sparse_update import SparseUpdate
from refimpl.ops import conv2d
from refimpl.training.trainer import Runner, initial

COMBINED = {name: rules for name, rules in RULES.items() if len(rules) > 1}
GRADIENTS = ("dx", "dw", "db")


@thorough
@given(st.sampled_from(list(COMBINED.values())), cases())
def test_every_combination_is_the_plain_statement(rules, c):
    together, expected = Together(rules, c), statement(rules, c.arrays, c.attrs)
    for name in ("kept", "chosen"):
        if name in expected:
            np.testing.assert_array_equal(together[name], expected.pop(name))
    scales = magnitudes(rules, c, together.values.get("kept"))
    check_close({name: together[name] for name in GRADIENTS}, expected, 1e-12, scales)
    for made in together.calls:
        check_counts(*made)


@given(cases())
def test_a_combination_works_on_what_the_other_rule_leaves(c):
    """No product runs on more channels than it needs."""
    together = Together(RULES["keep, ratio, patch"], c)
    for name in GRADIENTS:
        together[name]
    if groups_of(c.arrays) > 1:
        return
    z = together.node.sizes
    products = {p.name: {**known} for p, _, _, known in together.calls if p.name.startswith("patch_grad")}
    assert together["dy_mean"].shape[3] == z["L"] == KEEP.kept(z["K"])
    assert together["x_sum"].shape[3] == z["M"] == RATIO.count(z["C"])
    assert "dw_patch" in together.values and together["dw_patch"].shape == (z["M"], z["L"])
    assert products["patch_grad_w"]["G"] == 1


EXACT_PATCH = ri.GradientFilter(1)
LIMITS = [
    ((ErrorMapPruning(1), RATIO), (RATIO,)),
    ((ErrorMapPruning(1), PATCH), (PATCH,)),
    ((ErrorMapPruning(1), RATIO, PATCH), (RATIO, PATCH)),
    ((SparseUpdate(1), KEEP), (KEEP,)),
    ((SparseUpdate(1), PATCH), (PATCH,)),
    ((SparseUpdate(1), KEEP, PATCH), (KEEP, PATCH)),
]


def named(rules):
    return " + ".join(type(r).__name__ for r in rules)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"{named(limit[0])} is {named(limit[1])}")
@thorough
@given(cases())
def test_in_the_limit_the_other_rules_are_left(limit, c):
    rules, rest = limit
    groups = groups_of(c.arrays)
    ours, theirs = Together(rules, c), Together(rest, c)
    expected = {name: theirs[name] for name in GRADIENTS}
    if any(r.ratio == 1 for r in rules if isinstance(r, SparseUpdate)):
        whole = dense(c.arrays, c.attrs)["dw"] if groups > 1 else expected["dw"]  # that of several groups is exact
        expected["dw"] = chosen_part(whole, ours["chosen"], groups)
    check_close({name: ours[name] for name in GRADIENTS}, expected, 1e-12, magnitudes(rules, c))


@pytest.mark.parametrize("rest", [(KEEP,), (RATIO,), (KEEP, RATIO)], ids=named)
@thorough
@given(cases())
def test_patch_1_of_a_pointwise_kernel_leaves_the_other_rules(rest, c):
    a, attrs = dict(c.arrays), {"stride": (1, 1), "dilation": (1, 1), "pad": ((0, 0), (0, 0))}
    a["w"] = a["w"][:1, :1]
    a["dy"] = np.random.default_rng(0).normal(size=(*a["x"].shape[:3], a["w"].shape[3]))
    c = type(c)(a, attrs)
    ours = Together((EXACT_PATCH, *rest), c)
    if groups_of(a) > 1:
        rest = tuple(r for r in rest if r is not KEEP)  # filtered, not pruned
    theirs = Together(rest, c)
    check_close({n: ours[n] for n in GRADIENTS}, {n: theirs[n] for n in GRADIENTS}, 1e-12, magnitudes(rest, c))


@thorough
@given(st.sampled_from(list(COMBINED.values())), cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_rules_does_not_matter(rules, c, random):
    shuffled = random.sample(rules, len(rules))
    ours, theirs = Together(rules, c), Together(shuffled, c)
    for name in GRADIENTS:
        assert ours[name].tobytes() == theirs[name].tobytes(), name


def prepared(net, rules, backend, batch_norm, train_bias, n=3, batch=4) -> Runner:
    """A runner in float64 with weights and n samples, the same for every plan and tier; NaN where nobody wrote."""
    graph = NETS[net]()
    plan = ri.Plan(rules=rules, batch_norm=batch_norm, train_bias=train_bias, step=ri.Backprop(ri.SGD(lr=0.1)))
    p = ri.compile(graph, plan, batch, backend=backend, dtype=np.float64)
    rng = np.random.default_rng(3)
    parameters = initial(p, 0)
    for name, a in parameters.items():
        if not name.endswith(".w"):
            a += rng.uniform(0.1, 0.5, a.shape)
    runner = Runner(p, parameters)
    runner.block.fill(0xFF)
    runner.host("input", n)[...] = rng.normal(size=(n, *p.size, graph.channels))
    runner.host("labels", n)[...] = rng.integers(0, 3, n)
    for name, value in p.step.scalars.items():
        runner.host(name, n)[0] = value(0, 1, 0)
    return runner


def step(*plan, n=3):
    """Gradients and parameters after one step."""
    runner = prepared(*plan, n=n)
    with threads(2):
        for section in ("forward", "backward"):
            runner.run(section, n)
        gradients = {name: runner.array(b).copy() for name, b in runner.program.step.gradients.items()}
        runner.run("update", n)
    return gradients, {name: runner.owned[b] for name, b in runner.program.step.parameters.items()}


def run_and_watch(runner, n) -> dict[str, dict]:
    """Run forward and backward; x and dy of each convolution, taken when its calls read them."""
    seen: dict[str, dict] = {}
    for section in ("forward", "backward"):
        launches = runner.program.launches[section]
        for launch, (function, args) in zip(launches, runner.prepared(section, n), strict=True):
            call = launch.covers[0]
            found = seen.setdefault(call.node, {})
            if call.passed is conv2d.forward:
                found |= {"x": runner.array(call.arrays["x"], n).copy(), "attrs": call.attrs}
            if "dy" in call.arrays and not call.arrays["dy"].name.endswith("dy_kept"):
                found.setdefault("dy", runner.array(call.arrays["dy"], n).copy())
            function(*args)
    return seen


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("net", NETS)
def test_every_convolution_of_a_program_is_the_plain_statement(net, rules, batch_norm):
    n = 3
    runner = prepared(net, rules, "reference", batch_norm, True, n)
    p = runner.program
    seen = run_and_watch(runner, n)
    for node in (node for node in p.graph.nodes if node.op == "conv2d"):
        arrays = {"block": np.array([0]), "w": runner.owned[p.step.parameters[f"{node.name}.w"]], **seen[node.name]}
        if f"{node.name}.order" in p.step.constants:
            arrays["order"] = runner.owned[p.step.constants[f"{node.name}.order"].buffer]
        expected = statement(rules, arrays, arrays.pop("attrs"))
        for local, parameter in node.params.items():
            ours = runner.array(p.step.gradients[parameter])
            scale = np.linalg.norm(arrays["dy"]) * np.linalg.norm(arrays["x"])
            error = distance(ours, expected[f"d{local}"], scale)
            assert error <= 1e-12, f"the gradient of {parameter} is off by {error:.1e}"


@pytest.mark.parametrize("train_bias", [False, True])
@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("net", NETS)
def test_both_tiers_agree(net, rules, batch_norm, train_bias):
    reference, fast = (step(net, rules, backend, batch_norm, train_bias) for backend in ("reference", "fast"))
    assert ("grouped.b" in reference[0]) == (train_bias and net == "depthwise")
    for ours, theirs, what in zip(fast, reference, ("gradient", "new value"), strict=True):
        scale = 1e-2 * max(np.linalg.norm(a) for a in theirs.values())  # what vanishes but for rounding is small beside
        assert ours.keys() == theirs.keys()
        for name, a in theirs.items():
            error = distance(ours[name], a, scale)
            assert error <= 1e-12, f"the {what} of {name} is off by {error:.1e}"


@pytest.mark.parametrize(("rules", "same"), [((ErrorMapPruning(1),), ()), *LIMITS[:3]], ids=str)
def test_in_the_limit_whole_nets_train_alike(rules, same):
    for ours, theirs in zip(*(step("residual", r, "fast", "train", True) for r in (rules, same)), strict=True):
        scale = 1e-2 * max(np.linalg.norm(a) for a in theirs.values())
        for name, a in theirs.items():
            assert distance(ours[name], a, scale) <= 1e-12, name


@pytest.mark.parametrize("backend", ["reference", "fast"])
@pytest.mark.parametrize(("rules", "batch_norm"), list(itertools.product(COMBINED, ["frozen", "train"])))
@pytest.mark.parametrize("net", NETS)
def test_every_call_is_covered_once(net, rules, batch_norm, backend):
    p = ri.compile(NETS[net](), ri.Plan(rules=COMBINED[rules], batch_norm=batch_norm), 3, backend=backend)
    covered = [call for launch in p.order for call in launch.covers]
    assert len(covered) == len(set(covered)) and set(covered) == set(p.step)
