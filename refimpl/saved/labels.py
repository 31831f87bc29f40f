"""Classes by their names: which rows of a classifier a net keeps when the classes are others, or in another order.

A data set numbers its classes by their order, such as that of its folders' names. A net whose rows were trained under
another order would take one class for another, so rows go by name.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..graph import Graph
from ..surgery.classifier import of_classifier
from ..training.state import drawn

HEAD_GAIN = 0.01  # factor on the first weights of a new classifier, or of its new rows
SHOWN = 5  # names that a sentence lists


@dataclass(frozen=True)
class Match:
    """What the outputs of a net become. rows: output → row of the file's classifier, None where it is a new one.

    classes: a name for each output, None where one has none. told: what changes, in words; empty where nothing does.
    """

    rows: tuple[int | None, ...]
    classes: tuple[str | None, ...]
    told: str = ""


def matched(own: Sequence[str | None], wanted: Sequence[str], outputs: int | None = None) -> Match:
    """How a net that knows the classes `own` comes to tell those that are `wanted`, in their order.

    outputs: how many classes it is to have, default as many as are wanted; those above are the file's others, in its
    order, then new ones without a name.
    """
    places = {name: i for i, name in enumerate(own) if name is not None}
    names: list[str | None] = list(wanted)
    others = [i for i, name in enumerate(own) if name not in wanted]
    more = max(0, (outputs or len(wanted)) - len(wanted))
    if not places.keys() & set(wanted):
        blank = (None,) * (len(wanted) + more)
        return Match(blank, (*wanted, *blank[:more]), f"no class has a name of the file's ({listed(own)}): all are new")
    kept = others[:more]
    rows = [places.get(name) for name in wanted] + kept + [None] * (more - len(kept))
    names += [own[i] for i in kept] + [None] * (more - len(kept))
    said = []
    if added := [name for name in wanted if name not in places]:
        said.append(f"new: {listed(added)}")
    found = [row for row in rows if row is not None]
    if found != sorted(found):
        said.append("the classes are in another order than the file's, and its rows follow them by name")
    if gone := [own[i] for i in others[more:]]:
        said.append(f"left out: {listed(gone)} (--classes {len(own) + len(added)} keeps all)")
    return Match(tuple(rows), tuple(names), "; ".join(said))


def listed(names: Sequence[str | None]) -> str:
    """Some of the names."""
    shown = ", ".join("(no name)" if name is None else name for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown


def with_rows(graph: Graph, weights: dict[str, np.ndarray], match: Match, seed: int) -> None:
    """Give a graph with `match`'s outputs the weights of a file, the classifier's by the rows of the match.

    New rows are drawn from the seed and start near zero: their first gradients must not move what is below.
    """
    graph.weights, graph.classes = {**graph.weights, **weights}, match.classes
    known = [(output, row) for output, row in enumerate(match.rows) if row is not None]
    places = {name: i for i, name in enumerate(graph.parameters)}
    for name in of_classifier(graph):
        parameter = replace(graph.parameters[name], gain=HEAD_GAIN)
        if not known:
            graph.parameters[name] = parameter
            graph.weights.pop(name, None)
            continue
        rows = drawn(parameter, places[name], seed, weights[name].dtype) if len(known) < len(match.rows) else None
        rows = np.empty(parameter.shape, weights[name].dtype) if rows is None else rows
        rows[..., [output for output, _ in known]] = weights[name][..., [row for _, row in known]]
        graph.weights[name] = rows
