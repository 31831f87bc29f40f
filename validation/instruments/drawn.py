"""Drawn cases: is every formula what the loops do, and every arena as large as predicted?

    python -m validation.instruments.drawn conv2d.grad_w 17    one call of a pass (`drawn_passes`) from seed 17
    python -m validation.instruments.drawn net 17              one net under a plan (`drawn_nets`): its calls, its arena

A case follows from its name and seed alone. Counts: costmodel's formula against a run of the kernel's own body on
counting arrays, of every item where that takes few accesses, else by classes and sums (`instruments.counting`). Bytes:
the arena that the compiler placed against the highest byte that a step touches (`instruments.measured`). Working arrays
of kernels count whole: a tile, or a row for each thread, that a tiny net does not fill is reserved all the same.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from costmodel.formulas import cost
from refimpl.compiler.executed import executed, stated
from refimpl.compiler.program import Program
from refimpl.kernels.passes import Pass
from refimpl.training.trainer import NonFiniteError

from . import counting, drawn_nets, drawn_passes, executing, measured

FULL = 20_000  # predicted loads and stores of a call whose items are all counted one by one
APART = 10**6  # seeds between the first cases of two neighbouring seeds of a run
Watch = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Compared:
    """What the formula says of a call, or a kernel states, and what the loops did: unit → count.

    full: was every item counted? problem: why there is nothing to compare.
    """

    name: str
    predicted: dict[str, int]
    counted: dict[str, int]
    full: bool = False
    problem: str = ""

    @property
    def ok(self) -> bool:
        """Are they equal in every unit?"""
        return not self.problem and self.predicted == self.counted

    def __str__(self) -> str:
        """The units that differ."""
        if self.problem:
            return f"{self.name}: {self.problem}"
        units = sorted({*self.predicted, *self.counted})
        off = [(u, self.predicted.get(u, 0), self.counted.get(u, 0)) for u in units]
        return f"{self.name}: " + ", ".join(
            f"{u} {p:,} by the formula, {c:,} by the loops" for u, p, c in off if p != c
        )


def compare(
    name: str, passed: Pass, sizes: dict, attrs: dict, present: Iterable[str], full: bool,
    dtypes: Mapping[str, np.dtype] | None = None,
) -> Compared:  # fmt: skip
    """Formula and loops of one call; full: count every item where that is little work; dtypes: as `counting.count`."""
    try:
        predicted = cost.counts(passed.operator, passed.name, sizes, attrs, present)
        full = full and predicted.get("load", 0) + predicted.get("store", 0) <= FULL
        counted = counting.count(passed, sizes, attrs, present, full, dtypes)
        return Compared(name, predicted, {u: n for u, n in sorted(counted.items()) if n}, full)
    except (KeyError, IndexError, TypeError) as e:  # no formula, an index outside of an array, what does not count
        return Compared(name, {}, {}, problem=str(e.args[0]))


def compare_pass(name: str, seed: int) -> Compared:
    """The case of a pass for a seed."""
    case = drawn_passes.pass_case(name, seed)
    return compare(str(case), case.passed, case.sizes, case.attrs, case.present, full=True, dtypes=case.dtypes)


def compare_calls(program: Program, n: int) -> list[Compared]:
    """Every call of a step on n samples."""
    return [
        compare(c.name, c.passed, c.sizes_at(n), c.attrs, c.present, False, counting.several(c)) for c in program.step
    ]


def compare_kernels(program: Program, n: int) -> list[Compared]:
    """What every tuned kernel of a step on n samples states that it executes, and what its own body does."""
    compared = []
    for launch in program.order:
        if stated(launch) is not None:
            says, does = executed(launch, n, counting.count_call), executing.launched(launch, n)
            compared.append(Compared(launch.name, vars(says), vars(does)))
    return compared


def touched(case: drawn_nets.NetCase) -> tuple[int | None, str]:
    """Arena bytes that a step of a drawn net touches; None and the reason where there are none to compare."""
    try:
        return measured.touched_bytes(case.program, case.x, case.y, case.parameters), ""
    except (AssertionError, NonFiniteError) as e:  # a kernel wrote outside, or the step ended before its time
        return None, str(e)


def command(name: str, seed: int) -> str:
    """The command that runs a case again."""
    return f"python -m validation.instruments.drawn {name} {seed}"


def run_passes(each: int, seed: int = 0, watch: Watch = lambda done, total, name: None) -> dict:
    """Compare `each` drawn calls of every pass.

    Returns cases, how many of them were counted item by item (`full`), mismatches, the same for each pass with its
    first case as `example` under `passes`, and what was `wrong`: case, seed, what, command.
    """
    names, by_pass, wrong = list(drawn_passes.passes()), {}, []
    for i, name in enumerate(names):
        watch(i * each, len(names) * each, name)
        tally = by_pass[name] = {"cases": 0, "full": 0, "mismatches": 0}
        for case_seed in range(seed * APART, seed * APART + each):
            result = compare_pass(name, case_seed)
            tally.setdefault("example", _example(name, case_seed, result))
            tally["cases"] += 1
            tally["full"] += result.full
            if not result.ok:
                tally["mismatches"] += 1
                wrong.append(_wrong(name, case_seed, str(result)))
    totals = {key: sum(t[key] for t in by_pass.values()) for key in ("cases", "full", "mismatches")}
    return {**totals, "passes": by_pass, "wrong": wrong}


def run_nets(count: int, seed: int = 0, watch: Watch = lambda done, total, name: None) -> tuple[dict, dict]:
    """Compare the calls and the arenas of `count` drawn nets: what was found of operations, and of bytes.

    Operations: cases, calls, mismatches (calls), `methods` and `sets` of them, each with cases, calls and mismatches,
    what was `wrong` as in `run_passes`, and `kernels` (tuned ones: checked, mismatches, wrong). Bytes: checked,
    mismatches (nets), filled (nets whose step touches the last byte; the others' arenas end in working arrays),
    `methods` with cases and mismatches, `arenas` (seed, predicted bytes, touched bytes), `wrong`.
    """
    operations = {"methods": {}, "sets": {}, "wrong": [], "kernels": {"checked": 0, "mismatches": 0, "wrong": []}}
    memory = {"methods": {}, "arenas": [], "wrong": []}
    for i, case_seed in enumerate(range(seed * APART, seed * APART + count)):
        methods = drawn_nets.methods_of(case_seed)
        together = " + ".join(methods)
        watch(i, count, together)
        results, kernels, predicted, end, problem = _net(case_seed)
        tallied = operations["kernels"]
        tallied["checked"] += len(kernels)
        tallied["mismatches"] += sum(not k.ok for k in kernels)
        tallied["wrong"] += [_wrong("net", case_seed, f"{together}: {k}") for k in kernels if not k.ok]
        off, differs = [c for c in results if not c.ok], bool(problem)
        for tallies, names in ((operations["methods"], methods), (operations["sets"], (together,))):
            for name in names:
                tallies.setdefault(name, Counter()).update(cases=1, calls=len(results), mismatches=len(off))
        operations["wrong"] += [_wrong("net", case_seed, f"{together}: {c}") for c in off]
        if not predicted:
            continue
        for name in methods:
            memory["methods"].setdefault(name, Counter()).update(cases=1, mismatches=int(differs))
        memory["arenas"].append([case_seed, predicted, end])
        if differs:
            memory["wrong"].append(_wrong("net", case_seed, f"{together}: {bytes_text(predicted, end, problem)}"))
    totals = {k: sum(t[k] for t in operations["sets"].values()) for k in ("cases", "calls", "mismatches")}
    arenas = {"checked": len(memory["arenas"]), "mismatches": len(memory["wrong"])}
    return totals | operations, arenas | {"filled": sum(p == end for _, p, end in memory["arenas"])} | memory


def _net(seed: int) -> tuple[list[Compared], list[Compared], int, int | None, str]:
    """Calls, kernels, bytes predicted and touched, what is wrong; a net that does not compile is one call, not ok."""
    try:
        case = drawn_nets.net_case(seed)
    except (AssertionError, ValueError) as e:
        return [Compared("the net", {}, {}, problem=f"does not compile: {e}")], [], 0, 0, ""
    end, problem = touched(case)
    if end is not None:
        problem = beside(case.program, end)
    program = case.program
    return compare_calls(program, case.n), compare_kernels(program, case.n), program.peak_bytes, end, problem


def beside(program: Program, end: int) -> str:
    """What is wrong with an arena whose highest touched byte is `end` − 1; empty where nothing is.

    Above the last touched byte only working arrays of kernels may lie, above the arena nothing may be touched.
    """
    if end > program.peak_bytes:
        return f"{end:,} bytes touched"
    scratch = {b.root for launch in program.order for b in launch.scratch}
    above = [b.name for b, at in program.offsets.items() if at + b.nbytes > end and b not in scratch]
    unknown = program.peak_bytes > max((at + b.nbytes for b, at in program.offsets.items()), default=0)
    if above or unknown:
        return f"{end:,} bytes touched, above which lies {', '.join(above) or 'no array'}"
    return ""


def bytes_text(predicted: int, end: int | None, problem: str) -> str:
    """An arena's bytes, predicted and touched."""
    return f"arena of {predicted:,} bytes predicted, {problem or f'{end:,} bytes touched'}"


def _example(name: str, seed: int, result: Compared) -> dict:
    units = {u: [result.predicted.get(u, 0), result.counted.get(u, 0)] for u in {**result.predicted, **result.counted}}
    return {"case": result.name, "units": units, "command": command(name, seed)}


def _wrong(name: str, seed: int, what: str) -> dict:
    return {"case": name, "seed": seed, "what": what, "command": command(name, seed)}


def show(name: str, seed: int) -> bool:
    """Print one case, its formulas and what was found; True where all agree."""
    if name != "net":
        result = compare_pass(name, seed)
        print(cost.show(*name.split(".")))
        print(f"{result.name}\nformula {dict(sorted(result.predicted.items()))}\nloops   {result.counted}")
        print(f"counted {'item by item' if result.full else 'by classes and sums'}: {'equal' if result.ok else result}")
        return result.ok
    results, kernels, predicted, end, problem = _net(seed)
    off, unlike = ([c for c in compared if not c.ok] for compared in (results, kernels))
    if predicted:
        print(drawn_nets.net_case(seed))
    print(f"{len(results)} calls, {len(off)} do other operations than their formulas say")
    print(f"{len(kernels)} tuned kernels, {len(unlike)} execute other operations than they state")
    for c in (*off, *unlike):
        print(f"  {c}")
    print(bytes_text(predicted, end, problem))
    return not off and not unlike and not problem


def main(args: list[str]) -> int:
    """Exit status: 0 all agree, 1 they do not, 2 an unknown case."""
    known = {"net", *drawn_passes.passes()}
    if len(args) != 2 or args[0] not in known or not args[1].isdigit():
        print(
            "usage: python -m validation.instruments.drawn NAME SEED, where NAME is net or a pass such as "
            "conv2d.grad_w and SEED a "
            f"whole number from 0, got {' '.join(args) or 'nothing'}",
            file=sys.stderr,
        )
        return 2
    return 0 if show(args[0], int(args[1])) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
