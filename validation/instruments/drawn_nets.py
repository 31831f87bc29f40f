"""Drawn nets under drawn plans of every method: what `validation.instruments.drawn` compares of a whole step.

A seed gives a small net of any of the operators, the methods (each one in turn, then each pair that combines, then
three and more rules on one convolution), their settings, optimizer, loss, batch norm, batch and backend. Operators and
methods of other packages are among them once they are registered: methods as they state it
(`refimpl.methods.registry`), operators whose module has `drawn_in(g, pick, name, x)`, which adds a node `name` on the
map x and returns its tensor.
"""

import itertools
from dataclasses import dataclass, replace
from functools import partial

import numba
import numpy as np

import refimpl as ri
from refimpl.compiler.program import Program
from refimpl.graph import INPUT, Graph
from refimpl.methods.registry import KINDS, known, of_kind
from refimpl.ops import operator_module, operators
from refimpl.plan import combinations
from refimpl.plan.plan import counted
from refimpl.surgery.for_step import outlined_for
from refimpl.training.trainer import initial

from .drawn_passes import Pick, picker


@dataclass(frozen=True)
class NetCase:
    """A compiled step, samples for it and weights; n: samples of the batch whose operations are
    compared, all of them half of the time.
    """

    methods: tuple[str, ...]
    program: Program
    x: np.ndarray
    y: np.ndarray
    parameters: dict[str, np.ndarray]
    n: int

    def __str__(self) -> str:
        """Net and plan as text."""
        p = self.program
        nodes = ", ".join(f"{n.name} {dict(n.attrs) or ''}".strip() for n in p.graph.nodes)
        return (
            f"input {p.size[0]}x{p.size[1]}x{p.graph.channels}, batch {p.batch}, {p.backend}, {p.threads} threads, "
            f"operations of {self.n} samples\n{nodes}\n{p.plan}"
        )


def sets() -> list[tuple[str, ...]]:
    """The methods of a plan, in turn: each, each pair that combines, and each larger set of rules that do."""
    pairs, rules = combinations.pairs(), of_kind("rule")
    larger = (s for n in range(3, len(rules) + 1) for s in itertools.combinations(rules, n))
    together = (s for s in larger if all(pairs[pair].supported for pair in itertools.combinations(s, 2)))
    return [*((m,) for m in known()), *(pair for pair, found in pairs.items() if found.supported), *together]


def methods_of(seed: int) -> tuple[str, ...]:
    """The methods of a seed."""
    found = sets()
    return found[seed % len(found)]


def net_case(seed: int) -> NetCase:
    """The net and plan of a seed."""
    methods = methods_of(seed)
    pick = picker("net", seed)
    if any(known()[m].states.kind == "step" and known()[m]().quantizes is not None for m in methods):
        graph = bare(pick)
    else:
        graph = net(pick, residual=any(known()[m].states.kind == "depth" for m in methods))
    plan = plan_of(pick, graph, methods)
    graph = outlined_for(plan.step, graph)
    batch = pick(2, 6) if plan.batch_norm == "train" or plan.strategy.nets else pick(1, 6)
    backend = ("fast", "fast", "reference")[pick(0, 2)]
    threads = min(pick(1, 2), numba.config.NUMBA_NUM_THREADS)
    program = ri.compile(graph, plan, batch, backend=backend, threads=threads)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, *graph.size, graph.channels)).astype(np.float32)
    outputs = graph.shape(graph.output)[1]
    y = rng.integers(0, outputs, batch) if plan.loss != "mse" else rng.normal(size=(batch, outputs)).astype(np.float32)
    return NetCase(methods, program, x, y, initial(program, seed), (batch, pick(1, batch))[pick(0, 1)])


def net(pick: Pick, residual: bool) -> Graph:
    """A small net of one to four blocks and a classifier; residual: one of them must be a residual block."""
    g = Graph("drawn", (pick(1, 9), pick(2, 10)), pick(1, 4))
    kinds = [(plain, plain, depthwise, shortcut, pooled, gated, attended)[pick(0, 6)] for _ in range(pick(1, 4))]
    if residual and shortcut not in kinds:
        kinds.append(shortcut)
    x = INPUT
    if kinds[0] is not plain:
        x = plain(g, pick, "stem", x)
    for i, kind in enumerate(kinds):
        x = kind(g, pick, f"b{i}", x)
    if pick(0, 1):
        x = g.global_avg_pool("mean", x)
    else:
        x = g.flatten("flat", x)
    if not pick(0, 2):
        x = g.relu("hidden.relu", g.linear("hidden", x, pick(1, 6)))
    if not pick(0, 2):
        x = g.dropout("drop", x, pick(0, 9) / 10)
    g.linear("fc", x, pick(2, 5), bias=bool(pick(0, 3)))
    return g


def bare(pick: Pick) -> Graph:
    """A small net of what has a form in whole numbers of every kind: no norms, windows that do not overlap."""
    g = Graph("drawn", (pick(4, 9), pick(4, 9)), pick(1, 4))
    x = INPUT
    for i in range(pick(1, 3)):
        channels = g.shape(x)[3]
        groups = (1, channels)[pick(0, 1)]
        pad = pick(0, 1)
        kernel = tuple(pick(1, min(3, n + 2 * pad)) for n in g.shape(x)[1:3])
        y = g.conv2d(f"b{i}", x, groups * pick(1, 3), kernel, pad=pad, groups=groups, bias=bool(pick(0, 1)))
        x = g.relu(f"b{i}.relu", y) if pick(0, 1) else y
    if pick(0, 1):
        y = g.relu("branch.relu", g.conv2d("branch", x, g.shape(x)[3], 3, pad=1))
        x = g.add("sum", x, y)
    window = tuple(min(2, n) for n in g.shape(x)[1:3])
    x = (g.max_pool, g.avg_pool)[pick(0, 1)]("pool", x, window)
    x = g.global_avg_pool("mean", x) if pick(0, 1) else g.flatten("flat", x)
    if pick(0, 1):
        x = g.dropout("drop", g.relu("hidden.relu", g.linear("hidden", x, pick(1, 6))), 0.5)
    g.linear("fc", x, pick(2, 5), bias=bool(pick(0, 1)))
    return g


def plain(g: Graph, pick: Pick, name: str, x: str, channels: int | None = None, stride: bool = True) -> str:
    """A convolution of any geometry that fits, with or without groups, batch norm and rectifier."""
    before = g.shape(x)[3]
    groups = [d for d in (1, 1, 2, 3) if before % d == 0 and (channels or d) % d == 0]
    groups = groups[pick(0, len(groups) - 1)]
    channels = channels or groups * pick(1, 4)
    kernel = pick(1, 3), pick(1, 3)
    strides = (pick(1, 2), pick(1, 2)) if stride else (1, 1)
    pad = padding(g, pick, x, kernel) if stride else "same"
    dilation = (pick(1, 2), pick(1, 2)) if pad == "same" else (1, 1)
    y = g.conv2d(name, x, channels, kernel, strides, pad, dilation, groups, bool(pick(0, 1)))
    return activated(g, pick, name, y)


def padding(g: Graph, pick: Pick, x: str, kernel: tuple[int, int]):
    """Rows and columns around a map into which a kernel then fits, or "same"."""
    size = g.shape(x)[1:3]
    if pick(0, 1):
        return "same"
    return tuple((max(0, k - n) + pick(0, 1), pick(0, 1)) for k, n in zip(kernel, size, strict=True))


def activated(g: Graph, pick: Pick, name: str, y: str) -> str:
    """The map after batch norm, rectifier, block pruning or what draws itself, each of them there or not."""
    if pick(0, 2):
        y = g.batch_norm(f"{name}.bn", y)
    kind = pick(0, 7)
    if kind > 5:
        others = [node for node in (getattr(operator_module(op), "drawn_in", None) for op in operators()) if node]
        return others[pick(0, len(others) - 1)](g, pick, f"{name}.other", y)
    if kind < 3:
        return g.relu(f"{name}.relu", y)
    if kind == 3:
        return g.relu6(f"{name}.relu6", y)
    return g.block_prune(f"{name}.prune", y, pick(1, 3), pick(0, 5) / 10) if kind == 4 else y


def depthwise(g: Graph, pick: Pick, name: str, x: str) -> str:
    """A depthwise convolution and a pointwise one."""
    channels = g.shape(x)[3]
    y = g.conv2d(f"{name}.dw", x, channels, pick(2, 3), pick(1, 2), "same", groups=channels, bias=bool(pick(0, 1)))
    y = activated(g, pick, f"{name}.dw", y)
    return activated(g, pick, name, g.conv2d(name, y, pick(1, 6), 1, bias=bool(pick(0, 1))))


def shortcut(g: Graph, pick: Pick, name: str, x: str) -> str:
    """A residual block whose branch ends in a batch norm or a convolution, with a projection or without."""
    channels = g.shape(x)[3] if pick(0, 1) else pick(1, 6)
    around = x if channels == g.shape(x)[3] else g.conv2d(f"{name}.down", x, channels, 1)
    y = plain(g, pick, f"{name}.first", x, stride=False)
    y = g.conv2d(f"{name}.last", y, channels, pick(1, 3), pad="same", bias=bool(pick(0, 1)))
    if pick(0, 1):
        y = g.batch_norm(f"{name}.last.bn", y)
    return g.relu(f"{name}.relu", g.add(f"{name}.sum", y, around))


def pooled(g: Graph, pick: Pick, name: str, x: str) -> str:
    """A maximum or mean of windows."""
    window = tuple(pick(1, min(3, n)) for n in g.shape(x)[1:3])
    pad = tuple((pick(0, w // 2), pick(0, w // 2)) for w in window)
    kind = (g.max_pool, g.avg_pool)[pick(0, 1)]
    return kind(name, x, window, (pick(1, 2), pick(1, 2)), pad, ceil=bool(pick(0, 1)))


def gated(g: Graph, pick: Pick, name: str, x: str) -> str:
    """A squeeze-and-excitation block, or the product or the difference of two branches."""
    channels, kind = g.shape(x)[3], pick(0, 3)
    if kind > 1:
        return (g.mul, g.sub)[kind - 2](name, x, plain(g, pick, f"{name}.branch", x, channels, stride=False))
    y = g.relu(f"{name}.relu", g.linear(f"{name}.squeeze", g.global_avg_pool(f"{name}.mean", x), pick(1, 3)))
    return g.scale_channels(name, x, g.sigmoid(f"{name}.gate", g.linear(f"{name}.excite", y, channels)))


def attended(g: Graph, pick: Pick, name: str, x: str) -> str:
    """Pixels of a row that attend to each other, or weights beside the channels, some of which are left out again."""
    channels = g.shape(x)[3]
    if pick(0, 1):
        return g.matmul(name, g.softmax(f"{name}.shares", g.matmul(f"{name}.scores", x, x, True)), x)
    count = pick(1, 3)
    return g.channel_slice(name, g.attach(f"{name}.beside", x, count, bool(pick(0, 1))), pick(0, count), channels)


def judge(g: Graph, pick: Pick, outputs: int) -> Graph:
    """A small net for the input of a net, trained with batch statistics."""
    f = Graph("judge", g.size, g.channels)
    x = f.relu("relu", f.batch_norm("bn", f.conv2d("conv", INPUT, pick(1, 4), 3, pad=1)))
    f.linear("fc", f.global_avg_pool("mean", x), outputs)
    return f


def plan_of(pick: Pick, g: Graph, methods: tuple[str, ...]) -> ri.Plan:
    """A plan of these methods for a net, everything else drawn."""
    kinds: dict[str, list[type]] = {kind: [] for kind in KINDS}
    for m in methods:
        kinds[known()[m].states.kind].append(known()[m])

    def made(kind: str) -> list:
        return [m.drawn(pick, partial(judge, g, pick)) if hasattr(m, "drawn") else m() for m in kinds[kind]]

    instances = next(iter(made("instances")), None)
    decay = pick(0, 1) * 0.01
    if any(known()[m].states.plain_sgd for m in methods) or not pick(0, 2):
        optimizer = ri.SGD(lr=0.01, weight_decay=decay)
    elif pick(0, 1):
        optimizer = ri.SGD(lr=0.01, momentum=0.9, nesterov=bool(pick(0, 1)), weight_decay=decay)
    else:
        optimizer = ri.Adam(lr=0.01, weight_decay=decay, decoupled=bool(pick(0, 1)))
    several = len(counted(g))
    mse = instances is None and not pick(0, 3)
    weights = tuple(pick(1, 8) / 4 for _ in range(g.shape(g.output)[1])) if not mse and pick(0, 1) else None
    step = ri.Backprop(optimizer, clip_norm=pick(1, 9) / 3 if pick(0, 1) else None)
    steps = made("step")
    if any(m.quantizes is not None for m in steps):  # whole numbers have plain settings alone
        optimizer, mse, weights = ri.SGD(lr=0.05), False, None
    steps, whole = [replace(m, optimizer=optimizer) for m in steps], any(m.quantizes is not None for m in steps)
    return ri.Plan(
        "all" if pick(0, 1) or whole else pick(0, several),
        made("rule"),
        next(iter(steps), step),
        batch_norm="frozen" if kinds["bias"] or steps or pick(0, 1) else "train",
        train_bias=bool(pick(0, 1)),
        bias_only=bool(kinds["bias"]),
        instances=instances,
        depth=next(iter(made("depth")), None),
        loss="mse" if mse else "softmax_cross_entropy",
        label_smoothing=0.0 if mse or whole else pick(0, 1) * 0.1,
        class_weights=weights,
    )
