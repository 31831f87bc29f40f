"""What a file of ours says of itself, read in one place.

Beside the arrays its metadata hold `model`, `options` and `size`, or `graph` for a net that no name builds; `classes`,
the names of what its outputs tell apart; and as JSON what PARTS lists. The checksum of the file covers all of them.
Files of earlier versions lack what they did not know: it is empty here.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import models
from ..data.new_arrays import PIXEL
from ..data.pixels import Level
from ..data.preprocessing import Preprocessing
from ..formats import onnx, tflite
from ..formats.weight_files import ForeignWeights, of_arrays, read_foreign
from ..graph import Graph
from ..models import written
from ..storage import checkpoint, files
from ..storage.checkpoint import CheckpointError
from ..storage.files import quoted
from ..surgery.classifier import changed, of_classifier

PARTS = {  # what a file says beside its model → the words for it
    "preprocessing": "what a sample goes through before it enters: pixels [black, white] or null, size, channels",
    "adapted_from": "the net that it was adapted from: its name, its file and the file's SHA-256",
    "recipe": "the settings that its training was decided by",
    "ledger": "totals of its training: steps, samples, multiply-adds, bytes; the learning rate that its probes chose",
    "accuracy": "the share that it told right: of these weights, before the training, samples, data",
}
ONNX, LITE = ".onnx", tflite.SUFFIX  # what models of other programs that are read as if they were ours end with
OPEN = (224, 224)  # rows and columns of a model that takes any
SIZE = re.compile(r"\((\d{1,9}), (\d{1,9})\)", re.ASCII)


@dataclass(frozen=True, eq=False)
class Saved:
    """A file of ours, read.

    path: as it was named. weights: its arrays. notes: all of its metadata. classes: a name for each output, None where
    one has none; () where the file names none. sha256: digest of the file. foreign: what is known of a file of another
    program, None for one of ours. The others are those of PARTS, empty where the file lacks them.
    """

    path: str
    weights: Mapping[str, np.ndarray]
    notes: Mapping[str, str]
    classes: tuple[str | None, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    adapted_from: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    ledger: Mapping[str, Any] = field(default_factory=dict)
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    foreign: ForeignWeights | None = None

    @property
    def model(self) -> str:
        """Name of the net."""
        return self.notes["model"]

    @property
    def whole(self) -> bool:
        """Does it hold whole numbers, which were found for its own classes, size and channels?"""
        return "graph" in self.notes and any(a.dtype.kind in "iu" for a in self.weights.values())

    @property
    def other(self) -> bool:
        """Is it of another program, so that it says of pixels only what a run of ours may have written into it?"""
        return self.foreign is not None or self.path.endswith((ONNX, LITE))

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns of its input, where it says so."""
        found = SIZE.fullmatch(self.notes.get("size", ""))
        return (int(found[1]), int(found[2])) if found else None

    @property
    def made(self) -> Preprocessing | None:
        """What makes its samples; None where it does not say. PreprocessingError where it says what is none."""
        return Preprocessing.from_json(dict(self.preprocessing)) if self.preprocessing else None

    @property
    def pixels(self) -> tuple[Level, Level] | None:
        """What it takes for pixels of 0 and of 255; None where it takes none, or does not say."""
        made = self.made
        return (made.black, made.white) if made and made.divisor == PIXEL and not made.mean else None

    def graph(
        self, classes: int | None = None, size: tuple[int, int] | None = None, channels: int | None = None
    ) -> Graph:
        """Its net, for other classes, size or channels where they are given, with the weights that fit it.

        Where the number of classes is another one the classifier is left out of them. CheckpointError where the arrays
        are not those of the net, or a net of whole numbers is asked for anything but its own.
        """
        if self.whole:
            return self._checked(_as_it_is(self, classes, size, channels))
        graph = self._plain(classes, size, channels)
        if self.own_classes and classes in (None, self.own_classes):
            return self._checked(graph)
        left_out = of_classifier(graph)
        kept = {name: a for name, a in self.weights.items() if name not in left_out}
        shapes = {name: p.shape for name, p in graph.parameters.items() if name not in left_out}
        checkpoint.check_arrays(kept, shapes, self.path)
        return self._checked(graph, kept)

    @property
    def own_classes(self) -> int:
        """How many classes its net tells apart; 0 where it came without a classifier."""
        if self.foreign and self.foreign.fit.headless:
            return 0
        if "graph" in self.notes:
            return _written(self).shape(_written(self).output)[-1]
        return self._array(-1).shape[-1]

    def _plain(self, classes: int | None, size: tuple[int, int] | None, channels: int | None) -> Graph:
        size = size or self.size
        if "graph" in self.notes:
            return changed(_written(self), classes, size, channels, self.path)
        classes, channels = classes or self.own_classes or None, channels or self._array(0).shape[2]
        return models.build(self.model, **self._options(), classes=classes, size=size, channels=channels)

    def _array(self, place: int) -> np.ndarray:
        """The weights of the first or last node of a net that is built by name."""
        plain = models.build(self.model, **self._options())
        name = f"{plain.nodes[place].name}.w"
        if name not in self.weights:
            raise CheckpointError(f"{self.path} has no array {name}, which the model {self.model} needs")
        shape = plain.parameters[name].shape
        if self.weights[name].ndim != len(shape):
            raise CheckpointError(
                f"{name} of {self.path} has shape {self.weights[name].shape}, but the model needs one as {shape}"
            )
        return self.weights[name]

    def _options(self) -> dict:
        text = self.notes.get("options", "{}")
        what, wrong = f"the 'options' in the metadata of {self.path}", f"are no JSON object: {quoted(text)!r}"
        with files.reading(what, CheckpointError, wrong):
            options = json.loads(text)
        if not isinstance(options, dict):
            raise CheckpointError(f"{what} {wrong}")
        return options

    def _checked(self, graph: Graph, weights: Mapping[str, np.ndarray] | None = None) -> Graph:
        """The graph with weights, default all of the file's, which must be those of its parameters."""
        if weights is None:
            weights = self.weights
            checkpoint.check_arrays(weights, {n: p.shape for n, p in graph.parameters.items()}, self.path)
        whole = {n: p.dtype for n, p in graph.parameters.items() if p.dtype is not None and p.dtype.kind in "iu"}
        checkpoint.check_floats(weights, self.path, whole)
        graph.weights, graph.classes = dict(weights), self.classes
        if self.foreign:
            graph.pixels = self.foreign.fit.pixels
        return graph


def described(path: str | os.PathLike, name: str | None = None) -> Saved:
    """A file of ours; CheckpointError in one sentence where it is none, is damaged, or does not say what it holds.

    name: how messages call it, default the path. A model of ONNX or TensorFlow Lite says what it is by its graph, one
    of ONNX also by what we wrote into its metadata when it was exported; weights of another program by the names and
    shapes of their arrays.
    """
    what = str(path if name is None else name)
    if what.endswith(ONNX):
        return of_onnx(path, what)
    if what.endswith(LITE):
        return of_tflite(path, what)
    if foreign := read_foreign(path, what):
        return of_foreign(foreign, path, what)
    weights, notes = checkpoint.load(path)
    if "model" not in notes:
        return of_foreign(of_arrays(weights, what), path, what)
    if "graph" not in notes and notes["model"] not in models.MODELS:
        model = quoted(notes["model"])
        raise CheckpointError(
            f"{what} holds weights of {model!r}, which the command line cannot build (a program that does "
            f"takes them by refimpl.storage.checkpoint.load){models.suggestion(model, models.MODELS)}"
        )
    parts: dict[str, Any] = {part: _object(notes[part], part, what) for part in PARTS if part in notes}
    return Saved(what, weights, notes, _classes(notes, what), **parts, sha256=checkpoint.sha256(path))


def of_foreign(foreign: ForeignWeights, path: str | os.PathLike, what: str) -> Saved:
    """Weights of another program as a file of ours; CheckpointError where they are no floats that are finite."""
    graph = foreign.fit.graph
    notes = {"model": graph.name, "options": json.dumps(graph.options), "size": f"{foreign.size or graph.size}"}
    return Saved(what, foreign.fit.weights(what), notes, sha256=checkpoint.sha256(path), foreign=foreign)


def of_onnx(path: str | os.PathLike, what: str) -> Saved:
    """An ONNX model as a file of ours; CheckpointError as `formats.onnx.load_onnx`."""
    file = onnx.read(path)
    own = onnx.own_map(file)
    graph, notes = onnx.load_onnx(file, size=None if own else OPEN), onnx.said_in(file)
    parts: dict[str, Any] = {part: _object(notes[part], part, what) for part in PARTS if part in notes}
    found = Saved(what, graph.weights, notes, _classes(notes, what), **parts, sha256=checkpoint.sha256(path))
    graph.pixels = found.pixels or graph.pixels
    told = {"model": graph.name, "graph": written.written(graph)} | ({"size": f"{own}"} if own else {})
    return replace(found, notes=notes | told)


def of_tflite(path: str | os.PathLike, what: str) -> Saved:
    """A TensorFlow Lite model as a file of ours; CheckpointError as `formats.tflite.read_tflite`."""
    graph = tflite.read_tflite(path, what).graph
    notes = {"model": graph.name, "graph": written.written(graph), "size": f"{graph.size}"}
    return Saved(what, graph.weights, notes, sha256=checkpoint.sha256(path))


def said(**parts: Mapping[str, Any]) -> dict[str, str]:
    """Metadata of the parts that are given, none of them empty, as `described` reads them."""
    return {part: json.dumps(value, sort_keys=True) for part, value in parts.items() if value and part in PARTS}


def _object(text: str, part: str, what: str) -> Mapping[str, Any]:
    """The JSON object of one part."""
    found = files.parsed(text, f"'{part}' in the metadata of {what}", CheckpointError)
    if not isinstance(found, dict):
        raise CheckpointError(f"'{part}' in the metadata of {what} is no JSON object: {quoted(text)!r}")
    return found


def _classes(notes: Mapping[str, str], what: str) -> tuple[str | None, ...]:
    """The names of a file's classes. A text that is no list of names is of a program of the user's own, and is none."""
    text = notes.get("classes", "")
    if not text.startswith("["):
        return ()
    found = files.parsed(text, f"'classes' in the metadata of {what}", CheckpointError)
    if not all(isinstance(name, str | None) for name in found):
        raise CheckpointError(f"'classes' in the metadata of {what} are no names: {quoted(text)!r}")
    return tuple(None if name is None else quoted(name) for name in found)


def _written(saved: Saved) -> Graph:
    """The net that a file writes down."""
    graph = written.read(saved.notes["graph"], saved.path)
    if graph.size is None or len(graph.shape(graph.output)) != 2:
        raise CheckpointError(f"{saved.path} holds a net that takes no images or tells no classes")
    return graph


def _as_it_is(saved: Saved, classes: int | None, size: tuple[int, int] | None, channels: int | None) -> Graph:
    """A net of whole numbers, which were found for what it takes and tells."""
    graph = _written(saved)
    own = graph.shape(graph.output)[-1]
    for what, asked, has in (
        ("classes", classes or own, own), ("size", size or graph.size, graph.size),
        ("channels", channels or graph.channels, graph.channels),
    ):  # fmt: skip
        if asked != has:
            raise CheckpointError(
                f"{saved.path} holds whole numbers that were found for {what} {_told(has)}, so that it cannot be used "
                f"with {_told(asked)}"
            )
    return graph


def _told(value) -> str:
    """A number, or a size as 128x96."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def elements(graph: Graph) -> int:
    """How many numbers its parameters are."""
    return sum(math.prod(p.shape) for p in graph.parameters.values())
