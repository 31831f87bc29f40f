"""A net for another number of classes, or for maps of another size: the same nodes, and a new classifier."""

from ..graph import INPUT, Graph, Parameter
from ..storage.checkpoint import CheckpointError


def of_classifier(graph: Graph) -> list[str]:
    """The parameters with a value, or a row of them, for each class: those of the last node with any, and their scales.

    Their last axis is that of the classes.
    """
    classes = graph.shape(graph.output)[-1]
    node = next((node for node in reversed(graph.nodes) if node.params), None)
    names = list(node.params.values()) if node else []
    for q in (graph.parameters[name].quantized for name in tuple(names)):
        names += [n for n in (q.scale, q.zero_point) if n in graph.parameters] if q else []
    return [n for n in dict.fromkeys(names) if graph.parameters[n].shape[-1:] == (classes,)]


def changed(graph: Graph, classes: int | None, size: tuple[int, int] | None, channels: int | None, what: str) -> Graph:
    """A graph of floats with another size of its maps, or another number of classes; its channels are its own."""
    if channels not in (None, graph.channels):
        raise CheckpointError(f"{what} takes maps with C={graph.channels}, not C={channels}")
    heads = {}
    if classes is not None and classes != graph.shape(graph.output)[-1]:
        for name in of_classifier(graph):
            parameter = graph.parameters[name]
            heads[name] = Parameter((*parameter.shape[:-1], classes), parameter.init, parameter.fan_in)
    if not heads and size in (None, graph.size):
        return graph
    new = Graph(graph.name, size or graph.size, graph.channels)
    if new.inputs != graph.inputs or graph.tensors[INPUT].dtype is not None:
        raise CheckpointError(f"{what} has inputs of its own, so that it can be used as it is only")
    new.options, new.pixels, new.classes, new.stored = graph.options, graph.pixels, graph.classes, graph.stored
    for node in graph.nodes:
        new.copy_node(graph, node, node.inputs, heads)
    new.outputs = graph.outputs
    return new
