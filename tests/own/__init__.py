"""Operators, methods and strategies of the tests' own, as another package would add them."""

import pkgutil
from contextlib import contextmanager

from costmodel.formulas import cost

NAMES = {module.name for module in pkgutil.iter_modules(__path__)}  # what other tests leave out of the library's own


@contextmanager
def priced(operator, **costs):
    """Register costs of passes while this is entered: what other tests see is the library's own."""
    cost.register(operator, **costs)
    try:
        yield
    finally:
        for name in costs:
            del cost.COSTS[operator, name]
