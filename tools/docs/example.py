"""The step that the architecture page follows, compiled when the page is filled in."""

import inspect
from functools import cache

import refimpl as ri


def example() -> ri.Program:
    """A step of LeNet-5 on eight pictures that trains the classifier and the last convolution, filtered."""
    model = ri.models.lenet5(classes=10)
    plan = ri.Plan(train_last=1, rules=[ri.GradientFilter(patch=2)], step=ri.Backprop(ri.SGD(lr=0.05)))
    return ri.compile(model, plan, batch=8, threads=2)


@cache
def program() -> ri.Program:
    """The program, compiled once."""
    return example()


def code() -> str:
    """What the example does, as a reader would type it."""
    body = inspect.getsource(example).split('"""')[2].strip("\n")
    text = inspect.cleandoc(body).replace("return ri.compile", "program = ri.compile")
    return f"```python\nimport refimpl as ri\n\n{text}\n```"


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


DIRECTIVES = {"example": code, "node": graph, "calls": calls, "launches": launches, "price": price}
