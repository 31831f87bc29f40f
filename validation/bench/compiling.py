"""Seconds and lines of Python that it takes to compile nets of more and more nodes: both are to grow with the nodes.

`python -m validation.bench.compiling` prints microseconds and lines a node; `--only TEXT` takes the cases whose names
have that text. A case is a net, a plan and a backend, and everything that is asked of a program before it runs.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import refimpl as ri
from costmodel import predict

NODES = (200, 500, 1000, 2000)
BATCH, SIDE, CHANNELS = 2, 4, 4
PACKAGES = tuple(str(Path(__file__).parents[2] / name) for name in ("refimpl", "costmodel"))


def residual(nodes: int) -> ri.Graph:
    """Basic blocks of 7 nodes."""
    g = ri.Graph("residual", (SIDE, SIDE), CHANNELS)
    x = "input"
    for i in range(nodes // 7):
        y = g.relu(f"relu1.{i}", g.batch_norm(f"bn1.{i}", g.conv2d(f"conv1.{i}", x, CHANNELS, 3, pad=1)))
        y = g.batch_norm(f"bn2.{i}", g.conv2d(f"conv2.{i}", y, CHANNELS, 3, pad=1))
        x = g.relu(f"relu2.{i}", g.add(f"add.{i}", y, x))
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    return g


def inverted(nodes: int) -> ri.Graph:
    """Inverted residual blocks of 9 nodes, of 1×1 and depthwise convolutions."""
    g = ri.Graph("inverted", (SIDE, SIDE), CHANNELS)
    x = "input"
    for i in range(nodes // 9):
        wide = 2 * CHANNELS
        y = g.relu6(f"relu1.{i}", g.batch_norm(f"bn1.{i}", g.conv2d(f"conv1.{i}", x, wide, 1)))
        y = g.relu6(f"relu2.{i}", g.batch_norm(f"bn2.{i}", g.conv2d(f"conv2.{i}", y, wide, 3, pad=1, groups=wide)))
        x = g.add(f"add.{i}", g.batch_norm(f"bn3.{i}", g.conv2d(f"conv3.{i}", y, CHANNELS, 1)), x)
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    return g


def chain(nodes: int) -> ri.Graph:
    """Convolutions with bias, activations, dropout and pooling one after another."""
    g = ri.Graph("chain", (SIDE, SIDE), CHANNELS)
    x = "input"
    for i in range(nodes // 4):
        x = g.relu(f"relu.{i}", g.conv2d(f"conv.{i}", x, CHANNELS * (1 + i % 2), 3, pad=1, bias=True))
        x = g.max_pool(f"pool.{i}", g.dropout(f"dropout.{i}", x, 0.1), 3, stride=1, pad=1)
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    return g


def rectifiers(nodes: int) -> ri.Graph:
    """Frozen norms and activations alone, whose gradients take over each other's memory."""
    g = ri.Graph("rectifiers", (SIDE, SIDE), CHANNELS)
    x = g.conv2d("conv", "input", CHANNELS, 1)
    for i in range(nodes // 2):
        x = g.relu(f"relu.{i}", g.batch_norm(f"bn.{i}", x))
    g.linear("fc", g.global_avg_pool("mean", x), 3)
    return g


NETS: dict[str, Callable[[int], ri.Graph]] = {n.__name__: n for n in (residual, inverted, chain, rectifiers)}
PLANS: dict[str, ri.Plan | None] = {
    "inference": None,
    "backprop": ri.Plan(),
    "batch-norm": ri.Plan(batch_norm="train", train_bias=True),
    "adam": ri.Plan(step=ri.Backprop(ri.Adam(lr=1e-3), clip_norm=1.0)),
    "gradient-filter": ri.Plan(rules=[ri.GradientFilter()]),
    "error-map-pruning": ri.Plan(rules=[ri.ErrorMapPruning()]),
    "sparse-update": ri.Plan(rules=[ri.SparseUpdate()]),
    "all-rules": ri.Plan(rules=[ri.SparseUpdate(), ri.ErrorMapPruning()], batch_norm="train"),
    "instance-filter": ri.Plan(instances=ri.InstanceFilter()),
    "stochastic-depth": ri.Plan(depth=ri.StochasticDepth(), step=ri.Backprop(ri.Adam(lr=1e-3))),
}


def cases() -> dict[str, tuple[str, str, str]]:
    """Name → net, plan and backend."""
    found = [(net, plan, backend) for net in NETS for plan in PLANS for backend in ("fast", "reference")]
    return {" ".join(c): c for c in found if c[1] != "stochastic-depth" or c[0] == "residual"}


def everything(net: str, plan: str, backend: str, nodes: int) -> dict[str, Callable]:
    """Name of a part → what does it, in their order: each needs those before it."""
    made: dict[str, object] = {}

    def build():
        made["graph"] = NETS[net](nodes)

    def compile():
        made["program"] = ri.compile(made["graph"], PLANS[plan], BATCH, backend=backend, threads=2)

    def refuse():
        p = made["program"]
        p.alive_at(p.lower_bound.launch)
        try:
            p.check_memory(0)
        except ri.MemoryLimitError:
            pass

    def price():
        made["price"] = predict.estimate(made["program"])

    return {
        "build": build,
        "compile": compile,
        "place": lambda: made["program"].peak_bytes,
        "saved": lambda: made["program"].saved,
        "refuse": refuse,
        "print": lambda: str(made["program"]),
        "estimate": price,
        "layers": lambda: made["price"].layers,
        "seconds": lambda: made["price"].seconds,
    }


def lines(work: Callable) -> int:
    """Lines of the packages' Python that run in `work()`; each turn of a loop or a comprehension counts."""
    count = 0

    def step(frame, event, _):
        nonlocal count
        count += event == "line"
        return step

    def enter(frame, event, _):
        return step if frame.f_code.co_filename.startswith(PACKAGES) else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def seconds(work: Callable) -> float:
    """Processor time of `work()`."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measured(case: tuple[str, str, str], nodes: int, measure: Callable[[Callable], float]) -> dict[str, float]:
    """Part → what it takes."""
    return {part: measure(work) for part, work in everything(*case, nodes).items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m validation.bench.compiling", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose names have this text")
    parser.add_argument("--lines", action="store_true", help="lines of Python in the place of microseconds")
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES, metavar="N", help=f"default {NODES}")
    asked = parser.parse_args()
    unit, measure = ("lines", lines) if asked.lines else ("microseconds", lambda work: 1e6 * seconds(work))
    for name, case in cases().items():
        if asked.only in name:
            measured(case, 20, seconds)  # imports and formulas
            found = {n: measured(case, n, measure) for n in asked.nodes}
            print(f"{name}: {unit} a node for {', '.join(map(str, asked.nodes))} nodes")
            for part in found[asked.nodes[0]]:
                print(f"  {part:10s}" + "".join(f"{found[n][part] / n:10.1f}" for n in asked.nodes), flush=True)
            print(f"  {'in all':10s}" + "".join(f"{sum(found[n].values()) / n:10.1f}" for n in asked.nodes), flush=True)


if __name__ == "__main__":
    main()
