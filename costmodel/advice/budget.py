"""Where the bytes of a training step are, and the largest sparse update that a number of bytes allows.

`terms` splits the three regions of a program into named terms that add up to the byte. `fit` chooses how many layers
sparse update (arXiv 2503.17959) trains, and which ratio of their channels, for a memory limit.

Readings:
  [second-hand] As many layers as possible, late ones first, with a small ratio each.
  [ours]        Layers first: as many as fit at the smallest ratio; then the largest ratio that fits with them.
  [ours]        What a limit covers is open in the paper (256 KB): state and arena, as `memory_limit` does everywhere
                ("trained"), or without the weights that no step updates at once, which wait in flash ("updated").
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from refimpl.compiler.compile import compile
from refimpl.compiler.ir import Buffer
from refimpl.compiler.program import MemoryLimitError, Program
from refimpl.graph import Graph
from refimpl.methods.layer import Rule
from refimpl.methods.optim import SGD
from refimpl.methods.registry import fitted, known
from refimpl.plan.plan import Backprop, Plan, counted, roles

from ..device import process
from ..device.device import Device

RATIOS = tuple(n / 100 for n in range(1, 101))
WEIGHTS = ("trained", "updated")  # which weights a limit covers

STATE = ("convolutions_updated", "convolutions_waiting", "classifier", "norms", "others", "filter_net", "optimizer")
CONSTANTS = ("convolutions", "classifier", "norms", "others", "filter_net", "plan")
ARENA = (
    "input", "stored_features", "masks", "indices", "activations", "tables", "error_maps", "weight_gradients",
    "workspace", "host_scalars", "slack",
)  # fmt: skip


def terms(program: Program) -> dict:
    """Every memory term of a program in bytes, as dicts that add up exactly.

    state (= state_bytes): weights and biases of trained convolutions, `updated` in one step and `waiting` for another
        one; classifier; norms; others: of operators that do not train, or of no node, such as the scale of an input;
        filter_net: parameters of the net that chooses instances; optimizer arrays.
    constants (= constant_bytes): the same of what is frozen; plan: what a rule adds, such as the order of channels.
    arena (= peak_bytes): what is alive at the launch where most is, named by `peak_at`. stored_features: maps kept for
        the backward section; tables: what forward makes without a sample axis, such as the scale of a norm; error_maps:
        gradients of maps; workspace: scratch, partial sums, copies of weights; slack: alignment, and gaps that the
        placement leaves.
    arena_most: the most bytes of each term alive at any launch; they need not be alive together.
    """
    kinds = _kinds(program)
    peak, launch = program.lower_bound
    arena = dict.fromkeys(ARENA, 0)
    for b in program.alive_at(launch):
        arena[kinds[b]] += b.nbytes
    arena["slack"] = program.peak_bytes - peak
    return {
        "state": _state(program),
        "constants": _constants(program),
        "arena": arena,
        "arena_most": _most(program, kinds),
        "peak_at": launch.name,
    }


def needed(program: Program, weights: str = "trained") -> int:
    """Bytes that a limit covers: arena and state, with weights="updated" without the weights that wait."""
    waiting = _state(program)["convolutions_waiting"] if weights == "updated" else 0
    return program.state_bytes + program.peak_bytes - waiting


def fits(program: Program, device: Device, resident: int | None = None) -> dict:
    """Does a step fit into a device's memory? Bytes that it needs and that there are, of RAM and, where it has, flash.

    With flash, it holds every weight, for a device that is switched on again starts from there, and what a rule adds; a
    compiled step needs no interpreter: RAM holds arena and optimizer, and the weights that a single step updates. The
    program's code and its stack are not counted. Without flash, RAM holds the training process: `resident` bytes at its
    peak (`device.process`), or, where that is None, `at_least` the arrays of the step and the device's base. What
    other processes take is not counted. A GPU's memory holds arrays and context alone; where it is the board's RAM,
    the process comes on top.

    `ok` is None where the RAM is not known, and where what is needed at least would fit.
    """
    at_least, arrays = False, program.state_bytes + program.peak_bytes + program.constant_bytes
    if process.beside_the_host(program):
        arrays = sum(process.gpu_terms(program).values())
    if device.flash_bytes:
        kept = program.state_bytes - sum(b.nbytes for b in program.step.state.values()) + program.constant_bytes
        needs, has = {"ram": needed(program, "updated"), "flash": kept}, {"ram": device.ram_bytes}
        has |= {"flash": device.flash_bytes}
    else:
        at_least, base = resident is None, device.base.fixed if device.base else 0
        needs, has = {"ram": arrays + base if at_least else resident}, {"ram": device.ram_bytes}
    ok = None if None in has.values() else all(needs[k] <= has[k] for k in needs)
    return {"needs": needs, "has": has, "at_least": at_least, "ok": None if at_least and ok else ok}


def _state(program: Program) -> dict[str, int]:
    """Bytes of the state by term."""
    found, owners = dict.fromkeys(STATE, 0), _owners(program)
    for name, b in program.step.parameters.items():
        if b.region != "state":
            continue
        kind = owners.get(name, "filter_net")
        if kind == "convolutions":
            updated = math.prod(program.step.gradients.get(name, b).shape) * b.dtype.itemsize  # without one: itself
            found["convolutions_updated"] += updated
            found["convolutions_waiting"] += b.nbytes - updated
        else:
            found[kind] += b.nbytes
    found["optimizer"] = sum(b.nbytes for b in program.step.state.values())
    return found


def _constants(program: Program) -> dict[str, int]:
    """Bytes of the constants by term."""
    found, owners = dict.fromkeys(CONSTANTS, 0), _owners(program)
    for name, b in program.step.parameters.items():
        if b.region == "constant":
            found[owners.get(name, "filter_net")] += b.nbytes
    found["plan"] = sum(c.buffer.nbytes for c in program.step.constants.values())
    return found


def _owners(program: Program) -> dict[str, str]:
    """The term of each parameter of the main net: that of the first node that uses it."""
    terms = {
        "counted": "convolutions",
        "always": "classifier",
        "statistics": "norms",
        "behind": "norms",
        None: "others",
    }
    users, role = program.graph.users(), roles(program.graph)
    return {name: terms[role[used[0][0].name] if used else None] for name, used in users.items()}


def _kinds(program: Program) -> dict[Buffer, str]:
    """The term of each arena buffer.

    Integers are indices, but for those of nodes on integer tensors that no pass indexes with.
    """
    step = program.step
    fixed = {b.root: "indices" if b.dtype == np.int32 else "input" for b in step.host_writes.values()}
    fixed |= {step.host_writes[prefix + name].root: "input" for prefix, name in _inputs(program)}
    fixed |= {step.host_writes[name].root: "host_scalars" for name in step.scalars}
    fixed |= {b.root: "weight_gradients" for b in step.gradients.values()}
    fixed |= {b.root: "workspace" for b in step.flags.values()}
    fixed |= {b.root: "masks" for call in step for a, b in call.arrays.items() if a == "mask"}
    scratch = {b.root for launch in program.order for b in launch.scratch}
    back = [s for s in program.sections if s.endswith(("backward", "update"))]
    forward = {
        b.root for s in set(program.sections) - set(back) for launch in program.launches[s] for b in launch.writes
    }
    later = {b.root for s in back for launch in program.launches[s] for b in launch.reads}
    whole = _on_integers(program)
    values = {b.root for call in step if call.node in whole for b in call.writes}
    values -= {call.arrays[a].root for call in step for a in call.passed.indices if a in call.arrays}
    found = {}
    for b in program.lifetimes:
        if b in fixed:
            found[b] = fixed[b]
        elif b in scratch:
            found[b] = "workspace"
        elif not np.issubdtype(b.dtype, np.floating) and b not in values:
            found[b] = "indices"
        elif b in forward:
            found[b] = "tables" if not b.batched else "stored_features" if b in later else "activations"
        else:
            found[b] = "error_maps" if b.batched else "workspace"
    return found


def _inputs(program: Program) -> list[tuple[str, str]]:
    """Prefix and name of the inputs of each net that has its own."""
    named = [(prefix, name) for prefix, graph in program.graphs.items() for name in graph.inputs]
    return [(prefix, name) for prefix, name in named if prefix + name in program.step.host_writes]


def _on_integers(program: Program) -> set[str]:
    """The nodes that read or make a tensor of integers."""
    found = set()
    for prefix, graph in program.graphs.items():
        integers = {t.name for t in graph.tensors.values() if t.dtype is not None and t.dtype.kind in "iu"}
        found |= {prefix + node.name for node in graph.nodes if integers.intersection((*node.inputs, *node.outputs))}
    return found


def _most(program: Program, kinds: dict[Buffer, str]) -> dict[str, int]:
    """The most bytes of each arena term alive at any launch."""
    change = {kind: np.zeros(len(program.order) + 2, np.int64) for kind in ARENA if kind != "slack"}
    for b, t in program.lifetimes.items():
        change[kinds[b]][t.first] += b.nbytes
        change[kinds[b]][t.last + 1] -= b.nbytes
    return {kind: int(c.cumsum().max()) for kind, c in change.items()}


def fitted_rule(plan: Plan) -> Rule | None:
    """The rule of a plan whose share is chosen, None where it has none."""
    return next((rule for rule in plan.rules if rule.method in fitted()), None)


@dataclass(frozen=True)
class Fitted:
    """A plan that fits into a limit: its program, its terms and the bytes of it that the limit covers."""

    plan: Plan
    program: Program
    terms: dict
    needed: int


def fit(
    graph: Graph,
    limit: int,
    batch: int = 1,
    size: tuple[int, int] | None = None,
    ratios: Sequence[float] = RATIOS,
    max_layers: int | None = None,
    plan: Plan | None = None,
    weights: str = "trained",
    backend: str | None = None,
    threads: int | None = None,
) -> Fitted:
    """The plan with the most layers and then the largest ratio of a rule, as sparse update, that fits `limit` bytes.

    The memory budget of arXiv 2503.17959.

    plan: what else holds; the ratio of its rule that states one to be `fitted`, and `train_last`, are replaced (default
    plain SGD and nothing else).
    weights: which of them the limit covers, "trained" or "updated" (see the module). The rest is as for `compile`.
    MemoryLimitError names the smallest limit that would do and the largest term; ValueError for bad values.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"weights must be {' or '.join(WEIGHTS)}, got {weights!r}")
    plan = plan or Plan(rules=(known()[fitted()[0]](),), step=Backprop(SGD(lr=0.01)))
    rule = fitted_rule(plan)
    if rule is None:
        raise ValueError(f"the plan has no rule of {' or '.join(fitted())}, whose layers and ratio are to be chosen")
    setting = rule.states.fitted
    ratios = sorted(ratios)
    layers = len(counted(graph))
    if not any(graph.node(name).operator.trains == "counted" for name in counted(graph)):
        raise ValueError(
            f"{graph.name} has no convolutions, of which layers could be chosen: its linear layers train in full"
        )
    layers = layers if max_layers is None else min(layers, max_layers)
    if not ratios or layers < 1:
        raise ValueError(f"there is nothing to choose from: {len(ratios)} ratios, {layers} layers")
    programs: dict[tuple[int, float], Program] = {}

    def program(k: int, ratio: float) -> Program:
        if (k, ratio) not in programs:
            rules = tuple(replace(r, **{setting: ratio}) if r is rule else r for r in plan.rules)
            chosen = replace(plan, train_last=k, rules=rules)
            programs[k, ratio] = compile(graph, chosen, batch, size, backend=backend, threads=threads)
        return programs[k, ratio]

    def fits(k: int, ratio: float) -> bool:
        return needed(program(k, ratio), weights) <= limit

    if not fits(1, ratios[0]):
        raise _refusal(rule, program(1, ratios[0]), limit, ratios[0], weights)
    k = _last(range(1, layers + 1), lambda k: fits(k, ratios[0]))
    found = program(k, _last(ratios, lambda ratio: fits(k, ratio)))
    return Fitted(found.plan, found, terms(found), needed(found, weights))


def _last(candidates: Sequence, fits: Callable[[object], bool]):
    """The last of `candidates` that fits and whose successor does not, by bisection; the first one fits."""
    low, high = 0, len(candidates)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(candidates[middle]) else (low, middle)
    return candidates[low]


def _refusal(rule: Rule, program: Program, limit: int, ratio: float, weights: str) -> MemoryLimitError:
    """The error where not even one layer with the smallest ratio fits."""
    found, need = terms(program), needed(program, weights)
    counted = Counter(found["arena"]) + Counter(found["state"])
    if weights == "updated":
        del counted["convolutions_waiting"]
    name, largest = counted.most_common(1)[0]
    return MemoryLimitError(
        f"no {rule.method.replace('-', ' ')} fits into {limit:,} bytes: the last convolution alone at ratio {ratio:g} "
        f"needs {need:,}, of which {name.replace('_', ' ')} take {largest:,} (the peak is at {found['peak_at']}); the "
        f"smallest limit that would do is {need:,} bytes. Fewer threads, a smaller input, batch or model need less",
        need,
        need - program.peak_bytes + program.lower_bound.nbytes,
    )
