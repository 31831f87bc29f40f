"""What a person sees: progress bars and tables."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

console = Console()
UNITS = ("B", "KiB", "MiB", "GiB")


@contextlib.contextmanager
def bar(what: str, quiet: bool) -> Iterator[Callable]:
    """A progress bar with ETA and running loss on stderr; yields the function that is called after each step."""
    if quiet or not sys.stderr.isatty():
        yield lambda progress: None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"),
        TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(), TextColumn("loss {task.fields[loss]:.4f}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(what, total=None, loss=float("nan"))
        mean = None

        def watch(progress) -> None:
            nonlocal mean
            mean = progress.loss if mean is None else 0.95 * mean + 0.05 * progress.loss
            display.update(task, total=progress.steps, completed=progress.step, loss=mean)

        yield watch


@contextlib.contextmanager
def counter(what: str, quiet: bool) -> Iterator[Callable]:
    """A progress bar over named pieces of work; yields the function called with (done, all, name) before each."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total, name: None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("ETA"),
        TimeRemainingColumn(), TextColumn("{task.fields[name]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(what, total=None, name="")
        yield lambda done, total, name: display.update(task, total=total, completed=done, name=name)


SPREAD = {"mean", "std", "min", "max"}  # of a figure over several seeds


def compared(record: dict) -> None:
    """Printed figures beside ours, and what each is allowed to differ by."""
    from validation.report import allowed

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("", "left"),
        ("printed", "right"),
        ("ours", "right"),
        ("", "left"),
        ("off by", "right"),
        ("may differ by", "right"),
        ("", "left"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)
    source = None
    for row in record["rows"]:
        if row["source"] != source:
            source = row["source"]
            table.add_row(f"[bold]{escape(source)}[/bold]")
        measure = row["allowed"][1]
        percent = 100 if measure == "relative" else 1
        unit = {"relative": " %", "points": " points"}.get(measure, "")
        table.add_row(
            f"  {row['what']}", cell(row["published"]), cell(row["ours"]), row["unit"],
            f"{percent * row['difference']:+.2f}{unit}",
            allowed(*row["allowed"]),
            "" if row["ok"] else "[red]off[/red]",
        )  # fmt: skip
    Console(width=max(console.width, 150)).print(table, highlight=False)
    for note in dict.fromkeys(f"{row['what']}: {row['note']}" for row in record["rows"] if row["note"]):
        console.print(note, highlight=False, soft_wrap=True)
    console.print(f"{record['goal']}; record in {record['file']}", highlight=False, soft_wrap=True)


def reproduced(record: dict) -> None:
    """The table of `reproduce`: measured beside published, a column for each figure, means with their deviation."""
    if "rows" in record:
        return compared(record)
    table = Table(box=None, pad_edge=False, header_style="bold")
    rows = {name: columns_of(found) for name, found in record["measured"].items()}
    columns = list(dict.fromkeys(key for found in rows.values() for key in found))
    for name in ("", *columns, "published"):
        table.add_column(name.replace("_", " "), justify="right" if name else "left", no_wrap=len(columns) > 1)
    for name, found in rows.items():
        published = record["published"].get(name, "-")
        if isinstance(published, dict):
            published = ", ".join(f"{k.replace('_', ' ')} {cell(v)}" for k, v in published.items())
        table.add_row(name, *(cell(found.get(key, "")) for key in columns), escape(str(published)))
    Console(width=max(console.width, 160) if len(columns) > 1 else None).print(table, highlight=False)
    if any(SPREAD <= v.keys() for found in rows.values() for v in found.values() if isinstance(v, dict)):
        console.print("mean ± standard deviation over the seeds", highlight=False)
    for f in record.get("findings", ()):
        missing = "; ".join(claim for claim, holds in f["claims"].items() if not holds)
        verdict = f"not confirmed ({escape(missing)})" if missing else "confirmed"
        console.print(f"finding {f['finding']}, {escape(f['says'])}: {verdict}", highlight=False, soft_wrap=True)
    verdict = "reached" if record["ok"] else "not reached"
    goal = f": {record['goal']}" if "goal" in record else ""
    console.print(f"goals {verdict}{escape(goal)}; record in {record['file']}", highlight=False, soft_wrap=True)


def columns_of(found) -> dict:
    """What was measured under one name, by column; what has no name of its own is called `measured`."""
    if not isinstance(found, dict):
        return {"measured": found}
    if found.keys() >= SPREAD:
        return {"measured": {k: found[k] for k in SPREAD}} | {k: v for k, v in found.items() if k not in SPREAD}
    return found


def cell(value) -> str:
    """A figure of a record: a mean with its deviation, a number, or a text."""
    if isinstance(value, dict) and value.keys() >= SPREAD:
        return f"{value['mean']:,.2f} ± {value['std']:,.2f}"
    if isinstance(value, float) and abs(value) >= 1000:
        value = round(value)
    return escape(f"{value:,}" if isinstance(value, (int, float)) else str(value))


def timed(record: dict) -> None:
    """The table of `bench`: milliseconds, ratios below 1 where ours is faster."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("ms", "ours", "NCHW", "NHWC", "ratio to NCHW", "to the better", "floor", "spread", "error")
    for name in columns:
        table.add_column(name, justify="left" if name == "ms" else "right", no_wrap=True)
    for c in record["cases"]:
        keys = ("ours_ms", "peer_nchw_ms", "peer_nhwc_ms", "ratio_nchw", "ratio", "floor_ms")
        numbers = ("-" if c.get(key) is None else f"{c[key]:.2f}" for key in keys)
        error = "-" if c["error"] is None else f"{c['error']:.0e}"
        table.add_row(c["name"], *numbers, f"{c['spread']:.0%}", error)
    Console(width=max(console.width, 120)).print(table)
    for c in record["cases"]:
        if c.get("resident_ratio"):
            console.print(
                f"{c['name']}: resident memory {c['ours_resident_mb']:.0f} MiB, peer {c['peer_resident_mb']:.0f} MiB, "
                f"ratio {c['resident_ratio']:.2f}",
                highlight=False,
            )
        if "predicted_macs_ratio" in c:
            console.print(
                f"{c['name']}: {c['ratio']:.2f} of the time of back-propagation ({c['peer_ms']:.2f} ms); predicted "
                f"{c['predicted_macs_ratio']:.2f} by multiply-adds, {c['predicted_seconds_ratio']:.2f} in seconds"
                f"{'' if c['predicted_calibrated'] else ' (this machine is not calibrated)'}",
                highlight=False,
                soft_wrap=True,
            )
    if record["peer"]:
        console.print("ratio: ours / the better of PyTorch's two layouts; floor: bytes that must move at copy speed")


def calibrated(record: dict) -> None:
    """What was measured of this device, for each number of threads."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("threads", "steps within", "undisturbed", "layers", "rounds", "measured in"):
        table.add_column(name, justify="right")
    for count, one in record["threads"].items():
        steady = one["steadiness"]
        table.add_row(
            count, f"/ or x {one['factor']:.2f}", percent(steady["undisturbed_share"]),
            f"{steady['cases']}", f"{steady['rounds']}", seconds(steady["seconds"]),
        )  # fmt: skip
    console.print(f"{record['title']}: {record['cores']} cores", highlight=False)
    console.print(
        f"matrix product {record['peak_flops'] / 1e9:.1f} GFLOP/s ({record['core_flops'] / 1e9:.1f} of one core), copy "
        f"{record['bandwidth'] / 1e9:.1f} GB/s",
        highlight=False,
    )
    console.print(table, highlight=False)
    console.print(f"profile in {record['file']}", highlight=False, soft_wrap=True)


def equal_accuracy(record: dict) -> None:
    """Each method's steps and operations until it reaches an accuracy, beside the first method's."""
    for group, found in record["groups"].items():
        console.print(f"{group}: until {100 * found['accuracy']:.2f} % is reached", highlight=False)
        table = Table(box=None, pad_edge=False, header_style="bold")
        ratio = f"TMAC, to {escape(found['methods'][0]['method'])}"
        names = ("method", "runs that do", "steps", "MMAC a step", "TMAC in all", "least to most", ratio)
        where = record["device"] and f"time on {record['device']}"
        for name in (*names, *((where,) if where else ())):
            table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
        for row in found["methods"]:
            cells = [escape(row["method"]), f"{row['reached']} of {row['runs']}"]
            if row["macs"] is None:
                cells += ["-"] * 5
            else:
                cells += [
                    f"{row['steps']:,.0f}", f"{row['macs_per_step'] / 1e6:,.1f}", f"{row['macs'] / 1e12:,.3f}",
                    f"{row['macs_min'] / 1e12:,.3f} to {row['macs_max'] / 1e12:,.3f}",
                    "-" if row["ratio"] is None else f"{row['ratio']:.2f}",
                ]  # fmt: skip
            if where:
                s = row["seconds"]
                cells.append("-" if s is None else f"{seconds(s['mid'])} ({seconds(s['low'])} to {seconds(s['high'])})")
            table.add_row(*cells)
        Console(width=max(console.width, 160)).print(table, highlight=False)
    if record["device"] and not record["device_measured"]:
        console.print(f"the kernels of {record['device']} were not measured", highlight=False)


def checks(found: list[dict]) -> None:
    """The table of `doctor`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("check", "state", "found", "advice"):
        table.add_column(name)
    for c in found:
        table.add_row(c["name"], c["state"], c["found"], "" if c["state"] == "ok" else c["advice"])
    console.print(table)


def size(nbytes: float) -> str:
    """Bytes in the unit that reads best."""
    for unit in UNITS:
        if nbytes < 1024 or unit == UNITS[-1]:
            return f"{nbytes:,.0f} {unit}" if unit == "B" else f"{nbytes:,.1f} {unit}"
        nbytes /= 1024
    raise AssertionError


def percent(share: float | None) -> str:
    """A share with one digit."""
    return "-" if share is None else f"{100 * share:.1f} %"


def adapted(record: dict) -> None:
    """The table at the end of `adapt`."""
    who = f", person {record['subject']} held out" if record.get("subject") else ""
    console.print(f"\n{record['model']} on {record['data_name']}{who}: {record['method']}, {record['steps']} steps")
    console.print(f"first weights: {record['weights']}\n", soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("", "left"), ("before", "right"), ("after", "right")):
        table.add_column(name, justify=justify)
    table.add_row("accuracy", percent(record["accuracy_before"]), percent(record["accuracy_after"]), style="bold")
    for name, r in record["recall"].items():
        table.add_row(f"recall {name}", percent(r["before"]), percent(r["after"]))
    console.print(table)

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("", "left"), ("predicted", "right"), ("measured", "right")):
        table.add_column(name, justify=justify)
    p, m = record["predicted"], record["measured"]
    table.add_row("multiply-adds of the run", f"{p['macs']:,}", f"{m['macs']:,}")
    table.add_row("peak arena", size(p["peak_bytes"]), size(m["peak_bytes"]))
    table.add_row("  in bytes", f"{p['peak_bytes']:,}", f"{m['peak_bytes']:,}")
    table.add_row("time of a step", seconds(p["step_seconds"]), seconds(m["step_seconds"]))
    console.print()
    console.print(table)
    if "shares" in record:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, justify in (("samples that enter", "left"), ("planned", "right"), ("realised", "right")):
            table.add_column(name, justify=justify)
        for section, share in record["shares"]["planned"].items():
            table.add_row(section, percent(share), percent(record["shares"]["realised"][section]))
        console.print()
        console.print(table)
    console.print(f"\ntraining took {record['seconds']:.1f} s; saved:")
    for kind, path in record["files"].items():
        if path:
            console.print(f"  {kind:8s} {path}", highlight=False, soft_wrap=True)


def seconds(value: float | None) -> str:
    """A time in the unit that reads best."""
    if value is None:
        return "-"
    if value < 1:
        return f"{1000 * value:.2f} ms"
    if value < 600:
        return f"{value:.2f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def priced(record: dict) -> None:
    """The table of `cost`: a line for each layer, then the totals."""
    paper, per = record["convention"] == "paper", 2 if record["convention"] == "macs" else 1
    unit = "MAC" if per == 2 else "FLOP"
    rows, columns = record["size"]
    k = record["train_last"]
    trained = {"all": "all convolutions", 0: "the classifier alone", 1: "the last convolution"}
    wide = Console(width=max(console.width, 200))  # a narrow terminal breaks lines, and a pipe has no width to cut at
    optimizer = f"SGD with momentum {record['momentum']:g}" if record["momentum"] else "plain SGD"
    wide.print(
        f"\n{record['model']}, input {rows}x{columns}, {record['classes']} classes, batch {record['batch']}: "
        f"{record['method']}, training {trained.get(k, f'the last {k} convolutions')}, "
        f"{optimizer}, {record['threads']} thread{'' if record['threads'] == 1 else 's'}\n"
    )
    sections = tuple(record["other_units"])
    phases = ("backward",) if paper else ("forward", "backward", "update")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("layer", "operator", "output", "rule"):
        table.add_column(name, no_wrap=True)
    for name in (*(f"{p} {unit}s" for p in phases), "saved", "weights"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in record["layers"]:
        counts = [layer["flops"]] if paper else [by_phase(layer, sections, p) for p in phases]
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
            on = f" on {record['samples'][s]:.4g} samples, as configured" if counted else ""
            summary.add_row(f"{s}{on}", operations(sum(record[s].values()) / per, unit))
        summary.add_row("whole step", operations(record["flops"] / per, unit), style="bold")
        summary.add_row("saved from forward to backward", size(record["saved_bytes"]))
    summary.add_row("peak arena", size(record["peak_bytes"]))
    summary.add_row("trained weights and optimizer state", size(record["state_bytes"]))
    summary.add_row("weights", size(record["weight_bytes"]))
    spread = record["seconds"]
    times = f"{seconds(spread['mid'])} ({seconds(spread['low'])} to {seconds(spread['high'])})"
    summary.add_row(f"a step on {record['device']}", times)
    summary.add_row("its energy there, estimated", energy(record))
    for kind, needed in record["fits"]["needs"].items():
        has = record["fits"]["has"][kind]
        verdict = "" if has is None else f" of {size(has)}: {'fits' if needed <= has else 'does not fit'}"
        if record["fits"]["at_least"]:
            verdict = verdict.removesuffix(": fits")
        least = "at least " if record["fits"]["at_least"] else ""
        summary.add_row(f"{kind.replace('ram', 'RAM')} that it needs there", f"{least}{size(needed)}{verdict}")
    console.print()
    wide.print(summary)
    console.print()
    for line in notes(record):
        console.print(line, highlight=False, soft_wrap=True)
    if "memory_limit" in record:
        budgeted(record, wide)


def notes(record: dict) -> list[str]:
    """What the predictions for a device cover, a line each."""
    if record["device_measured"]:
        time = "19 of 20 undisturbed steps take a time between the bounds"
    else:
        factor = record["seconds"]["high"] / record["seconds"]["mid"]
        time = f"its kernels were not measured, a factor of {factor:.2g} either way is assumed"
        time += "; gradledger calibrate measures them" if record["device"] == "this-machine" else ""
    source = "board power times seconds" if record["energy"]["board"] else "operations and memory alone, so at least"
    if "flash" in record["fits"]["needs"]:
        memory = "stack and program code are not counted; flash holds all weights, trained or not"
    else:
        memory = "the training process with one batch of data, no other process"
        memory += "; the rest of it is not predicted" if record["fits"]["at_least"] else ""
    return [f"time: {time}", f"energy: an estimate, {source}", f"fit: {memory}"]


def energy(record: dict) -> str:
    """Joules of a step: what the board draws, else what its operations and accesses would cost at least."""
    found = record["energy"]["board"] or record["energy"]["counted"]["total"]
    return f"{joules(found['low'])} to {joules(found['high'])}"


def joules(value: float) -> str:
    """An energy in J, mJ or µJ."""
    for unit, factor in (("J", 1.0), ("mJ", 1e-3)):
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


def operations(count: float, unit: str = "") -> str:
    """A number of operations with the prefix that reads best."""
    for prefix, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:,.2f} {prefix}{unit}"
    return f"{count:g} {unit}".rstrip()


def validated(record: dict) -> None:
    """The tables of `validate`: the errors of each gradient, then what a filter loses, then the checks."""
    who = f", person {record['subject']} held out" if record["subject"] else ""
    console.print(f"\n{record['model']} on {record['data']}{who}: {record['method']}")
    console.print(f"{record['batches']} batches of {record['batch']}; weights: {record['weights']}\n", soft_wrap=True)
    wide = Console(width=max(console.width, 160))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("layer", "gradient", "view"):
        table.add_column(name, no_wrap=True)
    for name in ("cosine", "relative error", "bias", "variance", "noise"):
        table.add_column(name, justify="right", no_wrap=True)
    found = record["gradients"]["errors"]
    for e in found:
        rows = [(a, view, e[view][a]) for a in e["local"] for view in ("local", "whole")]
        for i, (a, view, s) in enumerate(rows):
            table.add_row("" if i else e["layer"], a, view, *map(figure, s.values()))
    wide.print(table)
    console.print(
        "local: given the exact dy; whole: with the errors of the layers above; bias and variance beside the mean "
        "gradient, noise: the exact gradient's own variance",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    if any(e["filter"] for e in found):
        wide.print()
        wide.print(filtered(found))
        ratio, published = record["gradients"]["energy_ratio"], record["gradients"]["energy_ratio_published"]
        others = ", ".join(f"{name} {value}" for name, value in published.items())
        console.print(
            "SNR(dy) ≤ SNR(dx) is the claim of Proposition 1, for kernels whose DC component is the largest; eq. (3) "
            f"puts the patch sum in the kernel's place\nenergy ratio of these layers {figure(ratio)} "
            f"(arXiv 2301.00330, Table 5: {others})",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    wide.print()
    (console if console.is_terminal else wide).print(verdicts(record["checks"]))  # a terminal wraps the cells
    console.print(
        f"\n{record['counts']['drawn']:,} cases drawn from seed {record['seed']}; again: {record['command']}\n",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for kind, path in record["files"].items():
        if path:
            console.print(f"  {kind:8s} {path}", highlight=False, soft_wrap=True)


def verdicts(checks: list[dict]) -> Table:
    """A line for each check: what should be, what was measured, the verdict."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("check", "should be", "measured", "verdict"):
        table.add_column(name, overflow="fold", no_wrap=name == "verdict")
    section = None
    for c in checks:
        if c["section"] != section:
            section = c["section"]
            table.add_row(f"[bold]{section}[/bold]")
        cells = (escape(c[key]) for key in ("value", "measured", "verdict"))
        table.add_row(f"  {escape(c['name'])}", *cells, style="bold red" if c["verdict"] == "FAILED" else None)
    return table


def filtered(errors: list[dict]) -> Table:
    """What gradient filtering loses, a line for each layer."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("layer", "kernel", "map", "patch"):
        table.add_column(name, no_wrap=True)
    columns = ("SNR(dy)", "closed form", "SNR(dx)", "by eq. (3)", "condition holds", "energy ratio")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for e in errors:
        if f := e["filter"]:
            sizes = ("x".join(map(str, s)) for s in (e["kernel"], e["map"], f["patch"]))
            keys = ("snr_dy", "snr_dy_closed_form", "snr_dx_full_kernel", "snr_dx")
            snrs = ("-" if key not in f else "exact" if f[key] is None else f"{f[key]:.2f}" for key in keys)
            table.add_row(e["layer"], *sizes, *snrs, percent(f["condition"]), figure(f["energy_ratio"]))
    return table


def figure(value: float | None) -> str:
    """Three significant digits, or a dash."""
    return "-" if value is None else f"{value:.3g}"
