"""What a training step costs, before it runs: operations, bytes and seconds from SymPy formulas of its passes."""

from .closed_form import symbolic
from .predict import Estimate, estimate

__all__ = ["Estimate", "estimate", "symbolic"]
