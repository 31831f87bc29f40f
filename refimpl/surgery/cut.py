"""A graph in two: the frozen part, whose maps never change and can be computed once, and the part that learns.

Training the tail on the head's maps gives the steps of training the whole net, as long as the head is frozen and the
samples are not drawn anew each time (no augmentation): the head then runs once over the data, not once an epoch. What
is drawn differs, by dropout or as a forward gradient's direction: draws go by the node's place in the graph.
"""

from ..graph import INPUT, Graph
from ..plan.plan import Plan, roles


def frozen_until(graph: Graph, plan: Plan, features: bool = False) -> str | None:
    """The last map that frozen layers alone make and on which alone all later nodes stand; None where there is none.

    features: not only a map (N, H, W, C) will do, but also what is made of one, such as its mean (N, C).
    """
    trained, last = plan.trained(graph), None
    for i, node in enumerate(graph.nodes):
        if node.name in trained:
            break
        later = {tensor for n in graph.nodes[i:] for tensor in n.outputs}
        if (features or len(graph.shape(node.name)) == 4) and all(
            later.issuperset(n.inputs) for n in graph.nodes[i + 1 :]
        ):
            last = node.name
    return last


def cut(graph: Graph, tensor: str) -> tuple[Graph, Graph]:
    """(head, tail): the nodes up to one that makes `tensor`, and those after it, which read it as their input.

    Both keep the nodes' names and their share of the weights. ValueError where no node before the last makes it, or
    where a later node reads another tensor of the head too.
    """
    names = [n.name for n in graph.nodes]
    if tensor not in names[:-1]:
        raise ValueError(f"{graph.name} can be cut at the map or the features of a node, but {tensor!r} are none")
    at = names.index(tensor) + 1
    before = {INPUT, *(t for node in graph.nodes[:at] for t in node.outputs)} - {tensor}
    for node in graph.nodes[at:]:
        crossing = [x for x in node.inputs if x in before]
        if crossing:
            raise ValueError(f"{graph.name} cannot be cut at {tensor}: the later node {node.name} reads {crossing[0]}")
    head = _begun(f"{graph.name} up to {tensor}", graph, INPUT)
    head.pixels = graph.pixels
    tail = _begun(f"{graph.name} from {tensor}", graph, tensor)
    tail.classes = graph.classes
    tail.classifier = frozenset(name for name, role in roles(graph).items() if role == "always")
    for part, nodes in ((head, graph.nodes[:at]), (tail, graph.nodes[at:])):
        for node in nodes:
            inputs = tuple(INPUT if part is tail and x == tensor else x for x in node.inputs)
            part.copy_node(graph, node, inputs)
        part.weights = {p: w for p, w in graph.weights.items() if p in part.parameters}
    return head, tail


def _begun(name: str, graph: Graph, tensor: str) -> Graph:
    """A graph without nodes whose input map is like a tensor of `graph`."""
    begun, like = Graph(name), graph.tensors[tensor]
    q = like.quantized
    for p in (q.scale, q.zero_point) if q else ():
        if p in graph.parameters:
            begun.add_parameter(p, graph.parameters[p])
    begun.add_input(INPUT, like.shape[1:], like.dtype, like.quantized)
    return begun
