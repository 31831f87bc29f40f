"""An adaptation before it runs: its data, its program and its trainer, from the settings of a command."""

from dataclasses import dataclass, replace

import refimpl as ri
from refimpl import data
from refimpl.graph import Graph
from refimpl.surgery.for_step import made_for, outlined_for, weights_that_train
from refimpl.training.inputs import Inputs

from . import options, recipe
from .errors import Malformed, Refused
from .models import origin, own_size, pretrained, stays_whole
from .settings import AdaptSettings


@dataclass
class Job:
    """An adaptation that is ready to run."""

    settings: AdaptSettings
    dataset: data.Dataset
    program: ri.Program
    trainer: ri.Trainer
    method: str
    weights: str  # where the first ones are from
    pixels: bool = False  # were the samples pixels before the net's own values for them took their place?


def prepare(settings: AdaptSettings) -> Job:
    """Load data and model, compile; every bad value ends here, before anything is written."""
    for name in ("epochs", "batch", "classes"):
        options.at_least_1(name, getattr(settings, name))
    options.threads(settings.threads)
    options.seed(settings.seed)
    # what else is wrong with an option is said before data are read
    planned(settings)
    settings = settings.resolved()
    options.byte_count(settings.memory_limit)
    size = options.size(settings.size)
    if size is None and data.stretches(settings.data) and (size := own_size(settings.model)):
        settings = replace(settings, size="x".join(map(str, size)))
    dataset = data.load(settings.data, subject=watched(settings), size=size, seed=settings.seed)
    graph, pixels = net(settings, dataset), dataset.pixels
    dataset = dataset.with_pixels(*graph.pixels, graph.tensors[graph.inputs[0]].dtype)
    program, method = compiled(settings, dataset, graph, dataset.x_train)
    trainer = trainer_of(program, settings.seed)
    return Job(decided(settings, program.plan), dataset, program, trainer, method, origin(graph), pixels)


def trainer_of(program: ri.Program, seed: int) -> ri.Trainer:
    """The trainer of a program; Malformed where its step could not train the weights."""
    try:
        return ri.Trainer(program, seed)
    except ValueError as e:
        raise Malformed(str(e)) from None


def decided(settings: AdaptSettings, plan: ri.Plan) -> AdaptSettings:
    """The settings with what was not given as the plan has it: the same run again, whatever later defaults are."""
    optimizer, subject = plan.step.optimizer, watched(settings)
    return replace(
        settings, train_last=str(plan.train_last), momentum=optimizer.momentum, lr=optimizer.lr, subject=subject
    )


def watched(settings: AdaptSettings) -> int | None:
    """The held-out person of the watch recordings, the first where none is given; other data have none."""
    return 1 if settings.subject is None and settings.data == "watch" else settings.subject


def planned(settings: AdaptSettings) -> tuple[ri.Plan, str]:
    """The plan of a run, and its method in full."""
    methods = options.methods(settings.method)
    asked = options.plain_of(settings.momentum, settings.whole)
    momentum, schedule = options.momentum_of(methods, asked), ri.Schedule("cosine")
    lr = recipe.rate(settings.batch, momentum, options.rate_of(methods)) if settings.lr is None else settings.lr
    return options.plan(methods, settings.train_last, momentum, lr, schedule), methods.text


def net(settings: AdaptSettings, dataset: data.Dataset) -> Graph:
    """The net that a run begins with."""
    whole = stays_whole(settings.model, settings.whole, planned(settings)[0].step.quantizes is not None)
    return pretrained(settings.model, dataset, watched(settings), settings.classes, whole, settings.seed)


def compiled(
    settings: AdaptSettings, dataset: data.Dataset, graph: Graph, samples: Inputs | None = None
) -> tuple[ri.Program, str]:  # fmt: skip
    """The program of a run on a data set (of which only shapes and classes matter), and its method in full.

    samples: by which a net is made one of whole numbers where the method says so; None: it is compiled for its costs.
    """
    plan, method = planned(settings)
    limit = options.byte_count(settings.memory_limit)
    plan = recipe.with_layers(plan, graph, settings.train_last)
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
    try:
        if limit is not None:
            program.check_memory(limit)
    except ri.MemoryLimitError as e:
        from costmodel.advice import budget

        raise Refused(f"{e}; {budget.sentence(program)}", {"model": settings.model, "method": method}) from None
    return program, method
