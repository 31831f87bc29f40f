"""ONNX models: `load_onnx` makes a Graph of a file, `supported` says what of a file can train.

One converter an operator of ONNX, in a file of its own of `operators`, found by its name.
"""

from .importing import imported, load_onnx, own_map, said_in
from .value import Imported, Told

__all__ = ["Imported", "Told", "imported", "load_onnx", "own_map", "said_in"]
