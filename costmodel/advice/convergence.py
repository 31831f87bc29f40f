"""Cost until an accuracy is reached: cost per step times steps, from recorded learning curves.

A method that halves a step may need three times the steps, and one that drops instances makes steps of every size. So
methods are compared at equal accuracy, on curves that recorded runs went along: points of (steps made, multiply-adds
made, accuracy), as they were counted. Seconds on a device are the predicted seconds of a multiply-add of the method's
own step, times the multiply-adds made. Those of whole numbers count by their bits (`integers`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..predict import Estimate
from . import integers

Curve = Sequence[tuple[float, float, float]]  # (steps, multiply-adds, accuracy) in the order of the run


@dataclass(frozen=True)
class Reached:
    """What one run made until it reached an accuracy."""

    steps: float
    macs: float


def reached(curve: Curve, accuracy: float) -> Reached | None:
    """Where a run first reaches an accuracy, None where it never does.

    Between two points of the curve everything is taken as linear; at the first point nothing is known of what came
    before, so its whole cost counts. ValueError for a curve without points.
    """
    if not len(curve):
        raise ValueError("a learning curve needs at least one point")
    for i, (steps, macs, found) in enumerate(curve):
        if found < accuracy:
            continue
        if not i:
            return Reached(steps, macs)
        before = curve[i - 1]
        share = (accuracy - before[2]) / (found - before[2])
        return Reached(*(b + share * (a - b) for a, b in ((steps, before[0]), (macs, before[1]))))
    return None


def common(curves: Mapping[str, Sequence[Curve]]) -> float:
    """The highest accuracy that every run of every method reaches."""
    return min(max(point[2] for point in curve) for runs in curves.values() for curve in runs)


def compare(
    curves: Mapping[str, Sequence[Curve]],
    accuracy: float | None = None,
    estimates: Mapping[str, Estimate] | None = None,
) -> list[dict]:
    """One row for each method, in the order given; ratios are to the first one.

    curves: method → the curve of each run. accuracy: default `common`. estimates: the price of a step of each method on
    a device, for seconds.

    Rows: method, runs, reached (how many), steps and macs (means over those, None where none did), ratio, macs_min and
    macs_max, macs_per_step, and seconds (low, mid, high) where estimates are given.
    """
    target = common(curves) if accuracy is None else accuracy
    rows = []
    for method, runs in curves.items():
        found = [r for curve in runs if (r := reached(curve, target))]
        row = {"method": method, "runs": len(runs), "reached": len(found), "steps": None, "macs": None, "ratio": None}
        row |= {"macs_min": None, "macs_max": None, "macs_per_step": None, "seconds": None}
        if found:
            macs = [r.macs for r in found]
            row |= {
                "steps": float(np.mean([r.steps for r in found])),
                "macs": float(np.mean(macs)),
                "macs_min": min(macs),
                "macs_max": max(macs),
                "macs_per_step": float(np.sum(macs) / np.sum([r.steps for r in found])),
            }
            if estimates:
                price = estimates[method]
                a_step = integers.weighed_macs(price)
                row["seconds"] = {bound: row["macs"] * s / a_step for bound, s in price.seconds.items()}
        rows.append(row)
    first = rows[0]["macs"]
    for row in rows:
        if first and row["macs"] is not None:
            row["ratio"] = row["macs"] / first
    return rows
