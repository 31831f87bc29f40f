"""What a person sees of `cost`."""

from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from costmodel.advice.energy import ACCESSES
from costmodel.advice.integers import RATIOS
from refimpl.methods.filter_shares import STEPS

from .recipe import ADAM
from .show import console, operations, seconds, size
from .smaller import sentence

HOW = "; gradledger calibrate measures them, with --quick it probes a few in seconds"
ENDS = ("", "_low", "_high")  # of the record's keys for what is expected, and its bounds


def priced(record: dict) -> None:
    """The table of `cost`: a line for each layer, then the totals."""
    paper, per = record["convention"] == "paper", 2 if record["convention"] == "macs" else 1
    unit = "MAC" if per == 2 else "FLOP"
    rows, columns = record["size"]
    k, layers = record["train_last"], record["counted"]
    trained = {"all": f"all {layers}", 0: "the classifier alone", 1: f"the last {layers[:-1]}"}
    wide = Console(width=max(console.width, 200))  # a narrow terminal breaks lines, and a pipe has no width to cut at
    optimizer = f"SGD with momentum {record['momentum']:g}" if record["momentum"] else "plain SGD"
    optimizer = "Adam" if record["optimizer"] == ADAM else optimizer
    wide.print(
        f"\n{record['model']}, input {rows}x{columns}, {record['classes']} classes, batch {record['batch']}: "
        f"{record['method']}, training {trained.get(k, f'the last {k} {layers}')}, "
        f"{optimizer}, {record['threads']} thread{'' if record['threads'] == 1 else 's'}\n"
    )
    sections = tuple(record["other_units"])
    phases = ("backward",) if paper else ("forward", "backward", "update")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("layer", "operator", "output", "rule"):
        table.add_column(name, no_wrap=True)
    for name in (*(f"{p} {unit}s" for p in phases), *(() if paper else ("executed",)), "saved", "weights"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in record["layers"]:
        counts = [layer["flops"]] if paper else [by_phase(layer, sections, p) for p in phases]
        counts += [] if paper else [layer["executed_flops"]]
        shape, rule = "x".join(map(str, layer["shape"][1:])), layer["rule"].split(":")[0]
        memory = (size(layer["saved_bytes"]), size(layer["weight_bytes"]))
        table.add_row(layer["name"], layer["op"], shape, rule, *(operations(c / per) for c in counts), *memory)
    wide.print(table)
    summary = Table(box=None, pad_edge=False, show_header=False)
    summary.add_column()
    summary.add_column(justify="right")
    if paper:
        summary.add_row("backward, as arXiv 2301.00330 counts it", operations(record["flops"], unit))
        summary.add_row("stored inputs of the trained convolutions", size(record["saved_bytes"]))
    else:
        for s in sections:
            counted = "samples" in record and not s.endswith("update")
            on = f" on {expected(*(record[f'samples{end}'][s] for end in ENDS))} samples" if counted else ""
            summary.add_row(f"{s}{on}", operations(sum(record[s].values()) / per, unit))
        summary.add_row("whole step, counted", operations(record["flops"] / per, unit), style="bold")
        summary.add_row("whole step, executed", operations(record["executed"]["flops"] / per, unit), style="bold")
        for bits, count in record["integers"]["imacs"].items():
            summary.add_row(f"  products of whole numbers, {bits} bits", operations(count, "IMAC"))
        if record["integers"]["imacs"]:
            ratio = record["integers"]["ratio"]
            summary.add_row(f"  with them, by {ratio} of bits", operations(2 * record["integers"]["macs"] / per, unit))
        if "samples" in record and record["macs_low"] < record["macs_high"]:
            low, high = (operations(2 * record[f"macs_{bound}"] / per, unit) for bound in ("low", "high"))
            summary.add_row("  counted, as samples enter over a run", f"{low} to {high}")
        summary.add_row("saved from forward to backward", size(record["saved_bytes"]))
    summary.add_row("peak arena", size(record["peak_bytes"]))
    summary.add_row("trained weights and optimizer state", size(record["state_bytes"]))
    summary.add_row("weights", size(record["weight_bytes"]))
    spread = record["seconds"]
    times = f"{seconds(spread['mid'])} ({seconds(spread['low'])} to {seconds(spread['high'])})"
    summary.add_row(f"a step on {escape(record['device'])}", times)
    summary.add_row(
        "its energy there, estimated", "-" if record["energy"]["board"] is None else between(record["energy"]["board"])
    )
    for kind, needed in record["fits"]["needs"].items():
        has = record["fits"]["has"][kind]
        verdict = "" if has is None else f" of {size(has)}: {'fits' if needed <= has else 'does not fit'}"
        if record["fits"]["at_least"]:
            verdict = verdict.removesuffix(": fits")
        least = "at least " if record["fits"]["at_least"] else ""
        summary.add_row(f"{kind.replace('ram', 'RAM')} that it needs there", f"{least}{size(needed)}{verdict}")
    console.print()
    wide.print(summary)
    if "would_fit" in record:
        wide.print(f"{sentence(record['would_fit'])}", highlight=False, soft_wrap=True)
    console.print()
    for line in notes(record):
        console.print(line, highlight=False, soft_wrap=True)
    if "memory_limit" in record:
        budgeted(record, wide)
    if "run" in record:
        whole_run(record["run"], wide)


def whole_run(run: dict, wide: Console) -> None:
    """The parts of a run that seconds are made of, its memory, disk and energy, and the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("the whole run", "left"), ("launched", "right"), ("seconds", "right"), ("from", "right"),
                          ("to", "right")):  # fmt: skip
        table.add_column(name, justify=justify)
    for name, part in run["parts"].items():
        times = (f"{part['seconds'][end]:.1f}" for end in ("mid", "low", "high"))
        table.add_row(name, f"{part['launched']:,}", *times)
    table.add_row("in all", "", *(f"{run['seconds'][end]:.1f}" for end in ("mid", "low", "high")), style="bold")
    wide.print()
    wide.print(table)
    rows = {
        "memory of the process" if run["resident_bytes"] else "memory": ", ".join(
            f"{size(needed)} of {kind.replace('ram', 'RAM')}" for kind, needed in run["fits"]["needs"].items()
        ),
        **({} if run["disk_bytes"] is None else {"most on the disk": size(run["disk_bytes"])}),
        "energy, estimated": drawn(run["joules"]["board"]),
    }
    summary = Table(box=None, pad_edge=False, show_header=False)
    for name, value in rows.items():
        summary.add_row(name, value)
    wide.print(summary)
    notes = ["reading the data is not in it"]
    notes += ["kernels are compiled already (gradledger warmup)"] if run["disk_bytes"] else []
    if run["steps_least"] < run["steps"]:
        notes.append(f"a run that stops improving ends earlier, after {run['steps_least']:,} steps at the earliest")
    wide.print(f"run: {'; '.join(notes)}\n")
    wide.print(f"{run['verdict']}", style="bold", highlight=False, soft_wrap=True)


def expected(mid: float, low: float, high: float) -> str:
    """A mean number of samples, with its bounds where it is in doubt."""
    return f"{mid:.4g}" if low == high else f"{mid:.4g} ({low:.3g} to {high:.3g})"


def notes(record: dict) -> list[str]:
    """What the predictions for a device cover, a line each."""
    if record["device_measured"]:
        time = "19 of 20 undisturbed steps take a time between the bounds"
    else:
        factor = record["seconds"]["high"] / record["seconds"]["mid"]
        time = f"its kernels were not measured, a factor of {factor:.2g} either way is assumed"
        time += HOW if record["device"] == "this-machine" else ""
    left_out = ", ".join(record["energy"]["counted"]["left_out"])
    if record["energy"]["board"]:
        source = "an estimate, board power times seconds"
    else:
        alone = f"operations and memory alone{f', without {left_out},' if left_out else ''}"
        counted = between(record["energy"]["counted"]["total"])
        source = f"{UNKNOWN}; {alone} would take {counted} a step, a small part of what a board draws"
    if "flash" in record["fits"]["needs"]:
        memory = "stack and program code are not counted; flash holds all weights, trained or not"
    elif record["backend"] == "cuda":
        memory = "what training holds on the GPU; where that is the board's RAM, the training process comes on top"
        memory += "; the driver's context is not known" if record["fits"]["at_least"] else ""
    else:
        memory = "the training process with one batch of data, no other process"
        memory += "; the rest of it is not predicted" if record["fits"]["at_least"] else ""
    counted = "" if record["convention"] == "paper" else (
        "counted: by the reference algorithm, without padded taps; executed: on the kernels' own geometry, zeros and "
        "empty vector lanes included, several layers' work where most of it is"
    )  # fmt: skip
    entering = "samples" in record and record["macs_low"] < record["macs_high"]
    mean = (
        f"samples: the mean of a run of {STEPS:,} steps; data and chance decide, within the bounds" if entering else ""
    )
    units = [] if record["convention"] == "paper" else other_units(record)
    found = [mean, counted, *units, f"time: {time}", f"energy: {source}", f"fit: {memory}"]
    found += [f"{record['device']}: {record['device_note']}"] if record["device_note"] else []
    return [note for note in found if note]


INTEGER = ("iadd", "imul", "idiv", "shift", "logic", "convert")  # units of whole numbers, and to and from them


def other_units(record: dict) -> list[str]:
    """Operations of the step that are no multiplications and additions of floats, largest first, a line a kind."""
    total = sum((Counter(units) for units in record["other_units"].values()), Counter())
    lines = []
    for what, own in (("other", False), ("integer", True)):
        units = [(u, n) for u, n in total.most_common() if n and u not in ACCESSES and (u in INTEGER) == own]
        if units:
            lines.append(f"{what} operations of the step: {', '.join(f'{operations(n)} {u}' for u, n in units)}")
    if record["integers"]["imacs"]:
        chosen = record["integers"]["ratio"]
        ways = " or ".join(f"{share(8, 8):g} ({ratio})" for ratio, share in RATIOS.items())
        lines.append(
            f"products of whole numbers: one of 8 bits, summed, is an IMAC (imul + iadd), no MAC or FLOP; beside "
            f"a MAC it counts {ways}, here {chosen}: our reading of what arXiv 2007.03213 saves by +Q"
        )
    return lines


UNKNOWN = "the board's power is not in its profile"


def drawn(board: dict | None) -> str:
    """Joules that a board draws; a dash, and why, where its power is not known."""
    return f"-, {UNKNOWN}" if board is None else between(board)


def between(found: dict) -> str:
    """The bounds of an energy."""
    low, high = joules(found["low"]), joules(found["high"])
    return low if low == high else f"{low} to {high}"


def joules(value: float) -> str:
    """An energy in kJ, J, mJ or µJ."""
    for unit, factor in (("kJ", 1e3), ("J", 1.0), ("mJ", 1e-3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value / 1e-6:.3g} µJ"


def by_phase(layer: dict, sections: tuple[str, ...], phase: str) -> int:
    """Operations of a layer in all sections of a phase; a section with a name of its own runs forward."""
    own = {s: s.rsplit(".", 1)[-1] for s in sections}
    return sum(
        sum(layer[s].values()) for s, p in own.items() if (p if p in ("backward", "update") else "forward") == phase
    )


def budgeted(record: dict, wide: Console) -> None:
    """The memory terms of a step that keeps to a limit, and what was chosen for it."""
    fit, memory = record.get("fit"), record["memory"]
    if fit:
        covers = {"trained": "all trained weights", "updated": "the weights that one step updates"}[fit["weights"]]
        wide.print(
            f"\nchosen: the last {fit['layers']} convolutions at ratio {fit['ratio']:g}; with {covers} they need "
            f"{fit['needed']:,} of {record['memory_limit']:,} bytes"
        )
    else:
        wide.print(
            f"\nstate and arena need {record['state_bytes'] + record['peak_bytes']:,} of the limit's "
            f"{record['memory_limit']:,} bytes; constants come on top"
        )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("memory in bytes", "left"), ("at the peak", "right"), ("most at any time", "right")):
        table.add_column(name, justify=justify)
    parts = {"constants": memory["constants"], "state": memory["state"], "arena": memory["arena"]}
    for part, found in parts.items():
        most = memory["arena_most"] if part == "arena" else {}
        table.add_row(part, f"{sum(found.values()):,}", style="bold")
        for name, nbytes in found.items():
            if nbytes or most.get(name):
                table.add_row(f"  {name.replace('_', ' ')}", f"{nbytes:,}", f"{most[name]:,}" if name in most else "")
    wide.print()
    wide.print(table)
    wide.print(f"the peak is at {memory['peak_at']}")
