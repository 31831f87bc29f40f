"""Small files of the kinds that real weights and images come in, for tests."""

import json

import numpy as np

from validation.campaign.samples import LABELS, cifar_arrays, streams
from validation.instruments.int8_files import int8_arrays

__all__ = ["LABELS", "cifar_arrays", "int8_arrays", "saved", "streams"]


def saved(path, arrays, structure=None):
    """Write arrays and a structure, where there is one, as `.npz`."""
    extra = {} if structure is None else {"structure": np.array(json.dumps(structure))}
    np.savez(path, **arrays, **extra)
    return path
