"""The picture of a record of `gradient-filter-noniid`; `gradledger.plot` draws it in a process of its own."""

from .noniid import method, row

COLORS = {None: "0.35", 2: "tab:blue", 4: "tab:orange", 7: "tab:green"}


def draw(record: dict, figure) -> None:
    """Mean accuracy against operations, one curve a patch, and the gap to back-propagation by layers.

    The seeds split the classes differently, which moves their accuracies by points: only the gap shows a spread.
    """
    measured, layers = record["measured"], record["protocol"]["train_last"]
    seeds = len(record["seeds"])
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for i, patch in enumerate(record["protocol"]["patches"]):
        rows = [measured[row(k, patch)] for k in layers]
        color, label = COLORS.get(patch), method(patch)
        flops = [r["backward_flops"] for r in rows]
        left.plot(flops, [r["mean"] for r in rows], color=color, marker="o", label=label)
        for k, x, r in zip(layers, flops, rows, strict=True):
            left.annotate(f"{k}", (x, r["mean"]), xytext=(5, -11), textcoords="offset points", color=color)
        if patch is not None:
            gaps = [r["gap"] for r in rows]
            place = [k + 0.1 * (i - 2) for k in layers]
            right.errorbar(place, [g["mean"] for g in gaps], bars(gaps), color=color, marker="o", capsize=3)
    left.set(xscale="log", xlabel="operations of one image's backward pass, as the paper counts")
    left.set(ylabel=f"accuracy on half B in %, mean of {seeds} seeds")
    left.set_title("adapted: the last 1, 2, … convolutions")
    figure.legend(frameon=False, loc="outside lower center", ncols=len(record["protocol"]["patches"]))
    right.axhline(0, color="0.35", linewidth=0.8)
    right.set(xticks=layers, xlabel="convolutions that train", ylabel="points to back-propagation, same seed")
    right.set_title("mean, smallest and largest")


def bars(spreads: list[dict]) -> list[list[float]]:
    """Lengths of error bars from the mean down to the smallest and up to the largest value."""
    return [[s["mean"] - s["min"] for s in spreads], [s["max"] - s["mean"] for s in spreads]]
