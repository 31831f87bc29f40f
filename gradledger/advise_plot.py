"""The picture of a record of `cost --advise`; `gradledger.plot` draws it in a process of its own."""

import textwrap
from pathlib import Path

import numpy as np

from refimpl.methods.registry import known

MIB = 2**20
HEAD_CHARACTERS = 80  # in a line of the head
LABEL = {"textcoords": "offset points", "color": "tab:red", "fontsize": 8}


def draw(record: dict, figure) -> None:
    """Seconds of an epoch against memory, colour for the expected gradient error, limits as dashed lines.

    Numbers are those of the table; hollow marks are plans that were priced too and lie beyond a limit, do not fit the
    device, or are no better than one of the front in anything.
    """
    from matplotlib.ticker import LogLocator

    axes = figure.subplots()
    memory, seconds = record["memory_limit"], record["seconds_per_epoch"]
    shown = None
    for method, marker in markers().items():
        own = [p for p in record["front"] if kind(p) == method]
        rest = [p for p in record["others"] if kind(p) == method]
        axes.scatter(*places(rest), marker=marker, facecolors="none", edgecolors="0.7", s=26)
        if own:
            shown = axes.scatter(
                *places(own), c=[p["gradient_error"] for p in own], marker=marker, vmin=0, vmax=1, cmap="viridis_r",
                s=60, edgecolors="0.2", linewidths=0.6, zorder=3,
            )  # fmt: skip
        if own or rest:
            axes.scatter([], [], marker=marker, color="0.4", label=method)
    if record["others"]:
        axes.scatter(
            [], [], marker="o", facecolors="none", edgecolors="0.7", label="beyond a limit or the device, or dominated"
        )
    axes.set(
        xscale="log", yscale="log", xlabel="memory, MiB (state and arena)", ylabel="seconds of an epoch, predicted"
    )
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    every = [*record["front"], *record["others"]]
    if memory is not None and memory / MIB < 3 * max(places(every)[0]):
        right = max(right, 1.1 * memory / MIB)
        axes.axvline(memory / MIB, color="tab:red", linestyle="--", linewidth=1)
        axes.axvspan(memory / MIB, right, color="tab:red", alpha=0.06)
        place = {"xycoords": ("data", "axes fraction"), "xytext": (-3, 4), "rotation": 90, "ha": "right"}
        axes.annotate(f"limit {memory / MIB:,.4g} MiB", (memory / MIB, 0), **place, **LABEL)
    if seconds is not None and seconds < 3 * max(places(every)[1]):
        high, low = max(high, 1.1 * seconds), min(low, seconds / 1.1)
        axes.axhline(seconds, color="tab:red", linestyle="--", linewidth=1)
        axes.axhspan(seconds, high, color="tab:red", alpha=0.06)
        place = {"xycoords": ("axes fraction", "data"), "xytext": (4, -10)}
        axes.annotate(f"limit {seconds:g} s", (0, seconds), **place, **LABEL)
    axes.set(xlim=(left, right), ylim=(low, high))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    for number, p in enumerate(record["front"], start=1):
        (x,), (y,) = places([p])
        axes.annotate(str(number), (x, y), textcoords="offset points", xytext=(6, 5), fontsize=8)
    if shown:
        figure.colorbar(shown, ax=axes, label="expected gradient error (0: exact, 1: unrelated)")
    rows, columns = record["size"]
    net = f"{Path(record['model']).name}, {rows}x{columns}"
    text = f"{net}, on {record['device']}: {record['samples']:,} samples an epoch"
    axes.set_title(textwrap.fill(text, HEAD_CHARACTERS, break_on_hyphens=False), fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="best")


def markers() -> dict[str, str]:
    """Method → its mark."""
    return {name: found.states.mark for name, found in known().items() if found.states.mark}


def kind(p: dict) -> str:
    """The method of a plan, without its settings."""
    return p["method"].split(":")[0]


def places(plans: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Memory in MiB and seconds of each plan."""
    return (
        np.array([p["memory_bytes"] / MIB for p in plans]), np.array([p["seconds_per_epoch"]["mid"] for p in plans]),
    )  # fmt: skip
