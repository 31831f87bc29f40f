"""The picture of a record of `outcomes`; `gradledger.plot` draws it in a process of its own."""

import math

COLUMNS = 3
LINES = {"head alone": ("tab:orange", "--"), "by hand": ("tab:green", ":")}


def draw(record: dict, figure) -> None:
    """For each pair a row a method: accuracy before, after with its spread, and lines for head alone and by hand."""
    measured, pairs, methods = record["measured"], record["pairs"], record["protocol"]["methods"]
    columns = min(COLUMNS, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure.set_size_inches(5 * columns, rows * (1.1 + 0.24 * len(methods)))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flat
    for axes, name in zip(panels, pairs, strict=False):
        ways = {way: measured[f"{name}, {way}"] for way in (*LINES, *methods)}
        for way, (color, style) in LINES.items():
            if "after" in ways[way]:
                axes.axvline(ways[way]["after"]["mean"], color=color, linestyle=style, label=way)
        for i, method in enumerate(methods):
            row = ways[method]
            if "refused" in row:
                axes.text(
                    0.5, i, "refused", ha="center", va="center", color="0.5", transform=axes.get_yaxis_transform()
                )
                continue
            before, after = row["before"], row["after"]
            axes.plot([before["mean"], after["mean"]], [i, i], color="0.8", linewidth=1, zorder=0)
            axes.plot(before["mean"], i, "o", color="0.6", markersize=4, label="before" if i == 0 else None)
            axes.errorbar(
                after["mean"], i, xerr=after["std"], fmt="o", color="tab:blue", capsize=2,
                label="after, mean ± std of the seeds" if i == 0 else None,
            )  # fmt: skip
        axes.set(yticks=range(len(methods)), yticklabels=methods, xlabel="accuracy, %", title=name)
    for axes in list(figure.axes)[len(pairs) :]:
        axes.set_axis_off()
    figure.axes[0].set_ylim(len(methods) - 0.4, -0.6)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
