"""The offline part of dynamic sparse update (arXiv 2503.17959): fewer channels, and activation blocks that are zeroed.

That the paper prunes channels along the dependency graph (DepGraph: Fang et al., "DepGraph: Towards Any Structural
Pruning", CVPR 2023), MobileNetV2 from 3.5 to 2.01 million parameters, and zeroes blocks of small activations is known
to us second-hand. The rules below are derived from our own operators, not taken from the published code.

**Channels.** Every operator says which channels of its output are channels of its input (CHANNELS, `graph`): `conv2d`
and `linear` make new ones; a depthwise convolution, norms, activations, poolings and dropout pass theirs on; `add`
makes those of its two inputs one; `flatten` turns each into H·W features. Channels that are one must go together, with
every slice of every parameter that belongs to them: that is a group. What the graph's input and output consist of
stays, and so do both sides of a grouped convolution that is not depthwise.

Our readings: a channel's importance is the L2 norm over all its slices of trainable parameters (producers, norms and
consumers alike), divided by the mean over its group, so that groups compare; the least important go first, over the
whole graph at once; nothing is trained in between.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..compiler.compile import compile
from ..compiler.ir import Call
from ..graph import INPUT, Graph, Node, Parameter
from ..kernels.passes import canonical
from ..ops import block_prune
from ..plan.plan import counted
from ..training.trainer import Runner, initial


@dataclass(frozen=True, eq=False)
class Member:
    """Where a group's channels stand in a parameter: channel i is `index[i]` (one or more places) along `axis`."""

    parameter: str
    axis: int
    index: np.ndarray  # (channels, places)


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels of one kind: each is a slice of every member, and goes or stays as a whole."""

    members: tuple[Member, ...]
    fixed: str = ""  # why none of them may go; empty where they may

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.members[0].index)

    @property
    def name(self) -> str:
        """The first parameter that they are slices of, and the axis."""
        return f"{self.members[0].parameter} axis {self.members[0].axis}"


class _Labels:
    """A label for each channel of each tensor; coupled channels have one representative (a union-find)."""

    def __init__(self):
        self.parent: list[int] = []
        self.fixed: dict[int, str] = {}  # representative → why it may not go

    def new(self, n: int, fixed: str = "") -> np.ndarray:
        fresh = np.arange(len(self.parent), len(self.parent) + n)
        self.parent += fresh.tolist()
        self.fix(fresh, fixed)
        return fresh

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = i = self.parent[self.parent[i]]
        return i

    def fix(self, labels: Iterable[int], why: str) -> None:
        if why:
            for i in labels:
                self.fixed.setdefault(self.find(i), why)

    def couple(self, a: Iterable[int], b: Iterable[int]) -> None:
        for i, j in zip(a, b, strict=True):
            i, j = self.find(i), self.find(j)
            if i != j:
                self.parent[j] = i
                self.fix((i,), self.fixed.pop(j, ""))


def groups(graph: Graph) -> list[ChannelGroup]:
    """Every group of the dependency graph's coupled channels, those that must stay included, in the order of the graph.

    ValueError where an operator is unknown here: how it passes channels on must be said, not guessed.
    """
    labels = _Labels()
    tensors = {INPUT: labels.new(graph.channels, "they are the graph's input")}
    places: dict[tuple[str, int], np.ndarray] = {}  # (parameter, axis) → labels along it
    for node in graph.nodes:
        x, *others = (tensors[t] for t in node.inputs)
        channels = node.operator.channels
        if channels == "made":
            y = _weighted(graph, node, x, labels, places)
        elif channels == "flattened":
            y = np.tile(x, graph.shape(node.name)[1] // len(x))  # feature (h·W + w)·C + c is of channel c
        elif channels == "kept":
            y = x
            for other in others:
                labels.couple(x, other)
            places |= {(p, 0): x for p in node.params.values()}
        else:
            raise ValueError(
                f"node {node.name} of {graph.name} is a {node.op}, of which prune does not know how channels pass "
                "through it: its file does not state CHANNELS"
            )
        tensors[node.name] = y
    labels.fix(tensors[graph.output], "they are the graph's output")
    return _collect(labels, places)


def _weighted(graph: Graph, node: Node, x: np.ndarray, labels: _Labels, places: dict) -> np.ndarray:
    """Labels of the output of a convolution or linear layer; its parameters are entered into `places`."""
    name = node.params["w"]
    *_, depth, width = graph.parameters[name].shape
    axis = len(graph.parameters[name].shape) - 1
    if depth == len(x):
        places[name, axis - 1] = x
        y = labels.new(width)
    elif depth == 1:
        y = x.repeat(width // len(x))  # depthwise: output channel k is of input channel ⌊k / (K/G)⌋
    else:
        why = f"{node.name} is a convolution of {len(x) // depth} groups of {depth} channels, which prune leaves whole"
        labels.fix(x, why)
        y = labels.new(width, why)
    places |= {(name, axis): y} | ({(node.params["b"], 0): y} if "b" in node.params else {})
    return y


def _collect(labels: _Labels, places: Mapping[tuple[str, int], np.ndarray]) -> list[ChannelGroup]:
    """Channels that are slices of the same parameters, equally often, are one group."""
    channels: dict[int, dict[tuple[str, int], list[int]]] = {}
    for place, along in places.items():
        for i, label in enumerate(along.tolist()):
            channels.setdefault(labels.find(label), {}).setdefault(place, []).append(i)
    kinds: dict[tuple, list[int]] = {}
    for label, at in channels.items():
        kind = (labels.fixed.get(label, ""), *((place, len(i)) for place, i in at.items()))
        kinds.setdefault(kind, []).append(label)
    return [
        ChannelGroup(tuple(Member(*p, np.array([channels[c][p] for c in alike])) for p, _ in kind[1:]), kind[0])
        for kind, alike in kinds.items()
    ]


def trainable(graph: Graph) -> set[str]:
    """Names of the parameters that training changes by a gradient: no running statistics."""
    return {name for n in graph.nodes for local, name in n.params.items() if local in n.operator.params}


def count(graph: Graph) -> int:
    """Number of trainable values."""
    return sum(math.prod(graph.parameters[name].shape) for name in trainable(graph))


def importance(graph: Graph, weights: Mapping[str, np.ndarray], group: ChannelGroup) -> np.ndarray:
    """Importance (channels,) of a group's channels: their L2 norm over all members, divided by its mean in the group.

    float64. Zero where every weight of the group is zero. Our reading, see the head of this file.
    """
    squares, learnt = np.zeros(group.channels), trainable(graph)
    for m in group.members:
        if m.parameter in learnt:
            w = np.moveaxis(np.asarray(weights[m.parameter], np.float64), m.axis, 0)
            squares += (w.reshape(len(w), -1) ** 2).sum(1)[m.index].sum(1)
    norm = np.sqrt(squares)
    return norm / norm.mean() if norm.any() else norm


def prune(
    graph: Graph,
    weights: Mapping[str, np.ndarray],
    share: float | None = None,
    parameters: int | None = None,
    round_to: int = 1,
) -> Graph:
    """A new graph without the least important channels; `weights` holds every parameter of `graph`.

    share: share of the trainable values to remove; parameters: how many may remain; one of the two. Channels go until
    that is met and no longer. round_to: a group that loses channels keeps a multiple of it. One channel of each group
    (or `round_to` of them) always stays. Raises ValueError, with the smallest number that can be reached.
    """
    total = count(graph)
    if (share is None) == (parameters is None):
        raise ValueError("prune takes either share, of the trainable values to remove, or parameters, to remain")
    if share is not None and not 0 <= share < 1:
        raise ValueError(f"share must be at least 0 and below 1, got {share}")
    round_to = canonical("round_to", round_to, 1)
    if round_to < 1:
        raise ValueError(f"round_to must be at least 1, got {round_to}")
    limit = parameters if share is None else math.floor(total * (1 - share))
    _check(graph, weights)

    steps = []  # (importance, group, channels that go together)
    for group in groups(graph):
        score = importance(graph, weights, group)
        order = np.argsort(score, kind="stable")
        first = group.channels % round_to or round_to  # what is left is a multiple
        cut = np.split(order, range(first, group.channels, round_to))
        steps += [] if group.fixed else [(score[chunk].mean(), group, chunk) for chunk in cut[:-1]]
    steps.sort(key=lambda step: step[0])  # within a group they are sorted already, and equal ones keep their order

    shapes = {name: list(graph.parameters[name].shape) for name in sorted(trainable(graph))}
    gone: dict[ChannelGroup, list[int]] = {}
    for _, group, chunk in steps:
        if total <= limit:
            break
        touched = {m.parameter for m in group.members if m.parameter in shapes}
        total -= sum(math.prod(shapes[name]) for name in touched)
        for m in group.members:
            if m.parameter in shapes:
                shapes[m.parameter][m.axis] -= m.index[chunk].size
        total += sum(math.prod(shapes[name]) for name in touched)
        gone.setdefault(group, []).extend(chunk.tolist())
    if total > limit:
        raise ValueError(
            f"{graph.name} has {count(graph):,} trainable values and cannot be pruned to {limit:,}: {total:,} remain "
            f"where each group of channels keeps {round_to}"
        )
    return remove(graph, weights, gone)


def remove(
    graph: Graph, weights: Mapping[str, np.ndarray], channels: Mapping[ChannelGroup, Sequence[int]]
) -> Graph:  # fmt: skip
    """A new graph without the given channels of the given groups of `graph`, with its `weights` sliced (copies).

    ValueError for a group that must stay, for channels that it does not have, and where none would be left.
    """
    _check(graph, weights)
    keep = {name: [np.ones(n, bool) for n in p.shape] for name, p in graph.parameters.items()}
    for group, gone in channels.items():
        which = np.unique(np.asarray(gone, int))
        if group.fixed and len(which):
            raise ValueError(f"no channel of {group.name} may go: {group.fixed}")
        if len(which) and not 0 <= which[0] <= which[-1] < group.channels:
            raise ValueError(f"{group.name} has channels 0 to {group.channels - 1}, but {which.tolist()} are to go")
        if len(which) == group.channels:
            raise ValueError(f"all {group.channels} channels of {group.name} are to go, but one must stay")
        for m in group.members:
            keep[m.parameter][m.axis][m.index[which].reshape(-1)] = False
    sliced = {name: np.ascontiguousarray(weights[name][np.ix_(*axes)]) for name, axes in keep.items()}
    return _copy(graph, sliced)


def _check(graph: Graph, weights: Mapping[str, np.ndarray]) -> None:
    """ValueError where an array is missing or has another shape."""
    for name, p in graph.parameters.items():
        if name not in weights:
            raise ValueError(f"weights has no array {name}, which {graph.name} needs with shape {p.shape}")
        if weights[name].shape != p.shape:
            raise ValueError(f"weights has {name} with shape {weights[name].shape}, but {graph.name} has {p.shape}")


def _copy(graph: Graph, weights: Mapping[str, np.ndarray], after: Iterable[str] = (), **attrs) -> Graph:
    """A new graph with the shapes of `weights`; after the tensors `after`, everybody reads a block_prune of them."""
    new = graph.bare()
    pruned: dict[str, str] = {}
    resized = {name: _resized(p, weights.get(name)) for name, p in graph.parameters.items()}
    for node in graph.nodes:
        new.copy_node(graph, node, [pruned.get(t, t) for t in node.inputs], resized)
        if node.name in after:
            pruned[node.name] = new.block_prune(f"{node.name}.block_prune", node.name, **attrs)
    new.weights = dict(weights)
    return new


def _resized(parameter: Parameter, array: np.ndarray | None) -> Parameter:
    if array is None or array.shape == parameter.shape:
        return parameter
    fan_in = math.prod(array.shape[:-1]) if parameter.init == "he" else parameter.fan_in
    return replace(parameter, shape=array.shape, fan_in=fan_in)


def with_block_pruning(
    graph: Graph, block: int | tuple[int, int], threshold: float, after: Iterable[str] | None = None
) -> Graph:
    """A new graph with a `block_prune` after each of the maps `after`, which all their readers then read instead.

    block: rows and columns, or one number; after: names of tensors, by default every map that a convolution reads, the
    graph's input excepted: that is what its weight gradient would keep. Weights are shared with `graph`.
    Raises ValueError where `after` names no such map, ShapeError for a bad block or threshold.
    """
    maps = {n.name for n in graph.nodes if len(graph.shape(n.name)) == 4}
    after = {graph.node(name).inputs[0] for name in counted(graph)} & maps if after is None else set(after)
    if wrong := sorted(after - maps):
        raise ValueError(f"after names {', '.join(wrong)}, but {graph.name} computes no such map (N, H, W, C)")
    return _copy(graph, graph.weights, after, block=block, threshold=threshold)


@dataclass(frozen=True)
class Zeroed:
    """What block pruning zeroes of one map, over all samples that were run."""

    blocks: int
    zeroed: int
    dense_bytes: int  # of the whole map
    kept_bytes: int  # of the blocks that stay, and of the mask

    @property
    def share(self) -> float:
        """Share of the blocks that are zeroed."""
        return self.zeroed / self.blocks


def zeroed_blocks(graph: Graph, x: np.ndarray, batch: int = 32) -> dict[str, Zeroed]:
    """What each `block_prune` of a graph with weights zeroes at inference on x (M, H, W, C): node name → Zeroed.

    The bytes say what storing only the blocks that stay would take; the compiled program stores maps whole.
    ValueError where the graph has none, lacks a weight, or x does not fit.
    """
    if not any(block_prune.pack_mask in n.operator.passes.values() for n in graph.nodes):
        raise ValueError(f"{graph.name} has no block_prune: make one by with_block_pruning")
    _check(graph, graph.weights)
    if x.ndim != 4 or x.shape[3] != graph.channels or not len(x):
        raise ValueError(f"x must be (M, H, W, {graph.channels}) with M ≥ 1, but its shape is {x.shape}")
    program = compile(graph, None, min(batch, len(x)), x.shape[1:3])
    runner = Runner(program, initial(program, 0))
    found: dict[str, np.ndarray] = {}
    with runner.backend.work(program.threads):
        for start in range(0, len(x), program.batch):
            part = x[start : start + program.batch]
            runner.write(INPUT, len(part), part)
            for launch, ready in zip(program.launches["forward"], runner.prepared("forward", len(part)), strict=True):
                runner.backend.launch([ready])
                for call in launch.covers:
                    if call.passed is block_prune.pack_mask:  # read at once: its memory is used again
                        mask = runner.backend.read(runner.array(call.arrays["mask"], len(part)))
                        found[call.node] = found.get(call.node, 0) + _tally(mask, call)
    return {name: Zeroed(*tally.tolist()) for name, tally in found.items()}


def _tally(mask: np.ndarray, call: Call) -> np.ndarray:
    """The numbers of `Zeroed` for one mask."""
    elements = block_prune.block_sizes(call.sizes, call.attrs).reshape(-1)
    stays = np.unpackbits(mask, axis=1, count=elements.size, bitorder="little")
    size = call.arrays["x"].dtype.itemsize
    dense, kept = len(mask) * int(elements.sum()) * size, int((stays * elements).sum()) * size
    return np.array([stays.size, stays.size - int(stays.sum()), dense, kept + mask.nbytes])
