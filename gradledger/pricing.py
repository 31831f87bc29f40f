"""The command `cost`: the options of `adapt`, and those of its own; `cli` registers it."""

from pathlib import Path
from typing import Annotated

import typer

from . import recipe
from .command import (
    REAL,
    WHOLE,
    Augment,
    Axes,
    Backend,
    BatchNorm,
    ClassWeights,
    Clip,
    FromScratch,
    Group,
    Json,
    Label,
    LabelSmoothing,
    LearningRate,
    MemoryLimit,
    Method,
    Momentum,
    Optimizer,
    Pixels,
    Rate,
    Recipe,
    SkipBad,
    Stride,
    Subject,
    Threads,
    TrainLast,
    Values,
    Warmup,
    Whole,
    Window,
    settings_of,
)
from .exits import emit


def cost(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="A model's name, or a file that check takes.")] = "watch",
    data: Annotated[
        str | None,
        typer.Option(help="The data, as for adapt: the whole run on them is priced; with --advise, its epoch."),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(parser=WHOLE, help="Samples that train, where there are no --data yet; with --advise too."),
    ] = None,
    epochs: Annotated[
        int, typer.Option(parser=WHOLE, help="Passes over the training data of the run, with --data or --samples.")
    ] = recipe.EPOCHS,
    device: Annotated[
        str,
        typer.Option(
            help="Device whose seconds and memory are asked: this-machine, reference, a board by a name that people "
            "use (an unknown one lists them) or the file of a profile."
        ),
    ] = "this-machine",
    classes: Annotated[
        int | None, typer.Option(parser=WHOLE, help="Classes of the model; default those of the data, else its own.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Input size HxW; default the model's own.")] = None,
    batch: Annotated[int, typer.Option(parser=WHOLE, help="Samples in a step.")] = recipe.SAMPLES,
    method: Method = [recipe.METHOD],  # noqa: B006 (typer reads the default, nobody changes it)
    train_last: TrainLast = None,
    momentum: Momentum = None,
    memory_limit: MemoryLimit = None,
    convention: Annotated[
        str, typer.Option(help="macs, flops, or paper: the backward pass as arXiv 2301.00330 counts it.")
    ] = "macs",
    fit: Annotated[
        str | None,
        typer.Option(
            help="Choose layers and ratio of {fitted} for --memory-limit, which covers the arena and all trained "
            "weights (trained), or only those that one step updates (updated: the others wait in flash)."
        ),
    ] = None,
    integer_ratio: Annotated[
        str,
        typer.Option(
            help="As which share of a multiply-add of floats one of whole numbers counts, by the bits a and b of its "
            "factors: width, max(a, b)/32, or area, a·b/32²."
        ),
    ] = "width",
    backend: Backend = recipe.BACKEND,
    threads: Threads = None,
    whole: Whole = False,
    from_scratch: FromScratch = False,
    recipe_: Recipe = recipe.AUTO,
    optimizer: Optimizer = recipe.SGD,
    lr: LearningRate = None,
    clip: Clip = None,
    warmup: Warmup = 0,
    batch_norm: BatchNorm = None,
    label_smoothing: LabelSmoothing = 0.0,
    class_weights: ClassWeights = None,
    subject: Subject = None,
    seed: Annotated[int, typer.Option(parser=WHOLE, help="Draws the samples that are held out.")] = 0,
    skip_bad: SkipBad = False,
    axes: Axes = None,
    window: Window = None,
    stride: Stride = None,
    rate: Rate = None,
    label: Label = None,
    group: Group = None,
    values: Values = None,
    pixels: Pixels = None,
    augment: Augment = None,
    advise: Annotated[
        bool,
        typer.Option(
            "--advise",
            help="Search method, layers and batch instead: the Pareto front of memory, seconds of an epoch and "
            "expected gradient error within --memory-limit and --seconds-per-epoch.",
        ),
    ] = False,
    seconds_per_epoch: Annotated[
        float | None,
        typer.Option(parser=REAL, help="With --advise: most seconds that an epoch may take, as they are predicted."),
    ] = None,
    trial_seconds: Annotated[
        float | None,
        typer.Option(
            parser=REAL,
            help="With --advise and --data: seconds in which plans of the front are tried on the data, here, to tell "
            "which ends best; default 60, 0 for none.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="With --advise: folder for record and plot; default gradledger-out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Price what adapt with the same options does: a training step, layer by layer, and with data the whole run.

    Nothing is trained. Without options: a step of the run that adapt makes.
    """
    from . import cost as job
    from . import show_cost

    settings, given = settings_of(context, job.CostSettings)
    if advise:
        return advised(context, given, output or Path("gradledger-out"), as_json)
    with_advice = {"--seconds-per-epoch": seconds_per_epoch, "--trial-seconds": trial_seconds, "--output": output}
    for option, value in with_advice.items():
        if value is not None:
            raise typer.BadParameter(f"{option} goes with --advise, which was not given")
    if "epochs" in given and data is None and samples is None:
        raise typer.BadParameter("--epochs are those of a run: give its data, as --data FOLDER, or --samples 1000")
    record = job.run(settings)
    if as_json:
        emit(record)
    else:
        show_cost.priced(record)


def advised(context: typer.Context, given: list[str], output: Path, as_json: bool) -> None:
    """Run `cost --advise`; given: the options that were given, of which it takes some and chooses others."""
    from . import advise, show, show_advice

    settings, takes = settings_of(context, advise.AdviseSettings)
    for name in given:
        if name not in takes:
            option = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"--advise chooses method, layers and batch: leave {option} out")
    with show.counter("searching", quiet=as_json) as watch:
        record = advise.run(settings, output, watch)
    if as_json:
        emit(record)
    else:
        show_advice.advised(record)
