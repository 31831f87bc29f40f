"""Operators, methods and strategies of the tests' own, as another package would add them."""

from contextlib import contextmanager

from costmodel.formulas import cost


@contextmanager
def priced(operator, **costs):
    """Register costs of passes while this is entered: what other tests see is the library's own."""
    cost.register(operator, **costs)
    try:
        yield
    finally:
        for name in costs:
            del cost.COSTS[operator, name]
