"""ONNX models: `load_onnx` makes a Graph of a file, `supported` says what of a file can train.

One converter an operator of ONNX, in a file of its own of `operators`, found by its name.
"""

from .importing import imported, load_onnx, own_map, said_in
from .model_file import ModelFile, read
from .value import Imported, Told
from .whole import holds_quantized, load_whole, rewritten

__all__ = [
    "Imported", "ModelFile", "Told", "holds_quantized", "imported", "load_onnx", "load_whole", "own_map", "read",
    "rewritten", "said_in",
]  # fmt: skip
