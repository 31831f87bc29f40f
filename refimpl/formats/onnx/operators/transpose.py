"""Transpose: another order of the axes, which nothing of ours has to follow."""

from dataclasses import replace

from ..walk import OnnxNode

OPERATORS = ("Transpose",)


def convert(here: OnnxNode) -> None:
    """No node of ours."""
    x = here.tensor(0)
    perm = here.attr("perm", tuple(reversed(range(len(x.layout)))))
    here.give_value(replace(x, layout=tuple(x.layout[i] for i in perm)))
