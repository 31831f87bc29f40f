"""The pictures of the validation report, as SVG."""

import io

import numpy as np

from ..instruments import drawn_nets

COLORS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "0.5", "tab:olive")
MISSES = {"marker": "x", "color": "black", "s": 60, "zorder": 3}


def svg(draw, *data) -> bytes:
    """The picture that `draw(figure, *data)` makes; the same bytes for the same data."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"svg.hashsalt": "gradledger", "font.size": 9}):
        figure = plt.figure(figsize=(8, 3.8), layout="constrained")
        draw(figure, *data)
        found = io.BytesIO()
        figure.savefig(found, format="svg", metadata={"Date": None})
        plt.close(figure)
    return found.getvalue()


def arenas(figure, cases: list) -> None:
    """Touched against predicted bytes of each drawn net, a colour for each method; a cross where they differ."""
    axes = figure.subplots()
    seeds, predicted, touched = (list(column) for column in zip(*cases, strict=True))
    differs = np.array([t != p for p, t in zip(predicted, touched, strict=True)])
    x, y = np.array(predicted, float), np.array([np.nan if t is None else t for t in touched], float)
    methods = np.array([drawn_nets.methods_of(seed)[0] for seed in seeds])
    line = [0.8 * x.min(), 1.25 * x.max()]
    axes.plot(line, line, color="0.8", linewidth=1, zorder=0)
    for color, name in zip(COLORS, dict.fromkeys(methods), strict=False):
        own = methods == name
        axes.scatter(x[own], y[own], s=9, color=color, label=name, linewidths=0)
    if differs.any():
        axes.scatter(x[differs], np.where(np.isnan(y), x, y)[differs], label="differs", **MISSES)
    axes.set(xscale="log", yscale="log", xlabel="predicted bytes", ylabel="touched bytes")
    axes.set_title(f"{len(cases):,} drawn nets, {int(differs.sum())} off the line")
    axes.legend(frameon=False, fontsize=8, title="first method", loc="center left", bbox_to_anchor=(1, 0.5))


def torch(figure, rows: list[dict]) -> None:
    """PyTorch's count over ours, by the groups of a layer: 1 but for the weight gradient, where it is G."""
    axes = figure.subplots()
    layers = [r for r in rows if r["groups"]]
    for part, marker, area, color in (("y", "o", 70, "0.7"), ("dx", "s", 22, "tab:blue"), ("dw", "^", 22, "tab:red")):
        own = [r for r in layers if r["part"] == part]
        axes.scatter(
            [r["groups"] for r in own], [r["ratio"] for r in own], marker=marker, s=area, color=color, label=part
        )
    most = max(r["groups"] for r in layers)
    axes.plot([1, most], [1, most], color="tab:red", linewidth=0.8, zorder=0, label="G")
    axes.axhline(1, color="0.8", linewidth=0.8, zorder=0)
    nets = [r for r in rows if not r["groups"] and r["part"] == "backward"]
    text = "\n".join(f"{r['name']}, backward: {r['ratio']:.2f}" for r in nets)
    axes.text(0.02, 0.97, text, transform=axes.transAxes, va="top")
    axes.set(xscale="log", yscale="log", xlabel="groups G", ylabel="PyTorch's count / ours")
    axes.legend(frameon=False, loc="center right")


def processes(figure, cases: list[dict]) -> None:
    """The terms of each predicted peak on top of one another, and the measured peak."""
    axes = figure.subplots()
    places = np.arange(len(cases))
    left = np.zeros(len(cases))
    shades = iter([*COLORS, "0.3", "0.7", "tab:cyan"])
    for term in cases[0]["terms"]:
        values = np.array([case["terms"][term] for case in cases]) / 2**20
        if values.max() >= 0.5:
            axes.barh(places, values, left=left, height=0.5, color=next(shades), label=term)
        left += values
    measured = [case["measured_bytes"] / 2**20 for case in cases]
    axes.scatter(measured, places, marker="|", s=900, color="black", label="measured", zorder=3)
    axes.set(yticks=places, yticklabels=[case["name"] for case in cases], xlabel="MiB")
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=8, markerscale=0.4, loc="center left", bbox_to_anchor=(1, 0.5))


def times(figure, rows: list[dict]) -> None:
    """Predicted milliseconds with their interval against measured ones."""
    axes = figure.subplots()
    at = {k: 1e3 * np.array([r[f"{k}_seconds"] for r in rows]) for k in ("measured", "predicted", "low", "high")}
    line = np.array([0.6 * at["measured"].min(), 1.6 * at["measured"].max()])
    axes.fill_between(line, line / 1.15, line * 1.15, color="0.92", linewidth=0, label="within 15 %")
    bars = (at["predicted"] - at["low"], at["high"] - at["predicted"])
    axes.errorbar(at["measured"], at["predicted"], bars, fmt="none", ecolor="0.7", elinewidth=0.8)
    models = np.array([r["name"].split(",")[0] for r in rows])
    for color, model in zip(COLORS, dict.fromkeys(models), strict=False):
        own = models == model
        axes.scatter(at["measured"][own], at["predicted"][own], s=14, color=color, label=model, zorder=3)
    axes.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
