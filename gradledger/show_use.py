"""Tables of the commands that use what was trained: `info`, `predict`, `evaluate`, `runs`."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from refimpl.data.pixels import level_of, words

from .output import near
from .show import console, multiply_adds, percent, seconds, size
from .show_data import each_of

MOST = 40  # rows of a table of samples


def table(*columns: tuple[str, str]) -> Table:
    """An empty table of columns, each a title and left or right."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for title, justify in columns:
        made.add_column(title, justify=justify, overflow="fold")
    return made


def line(text: str) -> None:
    """Print a line as it is."""
    console.print(escape(text), highlight=False, soft_wrap=True)


def told(record: dict) -> None:
    """The tables of `info`."""
    made = table(("", "left"), ("", "left"))
    made.show_header = False
    shape = "x".join(map(str, (*(record["size"] or ()), record["channels"])))
    names = ", ".join("(no name)" if n is None else n for n in record["classes"]) or "without names"
    rows = {
        "net": record["model"] if record["by_name"] else f"{record['model']}, written out in the file",
        "classes": f"{record['outputs']}: {names}",
        "takes": f"{record['takes']} of {shape}{processed(record['preprocessing'])}",
        "adapted from": came_from(record["adapted_from"]),
        "trained": trained(record["recipe"], record["ledger"]),
        "accuracy": accuracy(record["accuracy"]),
        "parameters": f"{record['parameters']:,}",
        "file": f"{size(record['bytes'])}" + (f", sha256 {record['sha256'][:12]}…" if record["sha256"] else ""),
    }
    for name, value in rows.items():
        made.add_row(name, escape(value or "the file does not say"))
    console.print(made, highlight=False)
    line("\nwhat takes it:")
    for command in record["next"]:
        line(f"  {command}")


def processed(made: dict) -> str:
    """How samples are prepared, in words."""
    parts = []
    if made.get("divisor", 1) != 1:
        parts.append(f"0 to 255 becomes {words(*map(level_of, (made['black'], made['white'])))}")
    if made.get("mean"):
        parts.append("each channel less its mean, over its deviation")
    return f"; {', '.join(parts)}" if parts else ""


def came_from(found: dict) -> str:
    """What a net was adapted from."""
    if not found:
        return ""
    digest = f", sha256 {found['sha256'][:12]}…" if "sha256" in found else ""
    weights = f" ({found['weights']})" if "weights" in found else ""
    return f"{found.get('model', '')}{weights}{digest}"


def trained(recipe: dict, ledger: dict) -> str:
    """How a net was trained, and what that took."""
    parts = [f"{recipe[key]}" for key in ("method",) if key in recipe]
    if "chosen_lr" in ledger:
        recipe = recipe | {"lr": f"{ledger['chosen_lr']:g} (chosen by probes, which began at {recipe.get('lr')})"}
    parts += [f"{word} {recipe[key]}" for key, word in KEYS.items() if recipe.get(key) is not None]
    if "steps" in ledger:
        parts.append(f"{ledger['steps']:,} steps")
    if "macs" in ledger:
        parts += multiply_adds(ledger["macs"], ledger.get("imacs", 0))
    if ledger.get("saved_bytes"):
        parts.append(f"{size(ledger['saved_bytes'])} kept for a backward pass")
    return ", ".join(parts)


KEYS = {"data": "on", "epochs": "epochs", "batch": "batch", "lr": "lr", "train_last": "layers", "seed": "seed"}


def accuracy(found: dict) -> str:
    """What a net told right."""
    if "value" not in found:
        return ""
    before = f" ({percent(found['before'])} before)" if "before" in found else ""
    return f"{percent(found['value'])}{before} of {found.get('samples', 0):,} samples of {found.get('data', '')}"


def predicted(record: dict) -> None:
    """The table of `predict`: a row a sample, or of one sample a row a class."""
    if record["samples"] == 1:
        only = record["predictions"][0]
        made = table((escape(only["source"]), "left"), ("sure", "right"))
        for likely in only["top"]:
            made.add_row(escape(likely["class"]), percent(likely["probability"]))
        console.print(made, highlight=False)
        ends(record)
        return
    more = len(record["predictions"][0]["top"]) - 1
    made = table(("sample", "left"), ("class", "left"), ("sure", "right"), *[("then", "left")] * bool(more))
    for p in record["predictions"][:MOST]:
        then = ", ".join(f"{t['class']} {percent(t['probability'])}" for t in p["top"][1:])
        made.add_row(escape(p["source"]), escape(p["class"]), percent(p["probability"]), *[escape(then)] * bool(more))
    console.print(made, highlight=False)
    if (left := record["samples"] - MOST) > 0:
        line(f"and {left:,} more: --csv FILE or --json has all")
    counts = ", ".join(f"{name} {count:,}" for name, count in record["counts"].items())
    line(f"\n{record['samples']:,} samples: {counts}")
    ends(record)


def ends(record: dict) -> None:
    """What `predict` left out and wrote."""
    for said in each_of("left out", record["skipped"]):
        line(said)
    if record["csv"]:
        line(f"saved: {record['csv']}")


def evaluated(record: dict) -> None:
    """The tables of `evaluate`."""
    line(f"{record['model']} on {record['data_name']}, {record['part']}: {record['samples']:,} samples")
    if record["left"]:
        line(f"{record['left']:,} more samples are not of this part: --part all judges by all of them")
    for said in each_of("left out", record["skipped"]):
        line(said)
    line("")
    made = table(("", "left"), ("precision", "right"), ("recall", "right"), ("samples", "right"))
    made.add_row("accuracy", "", percent(record["accuracy"]), f"{record['samples']:,}", style="bold")
    for name, of in record["per_class"].items():
        made.add_row(escape(name), percent(of["precision"]), percent(of["recall"]), f"{of['samples']:,}")
    console.print(made, highlight=False)
    if record["confused"]:
        made = table(("is", "left"), ("was taken for", "left"), ("times", "right"), ("such as", "left"))
        for pair in record["confused"]:
            of = f"{pair['count']:,} ({percent(pair['share'])})"
            made.add_row(escape(pair["true"]), escape(pair["told"]), of, escape(", ".join(pair["samples"][:2])))
        console.print()
        console.print(made, highlight=False)
    line("\nsaved:")
    for kind, path in record["files"].items():
        if path:
            line(f"  {kind:8s} {path}")


def listed(record: dict) -> None:
    """The table of `runs`."""
    if not record["runs"]:
        line(f"{record['folder']} holds no runs")
        return
    columns = ("run", "state", "before", "after", "steps", "multiply-adds", "seconds", "net, data, method")
    made = table(*((c, "left" if c in (columns[0], columns[1], columns[-1]) else "right") for c in columns))
    for run in record["runs"]:
        about = ", ".join(near(str(run[key])) for key in ("model", "data", "method") if run[key])
        about = about or run.get("reason", "")
        made.add_row(
            escape(Path(run["folder"]).name), run["state"],
            percent(run["accuracy_before"]), percent(run["accuracy_after"]),
            "-" if run["steps"] is None else f"{run['steps']:,}",
            "\n".join(multiply_adds(run["macs"], run.get("imacs", 0))) or "-",
            seconds(run["seconds"]), escape(about),
        )  # fmt: skip
    Console(width=max(console.width, 130)).print(made, highlight=False)
