"""Pre-trained nets from `.npz` files of other programs, told apart by the arrays that they hold."""

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..checkpoint import CheckpointError
from ..data.arrays import reason
from ..graph import Graph
from . import int8_nets, keras_names


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Every array of a `.npz`; CheckpointError where it cannot be read or holds a value that is not finite."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise CheckpointError(f"the weights {path} are no .npz file, or it is truncated; copy it again")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except CheckpointError:
        raise
    except OSError as e:
        raise CheckpointError(f"cannot read the weights {path}: {e.strerror or e}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as e:
        raise CheckpointError(f"the weights {path} are damaged or no arrays of numbers: {reason(e)}") from None
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CheckpointError(f"{name} of {path} holds NaN or infinite values: such weights cannot be adapted")
    return arrays


def load_npz(path: str | os.PathLike, classes: int | None = None, size: tuple[int, int] | None = None) -> Graph:
    """The net of a `.npz`: Keras's MobileNetV2 (`keras_names`) or a quantized microcontroller net (`int8_nets`).

    classes, size: default the file's own; with another number of classes the classifier starts from the seed. Raises
    CheckpointError in one sentence where the file is neither or does not fit.
    """
    arrays = read_npz(path)
    if int8_nets.STRUCTURE in arrays:
        return int8_nets.from_int8(arrays, classes, size, what=str(path))
    if keras_names.FIRST in arrays:
        return keras_names.from_keras(arrays, classes, size, what=str(path))
    raise CheckpointError(
        f"{path} holds no net that is known: it has neither {keras_names.FIRST} (Keras's MobileNetV2) nor "
        f"{int8_nets.STRUCTURE} (a quantized microcontroller net)"
    )


__all__ = ["load_npz", "read_npz"]
