"""What a whole run of `adapt` costs, before it runs: its steps, what its recipe adds, its memory, disk and joules.

Nothing is trained: data are read to be counted. What is priced is the run to its end, with the probes of the learning
rate that are usually made, or none where the run of all layers at once may make them needless; the upper bound of its
seconds has the most of them. One that stops improving ends earlier
(`steps_least`). Kernels are in their cache: to compile them is another matter
(`gradledger warmup`).

Our assumption: to load libraries, and to draw up costs and picture at the end, takes AROUND seconds on a machine such
as the reference, another one as many times that as its calls take longer. How long it takes to read the data is not
predicted.
"""

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import refimpl as ri
from costmodel import predict
from costmodel.advice import budget, energy
from costmodel.device import device as devices
from costmodel.device import kernels, process
from refimpl import data
from refimpl.data.on_demand import OnDemand
from refimpl.data.splits import VALIDATION, chosen
from refimpl.graph import Graph
from refimpl.recipes.course import GIVEN, SAFE, SEARCH, Pace, sizes_of
from refimpl.recipes.head import is_new, kept_bytes, parts_of_fit, passes_of
from refimpl.recipes.watched import FEW, KEPT, held_share
from refimpl.training.evaluator import inference

from . import job, options, recipe
from .errors import Malformed
from .models import described, read_once, results, stays_whole, taking
from .run_folder import most_bytes

if TYPE_CHECKING:
    from .cost import CostSettings

COMMAND = 16 << 20  # bytes of the command line beside `Base.fixed`: three runs took 14 to 20 million
AROUND = 6.0  # seconds for start and end: processor time of three short runs on an AMD EPYC, less their steps
FURTHER = "steps of more that is tried, at most"
ENDS = ("low", "mid", "high")
PHOTOS = "folder of images"
UNITS = {"MiB": 2**20, "KiB": 2**10, "B": 1}
TIMES = (("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0))  # from one of it on


@dataclass(frozen=True)
class SampleCounts:
    """The samples of a run.

    train: that train in the end; part: of these, those that train while others are held out; held; test; nbytes: of
    all arrays of them that the process holds; labels: of those that train, None where they are not known; word: what
    people call them.
    """

    train: int
    part: int
    held: int
    test: int
    nbytes: int
    labels: np.ndarray | None
    word: str

    @property
    def rehearsed(self) -> bool:
        """Do those that were held out train too, in the end?"""
        return self.part < self.train


@read_once()
def read(settings: "CostSettings") -> tuple["CostSettings", Graph, SampleCounts | None]:
    """The settings as the data complete them, the net, and the samples of the run; None where a step alone is asked.

    Raises Malformed, DataError or what `models.described` does.
    """
    if settings.data is not None:
        settings, dataset, graph, _ = job.read(settings)
        return settings, graph, of_data(settings, dataset)
    whole = stays_whole(settings.model, settings.whole, job.planned(settings)[0].step.quantizes is not None)
    graph = described(settings.model, settings.classes, options.size(settings.size), whole)
    graph = taking(graph, settings.model, settings.pixels)
    return settings, graph, None if settings.samples is None else as_many(settings, graph)


def of_data(settings: "CostSettings", dataset: data.Dataset) -> SampleCounts:
    """The samples of a data set, parted as `adapt` parts them."""
    labels, test = dataset.y_train, len(dataset.x_test)
    split, whole = job.parted(settings, dataset)
    held = 0 if split.x_val is None else len(split.x_val)
    maps = [*split.maps.values(), *([whole.x_train] if whole else [])]
    count = len((whole or split).x_train)
    word = "photos" if dataset.origin.kind == PHOTOS else "samples"
    return SampleCounts(count, len(split.x_train), held, test, sum(map(nbytes, maps)), labels[:count], word)


def as_many(settings: "CostSettings", graph: Graph) -> SampleCounts:
    """`--samples` samples, as many of each class, as float32 maps; none judges in the end."""
    count, classes = settings.samples, graph.shape(graph.output)[-1]
    each = 4 * math.prod((*graph.size, graph.channels))
    if settings.recipe == recipe.PLAIN:
        return SampleCounts(count, count, 0, 0, count * each, None, "samples")
    labels = np.arange(count) % classes
    try:
        held = len(chosen(labels, None, None, held_share(count), settings.seed, VALIDATION, f"--samples {count}")[1])
    except data.DataError as e:
        raise Malformed(f"{e}; --recipe {recipe.PLAIN} trains on all samples") from None
    few = count < FEW
    return SampleCounts(
        count if few else count - held, count - held, held, 0, count * each * (1 + few), None, "samples"
    )  # fmt: skip


def nbytes(x: np.ndarray | OnDemand) -> int:
    """Bytes that samples take in memory."""
    return x.made_of()[0].nbytes if isinstance(x, OnDemand) else x.nbytes


@dataclass(frozen=True)
class PlannedCourse:
    """A run to its end: mini-batches of its steps, looks at the samples held out; and the fewest steps of one.

    more, more_looks: of further probes, where the usual ones do not choose the learning rate, and of the run after them
    where the one of all layers at once was none.
    """

    sizes: list[int]
    looks: int
    least: int
    more: list[int]
    more_looks: int


def course_of(settings: "CostSettings", samples: SampleCounts, batch: int, headed: bool) -> PlannedCourse:
    """The course of a run that goes to its end; headed: does a new classifier train alone before?"""
    whole = sizes_of([[0, settings.epochs * -(-samples.train // batch)]], samples.train, batch)
    if settings.recipe == recipe.PLAIN:
        return PlannedCourse(whole, 0, len(whole), [], 0)
    probing = settings.lr is None if settings.probe is None else settings.probe
    pace = Pace.of(samples.part, batch, settings.epochs, SEARCH if probing else SAFE if samples.rehearsed else GIVEN)
    probe, watched = [[0, pace.probe]], [[0, pace.total]]
    each, run = pace.looks(pace.probe), pace.looks(pace.total)
    if headed:  # the run with all layers at once, which may be better: then there are no probes
        tried, looks, least, probes = watched, run, pace.directly, pace.most
    else:
        tried, looks, least, probes = probe * pace.usual, pace.usual * each, 0, pace.most - pace.usual
    more, more_looks = probe * probes, probes * each
    if samples.rehearsed:
        sizes = sizes_of(tried, samples.part, batch) + whole
        least, looks = min(least + pace.vain * pace.probe, len(sizes)), 1 + looks + 1
    elif headed:
        sizes = sizes_of(tried, samples.part, batch)
        more, more_looks, looks = more + watched, more_looks + run, 1 + looks
    else:
        sizes = sizes_of([*tried, *watched], samples.part, batch)
        least, looks = min(pace.least, len(sizes)), 1 + looks + run
    return PlannedCourse(sizes, looks, least, sizes_of(more, samples.part, batch), more_looks)


def priced(settings: "CostSettings", graph: Graph, step: predict.Estimate, samples: SampleCounts) -> dict:
    """The price of the run of which `step` is a full step; graph: before it was made for the step."""
    program, on = step.program, step.device
    head, judge = job.head_programs(settings, graph, program), inference(program)
    headed = head is not None and is_new(program.graph, head[1])
    course = course_of(settings, samples, program.batch, headed)
    classifiers = kept_bytes(head[1]) * (headed + samples.rehearsed) if head else 0
    parts = [("steps", program, course.sizes)]
    held, test = (split(count, program.batch) for count in (samples.held, samples.test))
    parts += [("looks at samples held out", judge, held * course.looks), ("test before and after", judge, 2 * test)]
    if head:
        again = passes_of(samples.part, program.batch) if samples.rehearsed else 0
        parts += [(name, p, sizes) for name, _, p, sizes in parts_of_fit(*head, samples.part, samples.held, again)]
    further = [(program, course.more), (judge, held * course.more_looks)]
    around = AROUND * slower(on)
    found, joules = {}, Counter()
    prices: dict = {(program, program.batch): step}

    def price(of: ri.Program, sizes: list[int], ends: tuple[str, ...] = ENDS) -> Counter:
        seconds = Counter()
        for n, times in Counter(sizes).items():
            if (of, n) not in prices:
                prices[of, n] = predict.estimate(of, n, on)
            seconds.update({end: times * prices[of, n].seconds[end] for end in ends})
            counted = energy.joules(prices[of, n])["counted"]["total"]
            joules.update({end: times * j for end, j in counted.items() if end in ends})
        return seconds

    for name, of, sizes in parts:
        seconds = price(of, sizes)
        if sizes:
            found[name] = {"launched": len(sizes), "seconds": {end: seconds[end] for end in ENDS}}
    if course.more:  # they may not be made at all
        seconds = sum((price(of, sizes, ("high",)) for of, sizes in further), Counter())
        found[FURTHER] = {"launched": len(course.more), "seconds": {end: seconds[end] for end in ENDS}}
    if on.flash_bytes is None:
        factor = on.at(1)[0].factor
        ends = {"low": around / factor, "mid": around, "high": around * factor}
        found["start, report and picture"] = {"launched": 1, "seconds": ends}
    seconds = {end: sum(part["seconds"][end] for part in found.values()) for end in ENDS}
    resident, fitting = fits(settings, graph, program, samples, on)
    record = {
        "samples": {"train": samples.train, "validation": samples.held, "test": samples.test},
        "epochs": settings.epochs,
        "recipe": settings.recipe,
        "steps": len(course.sizes),
        "steps_least": course.least,
        "steps_most": len(course.sizes) + len(course.more),
        "looks": course.looks,
        "parts": found,
        "seconds": seconds,
        "resident_bytes": resident and sum(resident.values()),
        "resident": resident,
        "fits": fitting,
        "joules": {
            "board": on.watts and {end: on.watts[1] * s for end, s in seconds.items()},
            "counted": dict(joules),
        },
        "disk_bytes": None if on.flash_bytes else disk(settings, program, course, classifiers),
    }
    return record | {"ok": fitting["ok"], "verdict": verdict(record, samples, on)}


def split(count: int, batch: int) -> list[int]:
    """The mini-batches of a pass over so many samples."""
    return sizes_of([[0, -(-count // batch)]], count, batch) if count else []


def slower(on: devices.Device) -> float:
    """How many times the reference machine's seconds interpreted code takes on a device: as its calls, never fewer.

    Calls of kernels may be faster by what a probe or a calibration finds; the code around them was not seen to be.
    """
    here, there = (d.at(1)[0].seconds(kernels.HOST, {"call": 1.0}) for d in (on, devices.find(devices.REFERENCE)))
    return max(1.0, here / there)


def fits(
    settings: "CostSettings", graph: Graph, program: ri.Program, samples: SampleCounts, on: devices.Device
) -> tuple[dict[str, int] | None, dict]:  # fmt: skip
    """The terms of the run's resident memory, None where unknown, and whether it fits (`budget.fits`)."""
    head = job.head_programs(settings, graph, program)
    resident = memory(settings, program, inference(program), head, samples, on)
    return resident, budget.fits(program, on, resident and sum(resident.values()))


def memory(
    settings: "CostSettings", program: ri.Program, judge: ri.Program, head: tuple[ri.Program, ri.Program] | None,
    samples: SampleCounts, on: devices.Device,
) -> dict[str, int] | None:  # fmt: skip
    """Terms of the resident memory of the run in bytes, those of `process.terms` and its recipe's; None where unknown.

    recipe: weights that are kept to go back to, or what trains the classifier first, with its maps, of all samples
    once more where it trains on these in the end; it has left before weights are kept, so the larger one of both
    counts. command: what the command line takes. On a GPU those of a step: weights are kept, and the classifier's maps
    lie, in the host's memory.
    """
    if on.base is None or program.plan.depth:
        return None
    if process.beside_the_host(program):
        return process.gpu_terms(program, on.base.fixed, judge)
    found = process.terms(program, on.base, samples.nbytes, samples.train, judge)
    kept = 0 if settings.recipe == recipe.PLAIN else len(KEPT)
    course, first = kept * program.state_bytes, 0
    if head:
        frozen, tail = head
        maps = 4 * math.prod(frozen.graph.shape(frozen.graph.output)[1:]) * (samples.part + samples.held)
        maps *= 1 + samples.rehearsed
        course += kept_bytes(tail) * (is_new(program.graph, tail) + samples.rehearsed)
        first = maps + sum(p.peak_bytes + p.constant_bytes for p in head) + 4 * tail.state_bytes
        found["launches"] += on.base.launch * sum(len(p.order) for p in head)
    return found | {"recipe": max(course, first), "command": COMMAND}


def disk(settings: "CostSettings", program: ri.Program, course: PlannedCourse, classifiers: int) -> int:
    """The most bytes that the run has on the disk at once, but for a few that count its updates."""
    parameters = program.step.parameters
    state = sum(b.nbytes for b in (*parameters.values(), *program.step.state.values()))
    weights = sum(parameters[name].nbytes for name in program.graph.parameters)
    kept = 0 if settings.recipe == recipe.PLAIN else len(KEPT)
    return most_bytes(state, results(settings.model, weights), kept, classifiers, len(course.sizes) + len(course.more))


def verdict(record: dict, samples: SampleCounts, on: devices.Device) -> str:
    """The answer in one line."""
    low, high = record["seconds"]["low"], record["seconds"]["high"]
    of = sum(record["samples"].values()) - (record["samples"]["validation"] if samples.rehearsed else 0)
    needs, has = record["fits"]["needs"], record["fits"]["has"]
    memory = ", ".join(told(needs[kind], has[kind]) + ("" if kind == "ram" else f" of {kind}") for kind in needs)
    least = "at least " if record["fits"]["at_least"] else ""
    answer = {True: "yes", False: "no", None: "perhaps"}[record["fits"]["ok"]]
    epochs = f"{record['epochs']:,} epoch{'' if record['epochs'] == 1 else 's'}"
    whose = "your " if samples.labels is not None else ""
    return f"{epochs} of {whose}{of:,} {samples.word} on {on.called}: {span(low, high)}, {least}{memory}: {answer}"


def told(needed: int, has: int | None) -> str:
    """Bytes that are needed of those that there are, in the unit of the smaller number."""
    unit, factor = next(((u, f) for u, f in UNITS.items() if min(needed, has or needed) >= f), ("B", 1))
    return f"{needed / factor:,.0f}{'' if has is None else f' of {has / factor:,.0f}'} {unit}"


def span(low: float, high: float) -> str:
    """From so many to so many seconds, minutes, hours or days."""
    (first, unit), (last, other) = lasting(low), lasting(high)
    return f"{first} to {last} {unit}" if unit == other else f"{first} {unit} to {last} {other}"


def lasting(seconds: float) -> tuple[str, str]:
    """A time with two digits, or all of those before its point, and its unit."""
    unit, factor = next((pair for pair in TIMES if seconds >= pair[1]), TIMES[-1])
    value = seconds / factor
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}", unit
