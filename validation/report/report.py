"""The report of `gradledger validate` as one HTML file: `python -m validation.report.report RECORD.json OUT.html`.

Everything is in the file, pictures too, and it prints. Each check has its formula, its value, what was measured, the
verdict and the command that repeats it; behind them stands what they sum up. The picture of the gradients' errors is
taken from beside the record (RECORD.png), where `gradledger validate` leaves it.
"""

import base64
import html
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from costmodel.device.device import QUICK
from costmodel.formulas import cost
from refimpl.storage import checkpoint

from ..experiments import papers
from ..instruments import estimators, torch_flops
from ..instruments.approximation import COLUMNS
from . import report_plot

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #bbb; }
h3 { margin: 1.4rem 0 .4rem; font-size: 1.05rem; }
table { border-collapse: collapse; margin: .6rem 0 1rem; font-size: .86rem; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .25rem .5rem; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #888; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
code, pre { font: .92em ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap; margin: 0; }
.ok { color: #156b2d; } .FAILED { color: #fff; background: #b3261e; padding: 0 .3em; font-weight: 700; }
.not { color: #7a5a00; } .verdict { font-size: 1.1rem; padding: .6rem .8rem; border-left: .4rem solid #156b2d; }
.verdict.bad { border-color: #b3261e; } img { max-width: 100%; } dl { display: grid; grid-template-columns: 9rem 1fr; }
dt { color: #555; } dd { margin: 0; } nav a { margin-right: 1rem; } .note { color: #444; font-size: .9rem; }
@page { margin: 1.6cm; }
@media print {
  body { max-width: none; margin: 0; font-size: 10pt; } nav { display: none; } h2, h3 { break-after: avoid; }
  tr, img { break-inside: avoid; } thead { display: table-header-group; }
  .FAILED, .verdict { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
SECTIONS = {
    "gradients": "Gradients", "counts": "Operations", "memory": "Memory", "time": "Time", "tables": "Printed tables",
}  # fmt: skip
MOST = 50  # mismatches that the report lists; the record has all
LEGEND = {
    "reach_0, reach_1": "rows and columns on either side of a point that an enlarged or smaller map reads",
    "add, mul, div, sqrt, exp, log, tanh, erf": "arithmetic operations",
    "mac": "one multiplication and one addition",
    "iadd, imul, idiv, shift, logic": "the same of integers, with shifts and operations on bits",
    "imac": "one multiplication and one addition of integers",
    "cmp": "comparisons",
    "convert": "conversions between integers and floats, and to a type that may not keep the value",
    "load, store": "array elements that are read and written",
    "N": "samples of the mini-batch, or as many of them as a method chooses",
    "H, W": "rows and columns of the input",
    "C": "input channels",
    "K": "output channels or classes",
    "R, S": "rows and columns of a convolution's kernel",
    "P, Q": "rows and columns of the output",
    "G": "groups of a convolution",
    "D": "inputs of a linear layer",
    "E": "elements of a parameter, or of one sample",
    "B": "bytes of one sample's mask, a bit for each element or block; of instance_filter: instances of the mini-batch",
    "L": "output channels that error_map_pruning keeps; of clip_norm and finite: slices of a parameter",
    "J": "slices of all parameters",
    "M": "input channels that sparse_update chooses",
    "A": "channels of one of the inputs of concat",
    "U, V": "rows and columns of patches",
    "patch_0, patch_1": "a setting (patch, stride, window, …) along rows and along columns",
    "taps(H)": "pairs of a window's place and an element of it that lies inside the map, along H",
    "has(b)": "1 where the optional array b is given, else 0; b: bias, clip: factor of gradient clipping",
    "differs(a, n)": "1 where the setting a (ignored) is not n, else 0",
    "nonzero(a)": "1 where the setting a (decoupled, nesterov, label_smoothing) is on or not 0, else 0",
    "Min(a, b)": "the smaller of the two",
}


class Markup(str):
    """Text that is HTML already; any other is escaped."""


def text(value) -> Markup:
    """A value as HTML; numbers with separators."""
    if isinstance(value, Markup):
        return value
    return Markup(html.escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)))


def code(value) -> Markup:
    """Code, in lines as given."""
    return Markup(f"<pre>{html.escape(str(value))}</pre>")


def table(heads: Sequence[str], rows: Iterable[Sequence], numbers: str = "") -> str:
    """A table; numbers: the heads of columns that are flush right, between bars."""
    right = [f"|{h}|" in f"|{numbers}|" for h in heads]
    body = "\n".join(f"<tr>{_cells('td', row, right)}</tr>" for row in rows)
    return f"<table><thead><tr>{_cells('th', heads, right)}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _cells(tag: str, values: Sequence, right: Sequence[bool]) -> str:
    kinds = (f'{tag} class="n"' if r else tag for r in right)
    return "".join(f"<{kind}>{text(v)}</{tag}>" for kind, v in zip(kinds, values, strict=True))


def verdict(value: str) -> Markup:
    """`ok`, `FAILED` or `not judged` in its colour."""
    return Markup(f'<span class="{html.escape(value.split()[0])}">{html.escape(value)}</span>')


def image(data: bytes, kind: str, about: str) -> str:
    """A picture inside the page."""
    return f'<img alt="{html.escape(about)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def page(record: dict, picture: bytes | None = None) -> str:
    """The report of a record; picture: a PNG of the gradients' errors."""
    title = f"GradLedger validation: {record['model']}, {record['method']}"
    failed = [c for c in record["checks"] if c["ok"] is False]
    shown = [name for name in SECTIONS if any(c["section"] == name for c in record["checks"])]
    links = "".join(f'<a href="#{name}">{SECTIONS[name]}</a>' for name in shown)
    parts = [
        f"<h1>{text(title)}</h1>",
        about(record),
        f'<p class="verdict{" bad" if failed else ""}"><b>{text(summed(record["checks"]))}</b></p>',
        *(f'<p class="note">{text(c["problem"])}</p>' for c in failed),
        f"<nav>{links}</nav>",
        "<h2>All checks</h2>",
        checks(record["checks"]),
        '<p class="note">Where two commands stand, the first repeats the whole validation with the same draws, the '
        "second shows one drawn case; its last number is the seed of the case.</p>",
    ]
    drawn = {"gradients": gradients, "counts": counts, "memory": memory, "time": time, "tables": tables}
    for name in shown:
        own = [c for c in record["checks"] if c["section"] == name]
        parts += [f'<h2 id="{name}">{SECTIONS[name]}</h2>', checks(own), drawn[name](record, picture)]
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def summed(found: list[dict]) -> str:
    """How many checks passed, failed and were not judged, in a sentence."""
    every, failed = len(found), sum(c["ok"] is False for c in found)
    silent = sum(c["ok"] is None for c in found)
    passed = every - failed - silent
    rest = f", {silent} {'was' if silent == 1 else 'were'} not judged" if silent else ""
    if failed:
        return f"{failed} of {every} checks failed, {passed} passed{rest}."
    return f"{passed} of {every} checks passed{rest}." if silent else f"All {every} checks passed."


def about(record: dict) -> str:
    """What was validated, where, and how to do it again."""
    machine, versions = record["machine"], record["versions"]
    rows = {
        "model": f"{record['model']} on {record['data']}; weights: {record['weights']}",
        "method": record["method"],
        "samples": f"{record['batches']} batches of {record['batch']}",
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['architecture']}, {machine['system']}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "seed": record["seed"],
        "again": Markup(f"<code>{text(record['command'])}</code>"),
    }
    return terms(rows)


def terms(found: dict) -> str:
    """Words, each with what it stands for."""
    return "<dl>" + "".join(f"<dt>{text(k)}</dt><dd>{text(v)}</dd>" for k, v in found.items()) + "</dl>"


def checks(found: list[dict]) -> str:
    """Formula, value, measured, verdict, command of each check."""
    heads = ("check", "formula", "should be", "measured", "verdict", "again with")
    rows = (
        (c["name"], c["formula"], c["value"], c["measured"], verdict(c["verdict"]), code(c["command"])) for c in found
    )
    return table(heads, rows)


def wrong(found: list[dict]) -> str:
    """Mismatches, each with the command that shows it."""
    if not found:
        return ""
    heads = ("case", "seed", "what differs", "again with")
    rows = [(w["case"], str(w["seed"]), w["what"], code(w["command"])) for w in found[:MOST]]
    more = f'<p class="note">{len(found) - MOST:,} more are in the record.</p>' if len(found) > MOST else ""
    return "<h3>Mismatches</h3>" + table(heads, rows) + more


def figure(value: float | None) -> str:
    """Three significant digits, or a dash."""
    return "–" if value is None else f"{value:.3g}"


def gradients(record: dict, picture: bytes | None) -> str:
    """Each parameter's errors, then the price of the approximations."""
    g = record["gradients"]
    rows = [(name, figure(error), figure(g["slope"]["parameters"].get(name))) for name, error in g["kernels"].items()]
    heads = ("parameter", "float32 kernels against float64", "gradient against slope")
    parts = [f'<p class="note">{text(g["note"])}.</p>'] if g["note"] else []
    if rows:
        parts += ["<h3>Relative errors, parameter by parameter</h3>", table(heads, rows, "|".join(heads[1:]))]
    if g["step"]:
        heads = ("parameter", "elements that differ")
        parts += ["<h3>Whole weights after a step</h3>", table(heads, g["step"]["parameters"].items(), heads[1])]
    if of := g["estimator"]:
        keys = estimators.FIGURES
        rows = [(name, figure(of[key]), figure(of.get(f"{key}_by_theory"))) for name, key in keys.items()]
        parts += [
            "<h3>How good the estimate is</h3>",
            f'<p class="note">A price, no check. {html.escape(estimators.COLUMNS, quote=False)}</p>',
            image(picture, "png", "cosine and variance of the estimate") if picture else "",
            table(("estimate", "measured", "by theory"), rows, "measured|by theory"),
        ]
    if not g["errors"]:
        return "\n".join(parts)
    names = ("cosine", "relative error", "bias", "variance", "noise")
    rows = [
        (e["layer"], a, view, *(figure(e[view][a][n.replace(" ", "_")]) for n in names))
        for e in g["errors"] for a in e["local"] for view in ("local", "whole")
    ]  # fmt: skip
    parts += [
        "<h3>What the method costs in error</h3>",
        '<p class="note">Approximate against exact gradients on real data: a price, no check. '
        f"{html.escape(COLUMNS, quote=False)}</p>",
        image(picture, "png", "errors of each layer's gradients") if picture else "",
        table(("layer", "gradient", "view", *names), rows, "|".join(names)),
    ]
    return "\n".join(parts)


def counts(record: dict, picture: bytes | None) -> str:
    """Cases of every pass with its formula, of every method; PyTorch's counter."""
    c = record["counts"]
    passes, nets, torch = c["passes"], c["nets"], c["torch"]
    numbers = "calls|nets|mismatches"
    heads = ("pass and formula", "one drawn call: formula, loops", "calls", "in full", "mismatches", "again with")
    rows = []
    for name, n in passes["passes"].items():
        first, missed = n["example"], verdict(f"FAILED {n['mismatches']}") if n["mismatches"] else 0
        rows.append((code(f"{name}\n{formula(name)}"), code(example(first)), n["cases"], n["full"], missed,
                     code(first["command"])))  # fmt: skip
    by_pass = table(heads, rows, "calls|in full|mismatches")
    both = nets["methods"] | {name: n for name, n in nets["sets"].items() if name not in nets["methods"]}
    rows = [(name, n["cases"], n["calls"], n["mismatches"]) for name, n in both.items()]
    by_method = table(("methods", "nets", "calls", "mismatches"), rows, numbers)
    parts = [
        wrong(
            c["model"]["wrong"]
            + passes["wrong"]
            + nets["wrong"]
            + c["model"]["kernels"]["wrong"]
            + nets["kernels"]["wrong"]
        ),
        "<h3>Counted and executed</h3>",
        executed(c["model"]["kernels"]["launches"]),
        "<h3>Drawn nets by method</h3>",
        '<p class="note">A net with two methods stands in three rows: under each of them and under both.</p>',
        by_method,
        "<h3>PyTorch's counter</h3>",
        counter(torch),
        "<h3>Drawn calls by pass</h3>",
        '<p class="note">In full: calls that were counted item by item, without the shortcuts of the counting.</p>',
        by_pass,
        "<h3>What the letters of the formulas mean</h3>",
        terms(LEGEND),
    ]
    return "\n".join(parts)


def executed(launches: list[dict]) -> str:
    """Operations of each launch of the model's step: of the reference algorithm, and of its kernel."""
    note = (
        "Multiplications and additions of a full batch. Counted are those of the reference algorithm: padded taps are "
        "skipped. Executed are those of the kernel that runs, on its own geometry: zeros of padding, empty lanes of "
        "vectors and rows that are made twice are in it, and what two calls share is there once. Formulas, and every "
        "figure called counted, are of the first kind; what is saved in time follows the second more closely."
    )
    heads = ("launch", "counted", "executed", "executed / counted")
    rows = [(x["name"], x["counted"], x["executed"], share(x)) for x in launches]
    whole = {key: sum(x[key] for x in launches) for key in ("counted", "executed")}
    rows.append(("whole step", whole["counted"], whole["executed"], share(whole)))
    return f'<p class="note">{text(note)}</p>' + table(heads, rows, "|".join(heads[1:]))


def share(found: dict) -> str:
    """Executed over counted."""
    return f"{found['executed'] / found['counted']:.3f}" if found["counted"] else "–"


def example(found: dict) -> str:
    """A drawn call with what the formula and the loops say of it, a line for each unit."""
    lines = [found["case"].partition("(")[2].removesuffix(")")]
    for unit, (predicted, counted) in found["units"].items():
        lines.append(f"{unit:6s}{predicted:,} {'=' if predicted == counted else '≠'} {counted:,}")
    return "\n".join(lines)


def formula(name: str) -> str:
    """The formula of a pass, or that there is none."""
    try:
        return "\n".join(line.strip() for line in cost.show(*name.split(".")).splitlines()[1:])
    except (KeyError, ValueError) as e:
        return str(e.args[0])


def counter(found: dict) -> str:
    """Our nominal counts beside those of PyTorch's counter."""
    if found.get("note"):
        return f"<p>{text(found['note'])}</p>"
    heads = ("layer or net", "of", "groups", "ours", "PyTorch", "PyTorch / ours", "verdict")
    rows = [
        (r["name"], r["part"], r["groups"] or "–", r["ours"], r["torch"], f"{r['ratio']:.3f}",
         verdict("ok" if r["explained"] else "FAILED")) for r in found["rows"]
    ]  # fmt: skip
    note = (
        f"{found['groups']}. y: output; dx, dw: gradients of input and weights. Padded taps are counted on both sides. "
        "A row is ok where both counts are equal, or where they differ by the known error of torch "
        f"{torch_flops.STATED} alone: the groups of a convolution do not enter its formula for dw."
    )
    picture = image(report_plot.svg(report_plot.torch, found["rows"]), "svg+xml", "PyTorch's counts over ours")
    return f'<p class="note">{text(note)}</p>{picture}' + table(heads, rows, "groups|ours|PyTorch|PyTorch / ours")


def memory(record: dict, picture: bytes | None) -> str:
    """Arenas of the drawn nets, processes."""
    m = record["memory"]
    drawn, process = m["drawn"], m["process"]
    rows = [(name, n["cases"], n["mismatches"]) for name, n in drawn["methods"].items()]
    about = "bytes of each drawn net's arena, predicted and touched"
    parts = [
        wrong(drawn["wrong"]),
        "<h3>Arenas of drawn nets</h3>",
        image(report_plot.svg(report_plot.arenas, drawn["arenas"]), "svg+xml", about) if drawn["arenas"] else "",
        table(("method", "nets", "mismatches"), rows, "nets|mismatches"),
    ]
    if process["cases"]:
        terms = list(process["cases"][0]["terms"])
        heads = ("MiB", *(case["name"] for case in process["cases"]))
        rows = [(t, *(f"{case['terms'][t] / 2**20:.2f}" for case in process["cases"])) for t in terms]
        for name in ("predicted", "measured"):
            rows.append((name, *(f"{case[f'{name}_bytes'] / 2**20:.2f}" for case in process["cases"])))
        bars = report_plot.svg(report_plot.processes, process["cases"])
        parts += [
            "<h3>Resident memory of training processes</h3>",
            image(bars, "svg+xml", "terms of the predicted memory beside the measured"),
            table(heads, rows, "|".join(heads[1:])),
        ]
    return "\n".join(parts)


def time(record: dict, picture: bytes | None) -> str:
    """Predicted and measured seconds of each net."""
    t = record["time"]
    heads = ("net", "predicted, ms", "from", "to", "measured, ms", "error, %")
    rows = [
        (r["name"], *(f"{1e3 * r[f'{k}_seconds']:.3f}" for k in ("predicted", "low", "high", "measured")),
         f"{100 * r['error']:+.1f}") for r in t["cases"]
    ]  # fmt: skip
    drawn = image(report_plot.svg(report_plot.times, t["cases"]), "svg+xml", "predicted against measured times")
    if t["calibrated"]:
        note = f"{t['device']}, calibrated here. From and to hold 19 of 20 undisturbed steps."
    else:
        note = (
            f"{t['device']}: predicted are the rates of the reference machine, scaled by a quick measurement. From and "
            f"to are an assumed factor of {QUICK:g} either way: how many steps lie between them was not measured. "
            "gradledger calibrate measures this machine and gives an interval with a measured coverage."
        )
    note += " Times are confirmed or not judged and never fail, for other programs on the machine change them."
    return f'<p class="note">{text(note)}</p>' + drawn + table(heads, rows, "|".join(heads[1:]))


def tables(record: dict, picture: bytes | None) -> str:
    """Every printed figure beside ours, and how ours came about."""
    heads = ("source", "figure", "printed", "ours", "unit", "may differ by", "ours is", "verdict")
    rows = [
        (r["source"], r["what"] + (f" ({r['note']})" if r["note"] else ""), f"{r['published']:,g}", f"{r['ours']:,g}",
         r["unit"], allowed(*r["allowed"]), f"{r['origin']['kind']}: {r['origin']['why']}",
         verdict("ok" if r["ok"] else "FAILED")) for r in record["tables"]["rows"]
    ]  # fmt: skip
    return terms(papers.KINDS) + table(heads, rows, "printed|ours")


def allowed(most: float, measure: str) -> str:
    """How far ours may be from a printed figure, in words."""
    if measure == "one-sided":
        return "any amount more, none less"
    return f"{100 * most:g} % of it" if measure == "relative" else f"{most:g}{' points' if measure == 'points' else ''}"


def main(record: str, out: str) -> None:
    """Write the report of a record file."""
    path = Path(record)
    picture = path.with_suffix(".png")
    found = page(json.loads(path.read_text()), picture.read_bytes() if picture.exists() else None)
    checkpoint.write_atomic(Path(out), [found.encode()])


if __name__ == "__main__":
    main(*sys.argv[1:3])
