"""What a training step costs, before it runs: operations, bytes and seconds from SymPy formulas of its passes."""

from importlib import import_module

_HOMES = {"Estimate": "predict", "estimate": "predict", "symbolic": "closed_form"}
__all__ = list(_HOMES)


def __getattr__(name: str):
    """The public names, when first asked for: a training process imports `device.device`, and no SymPy for it."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
