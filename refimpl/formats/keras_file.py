"""Weights that Keras wrote, as NumPy arrays; Keras is not needed, and nothing of the file is run.

    .h5          of Keras 2, and of Keras 3 by that suffix: arrays at LAYER/…/LAYER/kernel, beside them, where it is a
                 whole model, its layers in words as JSON
    .weights.h5  of Keras 3: arrays at layers/KIND_i/vars/j, counted in the order of the layers
    .keras       a zip archive of such a file and of the layers in words

Of the words two things are used: the size of the input, and whether a layer would run Python of the file's own, which
is refused. What an optimizer or a random generator keeps is left out.
"""

import json
import os
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ..storage import files
from ..storage.checkpoint import CheckpointError
from ..storage.files import quoted
from .hdf5 import read_hdf5
from .keras_names import HEAD

WEIGHTS, WORDS = "model.weights.h5", "config.json"  # in an archive
CONFIG = "model_config"  # the attribute of an .h5 with its layers in words
OPTIMIZERS = ("optimizer", "optimizer_weights", "top_level_model_weights")
GENERATORS = ("seed_generator", "seed_generator_state")
RUNS = "Lambda"  # the layer that is Python code
DENSE_RANK = 2  # axes of the kernel of a dense layer


@dataclass(frozen=True, eq=False)
class KerasArrays:
    """The arrays of a file as `keras_names` calls them: LAYER.kernel, or KIND_i.j where the file counts.

    The only dense layer is called HEAD where layers have names. size: (H, W) of the input where it is said. told: what
    was left out, a sentence each.
    """

    arrays: Mapping[str, np.ndarray]
    size: tuple[int, int] | None
    told: tuple[str, ...]


def read_keras(path: str | os.PathLike, name: str | None = None) -> KerasArrays:
    """The arrays of a file of Keras, read-only; CheckpointError in one sentence where it cannot be used.

    name: how messages call the file, default the path.
    """
    name = str(path if name is None else name)
    what = f"the weights {name}"
    with files.opened(path, what, CheckpointError) as file:
        with files.reading(what, CheckpointError, "are no weights of Keras, or are damaged"):
            zipped = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            raw, told_apart = _unzipped(file, what) if zipped else (_read(file, what), None)
            found = read_hdf5(raw)
            words = found.text(CONFIG) if told_apart is None else told_apart
            if words and len(words) > files.MOST_JSON:
                raise ValueError(f"its layers in words have more than {files.MOST_JSON:,} bytes")
            size = _size(_layers(json.loads(words), name)) if words else None
            kept = {p: a for p, a in found.arrays.items() if not _of_optimizer(p) and not _generated(p)}
            told = ("left out: what its optimizer kept",) if any(map(_of_optimizer, found.arrays)) else ()
            return KerasArrays(_named(kept), size, told)


def _read(file: BinaryIO, what: str) -> bytes:
    size = files.size_of(file)
    files.check_size(size, size, what, CheckpointError)
    return file.read(size)


def _unzipped(file: BinaryIO, what: str) -> tuple[bytes, bytes | None]:
    """Arrays and words of an archive."""
    with zipfile.ZipFile(file) as archive:
        members = {m.filename: m for m in archive.infolist()}
        if WEIGHTS not in members:
            raise ValueError(f"it lacks {WEIGHTS}")
        need = sum(members[name].file_size for name in (WEIGHTS, WORDS) if name in members)
        files.check_size(need, files.size_of(file), what, CheckpointError)
        return archive.read(WEIGHTS), archive.read(WORDS) if WORDS in members else None


def _layers(words, name: str) -> list[Mapping]:
    """The layers that the words name, those of models in it too; CheckpointError where one would run Python."""
    found: list[Mapping] = []
    waiting = [words]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
            if isinstance(value.get("class_name"), str) and isinstance(value.get("config"), dict):
                found.append(value)
    for layer in found:
        own = not str(layer.get("module") or "keras").startswith(("keras", "builtins"))
        if layer["class_name"] == RUNS or own:
            raise CheckpointError(
                f"{name} would run the Python code of its layer {quoted(layer['class_name'])}, which is refused: build "
                "the model of Keras's own layers (Rescaling for pixels), or save its weights alone (save_weights)"
            )
    return found


def _size(layers: list[Mapping]) -> tuple[int, int] | None:
    """Rows and columns of the input, where they are said."""
    for layer in layers:
        shape = layer["config"].get("batch_shape") or layer["config"].get("batch_input_shape")
        if isinstance(shape, list) and len(shape) == 4 and all(type(n) is int and n > 0 for n in shape[1:]):
            return shape[1], shape[2]
    return None


def _of_optimizer(path: str) -> bool:
    return path.split("/")[0] in OPTIMIZERS


def _generated(path: str) -> bool:
    """Is it the state of a random generator, as dropout has one?"""
    return any(part.split(":")[0] in GENERATORS for part in path.split("/"))


def _named(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by the layer's name and their own; by the whole path where two would have the same."""
    short = {path: _name(path) for path in arrays}
    times = Counter(short.values())
    named = {short[path] if times[short[path]] == 1 else path: array for path, array in arrays.items()}
    dense = [n for n, a in named.items() if n.endswith(".kernel") and a.ndim == DENSE_RANK]
    if len(dense) != 1:
        return named
    layer = dense[0].removesuffix(".kernel")
    return {f"{HEAD}{n.removeprefix(layer)}" if n.startswith(f"{layer}.") else n: a for n, a in named.items()}


def _name(path: str) -> str:
    """The name of an array: `model_weights/Conv1/Conv1/kernel:0` is Conv1.kernel, `layers/conv2d/vars/0` conv2d.0."""
    parts = path.split("/")
    local, owner = parts[-1].split(":")[0], parts[-2] if len(parts) > 1 else ""
    if owner == "vars":
        owner = parts[-3] if len(parts) > 2 else ""
    return f"{owner}.{local.replace('depthwise_kernel', 'kernel')}"


__all__ = ["KerasArrays", "read_keras"]
