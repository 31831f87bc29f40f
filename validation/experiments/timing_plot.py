"""The picture of a record of `seconds`; `gradledger.plot` draws it in a process of its own."""

import numpy as np

COLORS = {"lenet": "tab:green", "resnet8": "tab:blue", "resnet18": "navy", "mobilenet_v2": "tab:red", "watch": "0.5"}


def draw(record: dict, figure) -> None:
    """Predicted against measured milliseconds, a panel for each number of threads; crosses: operations only."""
    panels = np.atleast_1d(figure.subplots(1, len(record["threads"])))
    for axes, (threads, found) in zip(panels, record["threads"].items(), strict=True):
        rows = found["rows"]
        measured = 1e3 * np.array([row["measured_seconds"] for row in rows])
        predicted, by_flops = (
            1e3 * np.array([row[key] for row in rows]) for key in ("predicted_seconds", "flops_model_seconds")
        )
        line = np.array([0.6 * measured.min(), 1.6 * measured.max()])
        axes.fill_between(line, line / 1.15, line * 1.15, color="0.9", linewidth=0, label="within 15 %")
        axes.plot(measured, by_flops, "x", color="0.6", markersize=4, label="operations only")
        models = np.array([row["name"].split(",")[0].removesuffix("5") for row in rows])
        for model, color in COLORS.items():
            own = models == model
            axes.plot(measured[own], predicted[own], "o", color=color, markersize=4, label=model)
        axes.set(
            xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms", xlim=line,
            title=f"threads: {threads}; median error {100 * found['median_error']:.1f} %, "
            f"{100 * found['within_15_percent']:.0f} % within 15 %",
        )  # fmt: skip
    panels[0].legend(frameon=False, fontsize=8)
