"""`gradledger check`: can a model be trained? Of each operator, layer and method; and what a step would take."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from refimpl.data.pixels import words
from refimpl.formats.layouts import Fit, Misfit
from refimpl.formats.npz import holds_whole, read_npz
from refimpl.formats.onnx import Imported, imported, load_onnx
from refimpl.formats.tflite import Unconverted, read_tflite
from refimpl.formats.weight_files import of_arrays
from refimpl.graph import Graph
from refimpl.methods import registry
from refimpl.plan.plan import of_kind, roles
from refimpl.saved.described import LITE, ONNX, elements
from refimpl.storage.checkpoint import CheckpointError

from . import cost
from .cost import CostSettings
from .errors import MALFORMED, Malformed, Refused
from .models import described, describes_itself, is_file, quantized_file, read_once, saved
from .options import size as read_size

TRAINS, FORWARD, MISSING = "trains", "forward only", "missing"
BITS = "16w8a"  # weights of whole numbers that can be perturbed, as a method calls them


@read_once()
def run(model: str, size: str | None, batch: int) -> dict:
    """The record of a model: its operators, layers, what each method could train of it, and the cost of a step.

    Refused, with the record, where an operator is missing; Malformed or CheckpointError where it is no model.
    """
    if is_file(model) and not Path(model).exists():
        raise Malformed(f"there is no file {model}")
    record: dict = {"model": model, "trainable": False, "operators": []}
    try:
        record |= weights(model)
    except Misfit as e:
        raise Refused(str(e), record | {"weights": fit_of(e.fit) if e.fit else {}}) from None
    except Unconverted as e:
        raise Refused(str(e), record | {"operators": counted(e.counts, e.missing)}) from None
    found = imported(model, read_size(size)) if model.endswith(ONNX) else None
    if found:
        record |= {
            "operators": operators(found),
            "opset": found.file.opset,
            "notes": found.notes,
            "folded": found.folded,
        }
        if found.graph is None:
            lost = sorted({t.op for t in found.missing})
            raise Refused(f"{model} cannot be trained: there is no way yet for {', '.join(lost)}", record)
        graph = load_onnx(found.file, size=read_size(size))
    else:
        graph = described(model, None, read_size(size))
        record["operators"] = record["operators"] or own_operators(graph)
    settings = CostSettings(model=model, size=size, batch=batch, from_scratch=not is_file(model))
    whole = in_whole_numbers(settings)
    return {
        "ok": True,
        **record,
        "trainable": True,
        "size": list(graph.size or ()),
        "channels": graph.channels,
        "outputs": graph.shape(graph.output)[-1],
        "parameters": elements(graph),
        "layers": layers(graph),
        "counted": of_kind(graph),
        "batch": batch,
        "methods": list(methods(settings)),
        **({"whole": whole} if whole else {}),
    }


def weights(model: str) -> dict:
    """Of a file of another program's weights: `weights`, the net that it fits, and `notes`; else nothing.

    Of a TensorFlow Lite model `operators` and `notes`. Misfit where it fits no net, Unconverted where operators have no
    form here.
    """
    if model.endswith(LITE):
        lite = read_tflite(model, model)
        pixels = f"pixels from {words(*lite.graph.pixels)} are assumed"
        return {"operators": counted(lite.counts, {}), "notes": [*lite.told, pixels]}
    if model.endswith(".npz") and not holds_whole(model):
        foreign = of_arrays(read_npz(model), model)
    elif not describes_itself(model) or model.endswith(ONNX) or not (foreign := saved(model).foreign):
        return {}
    pixels = f"pixels from {words(*foreign.fit.pixels)} are assumed, as such nets mostly take them"
    notes = [f"the arrays fit {foreign.fit.net}", *foreign.told, pixels]
    return {"weights": fit_of(foreign.fit), "notes": notes}


def fit_of(fit: Fit) -> dict:
    """A net beside the arrays of a file, for `--json`."""
    return {
        "net": fit.graph.name,
        "program": fit.layout.program,
        "width": fit.graph.options.get("width"),
        "classes": fit.classes,
        "arrays": len(fit.arrays),
        "missing": list(fit.missing),
        "unexpected": list(fit.unexpected),
        "mismatched": [{"name": m.name, "shape": list(m.shape), "wanted": list(m.wanted)} for m in fit.mismatched],
    }


def operators(found: Imported) -> list[dict]:
    """What becomes of the operators of a file: how many there are of each, and of which nodes it is not so."""
    rows: dict[str, dict] = {}
    for told in found.told:
        row = rows.setdefault(told.op, row_of(told.op))
        row["count"] += 1
        if told.what == MISSING:
            row["missing"].append({"node": told.name, "why": told.why})
        elif told.what == FORWARD:
            row["forward"].append({"node": told.name, "why": told.why})
        elif told.what != TRAINS:
            row["behind"] += 1
    return list(rows.values())


def row_of(op: str) -> dict:
    """The row of an operator of which no node is counted yet."""
    return {"op": op, "count": 0, "forward": [], "missing": [], "behind": 0}


def counted(counts: Mapping[str, int], missing: Mapping[str, str]) -> list[dict]:
    """What becomes of the operators of a model of which only their numbers are known, and why some are missing."""
    return [
        row_of(op) | {"count": count, "missing": [{"node": op, "why": missing[op]}] if op in missing else []}
        for op, count in counts.items()
    ]


def own_operators(graph: Graph) -> list[dict]:
    """The same of a net of ours, of which every operator trains."""
    rows: dict[str, dict] = {}
    for node in graph.nodes:
        rows.setdefault(node.op, row_of(node.op))["count"] += 1
    return list(rows.values())


def layers(graph: Graph) -> list[dict]:
    """The layers with weights, in their order: what `--train-last` counts, and the classifier.

    One that no gradient reaches never trains.
    """
    frozen, role = set(graph.frozen()), roles(graph)
    return [
        {
            "name": node.name,
            "op": node.op,
            "parameters": [list(graph.parameters[p].shape) for p in node.params.values()],
            "trains": None if node.name in frozen else role[node.name],
        }
        for node in graph.nodes
        if node.params
    ]


def in_whole_numbers(settings: CostSettings) -> dict | None:
    """What of a quantized file trains in its own whole numbers, and by which method; None where it is none.

    `ok`; where it is not, `reason` and `lacking`, operators without a form in whole numbers and how many there are.
    """
    name = settings.model
    if not (holds_whole(name) if name.endswith(".npz") else name.endswith((ONNX, LITE)) and quantized_file(name)):
        return None
    try:
        described(name, None, read_size(settings.size), True)
    except CheckpointError as e:
        return {"ok": False, "reason": str(e), "lacking": getattr(e, "lacking", {})}
    return {"ok": True, "methods": list(methods(replace(settings, whole=True)))}


def methods(settings: CostSettings) -> Iterator[dict]:
    """What a step of each method takes, with its own settings; or why it cannot be used."""
    for name, method in registry.known().items():
        bits = method.states.settings.get("bits")
        asked = f"{name}:bits={BITS}" if settings.whole and isinstance(bits, tuple) and BITS in bits else name
        try:
            found = cost.run(CostSettings(**{**vars(settings), "method": [asked]}))
        except (*MALFORMED, Refused, CheckpointError) as e:
            yield {"method": asked, "refused": str(e)}
            continue
        yield {
            "method": asked,
            "settings": found["method"],
            "train_last": found["train_last"],
            "macs": found["macs"],
            "imacs": sum(found["integers"]["imacs"].values()),
            "seconds": found["seconds"],
            "bytes": found["peak_bytes"] + found["state_bytes"],
            "resident_bytes": found["resident_bytes"],
        }
