"""Forward gradients against back-propagation on nets that know other people: arXiv 2411.04036.

gradledger reproduce forward-gradient-watch          ten people's exercises, the classifiers of the bundled nets
gradledger reproduce forward-gradient-enhancements   the same with each enhancement
gradledger reproduce forward-gradient-layers         the same nets, more of their layers
gradledger reproduce forward-gradient-digits         six speakers' digits, a ResNet-8 on log-mel maps
gradledger reproduce forward-gradient-mcunet         ten classes of photographs, the int8 MCUNet (arXiv 2206.15472)

Each net was trained on everybody but one person, and is adapted to that person: the classifier alone (linear probing,
the maps before it are computed once), the last layers, or the whole net, batch norm frozen throughout. Every way of
training that has no backward pass gets the same number of forward passes, whatever it makes of them: with m draws a
step there are fewer steps. Back-propagation gets STEPS steps.

In "16w8a" and "8w8a" the nets are of whole numbers, whose scales are found on the training samples (256 of them), and
weights may grow by half; those of 8 bits are trained though ε rounds to 0, as in the paper.

MCUNet knows ImageNet's 1,000 classes, and gets a new classifier of ten. Each seed draws 500 images to train on and 500
to test on of CIFAR-10 as JPEG, stretched to 128×128; rates are chosen by 500 further training images. Floats are the
dequantized net; whole numbers those of the file, the layers that train in 16 bits (`surgery.widen`). Modes that train
more get fewer passes (`Protocol.shares`).

Learning rates are chosen for each way of training apart, the best of RATES by accuracy on a quarter of the training
samples of people 1 to TRIALS in runs of a seed of their own; the samples that evaluate are looked at once, at the end
of each run and at POINTS places before it.

[paper] Visual Wake Words, ViT-tiny, linear probing: back-propagation 87.87 %, forward gradients 87.51, 16w8a 87.26,
8w8a 48.65, which is what it began with. Other data and nets than these; what can be compared is the distance.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

import refimpl as ri
from costmodel import predict
from costmodel.advice import integers
from refimpl import data
from refimpl.formats.npz import load_npz
from refimpl.graph import INPUT
from refimpl.kernels import random
from refimpl.storage import checkpoint
from refimpl.surgery.cut import cut, frozen_until
from refimpl.surgery.for_step import made_for, outlined_for, weights_that_train

from . import datasets
from .runs import FRESH, TRIAL_SEED, Runs, best_of, held_out, judged, spread, verdicts

PUBLISHED = {
    "source": "arXiv 2411.04036, Visual Wake Words, ViT-tiny, linear probing, test error in percent",
    "backprop": 12.13,
    "forward gradients": 12.49,
    "16w8a": 12.74,
    "8w8a": 51.35,
}
SIGN_RATES = (0.001, 0.003, 0.01, 0.03)
SLOPE_RATES = (0.01, 0.03, 0.1, 0.3)
TRIALS = 3  # people by whom learning rates are chosen
HELD_OUT = 0.25  # of a person's training samples, by which learning rates are chosen
MODES: dict[str, int | str] = {"classifier": 0, "last layer": 1, "last block": 3, "whole net": "all"}
IMAGES = 500  # of a draw of photographs, to train on and to test on
DRAWN = 1 << 22  # step of the stream by which a seed draws them
COSINE = ri.Schedule("cosine")


@dataclass(frozen=True)
class Way:
    """A way of training: its step for a learning rate, and the rates that are tried."""

    step: Callable[[float], ri.Backprop | ri.ForwardGradient]
    rates: tuple[float, ...] = SIGN_RATES


def looking(rates: tuple[float, ...] = SIGN_RATES, momentum: float = 0.0, **settings) -> Way:
    """Forward gradients with plain SGD, whose rate falls with a cosine."""
    return Way(lambda lr: ri.ForwardGradient(**settings, optimizer=ri.SGD(lr, momentum, schedule=COSINE)), rates)


BACKPROP = "backprop"
WAYS = {
    BACKPROP: Way(lambda lr: ri.Backprop(ri.SGD(lr, 0.9, schedule=COSINE)), (0.002, 0.01, 0.05, 0.2)),
    "sign, m = 1": looking(m=1),
    "sign, m = 3": looking(m=3),
    "slope, m = 1": looking(SLOPE_RATES, m=1, estimator="spsa"),
}
ENHANCED = {
    "z of ±1": looking(m=1, distribution="signs"),
    "momentum 0.9": looking((0.0001, 0.0003, 0.001, 0.003), 0.9, m=1),
    "Adam": Way(
        lambda lr: ri.ForwardGradient(m=1, optimizer=ri.Adam(lr, schedule=COSINE)), (0.0003, 0.001, 0.003, 0.01)
    ),
    "one-sided, m = 8": looking(SLOPE_RATES, m=8, estimator="one-sided"),
    "normalized (9)": looking(m=1, normalize="tensor"),
    "sharpness-aware": looking(m=1, sharpness=0.01),
    "sparse, largest 10 %": looking((0.003, 0.01, 0.03, 0.1), m=1, sparse="magnitude"),
    "sparse, random 10 %": looking((0.003, 0.01, 0.03, 0.1), m=1, sparse="random"),
    "guided": looking(m=1, beta=0.5),
    "together": looking(
        (0.003, 0.01, 0.03, 0.1), m=1, distribution="signs", normalize="tensor", sharpness=0.01, sparse="magnitude",
        share=0.5, beta=0.9,
    ),
}  # fmt: skip


class AsPublished(ri.ForwardGradient):
    """Without the refusal of an ε or a learning rate that rounds to 0, to see what comes of it."""

    def check_weights(self, program: ri.Program, parameters: Mapping[str, np.ndarray]) -> None:
        """Nothing."""


WHOLE = {
    "16w8a, m = 1": looking(m=1, bits="16w8a"),
    "16w8a, m = 3": looking(m=3, bits="16w8a"),
    "8w8a, m = 3": Way(lambda lr: AsPublished(m=3, bits="8w8a", optimizer=ri.SGD(lr, schedule=COSINE))),
}
GOALS = ("sign, m = 1", "16w8a, m = 1")  # what is to come near to back-propagation
HYBRID = {"classifier by backprop": looking(m=1, backprop_last=0)}


@dataclass(frozen=True)
class Task:
    """Data and nets of people. subjects: their numbers; load: of one of them, or what a seed draws.

    net: of one of them, with its weights; of whole numbers where the last argument says so and there is one. fixed: are
    layers that do not train the same for every way of floats, and for every one of whole numbers? choose: what learning
    rates are chosen by, None is a quarter of the training samples.
    """

    name: str
    subjects: tuple[int, ...]
    load: Callable[[int, int], data.Dataset]
    net: Callable[[int, Path, bool], ri.Graph]
    fixed: bool = False
    choose: Callable[[int, int], data.Dataset] | None = None


def watch_net(subject: int, output: Path, whole: bool) -> ri.Graph:
    """The bundled net that does not know a person."""
    graph = ri.models.build("watch", classes=len(data.watch(subject).classes))
    graph.weights = ri.models.watch_weights(subject)
    return graph


@cache
def digits_of(subject: int, seed: int = 0) -> data.Dataset:
    """One speaker's digits, a tenth of them to adapt on."""
    return data.clips(datasets.folder("fsdd.npz"), subject)


def digits_net(subject: int, output: Path, whole: bool) -> ri.Graph:
    """A ResNet-8 that was trained on the five other speakers, six epochs; kept in `output`."""
    path = output / f"digits-without-{subject}.safetensors"
    graph = ri.models.build("resnet8", classes=10, size=digits_of(subject).size, channels=1)
    if not path.exists():
        others = data.clips_of_others(datasets.folder("fsdd.npz"), subject)
        optimizer = ri.SGD(lr=0.05, momentum=0.9, schedule=ri.Schedule("cosine"))
        plan = ri.Plan("all", step=ri.Backprop(optimizer), batch_norm="train", train_bias=True)
        trainer = ri.Trainer(ri.compile(graph, plan, batch=32), 0)
        trainer.fit(others.x_train, others.y_train, 6)
        trainer.save(path)
    graph.weights = {name: array for name, array in checkpoint.load(path)[0].items()}
    return graph


@cache
def photographs() -> data.Dataset:
    """All images, 32×32, stretched when they are taken."""
    return data.load(str(datasets.folder("cifar10_jpeg.npz")), size=(128, 128))


def photographs_of(subject: int, seed: int, test: str = "test") -> data.Dataset:
    """The images that a seed draws, as they are. test: the part of the data that evaluates, other images than train."""
    d, taken = photographs(), {}
    for i, (part, source) in enumerate((("train", "train"), ("test", test))):
        x, y = getattr(d, f"x_{source}"), getattr(d, f"y_{source}")
        own = source == part
        order = random.permutation(seed, random.SPLIT, DRAWN + i * own, len(y))
        chosen = np.sort(order[:IMAGES] if own else order[IMAGES : 2 * IMAGES])
        taken |= {f"x_{part}": replace(x, images=x.images[chosen], crop=0, flip=False), f"y_{part}": y[chosen]}
    return replace(d, **taken)


def photographs_to_choose_by(subject: int, seed: int) -> data.Dataset:
    """Images of the training part alone: as many others as those that train evaluate."""
    return photographs_of(subject, seed, "train")


def mcunet(subject: int, output: Path, whole: bool) -> ri.Graph:
    """MCUNet with a classifier for ten classes, which starts near zero: dequantized, or in the file's whole numbers."""
    graph = load_npz(datasets.weights("mcunet_5fps_int8.npz"), classes=10, whole=whole)
    graph.parameters["fc.w"] = replace(graph.parameters["fc.w"], gain=0.01)
    return graph


WATCH, ENHANCEMENTS, LAYERS = "forward-gradient-watch", "forward-gradient-enhancements", "forward-gradient-layers"
DIGITS, MCUNET = "forward-gradient-digits", "forward-gradient-mcunet"
TASKS = {
    **{
        name: Task(name, tuple(range(1, 11)), lambda subject, seed: data.watch(subject), watch_net)
        for name in (WATCH, ENHANCEMENTS, LAYERS)
    },
    DIGITS: Task(DIGITS, tuple(range(1, 7)), digits_of, digits_net),
    MCUNET: Task(MCUNET, (1,), photographs_of, mcunet, True, photographs_to_choose_by),
}


@dataclass(frozen=True)
class Protocol:
    """What is run. passes: forward passes of a run without a backward pass; steps: of back-propagation.

    subjects: 0 is all; points: where a curve is looked at; modes: name → names of the ways of training in it; shares:
    mode → the share of passes and of steps that it gets, where not all; rates: what ways without a backward pass try,
    where not their own.
    """

    seeds: tuple[int, ...] = FRESH[:3]
    passes: int = 18_000
    steps: int = 2_000
    batch: int = 64
    subjects: int = 0
    trials: int = TRIALS
    points: int = 8
    modes: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {
            "classifier": (*WAYS, *WHOLE, *ENHANCED),
            "last layer": tuple(WAYS),
            "whole net": (*WAYS, *WHOLE, *HYBRID),
        }
    )
    shares: dict[str, float] = field(default_factory=dict)
    rates: tuple[float, ...] = ()


SIGNS = (BACKPROP, "sign, m = 1", "sign, m = 3", "16w8a, m = 1", "8w8a, m = 3")
PROTOCOLS = {
    WATCH: Protocol(modes={"classifier": (*WAYS, *WHOLE)}),
    ENHANCEMENTS: Protocol(modes={"classifier": (BACKPROP, "sign, m = 1", *ENHANCED)}),
    LAYERS: Protocol(
        modes={
            "last layer": (BACKPROP, "sign, m = 1", "16w8a, m = 1"),
            "whole net": (BACKPROP, "sign, m = 1", "16w8a, m = 1", *HYBRID, "sparse, largest 10 %"),
        },
        shares={"last layer": 1 / 2, "whole net": 1 / 3},
    ),
    DIGITS: Protocol(
        modes={
            "classifier": (BACKPROP, "sign, m = 1", "sign, m = 3", "16w8a, m = 1"),
            "last block": (BACKPROP, "sign, m = 1", "16w8a, m = 1"),
            "whole net": (BACKPROP, "sign, m = 1", *HYBRID),
        },
        shares={"last block": 1 / 8, "whole net": 1 / 40},
    ),
    MCUNET: Protocol(
        batch=256,
        trials=1,
        modes={
            "classifier": SIGNS,
            "last block": (BACKPROP, "sign, m = 1", "16w8a, m = 1", *HYBRID),
            "whole net": (BACKPROP, "sign, m = 1", "16w8a, m = 1", *HYBRID),
        },
        shares={"last block": 1 / 9, "whole net": 1 / 90},
        rates=(0.0003, 0.001, 0.003),
    ),
}


def way(name: str) -> Way:
    """A way of training by its name."""
    return (WAYS | WHOLE | ENHANCED | HYBRID)[name]


def passes(step: ri.Backprop | ri.ForwardGradient) -> int:
    """Forward passes of a step."""
    if isinstance(step, ri.Backprop):
        return 1
    return len(step.looks) * (2 if step.sharpness else 1) + (step.backprop_last is not None)


def tail_of(
    graph: ri.Graph, d: data.Dataset, plan: ri.Plan, batch: int, kept: dict | None = None
) -> tuple[ri.Graph, data.Dataset]:  # fmt: skip
    """The part of a net that learns, and the maps that it sees. kept: those that were seen before, by their dtype."""
    head, tail = parts_of(graph, plan, features=kept is not None)
    if head is None:
        return graph, d
    kept = {} if kept is None else kept
    found = kept.get(tail.tensors[INPUT].dtype)
    if found is None:
        before = ri.Trainer(ri.compile(head, None, batch))
        found = replace(d, x_train=before.predict(d.x_train), x_test=before.predict(d.x_test))
        kept[tail.tensors[INPUT].dtype] = found
    return tail, found


def parts_of(graph: ri.Graph, plan: ri.Plan, features: bool) -> tuple[ri.Graph | None, ri.Graph]:
    """What comes before the first layer that learns, None where nothing does, and the rest."""
    place = frozen_until(graph, plan, features=features)
    return (None, graph) if place is None else cut(graph, place)


def adapt(
    graph: ri.Graph, d: data.Dataset, mode: str, step, protocol: Protocol, seed: int, points: int,
    kept: dict | None = None,
) -> dict:  # fmt: skip
    """One run: [step, accuracy in percent] at the start and at `points` places, and what a step and a run take.

    kept: maps of layers that do not train, which a run before this one left.
    """
    plan = ri.Plan(MODES[mode], step=step)
    graph = made_for(step, graph, d.x_train, seed, weights_that_train(plan, graph))
    d = d.with_pixels(*graph.pixels, graph.tensors[INPUT].dtype)
    graph, d = tail_of(graph, d, plan, protocol.batch, kept)
    program = ri.compile(graph, plan, protocol.batch)
    trainer = ri.Trainer(program, seed)
    steps = protocol.steps if isinstance(step, ri.Backprop) else protocol.passes // passes(step)
    steps = round(steps * protocol.shares.get(mode, 1))
    per_epoch = -(-len(d.x_train) // protocol.batch)
    epochs = max(1, round(steps / per_epoch))
    marks = {round(epochs * per_epoch * (i + 1) / points) for i in range(points)}
    curve, started = [[0, 100 * trainer.evaluate(d.x_test, d.y_test)]], time.perf_counter()
    for progress in trainer.steps(d.x_train, d.y_train, epochs):
        if progress.step in marks:
            curve.append([progress.step, 100 * trainer.evaluate(d.x_test, d.y_test)])
    return {
        "curve": [[at, round(accuracy, 3)] for at, accuracy in curve],
        "passes": passes(step),
        "train_seconds": time.perf_counter() - started,
    }


def run(name: str, output: Path, watch: Callable[[int, int, str], None], protocol: Protocol | None = None) -> dict:
    """Adapt to each person in each way; the record. Finished runs are kept in `output` and not run again."""
    task, protocol = TASKS[name], protocol or PROTOCOLS.get(name, Protocol())
    subjects = task.subjects[: protocol.subjects or None]
    settings = {k: v for k, v in asdict(protocol).items() if k in ("passes", "steps", "batch", "points")}
    more = {"shares": protocol.shares, "rates": protocol.rates} if protocol.shares else {}
    runs, kept = Runs(output, name, settings | more), dict[tuple, dict]()
    work = [
        (mode, one, seed, subject)
        for mode, names in protocol.modes.items() for one in names for seed in protocol.seeds for subject in subjects
    ]  # fmt: skip

    def trial(mode: str, one: str, lr: float) -> float:
        found = []
        for subject in subjects[: protocol.trials]:
            d = (task.choose or task.load)(subject, TRIAL_SEED)
            if task.choose is None:
                d = held_out(d, max(1, int(HELD_OUT * len(d.x_train))))
            step = way(one).step(lr)
            net = task.net(subject, output, step.quantizes is not None)
            maps = kept.setdefault((mode, TRIAL_SEED), {}) if task.fixed else None
            try:
                found.append(adapt(net, d, mode, step, protocol, TRIAL_SEED, 1, maps)["curve"][-1][1])
            except ri.NonFiniteError:  # no rate for these layers
                return 0.0
        return float(np.mean(found))

    for i, (mode, one, seed, subject) in enumerate(work):
        watch(i, len(work), f"{mode}, {one}, person {subject}, seed {seed}")
        candidates = [{"lr": lr} for lr in (one != BACKPROP and protocol.rates) or way(one).rates]
        best = best_of(runs, f"{mode}, {one}", candidates, lambda s, m=mode, w=one: trial(m, w, s["lr"]))
        key = {"mode": mode, "way": one, "seed": seed, "subject": subject, "lr": best["lr"]}
        if not runs.get(**key):
            step = way(one).step(best["lr"])
            net, d = task.net(subject, output, step.quantizes is not None), task.load(subject, seed)
            maps = kept.setdefault((mode, seed), {}) if task.fixed else None
            runs.add(**key, **adapt(net, d, mode, step, protocol, seed, protocol.points, maps))
    found = {"name": name, "protocol": asdict(protocol), "runs": [r for r in runs.found if "mode" in r]}
    return {"name": name, **judge(found | {"costs": costs(found)})}


def costs(record: dict) -> dict[str, dict[str, dict]]:
    """Mode → way → what a step on a whole mini-batch costs, of the part that learns.

    macs_a_step: multiply-adds, those of whole numbers by their bits (`costmodel.advice.integers`, by width);
    float_macs_a_step: those of floats among them.
    """
    found: dict[str, dict[str, dict]] = {}
    for mode, ways in programs(record).items():
        for one, program in ways.items():
            price = predict.estimate(program)
            found.setdefault(mode, {})[one] = {
                "macs_a_step": round(integers.weighed_macs(price)),
                "float_macs_a_step": round(price.macs),
                "arena_bytes": program.peak_bytes,
                "state_bytes": program.region_bytes("state"),
            }
    return found


def judge(record: dict) -> dict:
    """What the runs of a record show: by mode and way accuracies, distances to back-propagation, costs and curves."""
    runs, seeds = record["runs"], record["protocol"]["seeds"]
    measured: dict[str, dict] = {}
    goals = []
    for mode, names in record["protocol"]["modes"].items():
        rows = measured[mode] = {}
        for one in names:
            own = [r for r in runs if (r["mode"], r["way"]) == (mode, one) and r["seed"] in seeds]
            by_seed = [float(np.mean([r["curve"][-1][1] for r in own if r["seed"] == seed])) for seed in seeds]
            reference = rows[BACKPROP]["by_seed"] if one != BACKPROP else by_seed
            first = own[0]
            rows[one] = {
                "accuracy": spread(by_seed),
                "before": round(float(np.mean([r["curve"][0][1] for r in own])), 2),
                "worst_person": round(min(float(np.mean([r["curve"][-1][1] for r in own if r["subject"] == subject]))
                                          for subject in {r["subject"] for r in own}), 2),
                "by_seed": by_seed,
                "gap": spread([a - b for a, b in zip(by_seed, reference, strict=True)]),
                "lr": first["lr"],
                "passes_a_step": first["passes"],
                **record["costs"][mode][one],
                "curve": [[at, round(float(np.mean([r["curve"][i][1] for r in own])), 2)]
                          for i, (at, _) in enumerate(first["curve"])],
            }  # fmt: skip
        for one in GOALS:
            if one in rows:
                probing = record["name"] in (WATCH, ENHANCEMENTS) and mode == "classifier"
                least = -1.0 if probing else -5.0  # points, as asked
                gaps = [x - y for x, y in zip(rows[one]["by_seed"], rows[BACKPROP]["by_seed"], strict=True)]
                goals.append(judged(f"{mode}: {one}, points to back-propagation", gaps, least))
    return {
        "published": PUBLISHED,
        "protocol": record["protocol"],
        "seeds": list(seeds),
        "measured": measured,
        **verdicts(goals),
        "settings_chosen_on": {"lr": _chosen_on(record)},
        "costs": record["costs"],
        "runs": runs,
    }


def curves(record: dict) -> dict[str, dict[str, list]]:
    """The learning curves of a record for `costmodel.advice.convergence`: mode → way → one of each seed.

    A curve is the mean of the people, from its first look after the first step on.
    """
    found: dict[str, dict[str, list]] = {}
    for mode, ways in record["costs"].items():
        for one, cost in ways.items():
            runs = [r for r in record["runs"] if (r["mode"], r["way"]) == (mode, one)]
            for seed in record["seeds"]:
                people = [[(at, at * cost["macs_a_step"], accuracy / 100) for at, accuracy in r["curve"][1:]]
                          for r in runs if r["seed"] == seed]  # fmt: skip
                found.setdefault(mode, {}).setdefault(one, []).append(np.mean(people, axis=0).tolist())
    return found


def programs(record: dict) -> dict[str, dict[str, ri.Program]]:
    """The compiled step of each mode and way of a record, of the part that learns; scales of whole numbers stand in."""
    task, batch = TASKS[record["name"]], record["protocol"]["batch"]
    return {
        mode: {one: program(task, mode, batch, way(one)) for one in names}
        for mode, names in record["protocol"]["modes"].items()
    }


def program(task: Task, mode: str, batch: int, way: Way) -> ri.Program:
    """The compiled step of a way of training, for its costs."""
    step = way.step(way.rates[0])
    plan = ri.Plan(MODES[mode], step=step)
    graph = task.net(task.subjects[0], Path(), step.quantizes is not None)
    graph = outlined_for(step, graph, weights_that_train(plan, graph))
    return ri.compile(parts_of(graph, plan, features=task.fixed)[1], plan, batch)


def _chosen_on(record: dict) -> str:
    """What learning rates were chosen on."""
    if TASKS[record["name"]].choose:
        return f"{IMAGES} training images beside the {IMAGES} that train, drawn by seed {TRIAL_SEED}"
    return f"a quarter of the training samples of people 1 to {record['protocol']['trials']}, seed {TRIAL_SEED}"
