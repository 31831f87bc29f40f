"""Train neural networks in NumPy and Numba: explicit forward and backward passes, and no framework."""

from . import backends, models, surgery
from .compiler.compile import compile
from .compiler.program import MemoryLimitError, Program
from .graph import Graph
from .kernels import spin
from .kernels.passes import ShapeError
from .methods.baselines import HardExamples, RandomSkip
from .methods.error_map_pruning import ErrorMapPruning
from .methods.forward_gradient import ForwardGradient
from .methods.gradient_filter import GradientFilter
from .methods.instance_filter import InstanceFilter
from .methods.niti import Niti
from .methods.optim import SGD, Adam, Schedule
from .methods.quantized import QuantizedTraining
from .methods.sparse_update import SparseUpdate
from .methods.stochastic_depth import StochasticDepth
from .plan.plan import Backprop, Plan
from .saved.model import Model, load
from .training.directional import directional_derivative
from .training.trainer import NonFiniteError, Progress, Trainer

__all__ = [
    "SGD", "Adam", "Backprop", "ErrorMapPruning", "ForwardGradient", "GradientFilter", "Graph", "HardExamples",
    "InstanceFilter", "MemoryLimitError", "Model", "Niti", "NonFiniteError", "Plan", "Program", "Progress",
    "QuantizedTraining", "RandomSkip", "Schedule", "ShapeError", "SparseUpdate", "StochasticDepth", "Trainer",
    "backends", "compile", "directional_derivative", "load", "models", "surgery",
]  # fmt: skip

spin.bound()  # before a kernel starts threads
