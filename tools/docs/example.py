"""The step that the architecture page follows: its own code, run when the page is filled in."""

import re
from functools import cache

import refimpl as ri

from .sources import ROOT

PAGE = ROOT / "docs" / "architecture.md"
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@cache
def program() -> ri.Program:
    """The program that the page compiles, compiled once."""
    names: dict = {}
    exec(next(b for b in CODE.findall(PAGE.read_text(encoding="utf-8")) if "ri.compile" in b), names)
    return names["program"]


def graph(name: str) -> str:
    """A node of the graph."""
    node = next(n for n in program().graph.nodes if n.name == name)
    return f"```text\n{node}\n```"


def calls(name: str) -> str:
    """The logical calls of a node and of its parameters, by section, with what each reads and writes."""
    lines = []
    for section, found in program().step.calls.items():
        for call in found:
            if call.node.split(".")[0] == name:
                reads, writes = (", ".join(b.name for b in buffers) for buffers in (call.reads, call.writes))
                lines.append(f"{section:9s} {call.name:38s} {reads} -> {writes}")
    return "```text\n" + "\n".join(lines) + "\n```"


def launches(name: str) -> str:
    """The part of `print(program)` that names a node."""
    lines, shown = [], False
    for line in str(program()).splitlines():
        level = len(line) - len(line.lstrip())
        if level == 0:
            lines.append(line)
        elif level == 2:
            shown = any(part.split(" ")[0].split(".")[0] == name for part in line.strip().split(" + "))
        if level and shown:
            lines.append(line)
    return "```text\n" + "\n".join(lines) + "\n```"


def price() -> str:
    """`print(costmodel.estimate(program, device="reference"))`."""
    import costmodel

    return f"```text\n{costmodel.estimate(program(), device='reference')}\n```"


DIRECTIVES = {"node": graph, "calls": calls, "launches": launches, "price": price}
