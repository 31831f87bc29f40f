"""The checks of `gradledger validate`: formula, value, what was measured, verdict, the command to repeat each.

Each function takes a part of the record and gives rows for it; nothing is computed here that the record does not hold.
"""

from dataclasses import dataclass

from validation.instruments import drawn, resident

INSIDE = 0.9  # share of measured times inside their intervals; with less the machine may be busy, and nothing is judged
SLOPES = "|(L(w + h·d) − L(w − h·d)) / 2h − Σ g₆₄·d| / Σ |g₆₄·d|, d = sign(g₆₄), L the loss, h a small step"
SHOWN = 3  # mismatches that a sentence names; the record has all


@dataclass(frozen=True)
class Check:
    """One check. ok: None where it is shown and judges nothing.

    command: what repeats it, a line for each command. problem: why it failed, in words; empty where it did not fail.
    """

    section: str
    name: str
    formula: str
    value: str
    measured: str
    ok: bool | None
    command: str
    problem: str = ""

    def __post_init__(self):
        if self.ok is not False:
            object.__setattr__(self, "problem", "")

    @property
    def verdict(self) -> str:
        """`ok`, `FAILED` or `not judged`."""
        return "not judged" if self.ok is None else "ok" if self.ok else "FAILED"


def all_checks(record: dict) -> list[Check]:
    """Every check of a record, in the order of its sections."""
    parts = (gradients, counts, torch_counter, memory, process, time, tables)
    return [check for part in parts for check in part(record)]


def gradients(record: dict) -> list[Check]:
    """Kernels against float64, and float64 against slopes of the loss; of whole numbers, a step of both kernels."""
    g, slope = record["gradients"], record["gradients"]["slope"]
    value, command = f"at most {slope['tolerance']:.0e}", record["command"]
    if g["step"]:
        unasked = Check("gradients", "slopes of the loss", SLOPES, value, f"not asked: {slope['note']}", None, command)
        return [whole_step(g["step"], command), unasked]
    return [
        Check(
            "gradients", f"{g['checked']} gradients of the fast kernels",
            "‖g − g₆₄‖ / ‖g₆₄‖, g of the float32 kernels, g₆₄ of the float64 reference",
            f"at most {g['tolerance']:.0e}", f"{g['max_rel_err']:.1e} at most", g["max_rel_err"] <= g["tolerance"],
            command,
            f"a gradient of the fast kernels is off by {g['max_rel_err']:.1e} of the float64 reference, where at most "
            f"{g['tolerance']:.0e} is rounding",
        ),
        Check(
            "gradients", f"{slope['checked']} slopes of the loss", SLOPES, value, f"{slope['max_rel_err']:.1e} at most",
            slope["max_rel_err"] <= slope["tolerance"], command,
            f"a gradient is off by {slope['max_rel_err']:.1e} of the slope of the loss, where at most "
            f"{slope['tolerance']:.0e} is rounding",
        ),
    ]  # fmt: skip


def whole_step(step: dict, command: str) -> Check:
    """Weights of whole numbers after a step of the fast kernels against those of the reference kernels."""
    off, may = step["mismatches"], step["allowed"]
    return Check(
        "gradients", f"{step['checked']:,} whole weights after a step",
        "weights after a step of the fast kernels = those after the same step of the reference kernels",
        f"at most {may:,} differ" if may else "0 differ", f"{off:,} differ", off <= may, command,
        f"{off:,} of {step['checked']:,} whole weights differ after a step of the fast and of the reference kernels, "
        f"where {may:,} may",
    )  # fmt: skip


def named(wrong: list[dict]) -> str:
    """The first mismatches with the commands that show them."""
    more = f" and {len(wrong) - SHOWN} more in the record" if len(wrong) > SHOWN else ""
    return "; ".join(f"{w['what']} ({w['command']})" for w in wrong[:SHOWN]) + more


def again(record: dict, name: str, wrong: list[dict]) -> str:
    """The command that draws every case again, and that of one case: the first mismatch, else the first case."""
    one = wrong[0]["command"] if wrong else drawn.command(name, record["seed"] * drawn.APART)
    return f"{record['command']}\n{one}"


def counts(record: dict) -> list[Check]:
    """Formulas against counted loops."""
    c = record["counts"]
    model, passes, nets = c["model"], c["passes"], c["nets"]
    formula = "SymPy formula of the pass, unit by unit = its body on counting arrays"
    return [
        Check(
            "counts", f"{model['checked']} calls of a step of {record['model']}", formula, "0 mismatches",
            f"{model['mismatches']} mismatches", not model["mismatches"], record["command"],
            f"{model['mismatches']} of {model['checked']} calls do other operations than their formulas say: "
            + named(model["wrong"]),
        ),
        Check(
            "counts", f"{passes['cases']:,} drawn calls of {len(passes['passes'])} passes", formula, "0 mismatches",
            f"{passes['mismatches']} mismatches ({passes['full']:,} counted in full)", not passes["mismatches"],
            again(record, next(iter(passes["passes"])), passes["wrong"]),
            f"{passes['mismatches']} of {passes['cases']} drawn calls do other operations than their formulas say: "
            + named(passes["wrong"]),
        ),
        Check(
            "counts", f"{nets['calls']:,} calls of {nets['cases']:,} drawn nets", formula, "0 mismatches",
            f"{nets['mismatches']} mismatches", not nets["mismatches"], again(record, "net", nets["wrong"]),
            f"{nets['mismatches']} of {nets['calls']} calls of drawn nets do other operations than their formulas say: "
            + named(nets["wrong"]),
        ),
        executed(record),
    ]  # fmt: skip


def executed(record: dict) -> Check:
    """What tuned kernels state that they execute against what their bodies do."""
    model, nets = record["counts"]["model"]["kernels"], record["counts"]["nets"]["kernels"]
    bad, wrong = model["mismatches"] + nets["mismatches"], model["wrong"] + nets["wrong"]
    checked = model["checked"] + nets["checked"]
    return Check(
        "counts", f"{checked:,} tuned kernels of that step and of the drawn nets",
        "multiplications and additions that the kernel states = its own body on vectors that count their lanes",
        "0 mismatches", f"{bad} mismatches", not bad, again(record, "net", nets["wrong"]),
        f"{bad} of {checked} tuned kernels execute other operations than they state: " + named(wrong),
    )  # fmt: skip


def torch_counter(record: dict) -> list[Check]:
    """Our nominal counts against PyTorch's counter."""
    found = record["counts"]["torch"]
    formula = (
        "our multiplications and additions, padded taps included = torch.utils.flop_counter, or that with its known "
        "error: it counts the weight gradient of a convolution with G groups G times"
    )
    value, command = "equal, or off by its known error", "python -m validation.instruments.torch_flops"
    if found.get("note"):
        return [Check("counts", "PyTorch's counter", formula, value, found["note"], None, command)]
    rows = found["rows"]
    bad = [r for r in rows if not r["explained"]]
    equal = sum(r["ours"] == r["torch"] for r in rows)
    return [
        Check(
            "counts", f"{len(rows)} counts of PyTorch's counter", formula, value,
            f"{equal} equal, {len(rows) - equal - len(bad)} off by its known error, {len(bad)} off by more",
            not bad, command,
            f"{len(bad)} of {len(rows)} counts of PyTorch's counter differ by more than its known error, first "
            + "; ".join(f"{r['name']} {r['part']}: {r['torch']:,}, ours {r['ours']:,}" for r in bad[:1]),
        )
    ]  # fmt: skip


def memory(record: dict) -> list[Check]:
    """Arenas to the byte."""
    m = record["memory"]
    nets, predicted, touched = m["drawn"], m["predicted_peak_bytes"], m["measured_peak_bytes"]
    formula = "end of the highest placed buffer = highest byte that two runs on two patterns change, plus one"
    drawn_formula = f"{formula}; kernels' working arrays count whole"
    found = "a byte outside" if touched is None else f"{touched:,} bytes"
    return [
        Check(
            "memory", f"arena of {record['model']}", formula, f"{predicted:,} bytes", found, touched == predicted,
            record["command"], f"a step touched {found} of the arena, where {predicted:,} were predicted",
        ),
        Check(
            "memory", f"arenas of {nets['checked']:,} drawn nets", drawn_formula, "0 mismatches",
            f"{nets['mismatches']} mismatches, {nets['filled']:,} filled to the last byte",
            not nets["mismatches"], again(record, "net", nets["wrong"]),
            f"{nets['mismatches']} of {nets['checked']} drawn nets touch other arenas than predicted: "
            + named(nets["wrong"]),
        ),
    ]  # fmt: skip


def process(record: dict) -> list[Check]:
    """Resident memory of training processes."""
    found = record["memory"]["process"]
    formula = "sum of the terms of costmodel.device.process = peak of resident memory, VmHWM of /proc/self/status"
    command = "python -m validation.instruments.resident"
    if found["note"]:
        value = f"off by at most {100 * resident.GOAL:g} %"
        return [Check("memory", "resident memory", formula, value, found["note"], None, command)]
    rows = []
    for case in found["cases"]:
        predicted, measured = (f"{case[k] / 2**20:.1f} MiB" for k in ("predicted_bytes", "measured_bytes"))
        problem = (
            f"the process of {case['name']} had {measured}, where {predicted} were predicted: off by "
            f"{100 * case['error']:+.1f} %, allowed {100 * resident.GOAL:g} %"
        )
        ok = abs(case["error"]) <= resident.GOAL
        what = f"{measured} ({100 * case['error']:+.1f} %)"
        rows.append(Check("memory", f"process of {case['name']}", formula, predicted, what, ok, command, problem))
    return rows


def time(record: dict) -> list[Check]:
    """Predicted seconds of whole nets: confirmed or not judged, for whoever shares the machine changes its times."""
    t = record["time"]
    if not t["cases"]:
        return []
    share = t["inside_interval"]
    measured = (
        f"{100 * share:.0f} % inside, median error {100 * t['median_error']:.1f} %, "
        f"{100 * t['within_15_percent']:.0f} % within 15 %"
    )
    value = f"{100 * INSIDE:g} % inside {'their interval' if t['calibrated'] else '(first: gradledger calibrate)'}"
    return [
        Check(
            "time", f"time of {len(t['cases'])} whole nets", "rates of single layers × the work of each kernel",
            value, measured,
            True if t["calibrated"] and share >= INSIDE else None, "gradledger reproduce seconds",
        )
    ]  # fmt: skip


def tables(record: dict) -> list[Check]:
    """Printed figures of the papers."""
    t = record["tables"]
    off = [row for row in t["rows"] if not row["ok"]]
    origins = ", ".join(f"{count} {kind}" for kind, count in t["origins"].items())
    return [
        Check(
            "tables", f"{len(t['rows'])} figures that four papers print",
            f"computed from shapes ({origins}) = as printed",
            "0 off", f"{len(off)} off", not off, "gradledger reproduce tables",
            f"{len(off)} of {len(t['rows'])} printed figures are not reproduced: "
            + "; ".join(f"{r['what']} ({r['source']}) is {r['ours']:g}, printed {r['published']:g}" for r in off),
        )
    ]  # fmt: skip
