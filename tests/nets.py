"""Small nets for tests of whole programs: together they reach every operator, in a few thousand operations."""

import refimpl as ri
from refimpl.methods.error_map_pruning import ErrorMapPruning
from refimpl.methods.optim import Adam
from refimpl.methods.sparse_update import SparseUpdate


def residual() -> ri.Graph:
    """A strided block with a projection, as in the ResNets, and max pooling."""
    g = ri.Graph("residual", (7, 6), 3)
    x = g.relu("relu0", g.batch_norm("bn0", g.conv2d("conv0", "input", 4, 3, pad=1)))
    x = g.max_pool("pool0", x, 2, 1, pad=1)
    shortcut = g.batch_norm("down.bn", g.conv2d("down", x, 6, 1, 2))
    x = g.relu("relu1", g.batch_norm("bn1", g.conv2d("conv1", x, 6, 3, 2, pad=1)))
    x = g.batch_norm("bn2", g.conv2d("conv2", x, 6, 3, pad=1))
    x = g.relu("relu2", g.add("sum", x, shortcut))
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    return g


def depthwise() -> ri.Graph:
    """An inverted residual, grouped, dilated and biased convolutions, average pooling, dropout, flatten."""
    g = ri.Graph("depthwise", (8, 7), 3)
    x = g.relu6("stem.relu6", g.batch_norm("stem.bn", g.conv2d("stem", "input", 4, 3, 2, pad="same")))
    y = g.relu6("expand.relu6", g.batch_norm("expand.bn", g.conv2d("expand", x, 8, 1)))
    y = g.relu6("dw.relu6", g.batch_norm("dw.bn", g.conv2d("dw", y, 8, 3, pad=1, groups=8)))
    y = g.batch_norm("project.bn", g.conv2d("project", y, 4, 1))
    x = g.add("sum", y, x)
    x = g.conv2d("grouped", x, 6, 2, pad=((1, 0), (0, 1)), groups=2, bias=True)
    x = g.conv2d("dilated", x, 4, 3, pad=3, dilation=3, bias=True)
    x = g.avg_pool("pool", x, 2)
    x = g.dropout("drop", g.flatten("flat", x), 0.3)
    x = g.relu("relu", g.linear("hidden", x, 5))
    g.linear("fc", x, 3)
    return g


def watch() -> ri.Graph:
    """The watch net on shorter windows."""
    return ri.models.build("watch", size=(1, 22))


def bare() -> ri.Graph:
    """Without norms, as whole numbers that share exponents need it: groups, a residual sum, both pools."""
    g = ri.Graph("bare", (8, 6), 3)
    x = g.relu("relu1", g.conv2d("conv1", "input", 6, 3, pad=1, bias=True))
    y = g.conv2d("conv2", x, 6, 3, pad=1, groups=6)
    y = g.conv2d("conv3", g.relu("relu2", y), 6, 1, groups=2, bias=True)
    x = g.relu("relu3", g.add("sum", x, y))
    x = g.avg_pool("mean", g.max_pool("pool", x, 2), (2, 1), 1)
    x = g.relu("relu4", g.linear("fc1", g.flatten("flat", x), 5))
    g.linear("fc2", x, 3)
    return g


NETS = {"watch": watch, "residual": residual, "depthwise": depthwise}
KEEP, RATIO, PATCH = ErrorMapPruning(0.5), SparseUpdate(0.4), ri.GradientFilter(2)
RULES = {
    "dense": (),
    "patch 2": (PATCH,),
    "corner 3": (ri.GradientFilter(3, "corner"),),
    "keep": (KEEP,),
    "ratio": (RATIO,),
    "keep, ratio": (KEEP, RATIO),
    "keep, patch": (KEEP, PATCH),
    "ratio, patch": (RATIO, PATCH),
    "keep, ratio, patch": (KEEP, RATIO, PATCH),
}
MOMENTUM = ri.Backprop(ri.SGD(lr=0.1, momentum=0.9))
NESTEROV = ri.Backprop(ri.SGD(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1), clip_norm=2.0)
STEPS = {
    "plain": ri.Backprop(ri.SGD(lr=0.1)),
    "momentum": MOMENTUM,
    "nesterov, clipped": NESTEROV,
    "adam": ri.Backprop(Adam(lr=0.1)),
    "adamw, clipped": ri.Backprop(Adam(lr=0.1, weight_decay=0.1, decoupled=True), clip_norm=1.0),
}
PLAIN = ri.Backprop(ri.SGD(lr=0.1, weight_decay=0.1), clip_norm=1.0)


def step_for(rules, step: ri.Backprop) -> ri.Backprop:
    """`step`, or one without momentum where a rule of `rules` needs that."""
    return PLAIN if any(isinstance(r, SparseUpdate) for r in rules) else step


LOSSES = {
    "plain": {},
    "smooth": {"label_smoothing": 0.1},
    "weighted": {"class_weights": (1.0, 2.0, 0.5), "label_smoothing": 0.2},
    "mse": {"loss": "mse"},
}
