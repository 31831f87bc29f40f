"""Pre-trained nets from `.npz` files of other programs, told apart by the arrays that they hold."""

import os
from collections.abc import Callable

import numpy as np

from ..graph import Graph
from ..storage import files
from ..storage.checkpoint import CheckpointError
from . import efficientnet_names, int8_nets, int8_whole, keras_names


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
    """The net of a `.npz`: Keras's MobileNetV2, EfficientNet-Lite0 or a quantized microcontroller net.

    Their names are those of `keras_names`, `efficientnet_names` and `int8_nets`.

    classes, size: default the file's own; with another number of classes the classifier starts from the seed. Raises
    CheckpointError in one sentence where the file is neither or does not fit. whole: a quantized net stays one of whole
    numbers (`int8_whole`); what was never quantized is refused.
    """
    arrays = read_npz(path)
    if int8_nets.STRUCTURE in arrays:
        load = int8_whole.whole_from_int8 if whole else int8_nets.from_int8
        return load(arrays, classes, size, what=str(path))
    floats: dict[str, Callable[..., Graph]] = {
        keras_names.FIRST: keras_names.from_keras,
        efficientnet_names.FIRST: efficientnet_names.from_efficientnet,
    }
    for first, read in floats.items():
        if first in arrays:
            if whole:
                raise CheckpointError(
                    f"{path} holds floats: refimpl.surgery.quantize makes whole numbers of such a net"
                )
            return read(arrays, classes, size, what=str(path))
    raise CheckpointError(
        f"{path} holds no net that is known: it has neither {keras_names.FIRST} (Keras's MobileNetV2), "
        f"{efficientnet_names.FIRST} (EfficientNet-Lite0) nor {int8_nets.STRUCTURE} (a quantized microcontroller net)"
    )


__all__ = ["holds_whole", "load_npz", "read_npz"]
