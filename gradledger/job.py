"""An adaptation before it runs: its data, its program and its trainer, from the settings of a command."""

from dataclasses import dataclass, replace
from typing import Any

import refimpl as ri
from refimpl import data
from refimpl.data.on_demand import ends
from refimpl.data.scale import check_range
from refimpl.graph import Graph
from refimpl.kernels.cuda import CudaError
from refimpl.models import ModelError
from refimpl.recipes.course import GIVEN, SAFE, SEARCH
from refimpl.recipes.head import Head, is_new, parts_that_help
from refimpl.recipes.plain import Unwatched
from refimpl.recipes.rehearsed import Rehearsed
from refimpl.recipes.watched import FEW, Watched, held_share
from refimpl.surgery.for_step import made_for, outlined_for, weights_that_train
from refimpl.training.inputs import Inputs

from . import options, recipe
from .errors import Malformed, unknown
from .models import (
    RANDOM,
    assumed,
    is_file,
    origin,
    pixel_range,
    pretrained,
    read_once,
    stays_whole,
    stretched,
    taking,
    without_weights,
)
from .settings import AdaptSettings

CHOICES = {  # option → what it may be
    "recipe": tuple(recipe.RECIPES), "optimizer": tuple(recipe.OPTIMIZERS), "batch_norm": (None, *recipe.NORMS),
    "class_weights": (None, recipe.BALANCED),
}  # fmt: skip


@dataclass
class Job:
    """An adaptation that is ready to run. head: what trains its classifier first, None where nothing does."""

    settings: AdaptSettings
    dataset: data.Dataset
    program: ri.Program
    trainer: ri.Trainer
    method: str
    weights: str  # where the first ones are from
    course: Watched | Rehearsed | Unwatched
    head: Head | None
    pixels: bool = False  # were the samples pixels before the net's own values for them took their place?


@dataclass
class DataAtHand:
    """Data that were read for a job, for others that ask for the same.

    asked: what decides how they are read; takes: what their net takes for pixels, which their maps hold by now;
    dataset, pixels: of `read`; parts: of `parted`, None as long as nobody parted them.
    """

    asked: tuple = ()
    takes: tuple = ()
    dataset: data.Dataset | None = None
    pixels: bool = False
    parts: tuple[data.Dataset, data.Dataset | None] | None = None


def prepare(settings: AdaptSettings, at_hand: DataAtHand | None = None) -> Job:
    """Load data and model, compile; every bad value ends here, before anything is written.

    at_hand: data of a job before, which are not read again where this one asks for the same, else what is read here.
    """
    options.threads(settings.threads)
    checked(settings)
    settings = replace(settings, backend=options.backend(settings.backend))
    settings, dataset, graph, pixels = read(settings, at_hand)
    if at_hand is None or at_hand.dataset is not dataset:
        dataset, whole = parted(settings, dataset)
    else:
        dataset, whole = at_hand.parts = at_hand.parts or parted(settings, dataset)
    if settings.augment is not None:
        dataset, whole = (d and data.augmented(d, settings.augment) for d in (dataset, whole))
    program, method = compiled(settings, dataset, graph, (whole or dataset).x_train)
    trainer = trainer_of(program, settings.seed)
    settings = decided(settings, program.plan)
    head = head_of(settings, graph, program)
    run = course(settings, trainer, dataset, whole, head is not None and is_new(program.graph, head.tail))
    return Job(settings, dataset, program, trainer, method, origin(graph), run, head, pixels)


def checked(settings: AdaptSettings) -> None:
    """Malformed for a bad value of an option, as far as no data are needed to tell."""
    for name in ("epochs", "batch", "classes"):
        options.at_least_1(name, getattr(settings, name))
    options.seed(settings.seed)
    for option, known in CHOICES.items():
        if (value := getattr(settings, option)) not in known:
            raise unknown(f"--{option.replace('_', '-')}", value, [k for k in known if k])
    options.parts(settings.clip, settings.warmup)
    options.pixels(settings.pixels)
    options.backend(settings.backend)
    if settings.from_scratch and is_file(settings.model):
        raise Malformed(
            f"--from-scratch begins with random weights, but {settings.model} brings its own: leave --from-scratch "
            "out, or name a model"
        )
    planned(settings)
    options.byte_count(settings.memory_limit)


@read_once()
def read(
    settings: AdaptSettings, at_hand: DataAtHand | None = None
) -> tuple[AdaptSettings, data.Dataset, Graph, bool]:  # fmt: skip
    """The settings with paths and size as they are found, the data, the net, and whether samples are pixels.

    at_hand: as `prepare`; of its data only classes and shapes count once they are parted.
    """
    settings = settings.resolved()
    size = stretched(options.size(settings.size), settings.model, settings.data)
    if settings.size is None and size:
        settings = replace(settings, size="x".join(map(str, size)))
    asked = (settings.data, watched(settings), size, settings.seed, settings.reading, settings.recipe)
    known = at_hand is not None and at_hand.asked == asked and at_hand.dataset
    dataset = known or data.load(*asked[:3], seed=settings.seed, reading=settings.reading)
    try:
        graph = net(settings, dataset)
    except ModelError as e:
        if dataset.size == (1, 1) and settings.window is None:
            raise Malformed(
                f"{e}; each row of {settings.data} is a sample: --window 2s --rate 50 cuts windows of two seconds out "
                "of recordings at 50 samples a second"
            ) from None
        raise
    takes: tuple[Any, ...] = (graph.pixels, graph.tensors[graph.inputs[0]].dtype)
    if known:
        return (settings, dataset, graph, at_hand.pixels) if at_hand.takes == takes else read(settings)
    pixels, model = dataset.pixels, (settings.model, settings.pixels)
    if pixels:
        told = (*dataset.origin.said, *assumed(graph, *model))
        dataset = replace(dataset, origin=replace(dataset.origin, said=told))
    elif net_range := pixel_range(graph, *model):
        check_range(settings.data, ends(dataset.x_train), *net_range)
    dataset = dataset.with_pixels(*graph.pixels, takes[1])
    if at_hand is not None:
        at_hand.asked, at_hand.takes, at_hand.dataset, at_hand.pixels, at_hand.parts = (
            asked,
            takes,
            dataset,
            pixels,
            None,
        )
    return settings, dataset, graph, pixels


def check_weights(job: Job) -> None:
    """Malformed where the net would begin with random weights and --from-scratch was not said."""
    if job.weights == RANDOM and not job.settings.from_scratch:
        raise Malformed(without_weights(job.settings.model, job.settings.data))


def parted(settings: AdaptSettings, d: data.Dataset) -> tuple[data.Dataset, data.Dataset | None]:
    """The data with samples held out as the recipe wants them; and, where they are few, the data as they were.

    Of many samples the maps move within their memory: a copy might not fit beside them.
    """
    if settings.recipe == recipe.PLAIN:
        return d, None
    few = d.x_val is None and len(d.x_train) < FEW
    try:
        found = data.validation_split(d, held_share(len(d.x_train)), settings.seed, reuse=not few)
    except data.DataError as e:
        raise Malformed(f"{e}; --recipe {recipe.PLAIN} trains on all samples, and nothing watches") from None
    return found, d if few else None


def course(
    settings: AdaptSettings, trainer: ri.Trainer, d: data.Dataset, whole: data.Dataset | None, headed: bool
) -> Watched | Rehearsed | Unwatched:  # fmt: skip
    """How the run goes through its steps. whole: the data before samples were held out, where they train in the end.

    headed: does a new classifier train alone before?
    """
    if settings.recipe == recipe.PLAIN:
        return Unwatched(trainer, d.x_train, d.y_train, settings.epochs)
    part, held = (d.x_train, d.y_train), (d.x_val, d.y_val)
    if whole is not None:
        factors = SEARCH if settings.probe else SAFE
        return Rehearsed(trainer, part, held, (whole.x_train, whole.y_train), settings.epochs, factors, headed)
    return Watched(trainer, *part, *held, settings.epochs, SEARCH if settings.probe else GIVEN, headed)


def head_of(settings: AdaptSettings, graph: Graph, program: ri.Program) -> Head | None:
    """What trains the classifier of a net of floats first; None where nothing does (`head_programs`)."""
    made = head_programs(settings, graph, program)
    return made and Head(*made, settings.seed)


def head_programs(settings: AdaptSettings, graph: Graph, program: ri.Program) -> tuple[ri.Program, ri.Program] | None:
    """The programs that train the classifier of a net of floats first, before more layers train.

    None where the recipe has no such part, where all weights are random, and as `parts_that_help`.
    """
    if settings.recipe == recipe.PLAIN or settings.from_scratch:
        return None
    return parts_that_help(graph, program.plan, program.batch, settings.backend, settings.threads)


def trainer_of(program: ri.Program, seed: int) -> ri.Trainer:
    """The trainer of a program; Malformed where its step could not train the weights, or no GPU is there for it."""
    try:
        return ri.Trainer(program, seed)
    except (ValueError, CudaError) as e:
        raise Malformed(str(e)) from None


def decided(settings: AdaptSettings, plan: ri.Plan) -> AdaptSettings:
    """The settings with what was not given as the plan has it: the same run again, whatever later defaults are."""
    optimizer, subject = plan.step.optimizer, watched(settings)
    momentum = getattr(optimizer, "momentum", settings.momentum)
    probe = settings.lr is None if settings.probe is None else settings.probe
    return replace(
        settings, train_last=str(plan.train_last), momentum=momentum, lr=optimizer.lr, subject=subject,
        probe=probe, batch_norm=plan.batch_norm,
    )  # fmt: skip


def watched(settings: AdaptSettings) -> int | None:
    """The held-out person of the watch recordings, the first where none is given; other data have none."""
    return 1 if settings.subject is None and settings.data == "watch" else settings.subject


def planned(settings: AdaptSettings) -> tuple[ri.Plan, str]:
    """The plan of a run, but for weights of classes, which need data; and its method in full."""
    methods = options.methods(settings.method)
    asked = options.plain_of(settings.momentum, settings.whole)
    momentum, schedule = options.momentum_of(methods, asked), ri.Schedule("cosine")
    factor = options.rate_of(methods) * recipe.OPTIMIZERS[settings.optimizer]
    lr = recipe.rate(settings.batch, momentum, factor) if settings.lr is None else settings.lr
    plan = options.plan(methods, settings.train_last, momentum, lr, schedule)
    try:
        return recipe.with_parts(plan, settings), methods.text
    except ValueError as e:
        raise Malformed(str(e)) from None


def net(settings: AdaptSettings, dataset: data.Dataset) -> Graph:
    """The net that a run begins with."""
    whole = stays_whole(settings.model, settings.whole, planned(settings)[0].step.quantizes is not None)
    begun = settings.from_scratch
    graph = pretrained(settings.model, dataset, watched(settings), settings.classes, whole, settings.seed, begun)
    return taking(graph, settings.model, settings.pixels)


def compiled(
    settings: AdaptSettings, dataset: data.Dataset, graph: Graph, samples: Inputs | None = None
) -> tuple[ri.Program, str]:  # fmt: skip
    """The program of a run on a data set (of which only shapes and classes matter), and its method in full.

    samples: by which a net is made one of whole numbers where the method says so; None: it is compiled for its costs.
    """
    plan, method = planned(settings)
    if settings.class_weights == recipe.BALANCED:
        plan = replace(plan, class_weights=recipe.balanced(dataset.y_train, graph.shape(graph.output)[-1]))
    limit = options.byte_count(settings.memory_limit)
    plan, given = recipe.with_layers(plan, graph, settings.train_last), graph
    try:
        plan = recipe.with_rate(plan, graph, settings.lr)
        trained = weights_that_train(plan, graph)
        if samples is None:
            graph = outlined_for(plan.step, graph, trained)
        else:
            graph = made_for(plan.step, graph, samples, settings.seed, trained)
        batch = min(settings.batch, len(dataset.x_train))
        program = ri.compile(graph, plan, batch, backend=settings.backend, threads=settings.threads)
    except ri.ShapeError:
        raise
    except ValueError as e:
        raise Malformed(str(e)) from None
    if limit is not None:
        from . import smaller

        smaller.check_limit(settings, given, plan, program, limit, {"model": settings.model, "method": method})
    return program, method
