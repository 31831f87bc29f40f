"""Training on small devices, its costs known before: `load`, `adapt`, `cost`; and the command line.

`gradledger.adapt(data="photos/", model="mobilenet_v2.npz")` is the command `gradledger adapt`, `gradledger.load(path)`
a model of what it wrote; `__version__` is the package's. `adapt` and `cost` are modules too, which can be called
(`gradledger.called`). Nothing is imported, above all not Numba, until it is asked for.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .door import adapt, cost, load

__all__ = ["adapt", "cost", "load"]


def __getattr__(name: str):
    """What the package offers, on demand (PEP 562)."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("gradledger")
    if name == "load":
        return importlib.import_module("gradledger.door").load
    if name in __all__:
        return importlib.import_module(f"gradledger.{name}")
    raise AttributeError(f"module 'gradledger' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
