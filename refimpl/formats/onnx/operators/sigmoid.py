"""A sigmoid; with the product of its input and its output behind it, a silu."""

from ..walk import Step

OPERATORS = ("Sigmoid",)


def convert(step: Step) -> None:
    """A sigmoid, or a silu where nothing but that product reads it."""
    x, product = step.tensor(0), step.only_consumer("Mul")
    if product is not None and set(product.input) == {step.node.input[0], step.node.output[0]}:
        step.give(step.graph.silu(step.name, x.tensor), x.axes, x.mixed)
        step.taken_with(product)
    else:
        step.give(step.graph.sigmoid(step.name, x.tensor), x.axes, x.mixed)
