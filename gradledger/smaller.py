"""What would fit where a step does not: a smaller batch, fewer layers, a smaller input, each found by compiling it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import refimpl as ri
from costmodel.advice import budget
from refimpl import data, models
from refimpl.formats.npz import load_npz
from refimpl.graph import Graph
from refimpl.plan.plan import counted
from refimpl.saved.described import LITE, ONNX
from refimpl.surgery.for_step import is_quantized, outlined_for, weights_that_train

from .errors import Refused
from .models import described, is_file, saved

if TYPE_CHECKING:
    from .settings import AdaptSettings

SECONDS = 2.0  # of the processor, to look for it
SHARES = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4, 7 / 8)  # of the sides of the input
LIMITED = "The limit is of the arrays of a step, not of the process, in which Python and its libraries come on top"
EVERY = 8  # pixels to which sides are rounded, where they are longer

Need = Callable[[ri.Program, int], tuple[int, bool]]  # (program, batch) → bytes that are needed; do they fit?


def compiled(settings: "AdaptSettings", graph: Graph, plan: ri.Plan, batch: int) -> ri.Program:
    """The program of a plan, compiled for its costs. ValueError or ShapeError where there is none."""
    made = outlined_for(plan.step, graph, weights_that_train(plan, graph))
    return ri.compile(made, plan, batch, backend=settings.backend, threads=settings.threads)


class SmallerSearch:
    """Tries of smaller steps, until SECONDS have passed."""

    def __init__(self, settings: "AdaptSettings", graph: Graph, plan: ri.Plan, batch: int, need: Need):
        """graph: before it was made for the step; need: which bytes are meant, and what is enough."""
        self.settings, self.graph, self.plan, self.batch, self.need = settings, graph, plan, batch, need
        self.ends = time.process_time() + SECONDS

    def found(self) -> list[dict]:
        """What fits: {options: as on the command line, bytes: that it needs}; each change alone, else several together.

        Together: batch 1 with the most layers, else the fewest layers with the largest input. Empty where nothing was
        found to fit.
        """
        batches, layers, sizes = [{"batch": n} for n in range(1, self.batch)], self.layers(), self.sizes()
        found = [one for one in map(self.most, (batches, layers, sizes)) if one]
        for least, others in ((batches[:1], layers), (batches[:1] + layers[:1], sizes)):
            if not found and least and others:
                together = self.most(
                    [dict(pair for one in (*least, other) for pair in one.items()) for other in others]
                )
                found = [together] if together else []
        return found

    def layers(self) -> list[dict]:
        """Fewer layers, least first; none where the method itself says how many."""
        if any("layers=" in text for text in self.settings.method) or getattr(self.settings, "fit", None):
            return []
        now = len(counted(self.graph)) if self.plan.train_last == "all" else self.plan.train_last
        return [{"train_last": k} for k in range(now)]

    def sizes(self) -> list[dict]:
        """Smaller inputs, least first; none where the data have a size of their own."""
        if self.settings.data is not None and not data.stretches(self.settings.data):
            return []
        found = {tuple(side(n, share) for n in self.graph.size) for share in SHARES}
        return [{"size": size} for size in sorted(found) if size != self.graph.size]

    def most(self, changes: Sequence[dict]) -> dict | None:
        """The last of the changes that fits and whose successor does not, by bisection; None where none is found."""
        low, high, best = -1, len(changes), None
        while high - low > 1:
            middle = 0 if low < 0 and best is None and high == len(changes) else (low + high) // 2
            tried = self.tried(changes[middle])
            if tried is None and middle == 0:
                return None
            low, high, best = (low, middle, best) if tried is None else (middle, high, tried)
        return best

    def tried(self, change: dict) -> dict | None:
        """A change that fits; None where it does not, has no program, or the time is over."""
        if time.process_time() > self.ends:
            return None
        plan = replace(self.plan, train_last=change.get("train_last", self.plan.train_last))
        batch = change.get("batch", self.batch)
        try:
            graph = of_size(self.settings, self.graph, change["size"]) if "size" in change else self.graph
            needed, fits = self.need(compiled(self.settings, graph, plan, batch), batch)
        except (ValueError, ri.ShapeError):
            return None
        return {"options": " ".join(map(option, change, change.values())), "bytes": needed} if fits else None


def check_limit(
    settings: "AdaptSettings", graph: Graph, plan: ri.Plan, program: ri.Program, limit: int, record: dict
) -> None:  # fmt: skip
    """Refused where a program does not keep `--memory-limit`, with what would; where the bytes are is in its record.

    record: what it has besides.
    """
    try:
        program.check_memory(limit)
        return
    except ri.MemoryLimitError as e:
        bounds = {"lower_bound_bytes": e.lower_bound, "smallest_limit_bytes": e.needed, "bounds": str(e)}

    def need(tried: ri.Program, batch: int) -> tuple[int, bool]:
        needed = budget.needed(tried)
        return needed, needed <= limit

    found = SmallerSearch(settings, graph, plan, program.batch, need).found()
    arrays = f"state {program.state_bytes:,}, arena {program.peak_bytes:,}"
    needs = f"this step needs {budget.needed(program):,} bytes ({arrays}), the memory limit is {limit:,} bytes"
    told = {"memory_limit": limit, **bounds, "would_fit": found, "memory": budget.terms(program)}
    raise Refused(f"{needs}; {sentence(found)}. {LIMITED}; --json lists every term", record | told)


def side(length: int, share: float) -> int:
    """A share of a side of the input, a multiple of EVERY where that leaves one."""
    new = int(length * share)
    return max(1, new - new % EVERY if new > EVERY else new)


def of_size(settings: "AdaptSettings", graph: Graph, size: tuple[int, int]) -> Graph:
    """The same net for another size of its input."""
    classes, name = graph.shape(graph.output)[-1], settings.model
    if name.endswith(".npz"):
        found = load_npz(name, classes, size, settings.whole)
    elif is_quantized(graph) and name.endswith((ONNX, LITE)):
        found = described(name, classes, size, True)
    elif is_file(name):
        found = saved(name).graph(classes, size, graph.channels)
    else:
        found = models.build(name, classes=classes, size=size, channels=graph.channels)
        found.weights = graph.weights
    return found


def option(name: str, value) -> str:
    """A change as on the command line."""
    return f"--{name.replace('_', '-')} {'x'.join(map(str, value)) if isinstance(value, tuple) else value}"


def sentence(found: list[dict]) -> str:
    """What would fit, in words."""
    if not found:
        return "nothing smaller was found that fits"
    *first, last = (f"{one['options']} ({one['bytes']:,} bytes)" for one in found)
    return f"this fits: {', '.join(first)} or {last}" if first else f"this fits: {last}"
