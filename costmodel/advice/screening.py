"""Memory and seconds of all plans of one method at once, from the closed forms of a single step.

The step that trains every convolution is derived once, with the batch and the method's setting as symbols
(`closed_form.of`). A step that trains the last k of them is a part of it: the calls that its updates, the loss and the
output need. So each call and each array has a smallest k from which it is there, and one evaluation of the formulas
prices every k.

    memory    state, and the most bytes alive at once, of the logical step's arrays: no fused kernels, scratch or gaps
    seconds   a sum over calls of what the device's rates for `any` kernel take for a call, its multiply-adds and bytes;
              maps come from a cache, weights and what belongs to them from memory

Both are rough, and meant to be corrected by compiled programs (`costmodel.advice.advice`), never to be shown.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import sympy as sp

from refimpl.graph import Graph
from refimpl.kernels.traced import expression
from refimpl.plan.plan import Backprop, Plan, counted, roles

from .. import closed_form
from ..device.device import Device
from ..device.rates import ANY
from ..formulas.cost import evaluator

NUMBERS = ("H", "W", "width")  # no symbols: one net is looked at


class Screen:
    """The plans of one method on one net: `memory` and `seconds` for any last convolutions, batches and settings."""

    def __init__(self, graph: Graph, plan: Plan, setting: str | None, dtype: str = "float32"):
        """plan: trains all convolutions with the method; setting: name of the symbol that varies beside N.

        dtype: of floats. `calls` is the number of logical calls of that step.
        """
        # clipping is left out: its one factor ties all layers together, and it costs little
        plan = replace(plan, step=Backprop(plan.step.optimizer))
        form = closed_form.of(graph, plan, fixed=NUMBERS, dtype=dtype)
        step, calls = form.program.step, list(form.calls)
        self.setting, self.convolutions = setting, len(counted(graph))
        rank, self.calls = self._ranks(graph), len(calls)
        buffers = list(dict.fromkeys(b.root for c in calls for b in (*c.reads, *c.writes)))
        buffers = list(dict.fromkeys([*buffers, *(b.root for b in step.host_writes.values())]))
        place = {b: i for i, b in enumerate(buffers)}
        self._in_arena = np.array([b.region == "arena" for b in buffers])
        self._batched = np.array([b.batched for b in buffers])
        since = self._since(calls, step, rank)
        self._of_calls = np.array([since[c] for c in calls])
        self._of_buffers = np.array([since.get(b, self.convolutions + 1) for b in buffers])
        touches = [(place[b.root], i) for i, c in enumerate(calls) for b in (*c.reads, *c.writes)]
        self._touched, self._by = np.array(sorted(set(touches))).T
        self._filled = [place[b.root] for b in step.host_writes.values()]
        self._read = [place[b.root] for b in step.host_reads.values()]
        known = {name: b.nbytes for name, b in step.parameters.items() if b.region == "state"}
        known |= {name: b.nbytes for name, b in step.state.items()}
        self._state = np.zeros(self.convolutions + 1)
        for name, nbytes in known.items():
            self._state[rank[".".join(name.split(".")[: -1 if name in step.parameters else -2])] :] += nbytes
        formulas = [sp.sympify(expression(b.nbytes)) for b in buffers]
        formulas += [closed_form.flops(c) for c in form.calls.values()]
        distinct = list(dict.fromkeys(formulas))
        number = {f: i for i, f in enumerate(distinct)}
        self._rows, self._split = [number[f] for f in formulas], len(buffers)
        self._names, self._evaluate = evaluator(sp.Tuple(*distinct))

    def _ranks(self, graph: Graph) -> dict[str, int]:
        """Node with weights → the smallest k with which it trains; the classifier always does."""
        convolutions = counted(graph)
        return {name: 0 for name, role in roles(graph).items() if role == "always"} | {
            name: len(convolutions) - i for i, name in enumerate(convolutions)
        }

    def _since(self, calls, step, rank: dict[str, int]) -> dict:
        """Call or array → the smallest k with which a step needs it."""
        since: dict = {b.root: 0 for b in (*step.host_reads.values(), *step.host_writes.values())}
        for call in reversed(calls):
            needed = [since[b.root] for b in call.writes if b.root in since]
            if call.phase == "update":
                needed.append(rank[call.node.rsplit(".", 1)[0]])
            elif call.node in step.parameters:  # the host reads the flags of gradients that there are
                needed = [rank[call.node.rsplit(".", 1)[0]]]
            since[call] = min(needed, default=self.convolutions + 1)
            for b in call.reads:
                since[b.root] = min(since.get(b.root, since[call]), since[call])
        return since

    def at(self, points: Sequence[tuple[int, float | None]], device: Device, threads: int):
        """(memory in bytes, seconds of a step), each (convolutions + 1, points), of (batch, setting) points."""
        values = [dict(zip(("N", self.setting), point, strict=True)) for point in points]
        found = np.array([self._evaluate(*(v[n] for n in self._names)) for v in values], float).T[self._rows]
        nbytes, flops = found[: self._split], found[self._split :]
        return self._memory(nbytes), self._seconds(nbytes, flops, device, threads)

    def _memory(self, nbytes: np.ndarray) -> np.ndarray:
        calls, found = len(self._of_calls), []
        for k in range(self.convolutions + 1):
            there = self._of_calls[self._by] <= k
            touched, by = self._touched[there], self._by[there]
            first, last = np.full(len(nbytes), calls), np.full(len(nbytes), -1)
            np.minimum.at(first, touched, by)
            np.maximum.at(last, touched, by)
            first[self._filled], last[self._read] = 0, calls
            alive = self._in_arena & (self._of_buffers <= k) & (last >= 0)
            first, last, own = first[alive], last[alive], nbytes[alive]
            peak = [
                (np.bincount(first, b, calls + 2) - np.bincount(last + 1, b, calls + 2)).cumsum().max() for b in own.T
            ]
            found.append(self._state[k] + np.array(peak))
        return np.array(found)

    def _seconds(self, nbytes: np.ndarray, flops: np.ndarray, device: Device, threads: int) -> np.ndarray:
        rates = device.at(threads)[0].by_kernel[ANY]
        each = rates.get("call", 0.0) + rates.get("cold", 0.0) + flops / 2 * rates.get("mac", 0.0)
        moved = nbytes * np.where(self._batched, rates.get("middle", 0.0), rates.get("far", 0.0))[:, None]
        np.add.at(each, self._by, moved[self._touched])
        return np.array([each[self._of_calls <= k].sum(0) for k in range(self.convolutions + 1)])
