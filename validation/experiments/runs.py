"""Long experiments: finished runs are kept as they come, settings are chosen apart from test data, goals are judged.

What a few seeds can show: the mean of n runs has a standard error of std/√n, and the 95 % interval of Student's t
reaches 4.3 of them to either side for three seeds, 2.8 for five. A goal is reached where the whole interval is, not
reached where none of it is, and else not decided by these seeds. The sign test beside it asks no distribution: n of n
seeds on the right side have p = 2⁻ⁿ, 0.125 for three, so that fewer than five seeds never get below 0.05. Intervals
are of one goal each, not of several at once.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from refimpl.data import DataError
from refimpl.data.on_demand import taken
from refimpl.kernels import random
from refimpl.storage import checkpoint, files

CONFIDENCE = 0.95
REACHED, MISSED, OPEN = "reached", "not reached", "not decided by these seeds"
FRESH = (10, 11, 12, 13, 14)  # seeds that nobody looked at while settings were chosen; with five a sign test can tell
TRIAL_SEED = 9  # of the runs that settings are chosen by
D = TypeVar("D", bound=Any)
MOST = 2**26  # bytes of a file of runs


class Runs:
    """The runs of one experiment in `output/NAME.jsonl`, a line of JSON each.

    DataError where a line is none; CheckpointError, before the first run, where the file cannot be written.

    settings: whatever decides a run beside its key, as JSON: runs of other settings stay in the file and do not count.
    """

    def __init__(self, output: Path, name: str, settings):
        self.path = output / f"{name}.jsonl"
        self.digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        raw = files.read_bytes(self.path, str(self.path), DataError, MOST) if self.path.exists() else b""
        self.lines = raw.decode(errors="replace").splitlines()
        self.found: list[dict] = []
        wrong = f"is no run of {name}; delete the line or the file"
        for i, line in enumerate(self.lines, start=1):
            with files.reading(f"line {i} of {self.path}", DataError, wrong):
                one = json.loads(line)
                if one["digest"] == self.digest:
                    self.found.append(one)
        self._write()  # hours of training must not end at a folder that is missing or cannot be written

    def get(self, **key) -> dict | None:
        """The finished run with these entries, if there is one."""
        return next((r for r in self.found if all(r.get(k) == v for k, v in key.items())), None)

    def add(self, **run) -> dict:
        """Keep a finished run."""
        run = {"digest": self.digest, **run}
        self.found.append(run)
        self.lines.append(json.dumps(run))
        self._write()
        return run

    def _write(self) -> None:
        checkpoint.write_atomic(self.path, [line.encode() + b"\n" for line in self.lines])


def held_out(d: D, count: int) -> D:
    """Training data of a trial run: `count` of the training images, drawn by TRIAL_SEED, are its test images.

    d: a data set, or another dataclass with the arrays of one.
    """
    order = random.permutation(TRIAL_SEED, random.SPLIT, 1 << 20, len(d.x_train))
    held, rest = np.sort(order[:count]), np.sort(order[count:])
    x = [taken(d.x_train, index) for index in (rest, held)]
    return replace(d, x_train=x[0], y_train=d.y_train[rest], x_test=x[1], y_test=d.y_train[held])


def best_of(runs: Runs, of: str, candidates: Sequence[dict], trial: Callable[[dict], float]) -> dict:
    """The candidate settings whose trial run has the highest accuracy, of equal ones the first; trials are kept.

    of: whose settings they are. trial: accuracy of a run with these settings on training images that it does not see.
    """
    for settings in candidates:
        if not runs.get(of=of, settings=settings):
            runs.add(of=of, settings=settings, accuracy=trial(settings))
    return max(candidates, key=lambda settings: runs.get(of=of, settings=settings)["accuracy"])


def chosen_on(settings: dict, count: int, candidates: Sequence[dict]) -> dict[str, str]:
    """What each of these chosen settings was chosen on, for a record."""
    where = f"{count:,} training images held out of trial runs of seed {TRIAL_SEED}, the best of {len(candidates)}"
    return {name: f"{value:g}: {where}" for name, value in settings.items()}


def chosen(
    runs: Runs, candidates: Mapping[str, Sequence[dict]], count: int, trial: Callable[[str, dict], float]
) -> tuple[dict, dict]:
    """The best candidate settings of each method, all together, and what each of them was chosen on.

    count: training images held out; trial: accuracy of a run of a method with these settings on them.
    """
    settings, sources = {}, {}
    for method, tried in candidates.items():
        best = best_of(runs, method, tried, partial(trial, method))
        settings |= best
        sources |= chosen_on(best, count, tried)
    return settings, sources


def judged(goal: str, values: Sequence[float], least: float) -> dict:
    """Is the mean of one value a seed at least `least`? Interval, sign test and verdict as the head of this file says.

    above: how many values lie above `least`; sign_p: how likely so many are by chance, values equal to it left out.
    One value has no interval.
    """
    x = np.array(values, float)
    n, above, ties = len(x), int(np.sum(x > least)), int(np.sum(x == least))
    found = {"goal": goal, "least": least, "n": n, "mean": float(x.mean()), "se": None, "low": None, "high": None}
    verdict = OPEN
    if n > 1:
        from scipy import stats

        se = float(x.std(ddof=1)) / math.sqrt(n)
        reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * se
        found |= {"se": se, "low": found["mean"] - reach, "high": found["mean"] + reach}
        verdict = REACHED if found["low"] >= least else MISSED if found["high"] < least else OPEN
    sign = sum(math.comb(n - ties, k) for k in range(above, n - ties + 1)) / 2 ** (n - ties)
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}
    return rounded | {"above": above, "sign_p": round(sign, 4), "verdict": verdict}


def certain(goal: str, value: float, least: float) -> dict:
    """A goal whose figure is the same for every seed."""
    return {"goal": goal, "least": least, "value": value, "verdict": REACHED if value >= least else MISSED}


def sentence(found: dict) -> str:
    """What `judged` or `certain` found."""
    wanted = f"{found['goal']}, at least {found['least']:g}"
    if "value" in found:
        return f"{wanted}: {found['value']:g}, {found['verdict']}"
    if found["se"] is None:
        return f"{wanted}: {found['mean']:.2f} with one seed, {found['verdict']}"
    return (
        f"{wanted}: {found['mean']:.2f}, standard error {found['se']:.2f}, {100 * CONFIDENCE:g} % interval "
        f"{found['low']:.2f} to {found['high']:.2f}, {found['above']} of {found['n']} seeds above it "
        f"(sign test p = {found['sign_p']:.3g}): {found['verdict']}"
    )


def together(goals: Sequence[dict]) -> str:
    """The verdict on several goals: missed where one is, open where one is open, else reached."""
    verdicts = {g["verdict"] for g in goals}
    return next((v for v in (MISSED, OPEN) if v in verdicts), REACHED)


def verdicts(goals: Sequence[dict]) -> dict:
    """The part of a record that judges its goals."""
    verdict = together(goals)
    return {"ok": verdict == REACHED, "verdict": verdict, "goals": goals}


def spread(values: list[float]) -> dict[str, float]:
    """Mean, standard deviation (of the sample), standard error of the mean (0 for one value), smallest and largest."""
    x = np.array(values, float)
    std = x.std(ddof=1) if len(x) > 1 else 0.0
    found = {"mean": x.mean(), "std": std, "se": std / len(x) ** 0.5, "min": x.min(), "max": x.max()}
    return {name: round(float(v), 2) for name, v in found.items()}


def percents(shares: list[float]) -> dict[str, float]:
    """`spread` of shares, in percent."""
    return spread([100 * share for share in shares])
