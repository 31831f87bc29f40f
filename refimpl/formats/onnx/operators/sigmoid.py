"""A sigmoid; with the product of its input and its output behind it, a silu."""

from ..walk import OnnxNode

OPERATORS = ("Sigmoid",)


def convert(here: OnnxNode) -> None:
    """A sigmoid, or a silu where nothing but that product reads it."""
    x, product = here.tensor(0), here.only_consumer("Mul")
    if product is not None and set(product.input) == {here.node.input[0], here.node.output[0]}:
        here.like(here.graph.silu(here.name, x.tensor), x)
        here.taken_with(product)
    else:
        here.like(here.graph.sigmoid(here.name, x.tensor), x)
