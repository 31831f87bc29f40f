"""Every pass has a cost and the reverse; what a formula is, how it is evaluated and shown."""

import importlib.util
import pkgutil
from importlib import import_module

import own
import pytest
import sympy as sp
from hypothesis import given
from hypothesis import strategies as st

import refimpl.methods
import refimpl.ops
from costmodel.formulas import cost
from refimpl.ops import passes_of
from validation.instruments import drawn_passes

cost.load_formulas()
PASSES = {
    (module.name, name)
    for package in (refimpl.ops, refimpl.methods)
    for module in pkgutil.iter_modules(package.__path__)
    for name in passes_of(import_module(f"{package.__name__}.{module.name}"))
}


def test_every_pass_has_a_cost_and_every_cost_a_pass():
    drawn = {(p.operator, p.name) for p in drawn_passes.passes().values()}
    assert {key for key in cost.COSTS if key[0] not in own.NAMES} == PASSES
    assert {key for key in drawn if key[0] not in own.NAMES} == PASSES


@pytest.mark.parametrize("key", sorted(PASSES), ids=".".join)
def test_a_body_uses_nothing_of_another_operator(key):
    """The kernel cache relies on it: a change of one operator's file leaves the others' kernels as they are."""
    found = [import_module(f"refimpl.{room}.{key[0]}") for room in ("ops", "methods") if _exists(room, key[0])]
    body = passes_of(found[0])[key[1]].body
    used = [body.__globals__.get(name) for name in body.__code__.co_names]
    homes = {getattr(u, "__module__", body.__module__) for u in used if callable(u)}
    assert not {h for h in homes if h.startswith(("refimpl.ops.", "refimpl.methods."))} - {body.__module__}


def _exists(room, name):
    return importlib.util.find_spec(f"refimpl.{room}.{name}") is not None


@pytest.mark.parametrize("key", sorted(PASSES), ids=".".join)
def test_costs_are_linear_in_the_units_and_never_zero(key):
    found = cost.coefficients(*key)
    assert found
    assert not {s for c in found.values() for s in c.free_symbols} & set(cost.UNITS)
    text = cost.show(*key)
    assert text.startswith(f"{key[0]}.{key[1]}\n")
    assert "Piecewise" not in text and "has_" not in text


def test_a_pass_without_a_cost_is_an_error():
    with pytest.raises(
        KeyError,
        match="relu.grad_w has no cost: register one, of an operator of the library in costmodel/formulas/ops/relu.py",
    ):
        cost.counts("relu", "grad_w", {"N": 1, "E": 1}, {})
    with pytest.raises(KeyError, match="unheard_of.forward has no cost"):
        cost.cost("unheard_of", "forward")


def test_a_second_cost_of_a_pass_is_refused():
    with pytest.raises(ValueError, match="relu.forward already has a cost"):
        cost.register("relu", forward=cost.N)


def test_a_cost_that_is_not_linear_is_refused(monkeypatch):
    for formula in (cost.N * cost.load * cost.mul, cost.N * cost.load + 1):
        monkeypatch.setitem(cost.COSTS, ("relu", "forward"), formula)
        with pytest.raises(ValueError, match="relu.forward is not linear in the units"):
            cost.coefficients("relu", "forward")


@given(
    n=st.integers(1, 10**4), size=st.integers(3, 300), window=st.integers(1, 3), stride=st.integers(1, 3),
    groups=st.integers(1, 7), depth=st.integers(1, 600), width=st.integers(1, 600), bias=st.booleans(),
)  # fmt: skip
def test_evaluation_is_that_of_sympy(n, size, window, stride, groups, depth, width, bias):
    out = (size - window) // stride + 1
    sizes = {"N": n, "H": size, "W": size, "C": groups * depth, "K": groups * width, "R": window, "S": window}
    sizes |= {"P": out, "Q": out, "G": groups}
    attrs = {"stride": (stride, stride), "dilation": (1, 1), "pad": ((0, 0), (0, 0))}
    found = cost.counts("conv2d", "forward", sizes, attrs, ["b"] if bias else [])
    values = {**sizes, "has_b": int(bias), **dict(pair for a, v in attrs.items() for pair in cost.flatten(a, v))}
    for unit, formula in cost.coefficients("conv2d", "forward").items():
        exact = formula.subs([(s, sp.Integer(values[s.name])) for s in formula.free_symbols])
        assert found[unit] == exact
    # valid windows: nothing is padded, so the count is the product of the sizes
    assert found["mul"] == n * out * out * window * window * groups * depth * width


def test_a_float_attribute_is_not_cut_to_an_integer():
    plain = cost.counts("softmax_cross_entropy", "grad_x", {"N": 2, "K": 3}, {"label_smoothing": 0.0})
    smooth = cost.counts("softmax_cross_entropy", "grad_x", {"N": 2, "K": 3}, {"label_smoothing": 0.1})
    assert smooth["div"] == 3 * plain["div"]


def test_formulas_are_shown_unit_by_unit():
    assert cost.show("conv2d", "forward").splitlines() == [
        "conv2d.forward",
        "  mac   C*K*N*taps(H)*taps(W)/G",
        "  load  K*N*(2*C*taps(H)*taps(W)/G + P*Q*has(b))",
        "  store K*N*P*Q",
    ]
    assert "  mul   E*(has(clip) + nonzero(nesterov) + 3)" in cost.show("sgd", "momentum_step")
