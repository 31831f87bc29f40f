"""The picture of a record of `loss-landscape`; `gradledger.plot` draws it in a process of its own."""

import numpy as np

COLORS = {"backprop": "tab:blue", "sign, m = 1": "tab:red"}


def draw(record: dict, figure) -> None:
    """Contours of the loss on both planes, with the paths on that of the paths."""
    panels = figure.subplots(1, 2)
    for axes, (kind, plane) in zip(panels, record["measured"]["planes"].items(), strict=True):
        loss = np.array(plane["loss"])
        levels = np.geomspace(max(loss.min(), 1e-3), loss.max(), 24)
        filled = axes.contourf(plane["a"], plane["b"], loss, levels=levels, cmap="Greys", norm="log")
        axes.contour(plane["a"], plane["b"], loss, levels=levels, colors="0.4", linewidths=0.4)
        for name, track in plane["paths"].items():
            along, across = np.array(track).T
            end = record["measured"]["losses"][name]["last"]
            label = f"{name}: loss {end:.3f}, accuracy {record['measured']['accuracy'][name][-1]:.1f} %"
            axes.plot(along, across, ".-", color=COLORS.get(name), markersize=4, linewidth=1, label=label)
        axes.plot(0, 0, "o", color="tab:blue", markersize=5, fillstyle="none")
        kept = f", {100 * sum(plane['kept']):.0f} % of the paths' variance" if plane["kept"] else ""
        axes.set(title=f"{kind} plane{kept}", xlabel="first direction", ylabel="second direction")
        bar = figure.colorbar(filled, ax=axes, ticks=[loss.min(), 0.1, 0.3, 1, 3, loss.max()], format="%.2g")
        bar.set_label("loss over the training windows")
        if plane["paths"]:
            axes.legend(frameon=True, loc="upper right", fontsize=8)
