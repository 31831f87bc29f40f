"""Are the predicted seconds right? Whole nets, timed beside predictions from rates of single layers only.

`run` (`gradledger reproduce seconds`) calibrates and tests in one process and in turns, so that both see the machine at
the same speeds: a turn over the layers of `device.calibration`, a turn over whole nets that no rate is fitted to. A
row counts where fixed pieces of work beside it ran undisturbed. Beside the model stands one that knows operations
only: its one rate is fitted to the same single layers.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import refimpl as ri
from costmodel import predict
from costmodel.device import calibration
from costmodel.device import device as devices
from refimpl.kernels.running import threads as running

NAME = "seconds"
MEDIAN, WITHIN, INSIDE, NETS_AT_LEAST = 0.08, 0.9, 0.9, 40  # the goal
SECONDS, ROUNDS, WANTED = 400.0, 4, 5  # of a calibration and a test; turns at least; undisturbed rows of a net
CLASSES = 10
INFERENCE = "inference"
PLANS = {
    INFERENCE: None,
    "all": ri.Plan("all", step=calibration.PLAIN),
    "last 2": ri.Plan(2, step=calibration.PLAIN),
    "batch statistics, momentum": ri.Plan("all", step=calibration.MOMENTUM, batch_norm="train"),
    "last 3, gradient filter": ri.Plan(3, [ri.GradientFilter(2)], calibration.PLAIN),
    "last 3, sparse update": ri.Plan(3, [ri.SparseUpdate(0.1)], calibration.PLAIN),
    "error map pruning": ri.Plan("all", [ri.ErrorMapPruning(0.5)], calibration.PLAIN),
}


@dataclass(frozen=True)
class Case:
    """One net at one size and batch under one plan; plan None is inference."""

    model: str
    batch: int
    method: str
    options: dict = field(default_factory=dict, hash=False)

    @property
    def name(self) -> str:
        """What the tables call it."""
        about = [f"{k} {'x'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in self.options.items()]
        return ", ".join([self.model, *about, f"batch {self.batch}", self.method])

    def program(self, threads: int) -> ri.Program:
        """The compiled step, or inference."""
        graph = ri.models.build(self.model, **self.options)
        return ri.compile(graph, PLANS[self.method], self.batch, threads=threads)


NETS = (
    ("lenet5", 8, {}), ("lenet5", 64, {}), ("lenet", 32, {}),
    ("resnet8", 8, {}), ("resnet8", 32, {}), ("resnet8", 4, {"size": (48, 48)}),
    *(("resnet18", n, {"size": (side, side), "classes": CLASSES}) for side, n in ((64, 4), (96, 2), (128, 1))),
    *(("mobilenet_v2", n, {"size": (side, side), "classes": CLASSES}) for side, n in ((64, 8), (96, 4), (128, 1))),
    ("mobilenet_v2", 8, {"size": (96, 96), "classes": CLASSES, "width": 0.35}),
    ("watch", 32, {}),
)  # fmt: skip
WITHOUT_NORMS = ("lenet", "lenet5")
CASES = tuple(
    Case(model, batch, method, options)
    for model, batch, options in NETS
    for method in PLANS
    if model not in WITHOUT_NORMS or method in (INFERENCE, "all", "error map pruning")
)
QUICK = tuple(
    Case(model, batch, method, options)
    for model, batch, options in (NETS[1], NETS[4], NETS[-2])
    for method in (INFERENCE, "all", "error map pruning")
)


def compare(
    cases: Iterable[Case],
    device: devices.Device,
    watch: Callable[[int, int, str], None] = lambda i, n, what: None,
    threads: int = 1,
    repeats: int = 15,
) -> list[dict]:
    """Predicted and measured seconds of each case, for a device that is this machine.

    Rows: name, predicted_seconds with low_seconds and high_seconds, measured_seconds, error = predicted / measured − 1,
    flops_model_seconds (None here: it takes a calibration). Measured is the median of the steps that the reference
    work beside them tells to be undisturbed.
    """
    cases, nets = list(cases), []
    with running(threads):
        reference = calibration.SpeedReference(threads, device.at(threads)[1])
        for i, case in enumerate(cases):
            watch(i, len(cases), case.name)
            nets.append(calibration.Timed(case.program(threads)))
            for _ in range(repeats + 2):
                nets[-1].time_whole(reference)
            del nets[-1].whole[:2]  # kernels load, caches fill
    if not nets:
        return []
    limit = calibration.DISTURBED * calibration.own_speed(nets)
    return [_row(case, timed, device, limit, None) for case, timed in zip(cases, nets, strict=True)]


def run(
    output: Path | None, watch: Callable[[int, int, str], None], threads: Iterable[int] = (1, 2), cases=CASES,
    seconds: float = SECONDS, rounds: int = ROUNDS,
) -> dict:  # fmt: skip
    """Calibrate on single layers and test on whole nets, in turns; the result record, one part for each thread count.

    seconds: about how long for each of them. The goal is met where it is met with every number of threads.
    """
    found = {str(count): _measured(count, watch, cases, seconds, rounds) for count in threads}
    met = all(
        one["median_error"] <= MEDIAN and one["within_15_percent"] >= WITHIN and one["inside_interval"] >= INSIDE
        and one["cases"] >= NETS_AT_LEAST
        for one in found.values()
    )  # fmt: skip
    goal = f"median error at most {MEDIAN:.0%}, {WITHIN:.0%} within 15 %, {INSIDE:.0%} inside their interval"
    measured = {}
    for count, one in found.items():
        name = f"{count} thread{'s' if count != '1' else ''}"
        measured[name] = {"cases": one["cases"]} | _percents(one, "")
        measured[f"{name}, operations only"] = {"cases": one["cases"]} | _percents(one, "flops_model_")
    return {"name": NAME, "published": {}, "measured": measured, "threads": found, "goal": goal, "ok": met}


def _percents(found: dict, model: str) -> dict[str, float]:
    """The figures of a summary that make the table."""
    keys = ("median_error", "bias", "within_15_percent", *(() if model else ("inside_interval",)))
    return {f"{key.removesuffix('_percent')}, %": round(100 * found[model + key], 1) for key in keys}


def _measured(threads: int, watch, cases, seconds: float, rounds: int) -> dict:
    caches = devices.caches_of(threads)

    def tell(i: int, n: int, what: str) -> None:
        watch(i, n, f"{threads} threads: {what}")

    with running(threads):
        layers = calibration.LayerTimer(threads, caches, tell)
        nets = {}
        for i, case in enumerate(cases):
            tell(i, len(cases), f"compile {case.name}")
            nets[case] = timed = calibration.Timed(case.program(threads))
            for _ in range(2):  # kernels load, caches fill: not kept
                timed.time_whole(layers.reference)
            timed.whole = []
        began = time.perf_counter()
        missing = dict(nets)
        while (missing or layers.wanted(rounds)) and (layers.rounds < rounds or time.perf_counter() - began < seconds):
            layers.turn(rounds, lambda i, n, what: tell(i, n, f"layers, {what}"))
            for i, (case, timed) in enumerate(missing.items()):
                tell(i, len(missing), case.name)
                for _ in range(2):
                    timed.time_whole(layers.reference)
            if layers.rounds >= rounds:
                limit = layers.limit
                missing = {c: t for c, t in nets.items() if _good(t, limit) < WANTED}
    limit, (rates, _, steadiness) = layers.limit, layers.fitted()
    device = devices.Device(devices.HERE, "this machine", {threads: rates}, {threads: caches}, threads, True)
    per_flop = _seconds_per_flop(layers.timed, limit)
    rows = [_row(case, timed, device, limit, per_flop) for case, timed in nets.items()]
    return summary(rows) | {
        "factor": rates.factor, "steadiness": steadiness, "undisturbed_limit_seconds": limit.tolist(),
        "seconds_per_flop": per_flop, "rows": rows,
    }  # fmt: skip


def summary(rows: list[dict]) -> dict:
    """Median of the absolute errors, shares of rows within 15 % and inside their interval; by operations too."""
    found = {"cases": len(rows)}
    for key, name in (("error", ""), ("flops_model_error", "flops_model_")):
        errors = np.array([row[key] for row in rows if row[key] is not None])
        if len(errors):
            found[f"{name}median_error"] = float(np.median(abs(errors)))
            found[f"{name}bias"] = float(np.median(errors))
            found[f"{name}within_15_percent"] = float(np.mean(abs(errors) <= 0.15))
    inside = [row["low_seconds"] <= row["measured_seconds"] <= row["high_seconds"] for row in rows]
    return found | {"inside_interval": float(np.mean(inside))}


def _good(timed: calibration.Timed, limit: np.ndarray) -> int:
    """Undisturbed steps of a net."""
    return sum(calibration.slowness(reference, limit) <= 1 for reference, _ in timed.whole)


def _row(
    case: Case, timed: calibration.Timed, device: devices.Device, limit: np.ndarray, per_flop: float | None
) -> dict:
    estimate = predict.estimate(timed.program, device=device)
    measured, by_flops = float(calibration.undisturbed(timed.whole, limit)), None
    low, mid, high = estimate.seconds.values()
    if per_flop is not None:
        by_flops = per_flop * estimate.flops
    return {
        "name": case.name,
        "predicted_seconds": mid,
        "low_seconds": low,
        "high_seconds": high,
        "measured_seconds": measured,
        "error": mid / measured - 1,
        "flops": estimate.flops,
        "flops_model_seconds": by_flops,
        "flops_model_error": None if by_flops is None else by_flops / measured - 1,
        "undisturbed": _good(timed, limit),
        "steps": len(timed.whole),
    }


def _seconds_per_flop(timed: list[calibration.Timed], limit: np.ndarray) -> float:
    """The one rate of a model that knows operations only, from the same single layers: the median of their steps."""
    found = []
    for one in timed:
        seconds = calibration.undisturbed(one.launches[0.0], limit).sum()
        found.append(seconds / predict.estimate(one.program).flops)
    return float(np.median(found))
