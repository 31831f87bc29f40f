"""Draw the record of `adapt`, `validate`, `cost --advise` or an experiment.

`python -m gradledger.plot RECORD.json OUT.png`, a process of its own: the training process never holds matplotlib.
"""

import io
import json
import sys
import textwrap
from importlib import import_module
from pathlib import Path

import numpy as np

from refimpl.storage import checkpoint

HEAD_CHARACTERS = 110  # in a line of a head
EXPERIMENTS = {  # record's name → the module whose `draw` draws it, imported only for that
    "advise": "gradledger.advise_plot",
    "evaluate": "gradledger.evaluate_plot",
    **{
        f"forward-gradient-{name}": "validation.experiments.forward_gradients_plot"
        for name in ("watch", "enhancements", "layers", "digits", "mcunet")
    },
    "gradient-filter-noniid": "validation.experiments.noniid_plot",
    "loss-landscape": "validation.experiments.loss_landscape_plot",
    **dict.fromkeys(("outcomes", "outcomes-photographs", "outcomes-imagenet"), "validation.experiments.outcomes_plot"),
    "lenet-mnist": "validation.experiments.lenet_mnist_plot",
    "seconds": "validation.experiments.timing_plot",
    "sparse-update-mobilenet": "validation.experiments.sparse_mobilenet_plot",
}


def draw(record: dict, path: Path) -> None:
    """Write the picture to `path`; CheckpointError where it cannot be written."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["text.parse_math"] = False  # a class or a file may have any name
    from matplotlib import pyplot as plt

    height = max(4.2, 0.7 * len(record.get("gradients", {}).get("errors", ())))
    figure = plt.figure(figsize=(11, height), layout="constrained")
    if record.get("name") in EXPERIMENTS:
        import_module(EXPERIMENTS[record["name"]]).draw(record, figure)
    else:
        (errors if "gradients" in record else learning)(record, figure)
    name_powers(figure)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=130)
    checkpoint.write_atomic(path, [picture.getvalue()])


def name_powers(figure) -> None:
    """Let logarithmic axes say 20 k in place of powers of ten, which are mathematics, and that is not read."""
    from matplotlib.ticker import EngFormatter, LogFormatter, LogLocator, NullFormatter

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if axis.get_scale() == "log"):
        axis.set_minor_formatter(NullFormatter())
        if isinstance(axis.get_major_formatter(), LogFormatter):
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(10, (1, 2, 5) if high < 1000 * low else (1,), numticks=20))
            axis.set_major_formatter(EngFormatter())


def headed(record: dict, figure) -> None:
    """Head a picture with net, data and method, on as many lines as they need; of files their names."""
    model, data = (Path(record[key]).name for key in ("model", "data"))
    text = textwrap.fill(f"{model} on {data}, {record['method']}", HEAD_CHARACTERS, break_on_hyphens=False)
    figure.suptitle(text, fontsize=11)


def learning(record: dict, figure) -> None:
    """The loss of each step, and the recall of each class before and after."""
    headed(record, figure)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    loss = np.array(record["losses"])
    steps = np.arange(1, len(loss) + 1)
    left.plot(steps, loss, color="0.75", linewidth=0.8, label="each step")
    window = max(1, len(loss) // 25)
    if len(loss) > window > 1:
        smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
        left.plot(steps[window - 1 :], smooth, color="tab:blue", label=f"mean of the last {window} steps")
        left.legend(frameon=False)
    left.set(xlabel="step", ylabel="training loss")
    left.set_ylim(bottom=0)
    left.xaxis.get_major_locator().set_params(integer=True)

    names = list(record["recall"])
    place = np.arange(len(names))
    for shift, key, color in ((0.2, "before", "0.7"), (-0.2, "after", "tab:blue")):
        values = [100 * (record["recall"][n][key] or 0) for n in names]
        label = f"{key}: {100 * record['accuracy_' + key]:.1f} % of all"
        right.barh(place + shift, values, height=0.38, color=color, label=label)
    right.set(yticks=place, yticklabels=names, xlabel="recall in %", xlim=(0, 100), title="per class, evaluation data")
    right.invert_yaxis()
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)


def errors(record: dict, figure) -> None:
    """The relative error of each layer's dw and dx, and what a filter leaves of dy and dx; or what an estimate is."""
    headed(record, figure)
    found = record["gradients"]["errors"]
    snrs = {
        "dy, measured": "snr_dy", "dy, closed form": "snr_dy_closed_form", "dx": "snr_dx_full_kernel",
        "dx by eq. (3)": "snr_dx",
    }  # fmt: skip
    series = {
        f"{a}, {view}": [e[view][a]["relative_error"] if a in e[view] else None for e in found]
        for a in ("dw", "dx") for view in ("local", "whole")
    }  # fmt: skip
    left, right = figure.subplots(1, 2)
    if of := record["gradients"]["estimator"]:
        for axes, key in ((left, "cosine"), (right, "variance")):
            bars(axes, [key], {"measured": [of[key]], "by theory": [of[f"{key}_by_theory"]]}, ("tab:blue", "0.75"))
        right.set(title="of the estimated gradient,\nagainst back-propagation")
        return
    names = [e["layer"] for e in found]
    bars(left, names, series, ("tab:blue", "lightsteelblue", "tab:orange", "moccasin"))
    left.set(xlabel="relative error of the gradient")
    if not any(e["filter"] for e in found):
        bars(right, names, {"dw, local": [e["local"]["dw"]["cosine"] for e in found]}, ("tab:blue",))
        right.set(xlabel="cosine similarity")
        return
    decibels = {label: [decibel((e["filter"] or {}).get(key)) for e in found] for label, key in snrs.items()}
    bars(right, names, decibels, ("0.4", "0.75", "tab:orange", "moccasin"))
    right.set(xlabel="signal to noise in dB", title="Proposition 1")


def bars(axes, names: list[str], series: dict[str, list[float | None]], colors: tuple[str, ...]) -> None:
    """Horizontal bars, a group for each name; None draws no bar."""
    place, height = np.arange(len(names)), 0.8 / len(series)
    for i, ((label, values), color) in enumerate(zip(series.items(), colors, strict=True)):
        given = [np.nan if v is None else v for v in values]
        axes.barh(place + (i - (len(series) - 1) / 2) * height, given, height=height, label=label, color=color)
    axes.set(yticks=place, yticklabels=names)
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=4)


def decibel(snr: float | None) -> float | None:
    """10·log₁₀ of a ratio of energies."""
    return None if snr is None else 10 * float(np.log10(snr))


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
