"""The picture of a record of `sparse-update-mobilenet`; `gradledger.plot` draws it in a process of its own."""

import numpy as np

COLORS = {"dynamic": "tab:red", "fixed": "tab:blue", "last layer": "0.5"}


def draw(record: dict, figure) -> None:
    """Accuracy after each epoch, a panel for each net, and the feature memory of a training step beside them."""
    nets = list(record["memory"])
    *panels, right = figure.subplots(1, len(nets) + 1)
    for axes, net in zip(panels, nets, strict=True):
        for name, color in COLORS.items():
            curves = [r["curve"] for r in record["runs"] if r["net"] == net and r["method"] == name]
            accuracy = 100 * np.array([[a for _, a in curve] for curve in curves])
            epochs = np.arange(1, accuracy.shape[1] + 1)
            axes.plot(epochs, accuracy.mean(0), color=color, marker="o", markersize=4, label=name)
            axes.fill_between(epochs, accuracy.min(0), accuracy.max(0), color=color, alpha=0.15, linewidth=0)
        axes.axhline(record["published"]["accuracy"], color="0.35", linewidth=0.8, linestyle="--")
        axes.set(
            xlabel="epoch", ylabel="accuracy, %", title=f"{net}, {record['memory'][net]['size']}²; dashed: the paper"
        )
        axes.set_xticks(epochs)
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=3)
    plans = ("whole net", "same layers", "sparse")
    place = np.arange(len(plans))
    for i, net in enumerate(nets):
        kept = [record["memory"][net]["with_masks"][plan] / 1024 for plan in plans]
        bars = right.barh(place + 0.4 * i - 0.2, kept, height=0.36, label=net)
        right.bar_label(bars, [f"{k:,.0f}" for k in kept], padding=3, fontsize=9)
    right.set(yticks=place, yticklabels=("dense,\nwhole net", "dense,\nsame layers", "sparse\nupdate"))
    right.set(xlabel="KiB kept, batch 1, with masks", xlim=(0, 1.2 * right.get_xlim()[1]))
    right.invert_yaxis()
    right.legend(frameon=False, loc="lower right")
