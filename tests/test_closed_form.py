"""Closed forms of whole steps have, for any sizes and settings, the value of the compiled program's price."""

import math
import re

import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import LOSSES, NETS, RULES, STEPS, step_for

import costmodel
import refimpl as ri
from costmodel import closed_form, predict
from costmodel.formulas import cost
from costmodel.formulas.whole import quotient
from refimpl import models
from refimpl.kernels.geometry import out_size
from refimpl.methods.baselines import HardExamples, RandomSkip
from refimpl.methods.stochastic_depth import StochasticDepth

INSTANCES = {
    "instance filter": ri.InstanceFilter(models.build("slim_lenet", classes=2, size=(7, 6), channels=3), keep=0.3),
    "hard examples": HardExamples(0.4),
    "random skip": RandomSkip(0.3),
}


def plan_with(setting, plan: ri.Plan) -> ri.Plan:
    """The plan with settings drawn: `setting(name, value)` gives the value of each that costs depend on."""

    def drawn(rule):
        names = rule.priced if rule else ()
        return type(rule)(**{**vars(rule), **{n: setting(n, getattr(rule, n)) for n in names}}) if names else rule

    return ri.Plan(**{
        **vars(plan), "rules": tuple(map(drawn, plan.rules)), "instances": drawn(plan.instances),
        "depth": drawn(plan.depth),
    })  # fmt: skip


def priced(program, n):
    return predict.estimate(program, n)


def same(found, wanted):
    units = {*found, *wanted}
    return all(math.isclose(found[u], wanted[u], rel_tol=1e-12) for u in units)


def check(net, plan, draw_from):
    """Draw sizes and settings, compile, and compare."""
    formulas = closed_form.of(net(), plan)
    graph = net()

    @settings(max_examples=6)
    @given(st.data())
    def run(data):
        values = {"N": data.draw(st.integers(1, 9))}
        if draw_from:
            values |= {s: data.draw(st.integers(n, n + 9)) for s, n in zip("HW", draw_from, strict=True)}

        def setting(name, given):
            if name == "patch":
                values["patch"] = data.draw(st.integers(1, 5))
                return (values["patch"],) * 2
            values[name] = data.draw(st.floats(0.02, 0.99))
            return values[name]

        drawn = plan_with(setting, plan)
        size = (values.get("H", graph.size[0]), values.get("W", graph.size[1]))
        program = ri.compile(net(), drawn, values["N"], size, backend="reference", threads=1)
        estimate = predict.estimate(program)
        try:
            found = formulas.at(**values)
        except ValueError as e:
            assert "the formula holds where" in str(e)
            return
        assert same(found, estimate.units), values
        memory = formulas.bytes_at(**values)
        assert memory["saved"] == program.saved_bytes
        assert sum(memory[t] for t in ("weights", "optimizer")) == program.state_bytes + sum(
            b.nbytes for b in program.step.parameters.values() if b.region == "constant"
        )
        assert memory["gradients"] == sum(b.nbytes for b in program.step.gradients.values())

    run()


FREE = {"watch": (1, 22), "residual": (5, 5), "depthwise": None}  # sizes to draw from; None: a linear layer fixes them


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize("net", NETS)
def test_methods(net, rules, batch_norm):
    check(
        NETS[net],
        ri.Plan(rules=rules, batch_norm=batch_norm, train_bias=True, step=step_for(rules, STEPS["momentum"])),
        FREE[net],
    )


@pytest.mark.parametrize("instances", INSTANCES.values(), ids=INSTANCES)
def test_instances(instances):
    check(NETS["residual"], ri.Plan(instances=instances), None)


def test_two_settings_of_one_name():
    plan = ri.Plan(instances=INSTANCES["hard examples"], rules=RULES["keep"])
    formulas = closed_form.of(NETS["residual"](), plan)
    assert formulas.given == {"N": 8, "H": 7, "W": 6, "keep": 0.5, "hard_examples_keep": 0.4}
    program = ri.compile(NETS["residual"](), ri.Plan(instances=HardExamples(0.7), rules=RULES["keep"]), 6, threads=1)
    assert formulas.at(N=6, hard_examples_keep=0.7) == predict.estimate(program).units


def test_stochastic_depth():
    check(lambda: models.build("resnet8", size=(8, 8)), ri.Plan(depth=StochasticDepth(0.6)), (8, 8))


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_optimizers(step):
    check(NETS["residual"], ri.Plan(step=step), FREE["residual"])


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses(loss):
    check(NETS["residual"], ri.Plan(**loss), FREE["residual"])


@pytest.mark.parametrize("variant", ["torchvision", "keras"])
def test_width(variant):
    formulas = closed_form.of(models.build("mobilenet_v2", classes=10, size=(64, 64), variant=variant), ri.Plan("all"))
    for width, size in ((0.35, (96, 80)), (0.5, (64, 64)), (0.75, (33, 47)), (1.4, (50, 64))):
        net = models.build("mobilenet_v2", classes=10, width=width, variant=variant)
        program = ri.compile(net, ri.Plan("all"), 3, size, backend="reference", threads=1)
        try:
            found = formulas.at(width=width, H=size[0], W=size[1], N=3)
        except ValueError as e:
            raise AssertionError(f"{width}, {size}: {e}") from None
        assert found == predict.estimate(program).units
        assert formulas.bytes_at(width=width, H=size[0], W=size[1], N=3)["saved"] == program.saved_bytes


def test_it_is_an_expression_like_any_other():
    plan = ri.Plan(rules=[ri.GradientFilter(2)])
    net = models.build("resnet8", size=(8, 8))
    formula = costmodel.symbolic(net, plan)
    symbols = {s.name: s for s in formula.free_symbols}
    assert {"N", "H", "W", "patch"} <= symbols.keys()
    numbers = [symbols[name] for name in ("N", "H", "W", "patch")]
    flops = closed_form.flops(formula)
    assert flops.free_symbols == set(numbers)
    program = ri.compile(net, ri.Plan(rules=[ri.GradientFilter(3)]), 5, (10, 7), backend="reference")
    assert sp.lambdify(numbers, flops)(5, 10, 7, 3) == costmodel.estimate(program).flops
    assert flops.subs(dict(zip(numbers, (5, 10, 7, 3), strict=True))) == costmodel.estimate(program).flops
    text = sp.latex(formula)
    assert r"\left\lceil{\frac{H}{2 patch}}\right\rceil" in text and "Piecewise" not in text


def test_every_named_function_prints_and_evaluates():
    formula = closed_form.flops(
        costmodel.symbolic(models.build("mobilenet_v2", size=(32, 32)), ri.Plan("all", rules=[ri.ErrorMapPruning(0.3)]))
    )
    assert r"\left\lfloor" in sp.latex(formula) and r"\operatorname{round\_channels}" in sp.latex(formula)
    values = dict(zip(sorted(formula.free_symbols, key=str), (32, 1, 32, 0.3, 1.0), strict=True))
    assert [s.name for s in values] == ["H", "N", "W", "keep", "width"]
    assert int(sp.lambdify(list(values), formula)(*values.values())) == formula.subs(values)


def test_what_a_value_decided_is_a_condition():
    formulas = closed_form.of(models.build("mobilenet_v2", size=(64, 64)), ri.Plan("all", batch_norm="train"))
    with pytest.raises(
        ValueError, match=r"the formula holds where Ne\(round_channels\(32\*width\), round_channels\(16"
    ):
        formulas.at(width=0.1)
    with pytest.raises(ValueError, match="there is no symbol patch; the formula has N, H, W, width"):
        formulas.at(patch=2)
    fixed = closed_form.of("lenet", ri.Plan("all"))
    with pytest.raises(ValueError, match=r"holds where Eq\(50\*\(floor\(H/4\) - 3\)\*\(floor\(W/4\) - 3\), 800\)"):
        fixed.at(H=40)


@pytest.mark.parametrize("values, problem", [
    ({"N": -1}, "N must be a whole number from 1 up, got -1"),
    ({"N": 0}, "N must be a whole number from 1 up, got 0"),
    ({"N": 1.5}, "N must be a whole number from 1 up, got 1.5"),
    ({"H": math.nan}, "H must be a whole number from 1 up, got nan"),
    ({"W": math.inf}, "W must be a whole number from 1 up, got inf"),
    ({"N": "8"}, "N must be a whole number from 1 up, got '8'"),
    ({"keep": 0}, "keep must be a share above 0 and at most 1, got 0"),
    ({"keep": 1.1}, "keep must be a share above 0 and at most 1, got 1.1"),
    ({"keep": math.nan}, "keep must be a share above 0 and at most 1, got nan"),
    ({"width": 0}, "width must be a number above 0, got 0"),
    ({"width": math.inf}, "width must be a number above 0, got inf"),
])  # fmt: skip
def test_a_value_that_a_symbol_cannot_have(pruned, values, problem):
    for function in (pruned.at, pruned.bytes_at):
        with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
            function(**values)


@pytest.fixture(scope="module")
def pruned():
    net = models.build("mobilenet_v2", size=(32, 32))
    return closed_form.of(net, ri.Plan(1, rules=[ri.ErrorMapPruning(0.3)]))


def test_nominal_counts_padded_taps_too():
    net = models.build("resnet8", size=(8, 8))
    formula = closed_form.flops(costmodel.symbolic(net, ri.Plan(0)))
    program = ri.compile(net, ri.Plan(0), 2, backend="reference")
    forward = [c for c in program.step if c.passed.operator == "conv2d"]
    assert {c.passed.name for c in forward} == {"forward"}
    padded = sum(
        2 * z["N"] * z["K"] * z["C"] * (z["P"] * z["Q"] * z["R"] * z["S"] - taps(c, 0) * taps(c, 1))
        for c, z in ((c, c.sizes) for c in forward)
    )
    values = {s: {"N": 2, "H": 8, "W": 8}[s.name] for s in formula.free_symbols}
    assert closed_form.nominal(formula).subs(values) - formula.subs(values) == padded > 0


def taps(call, axis):
    z, a = call.sizes, call.attrs
    size, window, out = (("H", "R", "P"), ("W", "S", "Q"))[axis]
    return cost.count_taps(z[size], z[window], z[out], a["stride"][axis], a["dilation"][axis], *a["pad"][axis])


H = sp.Symbol("H", positive=True, integer=True)


@given(
    size=st.integers(1, 20), window=st.integers(1, 5), stride=st.integers(1, 4), dilation=st.integers(1, 3),
    pad=st.tuples(st.integers(0, 5), st.integers(0, 5)), standard=st.booleans(),
)  # fmt: skip
def test_taps_in_closed_form(size, window, stride, dilation, pad, standard):
    out = quotient(H + sum(pad) - dilation * (window - 1) - 1, stride) + 1 if standard else sp.Integer(7)
    number = out_size(size, window, stride, dilation, pad) if standard else 7
    if number < 1:
        return
    found = cost.taps(H, sp.Integer(window), out, sp.Integer(stride), sp.Integer(dilation), *map(sp.Integer, pad))
    wanted = cost.count_taps(size, window, number, stride, dilation, *pad)
    assert found.subs(H, size) == found.doit().subs(H, size) == wanted


def test_rows_of_maps_are_counted_with_their_pixels():
    g = ri.Graph("net", (6, 5), 3)
    x = g.conv2d("c", "input", 6, 3, pad=1)
    x = g.concat("both", x, g.linear("each pixel", x, 4))
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    program = ri.compile(g, ri.Plan(), 8)
    assert closed_form.of(g, ri.Plan()).at(N=8) == priced(program, 8).units
    assert closed_form.of(g, ri.Plan()).at(N=3) == priced(program, 3).units
