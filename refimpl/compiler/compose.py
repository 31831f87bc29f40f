"""Put the step of a plan together: that of one net, or of several on one mini-batch.

A plan that chooses which instances train (`instances`) has sections of its own before and after those of the main net:
the main net itself or a filter net judges the whole mini-batch, and the filter learns from what came of it.
"""

from collections.abc import Collection

import numpy as np

from ..graph import INPUT, Graph
from ..methods.instance_filter import entropy
from ..plan.plan import Backprop, Plan
from .derive import Derivation
from .ir import PHASES, Buffer, Step


def derive(
    graph: Graph, plan: Plan | None, batch: int, size: tuple[int, int] | None, dtype, dropped: Collection[str] = (),
    known: dict | None = None,
) -> Step:  # fmt: skip
    """The logical calls of a training step, or with `plan=None` of inference. ShapeError where a size does not fit.

    dropped: names of the residual blocks that the step leaves out, as the plan's `depth` names them. known: kept from
    one step of the plan to the next, so that what they have in common is found out once.
    """
    if plan is None:
        step = Derivation(graph, Plan(), batch, size, dtype, training=False).build()
        step.calls |= {phase: [] for phase in PHASES[1:]}
        return step
    blocks = [b for b in plan.depth.blocks(graph) if b.name in dropped] if dropped else []
    rule = plan.instances
    if rule is None or not rule.sections:
        return Derivation(graph, plan, batch, size, dtype, training=True, dropped=blocks, known=known).build()
    stream = Buffer(INPUT, graph.shapes(batch, size)[INPUT], np.dtype(dtype), "arena", batched=1)
    common = {"batch": batch, "size": size, "dtype": dtype, "stream": stream}
    main = Derivation(graph, plan, training=True, chosen=True, **common)
    judge = {"training": False, "parameters": main.parameters, **common}
    if "filter" not in rule.sections:  # the main net itself judges the whole mini-batch
        before, after = [Derivation(graph, plan, prefix="judge.", section="judge", **judge).build(losses=True)], []
    else:
        own = Plan(**rule.filter_settings(), step=Backprop(rule.optimizer))
        learner = Derivation(rule.graph, own, training=True, prefix=rule.prefix, chosen=True, **common)
        shared = common | {"parameters": learner.parameters}
        asked = Derivation(rule.graph, own, training=False, prefix=rule.prefix, section="filter", **shared)
        first = asked.build()
        logits, doubt = first.host_reads.pop(f"{rule.prefix}output"), asked.buffer("entropy", (batch,), batched=1)
        asked.emit("entropy", entropy, {"logits": logits, "entropy": doubt}, {})
        first.host_reads |= {f"{rule.prefix}logits": logits, f"{rule.prefix}entropy": doubt}
        unsure = Derivation(graph, plan, prefix="uncertain.", section="uncertain", chosen=True, **judge)
        before, after = [first], [unsure.build(losses=True), learner.build()]
    return _joined(stream, [*before, main.build(losses=True), *after])


def _joined(stream: Buffer, steps: list[Step]) -> Step:
    """One step of several, in their order, on one mini-batch."""
    joined = Step({}, {INPUT: stream}, {}, {}, {}, {}, {}, {})
    for step in steps:
        for name, found in vars(step).items():
            both = getattr(joined, name).keys() & found.keys()
            if both:
                raise AssertionError(f"two nets of a step have {name} called {', '.join(both)}")
            getattr(joined, name).update(found)
    return joined
