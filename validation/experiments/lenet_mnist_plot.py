"""The picture of a record of `lenet-mnist`; `gradledger.plot` draws it in a process of its own."""

import numpy as np

COLORS = {
    "SGD": "0.35", "EIF+EMP": "tab:red", "EIF": "tab:orange", "EMP": "tab:blue", "OHEM": "tab:green",
    "SMD": "tab:purple",
}  # fmt: skip


def draw(record: dict, figure) -> None:
    """Accuracy against computation, a curve for each method, and how many instances trained the main net."""
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    whole = {r["seed"]: r["curve"][-1][1] for r in record["runs"] if r["method"] == "SGD"}
    for name, color in COLORS.items():
        runs = [r for r in record["runs"] if r["method"] == name]
        points = min(len(r["curve"]) for r in runs)
        share = np.array([[100 * macs / whole[r["seed"]] for _, macs, _ in r["curve"][:points]] for r in runs])
        accuracy = np.array([[100 * a for _, _, a in r["curve"][:points]] for r in runs])
        left.plot(share.mean(0), accuracy.mean(0), color=color, label=name, linewidth=1.2)
        left.fill_between(share.mean(0), accuracy.min(0), accuracy.max(0), color=color, alpha=0.15, linewidth=0)
    published = record["published"]
    for name in ("SGD", "EIF+EMP", "OHEM"):
        found = published[name]
        left.plot(100 - found["saved"], found["accuracy"], "x", color=COLORS[name], markersize=8)
    rows = record["measured"]
    epochs, seeds = record["protocol"]["epochs"], len(record["seeds"])
    left.set(
        xscale="log", xlabel=f"multiply-adds, % of {epochs} epochs of SGD", ylabel="accuracy on the test images, %"
    )
    lowest = min(found["accuracy"]["min"] for found in rows.values()) - 1  # what lies below is the start of every curve
    left.set(ylim=(lowest, min(100, published["EIF+EMP"]["accuracy"] + 0.2)))
    left.set_title(f"mean, smallest and largest of {seeds} seed{'s' * (seeds > 1)}; × the paper's")
    left.set_xticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
    left.legend(frameon=False, loc="lower right")

    place = np.arange(len(rows))
    gains = [rows[name]["gain"] for name in rows]
    bars = [[g["mean"] - g["min"] for g in gains], [g["max"] - g["mean"] for g in gains]]
    colors = [COLORS.get(name.split(",")[0], "0.6") for name in rows]
    right.barh(place, [g["mean"] for g in gains], xerr=bars, color=colors, height=0.6, capsize=3)
    labels = [f"{name}\n{100 - rows[name]['saved']['mean']:.0f} % of the computation" for name in rows]
    right.set(yticks=place, yticklabels=labels, xlabel="points to SGD of the same seed")
    right.axvline(0, color="0.35", linewidth=0.8)
    right.invert_yaxis()
