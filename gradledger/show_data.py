"""What a person sees of the data before they train a net: samples of each class, and what was decided and left out."""

from rich.markup import escape
from rich.table import Table

from .output import near
from .show import console

MOST = 20  # classes, and bad or foreign files, that are listed; the record has all


def described(found: dict) -> None:
    """Print the description of a data set (`refimpl.data.describe`)."""
    height, width, channels = found["shape"]
    console.print(
        f"data {escape(found['name'])}: {found['kind']}, maps of {height}x{width}x{channels}{values(found['values'])}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("samples")
    for part in found["samples"]:
        table.add_column(part, justify="right")
    for name, counts in list(found["classes"].items())[:MOST]:
        table.add_row(escape(name), *(f"{n:,}" for n in counts.values()))
    if (more := len(found["classes"]) - MOST) > 0:
        table.add_row(f"{more} more classes")
    table.add_row("all", *(f"{n:,}" for n in found["samples"].values()), style="bold")
    console.print(table)
    for line in lines(found):
        console.print(escape(near(line)), highlight=False, soft_wrap=True)


def values(ends: dict) -> str:
    """The ranges of values, in words."""
    source = "" if ends["source"] is None else f", values from {ends['source'][0]:g} to {ends['source'][1]:g}"
    low, high = ends["training"]
    return f"{source}, for the net from {low:.3g} to {high:.3g}"


def lines(found: dict) -> list[str]:
    """What is said below the table: split, groups, decisions, what was left out."""
    said = [f"split: {found['split']}"] if found["split"] else []
    if found["groups"]:
        said.append(f"groups that train: {found['groups']}")
    said += found["decided"]
    renamed = {given: i for given, i in found["labels"].items() if given != str(i)}
    if renamed and list(found["labels"]) != list(found["classes"]):
        shown = ", ".join(f"{given} is {i}" for given, i in list(renamed.items())[:MOST])
        said.append(f"labels: {shown}{', …' if len(renamed) > MOST else ''}")
    if found["missing"]:
        said.append(f"nothing judges {', '.join(found['missing'][:MOST])}")
    return [*said, *each_of("left out", found["skipped"]), *each_of("no sample", found["ignored"])]


def each_of(words: str, found: list[dict]) -> list[str]:
    """A line for each thing of a list, {what, why}, that is no sample; of many the first ones."""
    said = [f"{words}: {one['what']} {one['why']}" for one in found[:MOST]]
    more = len(found) - MOST
    return [*said, f"{words}: {more} more, which the record lists"] if more > 0 else said
