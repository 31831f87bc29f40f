"""What a person sees of `validate`."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from validation.instruments import estimators
from validation.instruments.approximation import COLUMNS

from .show import console, percent


def validated(record: dict) -> None:
    """The tables of `validate`: the errors of each gradient, what a filter loses or an estimate is, then the checks."""
    who = f", person {record['subject']} held out" if record["subject"] else ""
    console.print(f"\n{record['model']} on {record['data']}{who}: {record['method']}")
    console.print(f"{record['batches']} batches of {record['batch']}; weights: {record['weights']}\n", soft_wrap=True)
    wide = Console(width=max(console.width, 160))
    if record["gradients"]["estimator"]:
        estimator(record["gradients"]["estimator"])
    elif record["gradients"]["errors"]:
        errors(record, wide)
    if record["gradients"]["note"]:
        console.print(record["gradients"]["note"], highlight=False, soft_wrap=True)
    wide.print()
    (console if console.is_terminal else wide).print(verdicts(record["checks"]))  # a terminal wraps the cells
    console.print(
        f"\n{record['counts']['drawn']:,} cases drawn from seed {record['seed']}; again: {record['command']}\n",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    for kind, path in record["files"].items():
        if path:
            console.print(f"  {kind:8s} {path}", highlight=False, soft_wrap=True)


def estimator(found: dict) -> None:
    """How near estimated gradients come to those of back-propagation."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("estimate", "measured", "by theory"):
        table.add_column(name, justify="left" if name == "estimate" else "right", no_wrap=True)
    for name, key in estimators.FIGURES.items():
        table.add_row(name, figure(found[key]), figure(found.get(f"{key}_by_theory")))
    console.print(table)
    console.print(estimators.COLUMNS, highlight=False, soft_wrap=True)


def errors(record: dict, wide: Console) -> None:
    """The errors of each layer's gradients, and what a filter loses."""
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
    console.print(COLUMNS, highlight=False, soft_wrap=True)
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
