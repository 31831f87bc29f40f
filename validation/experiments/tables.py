"""The figures that the four papers print, each computed again from shapes: `gradledger reproduce tables`.

A row passes where the difference is within what the printed digits, and what the paper leaves open, allow: see
`ALLOWED`. Each row says how our figure came about (`papers.KINDS`): that a figure comes out which something was fitted
to shows that the fit holds, not that it is right.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import refimpl as ri
from costmodel import predict
from costmodel.advice import budget
from costmodel.formulas import paper, paper_pruning
from refimpl import models
from refimpl.graph import INPUT, Graph

from . import papers
from .papers import GRADIENT_FILTERING, PublishedStep

NAME = "tables"
# kind of figure → (largest difference, what the difference is in)
ALLOWED = {
    "filtered flops": (0.0015, "relative"),
    "dense flops": (0.004, "relative"),
    "memory": (0.0, "as printed"),
    "share": (0.3, "points"),
    "scoring": (0.05, "points"),
    "training macs": (0.02, "relative"),
    "count": (0.0, "exact"),
    "about": (0.05, "relative"),
    "at least": (0.0, "one-sided"),
}


@dataclass(frozen=True)
class Row:
    """A printed figure and ours. kind: of ALLOWED. origin: how ours came about. note: what is ours in it."""

    source: str
    what: str
    published: float
    ours: float
    unit: str
    kind: str
    origin: papers.Origin
    note: str = ""

    @property
    def difference(self) -> float:
        """How far ours is off, in what ALLOWED says."""
        measure = ALLOWED[self.kind][1]
        if measure == "relative":
            return self.ours / self.published - 1
        return self.ours - self.published

    @property
    def ok(self) -> bool:
        """Is the difference allowed?"""
        allowed, measure = ALLOWED[self.kind]
        return self.difference >= 0 if measure == "one-sided" else abs(self.difference) <= allowed + 1e-12


def run(output: Path, watch: Callable[[int, int, str], None]) -> dict:
    """Compute every row; the record has `reason` where one is off. output: unused, the record is the caller's."""
    rows = []
    for i, part in enumerate(PARTS):
        watch(i, len(PARTS), part.__name__.replace("_", " "))
        rows += part()
    off = [f"{r.what} ({r.source}) is {r.ours:g} {r.unit}, printed {r.published:g}" for r in rows if not r.ok]
    kinds = Counter(r.origin.kind for r in rows)
    return {
        "name": NAME,
        "published": {f"{r.source}: {r.what}": r.published for r in rows},
        "measured": {f"{r.source}: {r.what}": r.ours for r in rows},
        "rows": [asdict(r) | {"difference": r.difference, "allowed": ALLOWED[r.kind], "ok": r.ok} for r in rows],
        "ok": not off,
        "origins": {kind: kinds[kind] for kind in papers.KINDS},
        "goal": f"{len(rows) - len(off)} of {len(rows)} printed figures reproduced: "
        + ", ".join(f"{kinds[kind]} {kind}" for kind in papers.KINDS),
        **(
            {"reason": f"{len(off)} of {len(rows)} printed figures are not reproduced: {'; '.join(off)}"} if off else {}
        ),
    }


def gradient_filtering() -> list[Row]:
    """Tables 2 and 11 of arXiv 2301.00330, in its counting (`costmodel.formulas.paper`)."""
    return [found for row in GRADIENT_FILTERING for found in _step(row)]


def _step(row: PublishedStep) -> list[Row]:
    graph = models.build(row.model, classes=row.classes)
    rules = [ri.GradientFilter(row.patch)] if row.patch else []
    price = paper.price(graph, ri.Plan(train_last=row.train_last, rules=rules))
    method = f"patch {row.patch}" if row.patch else "dense"
    what = f"{row.model}, {row.classes} classes, last {row.train_last}, {method}"
    kind = "filtered flops" if row.patch else "dense flops"
    rows = [Row(row.source, f"backward of {what}", row.flops, price.flops, "flops", kind, row.origin)]
    if row.memory:
        kept = float(row.printed(price.saved_bytes))
        rows.append(Row(row.source, f"memory of {what}", float(row.memory), kept, row.unit, "memory", papers.STORED))
    return rows


def slim_lenet_unpadded() -> Graph:
    """The slim LeNet that fits both printed shares: as the library's, without padding and with 200 hidden outputs."""
    g = Graph("slim_lenet_unpadded", (28, 28), 1)
    x = INPUT
    for i, width in enumerate((6, 16), start=1):
        x = g.max_pool(f"pool{i}", g.conv2d(f"conv{i}", x, width, 3), 2)
    g.linear("fc2", g.linear("fc1", g.flatten("flatten", x), 200), 2)
    return g


def instance_filter() -> list[Row]:
    """What filter nets cost of their main nets (arXiv 2007.03213), in its counting (`formulas.paper_pruning`)."""
    rows = []
    for main, (name, inference, training) in papers.FILTER_SHARES.items():
        note, origins = "", (papers.FILTER_NETS, papers.FILTER_TRAINING)
        net = models.build(name, classes=2)
        if name == "slim_lenet":
            note = "without padding, 200 hidden outputs: which the paper does not print"
            net, origins = slim_lenet_unpadded(), (papers.SLIM, papers.SLIM)
        small, large = paper_pruning.macs(net), paper_pruning.macs(models.build(main))
        parts = (("inference", "forward", inference), ("training", "training", training))
        for (part, key, published), origin in zip(parts, origins, strict=True):
            share = round(100 * small[key] / large[key], 2)
            what = f"{part} of {name} in % of {main}'s"
            rows.append(Row(papers.PRUNING, what, published, share, "%", "share", origin, note))
    return rows


def error_map_pruning() -> list[Row]:
    """The scores' share of a backward pass, and the work of a training step (arXiv 2007.03213)."""
    found = paper_pruning.macs(models.build("resnet110"))
    share = round(100 * found["scoring"] / found["backward"], 3)
    return [
        Row(papers.PRUNING, "scores in % of resnet110's backward pass", papers.SCORING_SHARE, share, "%", "scoring",
            papers.SCORES),
        Row(
            papers.PRUNING, "training step of resnet110 on a 32x32 image", papers.RESNET110_TRAINING, found["training"],
            "macs", "training macs", papers.WHOLE_STEP, "element-wise layers left out",
        ),
    ]  # fmt: skip


def sparse_update() -> list[Row]:
    """The shares of arXiv 2503.17959, which names neither the input size nor what its features are."""
    source, published = papers.SPARSE, papers.SPARSE_UPDATE
    graph = models.build("mobilenet_v2", classes=10)
    weights = [n.params["w"] for n in graph.nodes if n.op == "conv2d"]
    count = sum(_elements(graph.parameters[w].shape) for w in weights)
    plan = ri.Plan(published["layers"], rules=[ri.SparseUpdate(0.02)], step=ri.Backprop(ri.SGD(lr=0.01)))
    program = ri.compile(graph, plan, 1)
    dense = ri.compile(graph, ri.Plan("all", step=plan.step), 1)
    updated = sum(_elements(b.shape) for w, b in program.step.gradients.items() if w in weights)
    kept = [budget.terms(p)["arena_most"]["stored_features"] for p in (program, dense)]
    note = "MobileNetV2 at 224x224, ratio 0.02; features of the dense whole net"
    return [
        Row(
            source, "convolutions of mobilenet_v2", published["convolutions"], len(weights), "", "count",
            papers.SHAPES,
        ),
        Row(source, "their weights", published["weights"], count, "", "count", papers.SHAPES),
        Row(source, "weights updated", published["updated"], round(100 * updated / count, 2), "%", "about",
            papers.RATIO, note),
        Row(
            source, "feature memory saved", published["saved"], round(100 * (1 - kept[0] / kept[1]), 2), "%",
            "at least", papers.FEATURES, note,
        ),
    ]  # fmt: skip


def _elements(shape: tuple[int, ...]) -> int:
    found = 1
    for n in shape:
        found *= n
    return found


def forward_gradient() -> list[Row]:
    """The fixed-point constants of arXiv 2411.04036, and the work of back-propagation against two forward passes."""
    source, published = papers.FORWARD, papers.FORWARD_GRADIENT
    step = published["z_max"] / 127
    net = models.build("resnet18", classes=10)
    forward = predict.estimate(ri.compile(net, None, 1, backend="reference", threads=1)).flops
    training = ri.Plan("all", step=ri.Backprop(ri.SGD(lr=0.01)))
    whole = predict.estimate(ri.compile(net, training, 1, backend="reference", threads=1))
    passes = whole.flops - sum(whole.sections["update"][u] for u in ("add", "mul"))
    return [
        Row(
            source, "Δz of z_max = 3.5 and 8 bits", published["delta_z"], round(step, 4), "", "count",
            papers.CONSTANTS,
        ),
        Row(source, "1_q = round(1/Δz)", published["one_q"], round(1 / step), "", "count", papers.CONSTANTS),
        Row(
            source, "back-propagation against two forward passes", published["cost_ratio"],
            round(passes / (2 * forward), 3), "", "about", papers.PASSES, "resnet18, 224x224",
        ),
    ]  # fmt: skip


PARTS = (gradient_filtering, instance_filter, error_map_pruning, sparse_update, forward_gradient)
