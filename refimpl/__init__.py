"""Train neural networks in NumPy and Numba: explicit forward and backward passes, and no framework."""

from . import models, spin
from .graph import Graph
from .methods.baselines import HardExamples, RandomSkip
from .methods.error_map_pruning import ErrorMapPruning
from .methods.gradient_filter import GradientFilter
from .methods.instance_filter import InstanceFilter
from .methods.sparse_update import SparseUpdate
from .methods.stochastic_depth import StochasticDepth
from .optim import SGD, Adam, Schedule
from .passes import ShapeError
from .plan import Backprop, Plan
from .program import MemoryLimitError, Program, compile
from .train import NonFiniteError, Progress, Trainer

__all__ = [
    "SGD", "Adam", "Backprop", "ErrorMapPruning", "GradientFilter", "Graph", "HardExamples", "InstanceFilter",
    "MemoryLimitError", "NonFiniteError", "Plan", "Program", "Progress", "RandomSkip", "Schedule", "ShapeError",
    "SparseUpdate", "StochasticDepth", "Trainer", "compile", "models",
]  # fmt: skip

spin.bound()  # before a kernel starts threads
