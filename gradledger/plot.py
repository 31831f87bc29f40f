"""Draw the learning curve of an `adapt` record: `python -m gradledger.plot RECORD.json OUT.png`.

A process of its own, so that the training process never holds matplotlib.
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np


def draw(record: dict, path: Path) -> None:
    """Write the picture beside its place and rename it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(3, 2), layout="constrained")
    loss = np.array(record["losses"])
    steps = np.arange(1, len(loss) + 1)
    left.plot(steps, loss, color="0.75", linewidth=0.8, label="each step")
    window = max(1, len(loss) // 25)
    if len(loss) > window > 1:
        smooth = np.convolve(loss, np.ones(window) / window, mode="valid")
        left.plot(steps[window - 1 :], smooth, color="tab:blue", label=f"mean of the last {window} steps")
        left.legend(frameon=False)
    left.set(xlabel="step", ylabel="training loss", title=f"{record['model']} on {record['data']}, {record['method']}")
    left.set_ylim(bottom=0)

    names = list(record["recall"])
    place = np.arange(len(names))
    for shift, key, color in ((0.2, "before", "0.7"), (-0.2, "after", "tab:blue")):
        values = [100 * (record["recall"][n][key] or 0) for n in names]
        label = f"{key}: {100 * record['accuracy_' + key]:.1f} % of all"
        right.barh(place + shift, values, height=0.38, color=color, label=label)
    right.set(yticks=place, yticklabels=names, xlabel="recall in %", xlim=(0, 100), title="per class, evaluation data")
    right.invert_yaxis()
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)

    handle, beside = tempfile.mkstemp(dir=path.parent, suffix=".png")
    os.close(handle)
    figure.savefig(beside, dpi=130)
    os.replace(beside, path)


def painter(record: dict) -> Callable[[dict, Path], None]:
    """The function that draws a record; an experiment's own is imported only for its record."""
    if record.get("name") == "gradient-filter-noniid":
        from validation import noniid_plot

        return noniid_plot.draw
    return draw


if __name__ == "__main__":
    read = json.loads(Path(sys.argv[1]).read_text())
    painter(read)(read, Path(sys.argv[2]))
