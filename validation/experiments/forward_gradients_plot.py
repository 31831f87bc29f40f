"""The picture of a record of `forward_gradients`; `gradledger.plot` draws it in a process of its own."""

import numpy as np

HEIGHT = 3.6  # inches of a mode's row
MARKERS = "osD^"  # of the modes, among bytes
BACKPROP = "backprop"
PALETTE = [f"C{i}" for i in range(10)] + ["black", "gold", "deepskyblue", "lime", "hotpink"]


def draw(record: dict, figure) -> None:
    """For each mode accuracy against forward passes and against multiply-adds, for all of them against bytes."""
    measured = record["measured"]
    figure.set_size_inches(16, HEIGHT * len(measured) + 1)
    grid = figure.add_gridspec(len(measured), 3)
    names = list(dict.fromkeys(way for ways in measured.values() for way in ways))
    colors = {way: "0.3" if way == BACKPROP else PALETTE[i % len(PALETTE)] for i, way in enumerate(names)}
    lines = {way: "--" if i > 10 else "-" for i, way in enumerate(names)}
    shared = figure.add_subplot(grid[:, 2])
    for row, (mode, ways) in enumerate(measured.items()):
        passes, macs = (figure.add_subplot(grid[row, i]) for i in (0, 1))
        for way, r in ways.items():
            at, accuracy = np.array(r["curve"])[1:].T
            style = {"color": colors[way], "linestyle": lines[way], "linewidth": 1.2, "marker": ".", "label": way}
            passes.plot(at * r["passes_a_step"], accuracy, **style)
            macs.plot(at * r["macs_a_step"], accuracy, **style)
        before = next(iter(ways.values()))["before"]
        for axes, what in ((passes, "forward passes"), (macs, "multiply-adds, whole numbers by their bits")):
            axes.axhline(before, color="0.75", linewidth=0.8)
            axes.set(xscale="log", xlabel=what, ylabel=f"{mode}: accuracy, %")
    for way in names:
        found = [(ways[way], MARKERS[i]) for i, ways in enumerate(measured.values()) if way in ways]
        bytes_of = [(r["arena_bytes"] + r["state_bytes"]) / 1024 for r, _ in found]
        shared.plot(
            bytes_of, [r["accuracy"]["mean"] for r, _ in found], color=colors[way], linestyle=lines[way], linewidth=0.8
        )
        for x, (r, marker) in zip(bytes_of, found, strict=True):
            shared.errorbar(
                x, r["accuracy"]["mean"], r["accuracy"]["std"], color=colors[way], marker=marker, capsize=2,
                label=way if (r, marker) == found[0] else None,
            )  # fmt: skip
    modes = ", ".join(f"{MARKERS[i]} {mode}" for i, mode in enumerate(measured))
    needed = [(r["arena_bytes"] + r["state_bytes"]) for ways in measured.values() for r in ways.values()]
    if max(needed) > 3 * min(needed):
        shared.set_xscale("log", base=2)
    shared.xaxis.set_major_formatter(lambda kib, place: next(
        f"{kib / 1024**i:,g} {unit}" for i, unit in ((2, "GiB"), (1, "MiB"), (0, "KiB")) if kib >= 1024**i or not i
    ))  # fmt: skip
    shared.tick_params("x", labelrotation=30)
    shared.set(xlabel="what a step needs: arena and weights that change", ylabel="accuracy, %")
    shared.set_title(f"at the end, mean ± std of {len(record['seeds'])} seeds\n{modes}")
    shared.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12 / len(measured)), ncols=3)
