"""Find the model that a command names: built by name, with bundled or saved weights."""

import json
import re
from pathlib import Path

import numpy as np

from refimpl import data, models
from refimpl.formats.npz import holds_whole, load_npz
from refimpl.graph import Graph
from refimpl.models import suggestion, written
from refimpl.storage import checkpoint
from refimpl.storage.files import quoted, reading

from .errors import Malformed
from .recipe import start_small
from .run_folder import settled


def pretrained(
    name: str, dataset: data.Dataset, subject: int | None, classes: int | None, whole: bool = False
) -> Graph:  # fmt: skip
    """The graph for a data set: `watch` comes with weights trained without `subject`; a file brings its own.

    A `.npz` is a net of another program (`refimpl.formats.npz`), any other file is ours. whole: a quantized one stays
    one of whole numbers. Raises ModelError for an unknown name, CheckpointError for a file that cannot be used,
    Malformed where the model does not fit the data.
    """
    found = classes or len(dataset.classes)
    if found < len(dataset.classes):
        raise Malformed(f"--classes {found} is too few: {dataset.name} has {len(dataset.classes)} classes")
    height, width, channels = dataset.x_train.shape[1:]
    if name.endswith(".npz"):
        graph = load_npz(name, found, (height, width), whole)
        if graph.channels != channels:
            raise Malformed(f"{name} takes maps with C={graph.channels}, but {dataset.name} has C={channels}")
        start_small(graph)
        return graph
    if is_file(name):
        weights, notes = described_weights(name)
        if "graph" in notes:
            return as_written(name, weights, notes, classes, (height, width), channels, len(dataset.classes))
        graph = build(notes, found, (height, width), channels)
        checkpoint.check_arrays(weights, {n: p.shape for n, p in graph.parameters.items()}, name)
        whole = {n: p.dtype for n, p in graph.parameters.items() if p.dtype is not None and p.dtype.kind in "iu"}
        checkpoint.check_floats(weights, name, whole)
        graph.weights = weights
        return graph
    graph = models.build(name, classes=found, size=(height, width), channels=channels)
    if name == "watch" and dataset.name == "watch":
        graph.weights = models.watch_weights(subject)
    return graph


def origin(graph: Graph) -> str:
    """Where the first weights of a graph are from, in words."""
    missing = [name for name in graph.parameters if name not in graph.weights]
    if not missing:
        return "pre-trained"
    return f"pre-trained but for {', '.join(missing)}, which are random" if graph.weights else "random"


def stays_whole(name: str, asked: bool, quantizes: bool) -> bool:
    """Is the net of a file to stay one of whole numbers? asked: by --whole; quantizes: does the step train such nets?

    Malformed where --whole is given for what is no file of a quantized net.
    """
    if asked and not name.endswith(".npz"):
        raise Malformed(f"--whole trains a quantized .npz in its own whole numbers, but --model is {name}")
    return asked or (quantizes and name.endswith(".npz") and holds_whole(name))


def described(name: str, classes: int | None, size: tuple[int, int] | None, whole: bool = False) -> Graph:
    """The graph of a model before any data: by name, or as a file describes it; None takes its own value.

    whole: as `pretrained` has it. Raises ModelError, CheckpointError, Malformed like `pretrained`.
    """
    if name.endswith(".npz"):
        return load_npz(name, classes, size, whole)
    if not is_file(name):
        return models.build(name, classes=classes, size=size)
    weights, notes = described_weights(name)
    if "graph" in notes:
        return as_written(name, weights, notes, classes, size)
    plain = build(notes)
    first, last = (f"{plain.nodes[i].name}.w" for i in (0, -1))
    for wanted in (first, last):
        if wanted not in weights:
            raise Malformed(f"{name} has no array {wanted}, which the model {notes['model']} needs")
        shape = plain.parameters[wanted].shape
        if weights[wanted].ndim != len(shape):
            raise Malformed(f"{wanted} of {name} has shape {weights[wanted].shape}, but the model needs one as {shape}")
    saved = re.fullmatch(r"\((\d{1,9}), (\d{1,9})\)", notes.get("size", ""), re.ASCII)
    size = size or (saved and (int(saved[1]), int(saved[2])))
    return build(notes, classes or weights[last].shape[-1], size, weights[first].shape[2])


def as_written(
    name: str, weights: dict[str, np.ndarray], notes: dict, classes: int | None, size: tuple[int, int] | None,
    channels: int | None = None, fewest: int = 1,
) -> Graph:  # fmt: skip
    """A net of whole numbers as its file writes it down, with its weights.

    Malformed where other classes, at least `fewest`, another size or other channels are asked for: its numbers were
    found for its own.
    """
    graph = written.read(notes["graph"], name)
    checkpoint.check_arrays(weights, {n: p.shape for n, p in graph.parameters.items()}, name)
    whole = {n: p.dtype for n, p in graph.parameters.items() if p.dtype is not None and p.dtype.kind in "iu"}
    checkpoint.check_floats(weights, name, whole)
    if graph.size is None or len(graph.shape(graph.output)) != 2:
        raise Malformed(f"{name} holds a net that takes no images or tells no classes")
    own = graph.shape(graph.output)[-1]
    for what, asked, has in (
        ("classes", classes or max(own, fewest), own), ("size", size or graph.size, graph.size),
        ("channels", channels or graph.channels, graph.channels),
    ):  # fmt: skip
        if asked != has:
            raise Malformed(
                f"{name} holds whole numbers that were found for {what} {told(has)}, so that it cannot be used with "
                f"{told(asked)}"
            )
    graph.weights = weights
    return graph


def told(value) -> str:
    """A number, or a size as 128x96."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def is_file(name: str) -> bool:
    """Does a model's name mean a file of ours?"""
    return name.endswith(".safetensors") or Path(name).is_file()


def described_weights(name: str) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays and metadata of a file of ours; Malformed where it does not say which of our models it holds."""
    weights, notes = checkpoint.load(settled(Path(name)))
    if "model" not in notes:
        raise Malformed(f"{name} does not say which model it holds: it has no 'model' in its metadata")
    if "graph" in notes:
        return weights, notes
    if notes["model"] not in models.MODELS:
        model = quoted(notes["model"])
        raise Malformed(
            f"{name} holds weights of {model!r}, which the command line cannot build (a program that does "
            f"takes them by refimpl.storage.checkpoint.load){suggestion(model, models.MODELS)}"
        )
    text = notes.get("options", "{}")
    what, wrong = f"the 'options' in the metadata of {name}", f"are no JSON object: {quoted(text)!r}"
    with reading(what, Malformed, wrong):
        options = json.loads(text)
    if not isinstance(options, dict):
        raise Malformed(f"{what} {wrong}")
    return weights, notes | {"options": options}


def build(notes: dict, classes: int | None = None, size: tuple[int, int] | None = None, channels=None) -> Graph:
    """The model that a file's metadata name."""
    return models.build(notes["model"], **notes["options"], classes=classes, size=size, channels=channels)
