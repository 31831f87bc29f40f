"""`gradledger validate`: what the approximate gradients cost in error, and is the rest true on this machine?"""

import math
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

import refimpl as ri
from refimpl import data
from refimpl.graph import Graph
from refimpl.plan.plan import kind_of
from refimpl.storage import checkpoint
from refimpl.surgery.for_step import is_quantized
from refimpl.training.trainer import NonFiniteError, initial
from validation.experiments import tables, timing
from validation.instruments import approximation, drawn, estimators, measured, resident, torch_flops
from validation.instruments import gradient_filter_spectrum as spectrum
from validation.instruments.provenance import provenance

from . import job, options, recipe
from .checks import all_checks
from .errors import Malformed, Refused
from .finish import plot, report
from .output import make_folder
from .settings import READ, AdaptSettings, ReadSettings

TOLERANCE = 1e-4  # largest relative error of float32 kernels against float64 that passes
SLOPE = 1e-4  # the same of exact gradients against slopes of the loss
TURNED = 1e-3  # share of whole weights that a step may change otherwise where floats are rounded to them at random
NO_SLOPE = "the weights that train are whole numbers, and between those a loss has no slope"
SHARED = (  # with `adapt`
    "model", "data", "subject", "method", "train_last", "batch", "classes", "size", "seed", "whole", "lr", *READ,
)  # fmt: skip
PRETRAINING_BATCH = 64
ESTIMATES, QUICK_ESTIMATES = 400, 50  # steps by which estimated gradients are judged
SLOPE_BATCH = 4  # samples of which the slopes are taken
Watch = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Scale:
    """How much is drawn and measured: calls of each pass, nets, layers for PyTorch, processes, nets that are timed."""

    calls: int
    nets: int
    layers: int
    processes: tuple[str, ...]
    timed: tuple


FULL = Scale(
    calls=40, nets=2000, layers=24, timed=timing.CASES,
    processes=("watch, batch 256, gradient filter", "LeNet-5, batch 32, error map pruning", "ResNet-20, batch 64"),
)  # fmt: skip
QUICK = Scale(calls=5, nets=60, layers=12, timed=timing.QUICK, processes=())


@dataclass
class ValidateSettings(ReadSettings):
    """What decides the figures."""

    model: str = "watch"
    data: str = "watch"
    subject: int | None = None
    method: list[str] = field(default_factory=lambda: [recipe.METHOD])
    train_last: str | None = None
    batch: int = 32
    batches: int = 8
    epochs: int = 1  # of training first, for a model that comes without weights
    classes: int | None = None
    size: str | None = None
    seed: int = 0
    quick: bool = False
    whole: bool = False
    lr: float | None = None

    @property
    def adapted(self) -> AdaptSettings:
        """The settings of an adaptation whose step is looked at, on the CPU's tuned kernels."""
        return AdaptSettings(backend="fast", **{name: getattr(self, name) for name in SHARED})

    @property
    def command(self) -> str:
        """The command with what is not as by default."""
        words, default = ["gradledger", "validate"], ValidateSettings()
        for name, value in vars(self).items():
            if value != getattr(default, name):
                flag = f"--{name.replace('_', '-')}"
                values = value if isinstance(value, list) else [value]
                words += [flag] if value is True else [w for v in values for w in (flag, str(v))]
        return shlex.join(words)


class Phases:
    """One progress over pieces of work of known weight: `phase(name)` watches the next one."""

    def __init__(self, watch: Watch, weights: dict[str, int]):
        self.watch, self.weights, self.done = watch, weights, 0
        self.total = sum(weights.values())

    def phase(self, name: str) -> Watch:
        """The function that the piece calls with (done, all, what)."""
        start = self.done
        self.done += self.weights[name]

        def watch(done: int, total: int, what: str) -> None:
            self.watch(start + self.weights[name] * done // max(1, total), self.total, f"{name}: {what}")

        watch(0, 1, "begins")
        return watch


def run(settings: ValidateSettings, output: Path, watch: Watch) -> dict:
    """Check gradients, counts, memory, time and tables; write record, plot and report into `output`; the record.

    Malformed for a bad value, Refused where a check fails.
    """
    options.at_least_1("batches", settings.batches)
    if settings.epochs < 0:
        raise Malformed(f"--epochs must be at least 0, got {settings.epochs}")
    adapted = settings.adapted
    job.checked(adapted)
    adapted, d, graph, _ = job.read(adapted)
    try:
        approximation.check_samples(settings.batch, settings.batches, len(d.x_train))
    except ValueError as e:
        raise Malformed(str(e)) from None
    job.compiled(adapted, d, graph)
    device = options.device("this-machine")
    scale = QUICK if settings.quick else FULL
    weights = {
        "training first": 5, "gradients": 15, "counts": max(1, scale.calls), "nets": max(1, scale.nets // 10),
        "tables": 5, "PyTorch": 5, "processes": 5 * len(scale.processes) + 1, "time": len(scale.timed) + 1,
    }  # fmt: skip
    phases = Phases(watch, weights)
    trained = train_missing(graph, d, settings, phases.phase("training first"))
    program, method = job.compiled(adapted, d, graph, d.x_train)
    job.trainer_of(program, settings.seed)
    make_folder(output)
    found = gradients(program, d, settings, phases.phase("gradients"))
    passes = drawn.run_passes(scale.calls, settings.seed, phases.phase("counts"))
    nets, arenas = drawn.run_nets(scale.nets, settings.seed, phases.phase("nets"))
    record = {
        "ok": True,
        "model": settings.model,
        "data": settings.data,
        "subject": job.watched(adapted),
        "method": method,
        "train_last": program.plan.train_last,
        "weights": trained,
        "batch": settings.batch,
        "batches": settings.batches,
        "seed": settings.seed,
        "quick": settings.quick,
        "gradients": found,
        "counts": {
            **totals(own := counts(program, settings), passes, nets), "drawn": passes["cases"] + nets["cases"],
            "model": own, "passes": passes, "nets": nets,
        },
        "memory": {
            "predicted_peak_bytes": program.peak_bytes,
            "measured_peak_bytes": touched(program, d, settings.seed),
            "drawn": arenas,
        },
        "tables": printed(phases.phase("tables")),
    }  # fmt: skip
    record["counts"]["torch"] = asked(scale.layers, phases.phase("PyTorch"))
    record["memory"]["process"] = processes(scale.processes, phases.phase("processes"))
    record["time"] = times(scale.timed, device, phases.phase("time"))
    record |= {**provenance(), "command": settings.command}
    found = all_checks(record)
    record["checks"] = [{**asdict(c), "verdict": c.verdict} for c in found]
    failed = [c.problem for c in found if c.ok is False]
    record["ok"] = not failed
    path = output / "validate.json"
    checkpoint.write_json(path, record)
    drawable = record["gradients"]["errors"] or record["gradients"]["estimator"]
    picture = plot(output, "validate") if drawable else None
    record["files"] = {"record": str(path), "plot": picture, "report": report(output, "validate")}
    if failed:
        raise Refused("; ".join(failed), record)
    return record


def estimated(plan: ri.Plan) -> bool:
    """Does the step estimate gradients in place of back-propagation?"""
    return kind_of(plan.step) == "step"


def gradients(program: ri.Program, d: data.Dataset, settings: ValidateSettings, watch: Watch) -> dict:
    """The part of the record that tells of gradients: kernels, slopes, and what the methods cost in error.

    Of a step that trains whole numbers: its weights by fast and by reference kernels. note: why a part is missing.
    """
    plan, notes = approximation.comparable(program.plan)
    found = {
        "checked": 0, "max_rel_err": None, "tolerance": max([TOLERANCE, *(rule.rounding for rule in plan.rules)]),
        "kernels": {}, "slope": {"checked": 0, "max_rel_err": None, "tolerance": SLOPE, "parameters": {}, "note": ""},
        "step": None, "errors": [], "estimator": None, "energy_ratio": None,
        "energy_ratio_published": spectrum.TABLE_5,
    }  # fmt: skip
    notes = [f"{note}: what stands here is of a step without it" for note in notes]
    if whole := approximation.whole_trained(program):
        found["step"] = whole_step(program, plan, whole, d, settings)
        found["slope"]["note"] = NO_SLOPE
        notes.append(NO_SLOPE)
    else:
        notes += compared(found, program.graph, plan, d, settings, watch)
    return found | {"note": "; ".join(notes)}


def whole_step(
    program: ri.Program, plan: ri.Plan, names: list[str], d: data.Dataset, settings: ValidateSettings
) -> dict:  # fmt: skip
    """Weights of the parameters `names`, how many of them differ after a step by other kernels, and how many may."""
    x, y, parameters = d.x_train, d.y_train, program.graph.parameters
    checked = sum(math.prod(parameters[name].shape) for name in names)
    differing = approximation.step_differences(
        program.graph, plan, x[: settings.batch], y[: settings.batch], settings.seed
    )
    floats = any(b.dtype.kind == "f" for b in program.step.gradients.values())
    return {
        "checked": checked, "mismatches": sum(differing.values()), "allowed": math.ceil(TURNED * checked) * floats,
        "parameters": differing,
    }  # fmt: skip


def compared(
    found: dict, graph: Graph, plan: ri.Plan, d: data.Dataset, settings: ValidateSettings, watch: Watch
) -> list[str]:  # fmt: skip
    """Put into `found` what gradients of floats are beside exact ones; why there are no errors of layers."""
    x, y, n, notes, exact = d.x_train, d.y_train, settings.batch, [], plan
    if estimated(plan):
        watch(0, 1, "estimates")
        exact = replace(plan, step=ri.Backprop(plan.step.optimizer))
        steps = QUICK_ESTIMATES if settings.quick else ESTIMATES
        found["estimator"] = estimators.report(graph, plan, x[:n], y[:n], steps, settings.seed)
    else:
        try:
            approximation.convolutions(graph, plan)
        except ValueError as e:
            notes.append(str(e))
        else:
            found["errors"] = approximation.gradient_errors(
                graph, plan, x, y, n, settings.batches, settings.seed, watch
            )
    watch(settings.batches, settings.batches, "checks")
    kernels = approximation.kernel_errors(graph, exact, x[:n], y[:n], seed=settings.seed)
    few = min(n, SLOPE_BATCH)
    slopes = approximation.slopes(graph, exact, x[:few], y[:few], settings.seed)
    filters = [e["filter"]["energy_ratio"] for e in found["errors"] if e["filter"]]
    ratios = [ratio for ratio in filters if ratio is not None]
    found |= {"checked": len(kernels), "max_rel_err": max(kernels.values()), "kernels": kernels}
    found["slope"] |= {"checked": len(slopes), "max_rel_err": max(slopes.values()), "parameters": slopes}
    found["energy_ratio"] = float(np.mean(ratios)) if ratios else None
    return notes


def totals(model: dict, passes: dict, nets: dict) -> dict[str, int]:
    """Calls compared in all, and how many of them disagree."""
    checked = model["checked"] + passes["cases"] + nets["calls"]
    return {"checked": checked, "mismatches": sum(part["mismatches"] for part in (model, passes, nets))}


def touched(program: ri.Program, d: data.Dataset, seed: int) -> int | None:
    """Arena bytes that a step touches; None where it writes outside."""
    try:
        return measured.touched_bytes(program, d.x_train, d.y_train, initial(program, seed))
    except AssertionError:
        return None


def printed(watch: Watch) -> dict:
    """The printed figures of the papers beside ours."""
    found = tables.run(None, watch)
    return {key: found[key] for key in ("rows", "origins", "goal", "ok")}


def asked(layers: int, watch: Watch) -> dict:
    """PyTorch's own counts beside ours, from a process of its own; a note where there are none."""
    watch(0, 1, "its counter")
    try:
        return torch_flops.ask(layers)
    except RuntimeError as e:
        return {"installed": True, "note": f"PyTorch's counter was not asked: {e}", "rows": []}


def processes(names: tuple[str, ...], watch: Watch) -> dict:
    """Resident memory of training processes, predicted and measured; a note where it is not measured."""
    found = {"goal": resident.GOAL, "cases": [], "note": ""}
    if not names:
        return found | {"note": "not measured with --quick"}
    if not resident.STATUS.exists():
        return found | {"note": f"not measured: this system has no {resident.STATUS}"}
    watch(0, len(names) + 1, "what the runtime takes")
    try:
        base = resident.measure_base()
        for i, name in enumerate(names, start=1):
            watch(i, len(names) + 1, name)
            found["cases"] += resident.compare(base, {name: resident.CASES[name]})
    except RuntimeError as e:
        return found | {"cases": [], "note": f"not measured: {e}"}
    return found


def times(cases: tuple, device, watch: Watch) -> dict:
    """Predicted and measured seconds of whole nets; calibrated: were this machine's kernels timed?"""
    rows = timing.compare(cases, device, watch)
    summary = timing.summary(rows) if rows else {}
    found = {k: summary.get(k) for k in ("median_error", "bias", "within_15_percent", "inside_interval")}
    return found | {"device": device.title, "calibrated": device.measured, "cases": rows}


def train_missing(
    graph: Graph, d: data.Dataset, settings: ValidateSettings, watch: Callable[[int, int, str], None]
) -> str:
    """Train what comes without weights, for the errors of random ones say little; returns where the weights are from.

    Without any, everything trains; a net of which only a part is missing, as the classifier of another data set,
    trains its classifier.
    """
    missing = [name for name in graph.parameters if name not in graph.weights]
    if not missing:
        return "pre-trained"
    origin = f"pre-trained but for {', '.join(missing)}, which are " if graph.weights else ""
    if not settings.epochs:
        return f"{origin}random, from the seed: --epochs 1 trains them first"
    momentum = 0.0 if is_quantized(graph) else 0.9
    step = ri.Backprop(ri.SGD(lr=0.05, momentum=momentum, schedule=ri.Schedule("cosine")))
    plan = ri.Plan(0, step=step) if graph.weights else ri.Plan("all", step=step, batch_norm="train", train_bias=True)
    try:
        trainer = ri.Trainer(ri.compile(graph, plan, min(PRETRAINING_BATCH, len(d.x_train))), settings.seed)
        for progress in trainer.steps(d.x_train, d.y_train, settings.epochs):
            watch(progress.step, progress.steps, "training first")
    except NonFiniteError as e:
        raise Refused(f"the model has no weights, and training them first failed: {e}") from None
    except ValueError as e:
        raise Malformed(f"the model has no weights, and cannot be trained first: {e}") from None
    graph.weights = trainer.parameters
    epochs = "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"
    return f"{origin}trained here first, for {epochs} of back-propagation"


def counts(program: ri.Program, settings: ValidateSettings) -> dict:
    """How many calls of a full batch were compared with counted loops, how many disagree, and what was `wrong`."""
    n = program.batch
    found = drawn.compare_calls(program, n)
    again = {"seed": settings.seed, "command": settings.command}
    wrong = [{"case": settings.model, "what": str(c), **again} for c in found if not c.ok]
    return {"checked": len(found), "mismatches": len(wrong), "wrong": wrong, "kernels": kernels(program, again)}


def kernels(program: ri.Program, again: dict) -> dict:
    """Each launch of a step's full batch: operations counted, and executed as its kernel states; what its body denies.

    checked, mismatches, wrong: of the tuned kernels. launches: section, name, counted, executed.
    """
    n, launches = program.batch, []
    for section in program.sections:
        for launch in program.launches[section]:
            sizes = (measured.counted_flops(launch, n), measured.executed_flops(launch, n))
            launches.append({"section": section, "name": launch.name, "counted": sizes[0], "executed": sizes[1]})
    found = drawn.compare_kernels(program, n)
    wrong = [{"case": program.graph.name, "what": str(k), **again} for k in found if not k.ok]
    return {"checked": len(found), "mismatches": len(wrong), "wrong": wrong, "launches": launches}
