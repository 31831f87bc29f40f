"""Price a compiled program: operations from its logical calls' formulas, bytes from its arena, seconds from rates."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from refimpl import arguments
from refimpl.compiler.executed import NOTHING, Ops, executed
from refimpl.compiler.ir import Call, Launch
from refimpl.compiler.program import Program
from refimpl.methods.filter_shares import STEPS
from refimpl.methods.strategy import Turn

from .device import device as devices
from .device import gpu, kernels
from .formulas.cost import ARITHMETIC, counts


def call_counts(call: Call, n: int) -> Counter:
    """Number of each unit in one logical call on n samples."""
    passed = call.passed
    return Counter(counts(passed.operator, passed.name, call.sizes_at(n), call.attrs, call.present))


def expected_counts(call: Call, samples: float) -> Counter:
    """Units of one logical call where `samples` is a mean: between those of the whole numbers around it."""
    low = int(samples)
    found = call_counts(call, low) if low else Counter()
    if samples > low:
        more = call_counts(call, low + 1)
        found = Counter({u: found[u] + (samples - low) * (k - found[u]) for u, k in more.items()})
    return found


def expected_ops(launch: Launch, samples: float) -> Ops:
    """What a launch executes where `samples` is a mean, as `expected_counts` takes it."""
    low = int(samples)
    found = executed(launch, low, call_counts) if low else NOTHING
    if samples > low:
        more = executed(launch, low + 1, call_counts)
        found += (more + found * -1) * (samples - low)
    return found


def arithmetic(units: Counter) -> int:
    """`flops` = mul + add."""
    return sum(units[u] for u in ARITHMETIC)


def as_macs(flops: int) -> int | float:
    """`macs` = flops / 2, an integer wherever it is one."""
    return flops // 2 if flops % 2 == 0 else flops / 2


@dataclass(frozen=True)
class Layer:
    """The price of one node: units by section. The update of its parameters belongs to it.

    executed: of the launches that mostly work for this node; those of a kernel that does several nodes' calls count
    where most operations are.
    """

    name: str
    sections: dict[str, Counter]

    executed: Ops = NOTHING

    @property
    def flops(self) -> int:
        """Multiplications and additions of the whole step at this node."""
        return sum(arithmetic(units) for units in self.sections.values())


@dataclass(frozen=True)
class Estimate:
    """The price of one step on n samples.

    calls: the units of each logical call; where data or chance decide what a step does, what is expected of it, so that
    a unit may be a fraction. turns: section → what the plan's schedule says of it. occurs: the probability of each call
    that chance decides.
    """

    program: Program
    n: int
    calls: dict[Call, Counter]
    device: devices.Device
    turns: dict[str, Turn]
    occurs: dict[Call, float] = field(default_factory=dict)

    @cached_property
    def sections(self) -> dict[str, Counter]:
        """Number of each unit in each section."""
        total = {s: Counter() for s in self.program.sections}
        for call, units in self.calls.items():
            total[call.section].update(units)
        return total

    @cached_property
    def layers(self) -> list[Layer]:
        """Every node of the graph in its order, then what belongs to no node: the loss, the optimizer."""
        sections = self.program.sections
        nodes = {node.name: {s: Counter() for s in sections} for node in self.program.graph.nodes}
        for call, units in self.calls.items():
            of_parameter = call.node in self.program.step.parameters  # an update bears its name
            name = call.node.rsplit(".", 1)[0] if of_parameter else call.node
            nodes.setdefault(name, {s: Counter() for s in sections})[call.section].update(units)
        done = dict.fromkeys(nodes, NOTHING)
        for launch, (_, ops) in zip(self.program.order, self.executed_launches, strict=True):
            if launch.covers:  # one that covers no call goes with the one before it
                call = max(launch.covers, key=lambda c: arithmetic(self.calls[c]))
                name = call.node if call.node in nodes else call.node.rsplit(".", 1)[0]
            done[name] += ops
        return [Layer(name, by_section, done[name]) for name, by_section in nodes.items()]

    @property
    def units(self) -> Counter:
        """Number of each unit in the whole step."""
        return sum(self.sections.values(), Counter())

    @property
    def flops(self) -> int:
        """Multiplications and additions of the whole step, padded taps skipped."""
        return arithmetic(self.units)

    @property
    def macs(self) -> int | float:
        """Half of `flops`."""
        return as_macs(self.flops)

    @cached_property
    def executed_launches(self) -> list[tuple[str, Ops]]:
        """(section, what its kernel executes) of each launch, in order: expected, where data or chance decide."""
        return [(s, expected_ops(launch, self.turns[s].samples) * p) for s, launch, p in self._likely()]

    @property
    def executed(self) -> dict[str, Ops]:
        """Multiplications and additions that the kernels execute in each section (`refimpl.compiler.executed`)."""
        total = dict.fromkeys(self.program.sections, NOTHING)
        for section, ops in self.executed_launches:
            total[section] += ops
        return total

    @property
    def executed_flops(self) -> float:
        """Multiplications and additions that the kernels execute in the whole step."""
        return sum(ops.mul + ops.add for ops in self.executed.values())

    def _likely(self) -> Iterable[tuple[str, Launch, float]]:
        """(section, launch, probability that it runs) in order."""
        p = 1.0
        for section in self.program.sections:
            for launch in self.program.launches[section]:
                if launch.covers:  # one that covers no call follows another one that does
                    p = max(self.occurs.get(c, 1.0) for c in launch.covers)
                yield section, launch, p

    @property
    def traffic_bytes(self) -> int:
        """Bytes that the launches read and write, each array of a launch once, at a full batch."""
        return sum(b.nbytes for launch in self.program.order for b in launch.buffers)

    @cached_property
    def work(self) -> list[dict[str, float]]:
        """The terms of each launch on a full batch, in order (`costmodel.device.kernels`)."""
        program = self.program
        if program.backend == gpu.BACKEND:
            return gpu.work(program, (executed(launch, program.batch, call_counts) for launch in program.order))
        return kernels.work(program, self.device.at(program.threads)[1])

    @cached_property
    def launches(self) -> list[float]:
        """Predicted seconds of each launch, in order; on fewer samples than the batch its work shrinks with them."""
        program = self.program
        rates, _ = self.device.at(program.threads)
        found = []
        for (section, launch, occurs), terms in zip(self._likely(), self.work, strict=True):
            if self.device.whole != 1 and any(self.calls[call]["imul"] for call in launch.covers):
                terms = {t: v * self.device.whole if t in kernels.GROUPS["compute"] else v for t, v in terms.items()}
            if any(b.batched for b in launch.buffers):
                share = self.turns[section].samples / program.batch
                terms = {t: v if t in ("call", "cold") else v * share for t, v in terms.items()}
            found.append(occurs * rates.seconds(kernels.kernel(launch), terms))
        return found

    @property
    def typical(self) -> float:
        """Seconds of one step by the device's rates."""
        rates, _ = self.device.at(self.program.threads)
        found = sum(self.launches)
        if self.program.training:
            around = rates.seconds(kernels.HOST, kernels.around(self.program))
            found += around * max(turn.times for turn in self.turns.values())
        return found

    @cached_property
    def seconds(self) -> dict[str, float]:
        """One step, `low` `mid` `high`: 19 of 20 steps of a measured device lie between (see `device`).

        Where the data decide how many samples enter, from the least to the most that are expected (`bounds`).
        """
        rates, _ = self.device.at(self.program.threads)
        low, high = (one.typical for one in self.bounds.values())
        return {"low": low / rates.factor, "mid": self.typical, "high": high * rates.factor}

    @cached_property
    def bounds(self) -> dict[str, "Estimate"]:
        """`low` and `high`: the same with the fewest and the most samples that are expected to enter in the mean.

        Over a run of `filter_shares.STEPS` mini-batches; this one itself where no choice of instances is made.
        """
        over = self.program.over(STEPS)
        same = over["low"].plan == over["high"].plan
        return {b: self if same else estimate(over[b], self.n, self.device) for b in ("low", "high")}

    def __str__(self) -> str:
        """The totals, a line each."""
        low, mid, high = self.seconds.values()
        p = self.program
        lines = [f"{p.graph.name}: one step on {self.n} samples"]
        for section, units in self.sections.items():
            lines.append(f"{section:9s} {', '.join(f'{n:,} {u}' for u, n in sorted(units.items()))}")
        lines.append(f"in all    {self.flops:,} flops = {self.macs:,} macs, {self.traffic_bytes:,} bytes of traffic")
        lines.append(f"executed  {self.executed_flops:,} flops on the kernels' own geometry")
        lines.append(f"memory    arena {p.peak_bytes:,} B, state {p.state_bytes:,} B, constants {p.constant_bytes:,} B")
        measured = "" if self.device.measured else ", whose kernels were not measured"
        lines.append(f"time      {mid:.3g} s ({low:.3g} to {high:.3g}) on {self.device.name}{measured}")
        return "\n".join(lines)


def turns_of(program: Program, n: int) -> dict[str, Turn]:
    """Section → what the program's schedule says of it on n samples."""
    return {turn.section: turn for turn in program.schedule(n)}


def estimate(program: Program, n: int | None = None, device: devices.Device | str = devices.REFERENCE) -> Estimate:
    """Price one step of `program` on n samples (default a full batch) for a device or the name of one.

    Where the data decide how many samples a section gets, the choice of instances says what is expected, with bounds
    (`Estimate.bounds`); where chance decides whether a step is made or which blocks it leaves out, the price is the
    mean over all choices.

    ValueError for what is no Program, KeyError for a pass without a formula or an unknown device, ProfileError for a
    device profile that cannot be read.
    """
    arguments.offers("program", program, "peak_bytes", "a Program, such as refimpl.compile(graph, plan, batch) makes")
    n = program.batch if n is None else n
    device = devices.find(device) if isinstance(device, str) else device
    turns = turns_of(program, n)
    calls, occurs = {}, {}
    for call in program.step:
        turn = turns[call.section]
        units, times = expected_counts(call, turn.samples), turn.occurs(call)
        if times != 1:
            occurs[call], units = times, Counter({u: k * times for u, k in units.items()})
        calls[call] = units
    return Estimate(program, n, calls, device, turns, occurs)


def run_macs(program: Program, batches: Iterable[int], of: Callable[[Estimate], float] | None = None) -> int | float:
    """Multiply-adds that are expected of a training run: one step for each batch size in `batches`.

    of: which operations of a step are meant, default those counted. Where the data decide how many samples enter, give
    it a program of `Program.over`.
    """
    steps = Counter(batches)
    total = sum(times * (of or flops_of)(estimate(program, n)) for n, times in steps.items())
    return as_macs(round(total))


def flops_of(price: Estimate) -> int:
    """Operations counted."""
    return price.flops


def executed_of(price: Estimate) -> float:
    """Operations executed."""
    return price.executed_flops
