import importlib
import pkgutil

import pytest
import sympy as sp

from costmodel import cost
from refimpl.graph import passes_of


def declared():
    """Every (operator, pass) of refimpl.ops and refimpl.methods."""
    found = set()
    for room in ("ops", "methods"):
        package = importlib.import_module(f"refimpl.{room}")
        for module in pkgutil.iter_modules(package.__path__):
            name = f"refimpl.{room}.{module.name}"
            found |= {(module.name, p) for p in passes_of(importlib.import_module(name))}
    return found


def test_every_pass_has_a_cost_and_every_cost_a_pass():
    cost.load_formulas()
    assert declared() == set(cost.COSTS)


@pytest.mark.parametrize("key", sorted(declared()), ids=".".join)
def test_every_cost_is_linear_in_the_units_and_not_zero(key):
    expression = sp.expand(cost.cost(*key))
    assert expression != 0
    assert sp.expand(sum(expression.diff(u) * u for u in cost.UNITS) - expression) == 0
    assert all(not (expression.diff(u).free_symbols & set(cost.UNITS)) for u in cost.UNITS)


def test_a_missing_cost_is_an_error():
    with pytest.raises(KeyError, match="relu.sideways has no cost in costmodel: add it to costmodel/ops/relu.py"):
        cost.cost("relu", "sideways")


def test_a_second_cost_is_an_error():
    cost.load_formulas()
    with pytest.raises(ValueError, match="relu.forward already has a cost"):
        cost.register("relu", forward=cost.add)
