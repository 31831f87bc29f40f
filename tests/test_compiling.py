"""Compiling and pricing a net takes steps in proportion to its nodes."""

import pytest

from validation.bench import compiling

FEW, MANY = 200, 2000
ALL = compiling.cases()


def steps(name, nodes, parts):
    """Part → lines of Python a node; parts that are not asked for run uncounted, where others need them."""
    works = compiling.everything(*ALL[name], nodes)
    return {part: compiling.lines(works[part]) / nodes if part in parts else works[part]() for part in works}


@pytest.mark.parametrize("name", [
    "residual inference fast", "residual sparse-update fast", "inverted batch-norm fast",
])  # fmt: skip
def test_steps_a_node_do_not_grow_with_the_nodes(name):
    parts = ("build", "compile", "saved", "refuse", "print", "estimate", "layers")
    few, many = steps(name, FEW, parts), steps(name, MANY, parts)
    for part in parts:
        assert many[part] <= 1.5 * max(few[part], 2), part
