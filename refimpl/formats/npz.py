"""Pre-trained nets from `.npz` files of other programs, told apart by the arrays that they hold."""

import os

import numpy as np

from ..graph import Graph
from ..models import build
from ..storage import files
from ..storage.checkpoint import CheckpointError
from . import int8_nets, int8_whole
from .weight_files import of_arrays


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Every array of a `.npz`; CheckpointError where it cannot be read."""
    with files.archive(path, f"the weights {path}", CheckpointError, "are") as archive:
        return archive.read(list(archive.members))


def holds_whole(path: str | os.PathLike) -> bool:
    """Does a `.npz` hold a net of whole numbers? CheckpointError where it cannot be read."""
    with files.archive(path, f"the weights {path}", CheckpointError, "are") as archive:
        return int8_nets.STRUCTURE in archive.members


def load_npz(
    path: str | os.PathLike, classes: int | None = None, size: tuple[int, int] | None = None, whole: bool = False
) -> Graph:
    """The net of a `.npz`: of floats as `weight_files` knows them, or a quantized microcontroller net (`int8_nets`).

    classes, size: default the file's own; with another number of classes, or where the file has no classifier, it
    starts from the seed. Raises CheckpointError in one sentence where the file is neither or does not fit. whole: a
    quantized net stays one of whole numbers (`int8_whole`); what was never quantized is refused.
    """
    arrays = read_npz(path)
    if int8_nets.STRUCTURE in arrays:
        load = int8_whole.whole_from_int8 if whole else int8_nets.from_int8
        return load(arrays, classes, size, what=str(path))
    fit = of_arrays(arrays, str(path)).fit
    if whole:
        raise CheckpointError(f"{path} holds floats: refimpl.surgery.quantize makes whole numbers of such a net")
    weights, graph = fit.weights(str(path)), fit.graph
    options = {**graph.options, "channels": graph.channels, "size": size or graph.size}
    graph = build(graph.name, classes=classes or fit.classes, **options)
    shapes = {name: p.shape for name, p in graph.parameters.items()}
    graph.weights = {name: array for name, array in weights.items() if array.shape == shapes[name]}
    graph.pixels = fit.pixels
    return graph


__all__ = ["holds_whole", "load_npz", "read_npz"]
