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
    left.set(xscale="log", xlabel="multiply-adds, % of 20 epochs of SGD", ylabel="accuracy on the test images, %")
    left.set(ylim=(97, 99.6), title=f"mean, smallest and largest of {len(record['seeds'])} seeds; × the paper's")
    left.set_xticks([2, 5, 10, 20, 50, 100], ["2", "5", "10", "20", "50", "100"])
    left.legend(frameon=False, loc="lower right")

    rows = record["measured"]
    place = np.arange(len(rows))
    gains = [rows[name]["gain"] for name in rows]
    bars = [[g["mean"] - g["min"] for g in gains], [g["max"] - g["mean"] for g in gains]]
    colors = [COLORS.get(name.split(",")[0], "0.6") for name in rows]
    right.barh(place, [g["mean"] for g in gains], xerr=bars, color=colors, height=0.6, capsize=3)
    labels = [f"{name}\n{100 - rows[name]['saved']['mean']:.0f} % of the computation" for name in rows]
    right.set(yticks=place, yticklabels=labels, xlabel="points to SGD of the same seed")
    right.axvline(0, color="0.35", linewidth=0.8)
    right.invert_yaxis()
