"""`gradledger info`: what a file holds, in its own words, and what can be done with it."""

import shlex
from pathlib import Path

from refimpl.data import NAMES
from refimpl.data.preprocessing import Preprocessing
from refimpl.formats.npz import load_npz
from refimpl.graph import Graph
from refimpl.saved.described import Saved, elements
from refimpl.saved.model import PIXEL, plain

from .errors import Malformed
from .models import saved
from .run_folder import settled


def run(file: str) -> dict:
    """The record of a file: net, classes, samples, training, size, and commands that take it.

    CheckpointError in one sentence where it is no net that is read; Malformed where there is no such file.
    """
    if not settled(Path(file)).exists():
        raise Malformed(f"there is no file {file}")
    if file.endswith(".npz"):
        return described(file, load_npz(file), None)
    found = saved(file)
    return described(file, found.graph(), found)


def described(file: str, graph: Graph, found: Saved | None) -> dict:
    """The record of a net. found: what its file says of it, None for one of another program."""
    said = found.made if found else None
    made = said or plain(graph)
    classes = graph.classes if any(graph.classes) else ()
    return {
        "ok": True,
        "file": file,
        "model": graph.name,
        "by_name": found is None or "graph" not in found.notes,
        "classes": list(classes),
        "outputs": graph.shape(graph.output)[-1],
        "size": list(graph.size) if graph.size else None,
        "channels": graph.channels,
        "takes": "pixels" if made.divisor == PIXEL else "numbers",
        "preprocessing": made.to_json() if said or found is None else {},
        "adapted_from": dict(found.adapted_from) if found else {},
        "recipe": dict(found.recipe) if found else {},
        "ledger": dict(found.ledger) if found else {},
        "accuracy": dict(found.accuracy) if found else {},
        "parameters": elements(graph),
        "bytes": settled(Path(file)).stat().st_size,
        "sha256": found.sha256 if found else None,
        "next": commands(file, graph, found, made),
    }


def commands(file: str, graph: Graph, found: Saved | None, made: Preprocessing) -> list[str]:
    """What can be done with the file; DATA stands for the user's own."""
    name = shlex.quote(file)
    own = found.recipe.get("data") if found else None
    pixels = made.divisor == PIXEL and graph.channels in (1, 3)
    kind = "photos/" if pixels else "sounds/" if made.kind == "sound" else "DATA.csv" if made.columns else "DATA.npz"
    data = own if own in NAMES else kind
    used = [f"gradledger predict {name} --data {data}", f"gradledger evaluate {name} --data {data}"]
    size = "" if found or not graph.size else f" --size {'x'.join(map(str, graph.size))}"
    return [*(used if found and found.own_classes else []), f"gradledger adapt --model {name} --data {data}{size}",
            f"gradledger cost --model {name}"]  # fmt: skip
