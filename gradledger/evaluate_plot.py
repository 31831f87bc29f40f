"""Picture of `evaluate`: the confusion table, and precision and recall of each class."""

import numpy as np

MOST = 40  # classes whose names and counts can be read


def draw(record: dict, figure) -> None:
    """Draw a record into a figure of matplotlib: rows by class, shares of each row as shades, counts as numbers."""
    table, names = np.array(record["confusion"]), record["classes"]
    many = len(names) > MOST
    figure.set_size_inches(10 if many else max(9.0, 3.5 + 0.75 * len(names)), 8 if many else max(4.2, 0.5 * len(names)))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    share = table / np.maximum(1, table.sum(1, keepdims=True))
    left.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    left.set(xlabel="told", ylabel="true")
    left.set_title(f"{100 * record['accuracy']:.1f} % of {record['samples']:,} right", fontsize=11)
    place = np.arange(len(names))
    if not many:
        left.set_xticks(place, names, rotation=40, ha="right", rotation_mode="anchor")
        left.set_yticks(place, names)
        for i, j in np.argwhere(table):
            left.text(
                j, i, f"{table[i, j]:,}", ha="center", va="center", color="white" if share[i, j] > 0.5 else "black"
            )
    for shift, key, color in ((-0.2, "precision", "tab:orange"), (0.2, "recall", "tab:blue")):
        values = [100 * (record["per_class"][name][key] or 0) for name in names]
        right.barh(place + shift, values, height=0.38, color=color, label=key)
    right.set(xlabel="%", xlim=(0, 100))
    right.set_title("of each class", fontsize=11)
    right.set_yticks(place if not many else [], [""] * len(names) if not many else [])
    right.set_ylim(len(names) - 0.5, -0.5)
    right.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
