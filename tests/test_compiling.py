"""Compiling, placing and pricing a net takes steps in proportion to its nodes."""

import pytest

from validation.bench import compiling

FEW, MANY = 200, 2000
HEAVY = {"place": 2.6}  # part → what it may grow by: a placement looks at some logarithms of the launches, and at holes
ALL = compiling.cases()


def steps(name, nodes):
    """Part → lines of Python a node."""
    return {part: n / nodes for part, n in compiling.measured(ALL[name], nodes, compiling.lines).items()}


@pytest.mark.parametrize("name", [
    "residual inference fast", "residual batch-norm reference", "residual sparse-update fast",
    "inverted batch-norm fast", "chain adam fast", "rectifiers gradient-filter fast", "residual stochastic-depth fast",
])  # fmt: skip
def test_steps_a_node_do_not_grow_with_the_nodes(name):
    few, many = steps(name, FEW), steps(name, MANY)
    for part, n in many.items():
        assert n <= HEAVY.get(part, 1.5) * max(few[part], 1), part


def test_lines_count_each_turn_of_a_comprehension():
    graph = compiling.residual(50)
    found = [compiling.lines(lambda n=n: graph.shapes(n)) for n in (1, 2)]
    assert found[0] == found[1] > len(graph.nodes)
