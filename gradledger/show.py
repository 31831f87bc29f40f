"""What a person sees: progress bars and tables."""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from .output import near
from .streams import tell

console = Console()
EVERY = 30.0  # seconds between lines of progress where there is no terminal
UNITS = ("B", "KiB", "MiB", "GiB")


class Count(MofNCompleteColumn):
    """How many of all are done; nothing as long as it is not known how many there are."""

    def __init__(self, unit: str = ""):
        super().__init__()
        self.unit = unit

    def render(self, task) -> Text:
        """`3/40 steps`."""
        return Text("") if task.total is None else super().render(task).append(self.unit)


@contextlib.contextmanager
def lines(what: str) -> Iterator[Callable[[Callable[[], str]], None]]:
    """Where there is no terminal: a line on stderr every EVERY seconds, also while nothing ends.

    Yields what takes the words of the next line, as a function that makes them.
    """
    began, over = time.monotonic(), threading.Event()
    words = [lambda: "preparing"]

    def run() -> None:
        while not over.wait(EVERY):
            tell(f"{what}: {words[0]()}, {time.monotonic() - began:.0f} s so far")

    def take(told: Callable[[], str]) -> None:
        words[0] = told

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield take
    finally:
        over.set()
        thread.join()


class SeenSteps:
    """What the steps of a run show: its part, the running mean of the loss, the last look at samples held out."""

    def __init__(self):
        self.event, self.mean, self.seen = None, None, ""

    def see(self, event) -> bool:
        """Take one more step; does a part begin with it?"""
        begins = self.event is None or event.part != self.event.part
        if begins:
            self.mean, self.seen = None, ""
        self.event = event
        if math.isfinite(event.loss):  # where a choice of instances left none yet, there is no loss
            self.mean = event.loss if self.mean is None else 0.95 * self.mean + 0.05 * event.loss
        if event.look:
            self.seen = f", held out: loss {event.look.loss:.4f}, accuracy {percent(event.look.measure)}"
        return begins

    @property
    def loss(self) -> str:
        """The loss, and what was seen of it on the samples held out."""
        return ("" if self.mean is None else f"loss {self.mean:.4f}") + self.seen

    def __str__(self) -> str:
        part, done = self.event.part, f"step {self.event.step:,} of {self.event.steps:,}"
        return ", ".join(filter(None, (part, done, self.loss.removeprefix(", "))))


@contextlib.contextmanager
def bar(what: str, quiet: bool) -> Iterator[Callable]:
    """A progress bar with ETA, running loss and accuracy on stderr; yields what is called after each step."""
    steps = SeenSteps()
    if quiet:
        yield lambda event: None
        return
    if not sys.stderr.isatty():
        with lines(what) as say:

            def take(event) -> None:
                steps.see(event)
                say(steps.__str__)

            yield take
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), Count(" steps"), TimeElapsedColumn(), TextColumn("ETA"),
        TimeRemainingColumn(), TextColumn("{task.fields[loss]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task("preparing", total=None, loss="")

        def watch(event) -> None:
            if steps.see(event):
                title = f"{what}: {event.part}" if event.part else what
                display.reset(task, total=event.steps, description=title)
            display.update(task, total=event.steps, completed=event.step, loss=steps.loss)

        yield watch


@contextlib.contextmanager
def counter(what: str, quiet: bool) -> Iterator[Callable]:
    """A progress bar over named pieces of work; yields the function called with (done, all, name) before each."""
    if quiet:
        yield lambda done, total, name: None
        return
    if not sys.stderr.isatty():
        with lines(what) as say:
            yield lambda done, total, name: say(lambda: f"{done:,} of {total:,}, {name}")
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), Count(), TimeElapsedColumn(), TextColumn("ETA"),
        TimeRemainingColumn(), TextColumn("{task.fields[name]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(what, total=None, name="")
        yield lambda done, total, name: display.update(task, total=total, completed=done, name=name)


IMACS = "products of whole numbers: each with its sum, beside the multiply-adds, which are of floats"
SPREAD = {"mean", "std", "se", "min", "max"}  # of a figure over several seeds


def compared(record: dict) -> None:
    """Printed figures beside ours, and what each is allowed to differ by."""
    from validation.experiments.papers import KINDS
    from validation.report.report import allowed

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (
        ("", "left"),
        ("printed", "right"),
        ("ours", "right"),
        ("", "left"),
        ("off by", "right"),
        ("may differ by", "right"),
        ("ours is", "left"),
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
            allowed(*row["allowed"]), row["origin"]["kind"],
            "" if row["ok"] else "[red]off[/red]",
        )  # fmt: skip
    Console(width=max(console.width, 150)).print(table, highlight=False)
    for note in dict.fromkeys(f"{row['what']}: {row['note']}" for row in record["rows"] if row["note"]):
        console.print(note, highlight=False, soft_wrap=True)
    for kind, about in KINDS.items():
        console.print(f"{kind}: {about}", highlight=False, soft_wrap=True)
    console.print(f"{record['goal']}; record in {record['file']}", highlight=False, soft_wrap=True)


def reproduced(record: dict) -> None:
    """The table of `reproduce`: measured beside published, a column for each figure, means with their deviation."""
    from validation.experiments.runs import sentence

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
        missing = "; ".join(
            claim if holds is False else f"not decided by these seeds: {claim}"
            for claim, holds in f["claims"].items()
            if not holds
        )
        verdict = f"not confirmed ({escape(missing)})" if missing else "confirmed"
        console.print(f"finding {f['finding']}, {escape(f['says'])}: {verdict}", highlight=False, soft_wrap=True)
    for change in record.get("survivors", ()):
        console.print(f"no test notices: {escape(change)}", highlight=False, soft_wrap=True)
    for goal in record.get("goals", ()):
        console.print(escape(sentence(goal)), highlight=False, soft_wrap=True)
    verdict = record.get("verdict", "reached" if record["ok"] else "not reached")
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


def calibrated(record: dict) -> None:
    """What was measured of this device, for each number of threads."""
    if "backend" in record:
        one = record["threads"]["1"]
        steady = one["steadiness"]
        console.print(
            f"{record['title']}: {steady['cases']} of {steady['of']} layers in {seconds(steady['seconds'])}; a step "
            f"takes what is predicted / or x {one['factor']:.2f}\nprofile in {record['file']}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
        return
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
        console.print(f"{escape(group)}: until {100 * found['accuracy']:.2f} % is reached", highlight=False)
        table = Table(box=None, pad_edge=False, header_style="bold")
        ratio = f"to {escape(found['methods'][0]['method'])}"
        names = ("method", "runs that do", "steps", "MAC a step", "in all", "least to most", ratio)
        where = record["device"] and f"time on {escape(record['device'])}"
        for name in (*names, *((where,) if where else ())):
            table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
        for row in found["methods"]:
            cells = [escape(row["method"]), f"{row['reached']} of {row['runs']}"]
            if row["macs"] is None:
                cells += ["-"] * 5
            else:
                cells += [
                    f"{row['steps']:,.0f}", operations(row["macs_per_step"]), operations(row["macs"]),
                    f"{operations(row['macs_min'])} to {operations(row['macs_max'])}",
                    "-" if row["ratio"] is None else f"{row['ratio']:.2f}",
                ]  # fmt: skip
            if where:
                s = row["seconds"]
                cells.append("-" if s is None else f"{seconds(s['mid'])} ({seconds(s['low'])} to {seconds(s['high'])})")
            table.add_row(*cells)
        Console(width=max(console.width, 160)).print(table, highlight=False)
    if record["device"] and not record["device_measured"]:
        console.print(f"the kernels of {escape(record['device'])} were not measured", highlight=False)


def checks(found: list[dict]) -> None:
    """The table of `doctor`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("check", "state", "found", "advice"):
        table.add_column(name)
    for c in found:
        advice = "" if c["state"] == "ok" else c["advice"]
        table.add_row(*map(escape, (c["name"], c["state"], c["found"], advice)))  # extras stand in brackets, as markup
    console.print(table)


def size(nbytes: float) -> str:
    """Bytes in the unit that reads best."""
    for unit in UNITS:
        if nbytes < 1024 or unit == UNITS[-1]:
            return f"{nbytes:,.0f} {unit}" if unit == "B" else f"{nbytes:,.1f} {unit}"
        nbytes /= 1024
    raise AssertionError


def operations(count: float, unit: str = "") -> str:
    """A number of operations with the prefix that reads best."""
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= scale:
            return f"{count / scale:,.2f} {prefix}{unit}"
    return f"{count:g} {unit}".rstrip()


def multiply_adds(macs: float | None, imacs: float = 0) -> list[str]:
    """Multiply-adds of floats, and those of whole numbers apart from them: a sum of both would compare with neither."""
    return [operations(count, unit) for count, unit in ((macs, "MAC"), (imacs, "IMAC")) if count]


def percent(share: float | None) -> str:
    """A share with one digit."""
    return "-" if share is None else f"{100 * share:.1f} %"


def adapted(record: dict) -> None:
    """The table at the end of `adapt`."""
    who = f", person {record['subject']} held out" if record.get("subject") else ""
    on = escape(record["data_name"])
    console.print(
        f"\n{escape(near(record['model']))} on {on}{who}: {record['method']}, {record['steps']} steps", soft_wrap=True
    )
    from . import show_course

    course = show_course.sentences(record) if "course" in record else []
    for line in (f"first weights: {record['weights']}", *record["by_default"], *course):
        console.print(escape(near(line)), highlight=False, soft_wrap=True)
    console.print()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("", "left"), ("before", "right"), ("after", "right")):
        table.add_column(name, justify=justify)
    table.add_row("accuracy", percent(record["accuracy_before"]), percent(record["accuracy_after"]), style="bold")
    for name, r in record["recall"].items():
        table.add_row(f"recall {escape(name)}", percent(r["before"]), percent(r["after"]))
    console.print(table)

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in (("", "left"), ("predicted", "right"), ("measured", "right")):
        table.add_column(name, justify=justify)
    p, m = record["predicted"], record["measured"]
    table.add_row("multiply-adds of the run, counted", whole(p["macs"]), whole(m["macs"]))
    if (p.get("macs_low") or 0) < (p.get("macs_high") or 0):
        table.add_row("  between", f"{whole(p['macs_low'])} and {whole(p['macs_high'])}", "")
    table.add_row("  executed by its kernels", whole(p["executed_macs"]), whole(m["executed_macs"]))
    if "imacs" in p:
        table.add_row("  products of whole numbers", whole(p["imacs"]), whole(m["imacs"]))
    if beside := record.get("recipe_macs", {}):
        table.add_row("beside them")
    for part, costs in beside.items():
        table.add_row(f"  {part}", whole(costs["predicted"]), whole(costs["measured"]))
        if products := costs.get("imacs"):
            table.add_row("    products of whole numbers", whole(products["predicted"]), whole(products["measured"]))
    table.add_row("peak arena", *("-" if x["peak_bytes"] is None else size(x["peak_bytes"]) for x in (p, m)))
    table.add_row("  in bytes", whole(p["peak_bytes"]), whole(m["peak_bytes"]))
    table.add_row("time of the first step", "", seconds(m["first_step_seconds"]))
    steady = "one step, none is steady" if record["steps"] == 1 else seconds(m["step_seconds"])
    table.add_row("time of a steady step", seconds(p["step_seconds"]), steady)
    if p["step_seconds_range"]:
        low, high = p["step_seconds_range"]
        table.add_row("  from, to", f"{seconds(low)}, {seconds(high)}", "")
    console.print()
    console.print(table)
    for line in about_costs(record):
        console.print(line, highlight=False, soft_wrap=True)
    if "shares" in record:
        table = Table(box=None, pad_edge=False, header_style="bold")
        columns = {"planned": "predicted", "planned_low": "from", "planned_high": "to", "realised": "realised"}
        table.add_column("samples that enter")
        for title in columns.values():
            table.add_column(title, justify="right")
        for section in record["shares"]["planned"]:
            table.add_row(section, *(percent(record["shares"][name][section]) for name in columns))
        console.print()
        console.print(table)
    console.print(f"\ntraining took {record['seconds']:.1f} s; saved:")
    for kind, path in record["files"].items():
        if path:
            console.print(f"  {kind:8s} {path}", highlight=False, soft_wrap=True)
    console.print("\nwhat comes next; predict takes new samples as well:")
    for command in record["next"]:
        console.print(f"  {escape(command)}", highlight=False, soft_wrap=True)


def about_costs(record: dict) -> list[str]:
    """What the figures of the table mean, a line each."""
    lines = [
        "counted: by the reference algorithm, without padded taps; executed: on the tuned kernels' own geometry, zeros "
        "and empty vector lanes included",
        *([] if "imacs" not in record["predicted"] else [IMACS]),
        "the first step loads the kernels, or compiles them; steady is the median of the others",
    ]
    if record["predicted"]["calibrated"] is False:
        lines.append("predicted time: this machine is not calibrated (gradledger calibrate), the range is assumed")
    elif record["predicted"]["calibrated"]:
        lines.append("predicted time: 19 of 20 undisturbed steps lie in the range")
    return [*lines, record["slow"]] if record.get("slow") else lines


def whole(value: float | None) -> str:
    """A number with separators, without the half that an addition alone is of a multiply-add, or a dash."""
    return "-" if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """A time in the unit that reads best."""
    if value is None:
        return "-"
    if value < 1:
        return f"{1000 * value:.2f} ms"
    if value < 600:
        return f"{value:.2f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"
