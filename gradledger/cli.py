"""The command line's entry: options, tables, exit status."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import environment, limits, recipe
from .command import (
    REAL,
    WHOLE,
    Augment,
    Axes,
    Backend,
    BatchNorm,
    ClassWeights,
    Clip,
    Command,
    Commands,
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
    Output,
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
from .exits import Exit, emit, forget_output, refuse
from .pricing import cost
from .streams import open_streams, tell
from .use import COMMANDS

OWN_PROCESS = "own process"  # what a command's context holds where the process has nothing else to do
app = typer.Typer(
    cls=Commands,
    pretty_exceptions_enable=False, rich_markup_mode=None, no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train neural networks on small devices, with every gradient's cost known before the run.",
)  # fmt: skip


# Newer versions of Typer carry click inside, older ones need the package: the base of its errors is found by its name.
UsageProblem = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


def show_version(wanted: bool) -> None:
    """Print the version where it is wanted, before a command is missed."""
    if wanted:
        from validation.instruments.provenance import versions

        print(versions()["gradledger"])
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """GradLedger."""


@app.command(cls=Command)
def adapt(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="watch, efficientnet_lite0, or a file that check takes.")] = "watch",
    data: Annotated[
        str, typer.Option(help="A data set's name, a .npz, a table, or a folder of class folders or of tables.")
    ] = "watch",
    subject: Subject = None,
    method: Method = [recipe.METHOD],  # noqa: B006 (typer reads the default, nobody changes it)
    train_last: TrainLast = None,
    epochs: Annotated[int, typer.Option(parser=WHOLE, help="Passes over the training data.")] = recipe.EPOCHS,
    batch: Annotated[int, typer.Option(parser=WHOLE, help="Samples in a step.")] = recipe.SAMPLES,
    lr: LearningRate = None,
    momentum: Momentum = None,
    classes: Annotated[
        int | None, typer.Option(parser=WHOLE, help="Classes of the model; default those of the data.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Size HxW to which images are stretched.")] = None,
    memory_limit: MemoryLimit = None,
    seed: Annotated[int, typer.Option(parser=WHOLE, help="Decides the order of samples and every random number.")] = 0,
    backend: Backend = recipe.BACKEND,
    threads: Threads = None,
    whole: Whole = False,
    from_scratch: FromScratch = False,
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
    recipe_: Recipe = recipe.AUTO,
    optimizer: Optimizer = recipe.SGD,
    clip: Clip = None,
    warmup: Warmup = 0,
    batch_norm: BatchNorm = None,
    label_smoothing: LabelSmoothing = 0.0,
    class_weights: ClassWeights = None,
    output: Output = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run saved in --output, default the latest interrupted one.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Adapt a pre-trained model to new data. Without options: one held-out person's movements."""
    from . import adapt as job
    from . import finish as last
    from . import numbered, show, show_data

    settings, named = settings_of(context, job.AdaptSettings)
    try:
        with contextlib.ExitStack() as shown:
            folder = shown.enter_context(numbered.run_folder(output, resume))
            watch = shown.enter_context(show.bar("adapting", quiet=as_json))

            def end(*left) -> None:
                if context.obj == OWN_PROCESS:
                    shown.close()
                    last.become(*left, as_json)

            see = (lambda described: None) if as_json else show_data.described
            record = job.run(settings, folder, resume, watch, named, end, see)
    except job.Interrupted as e:
        tell(str(e))
        raise SystemExit(Exit.INTERRUPTED) from None
    if status := last.show(record, folder, as_json):
        raise SystemExit(status)


@app.command(cls=Command, hidden=True)
def finish(told: Annotated[str, typer.Argument(help="What `adapt` left to do, as JSON.")]) -> None:
    """The end of `adapt`, in a process that holds no more than it needs."""
    from . import finish as last

    if status := last.main(told):
        raise SystemExit(status)


@app.command(cls=Command)
def warmup(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="As for adapt.")] = "watch",
    data: Annotated[str, typer.Option(help="As for adapt.")] = "watch",
    method: Annotated[list[str], typer.Option(help="As for adapt.")] = [recipe.METHOD],  # noqa: B006
    train_last: Annotated[str | None, typer.Option(help="As for adapt.")] = None,
    batch: Annotated[int, typer.Option(parser=WHOLE, help="As for adapt.")] = recipe.SAMPLES,
    classes: Annotated[int | None, typer.Option(parser=WHOLE, help="As for adapt.")] = None,
    size: Annotated[str | None, typer.Option(help="As for adapt.")] = None,
    backend: Backend = recipe.BACKEND,
    threads: Threads = None,
    whole: Whole = False,
    from_scratch: FromScratch = False,
    subject: Subject = None,
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
    recipe_: Recipe = recipe.AUTO,
    momentum: Momentum = None,
    optimizer: Optimizer = recipe.SGD,
    clip: Clip = None,
    batch_norm: BatchNorm = None,
    label_smoothing: LabelSmoothing = 0.0,
    class_weights: ClassWeights = None,
    as_json: Json = False,
) -> None:
    """Compile the kernels that `adapt` with the same options will need, with progress; later runs load them."""
    from . import adapt as job
    from . import show
    from . import warmup as work

    ready = job.prepare(settings_of(context, job.AdaptSettings)[0])
    with show.counter("compiling", quiet=as_json) as watch:
        record = work.run(ready, watch)
    if as_json:
        emit(record)
    else:
        where = record["cache"] or "memory only: no folder is writable"
        print(
            f"{record['kernels']} kernels ready, {record['compiled']} compiled in {record['seconds']:.1f} s ({where})"
        )


app.command(cls=Command)(cost)


@app.command(cls=Command)
def validate(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="A model's name, or a file that check takes.")] = "watch",
    data: Annotated[str, typer.Option(help="A data set's name, a .npz, or a folder of class folders.")] = "watch",
    subject: Subject = None,
    method: Method = [recipe.METHOD],  # noqa: B006 (typer reads the default, nobody changes it)
    train_last: TrainLast = None,
    batch: Annotated[int, typer.Option(parser=WHOLE, help="Samples in a batch.")] = recipe.SAMPLES,
    batches: Annotated[int, typer.Option(parser=WHOLE, help="Batches on which gradients are compared.")] = 8,
    epochs: Annotated[
        int, typer.Option(parser=WHOLE, help="Training first, for a model that comes without weights; 0 leaves it.")
    ] = 1,
    classes: Annotated[int | None, typer.Option(parser=WHOLE, help="As for adapt.")] = None,
    size: Annotated[str | None, typer.Option(help="As for adapt.")] = None,
    seed: Annotated[int, typer.Option(parser=WHOLE, help="Decides the samples and every random number.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer drawn cases, no processes: under two minutes.")] = False,
    whole: Whole = False,
    lr: Annotated[float | None, typer.Option(parser=REAL, help="As for adapt.")] = None,
    skip_bad: SkipBad = False,
    axes: Axes = None,
    window: Window = None,
    stride: Stride = None,
    rate: Rate = None,
    label: Label = None,
    group: Group = None,
    values: Values = None,
    pixels: Pixels = None,
    output: Annotated[Path, typer.Option("--output", help="Folder for record, plot and report.")] = Path(
        "gradledger-out"
    ),
    as_json: Json = False,
) -> None:
    """Check gradients, counts, memory, time and tables on this machine, and write a report (HTML) for an auditor.

    Each approximate gradient's error on real data stands beside the checks.
    """
    from . import show, show_validate
    from . import validate as work
    from .errors import Refused

    settings, _ = settings_of(context, work.ValidateSettings)
    try:
        with show.counter("validating", quiet=as_json) as watch:
            record = work.run(settings, output, watch)
    except Refused as e:
        if not as_json and "files" in e.record:
            show_validate.validated(e.record)
        raise
    if as_json:
        emit(record)
    else:
        show_validate.validated(record)


@app.command(cls=Command)
def bench(
    names: Annotated[list[str] | None, typer.Argument(help="Cases or the first words of their names.")] = None,
    backend: Annotated[str | None, typer.Option(help="cuda: the cases of a GPU: step, filtered, product.")] = None,
    peer: Annotated[str | None, typer.Option(help="torch: run PyTorch on the same work, in other processes.")] = None,
    threads: Annotated[int, typer.Option(parser=WHOLE, help="CPU threads of each side.")] = 2,
    repeats: Annotated[int, typer.Option(parser=WHOLE, help="Timed calls in each turn, after two to warm up.")] = 7,
    turns: Annotated[int, typer.Option(parser=WHOLE, help="Turns of each side: ours, peer, ours, peer.")] = 2,
    as_json: Json = False,
) -> None:
    """Time steps and kernels, each side in own processes: filtered, step, block, start, method, integers, gpu."""
    from . import bench as work
    from . import show, show_bench
    from .errors import Refused

    try:
        with show.counter("timing", quiet=as_json) as watch:
            record = work.run(names or [], backend, peer, threads, repeats, turns, watch)
    except Refused as e:
        if not as_json and e.record["cases"]:
            show_bench.timed(e.record)
        raise
    if as_json:
        emit(record)
    else:
        show_bench.timed(record)


@app.command(cls=Command)
def calibrate(
    threads: Annotated[
        list[int] | None,
        typer.Option(parser=WHOLE, help="Numbers of threads to measure with; default 1 and all cores."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="File of the profile; default where the other commands look.")
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A probe: about 3 s of a few layers for each number of threads, by which the reference "
            "machine's rates are scaled; it does not count as measured.",
        ),
    ] = False,
    backend: Annotated[
        str | None, typer.Option(help="cuda: measure this machine's GPU, in a profile of its own.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what each kernel's work costs this device, in at most five minutes, and keep it as a profile."""
    from . import calibrate as work
    from . import show

    if backend is not None and (backend != "cuda" or threads or quick):
        raise typer.BadParameter("--backend takes cuda, which has neither --threads nor --quick")
    with show.counter("calibrating", quiet=as_json) as watch:
        if backend is not None:
            record = work.on_gpu(output, watch)
        else:
            record = (work.quick if quick else work.run)(threads, output, watch)
    if as_json:
        emit(record)
    else:
        show.calibrated(record)


@app.command(cls=Command)
def reproduce(
    name: Annotated[str, typer.Argument(help="The experiment or table; an unknown name lists them.")],
    output: Annotated[Path, typer.Option("--output", help="Folder for the result file.")] = Path("gradledger-out"),
    judge: Annotated[
        Path | None, typer.Option(help="Judge the runs in this record of the experiment anew, without training.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run an experiment again and write a result file with machine, versions, seeds and command."""
    from . import reproduce as work
    from . import show

    with show.counter(name, quiet=as_json) as watch:
        try:
            record = work.judge(name, judge, output) if judge else work.run(name, output, watch)
        except KeyboardInterrupt:
            if not (output / f"{name}.jsonl").exists():
                raise
            tell(f"interrupted; {output} keeps the finished runs, and the same command goes on")
            raise SystemExit(Exit.INTERRUPTED) from None
    if as_json:
        emit(record)
    else:
        show.reproduced(record)
    if not record["ok"]:
        raise typer.Exit(Exit.NO)


@app.command(cls=Command)
def compare(
    file: Annotated[Path, typer.Argument(help="The record of an experiment with learning curves.")],
    accuracy: Annotated[
        float | None, typer.Option(parser=REAL, help="Percent to reach; default the highest that all runs reach.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Device whose seconds are estimated.")] = None,
    as_json: Json = False,
) -> None:
    """What each method costs until it reaches the same accuracy: cost per step times steps, from recorded runs."""
    from . import compare as job
    from . import show

    record = job.run(job.CompareSettings(file, accuracy, device))
    if as_json:
        emit(record)
    else:
        show.equal_accuracy(record)


@app.command(cls=Command)
def doctor(
    cuda: Annotated[bool, typer.Option("--cuda", help="Look for a GPU too.")] = False,
    as_json: Json = False,
) -> None:
    """Is this device fit: 64-bit, threads, libgomp, cache folder, BLAS, governor, temperature?"""
    from . import doctor as work
    from . import show
    from .errors import Refused

    record = work.run(cuda)
    if as_json and record["ok"]:
        emit(record)
    elif not as_json:
        show.checks(record["checks"])
    if not record["ok"]:
        bad = "; ".join(f"{c['name']}: {c['found']} ({c['advice']})" for c in record["checks"] if c["state"] == "bad")
        raise Refused(f"this device is not fit: {bad}", record)


for command in COMMANDS:
    app.command(cls=Command)(command)


def main(args: list[str] | None = None) -> None:
    """Run the command line; errors become one sentence on stderr and an exit status."""
    given = sys.argv[1:] if args is None else args
    # before anything loads Numba, which would end with a traceback; what `adapt` became never loads it
    if given[:1] != ["finish"] and (problem := environment.problem()):
        tell(problem)
        raise SystemExit(Exit.MALFORMED)
    as_json = "--json" in given
    if limits.addresses() is not None:  # a second thread of BLAS takes 30 MiB of it, and BLAS interrupts itself without
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    open_streams()
    try:
        command = typer.main.get_command(app)
        own = OWN_PROCESS if args is None else None
        status = command.main(args, prog_name="gradledger", standalone_mode=False, obj=own)
        if status == Exit.INTERRUPTED:
            raise KeyboardInterrupt  # which newer versions of Typer turn into a status, older ones into Abort
        sys.stdout.flush()  # a full disk behind it is told here, not by the interpreter as it ends
    except UsageProblem as e:
        if type(e).__name__ == "NoArgsIsHelpError":
            print(e.format_message())
        else:
            tell(e.format_message())
        status = Exit.MALFORMED
    except typer.Exit as e:
        status = e.exit_code
    except (typer.Abort, KeyboardInterrupt):
        tell("interrupted")
        status = Exit.INTERRUPTED
    except BrokenPipeError:  # whoever reads has read enough
        forget_output()
        status = Exit.DONE
    except SystemExit as e:
        if not isinstance(e.__context__, BrokenPipeError):  # Typer leaves with 1 there
            raise
        forget_output()
        status = Exit.DONE
    except OSError as e:
        if limits.short_of_memory(e):
            tell(limits.sentence(e))
            raise SystemExit(int(Exit.MALFORMED)) from None
        tell(f"cannot use {e.filename or 'the standard output'}: {e.strerror or e}")
        forget_output()
        status = Exit.MALFORMED
    except Exception as e:
        status = refuse(e, as_json)
        if status is None:
            raise
    raise SystemExit(int(status or 0))
