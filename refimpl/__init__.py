"""Train neural networks in NumPy and Numba: explicit forward and backward passes, and no framework."""

from . import models
from .graph import Graph
from .methods.gradient_filter import GradientFilter
from .optim import SGD, Adam, Schedule
from .passes import ShapeError
from .plan import Backprop, Plan
from .program import MemoryLimitError, Program, compile
from .train import NonFiniteError, Progress, Trainer

__all__ = [
    "SGD", "Adam", "Backprop", "GradientFilter", "Graph", "MemoryLimitError", "NonFiniteError", "Plan", "Program",
    "Progress", "Schedule", "ShapeError", "Trainer", "compile", "models",
]  # fmt: skip
