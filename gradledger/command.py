"""What the commands share: how a number is read, the help that names the methods, and options that several have."""

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated

import typer
import typer.core

from . import recipe


def number(kind: type, name: str):
    """A parser of one number that names the text it cannot read, which Typer's own messages do not."""

    def parse(text: str):
        try:
            return kind(text)
        except ValueError:
            raise typer.BadParameter(f"must be {name}, got {text!r}") from None

    parse.__name__ = kind.__name__
    return parse


GROUPS = {  # under which heading, after the common options, the help tells an option
    "How data are read": (
        "subject", "skip_bad", "axes", "window", "stride", "rate", "label", "group", "values", "pixels", "augment",
    ),
    "How the net trains": (
        "lr", "recipe", "momentum", "optimizer", "clip", "warmup", "batch_norm", "label_smoothing", "class_weights",
        "seed", "classes", "from_scratch", "whole",
    ),
    "What the machine gives": ("memory_limit", "backend", "threads"),
}  # fmt: skip
MANY = 20  # options from which on they are told in groups


# Newer versions of Typer carry click inside, older ones need the package: its errors are found by their names.
UsageError = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")


class Commands(typer.core.TyperGroup):
    """The commands, each told in a whole sentence, where Typer would cut it off."""

    def format_commands(self, ctx, formatter) -> None:
        """Print the commands and what they are for."""
        shown = {name: command.help or "" for name, command in self.commands.items() if not command.hidden}
        with formatter.section("Commands"):
            formatter.write_dl([(name, " ".join(text.split("\n\n")[0].split())) for name, text in shown.items()])


class Command(typer.core.TyperCommand):
    """A command whose help names the methods. They are asked when it is: to import them takes a second and Numba.

    Of many options it tells the common ones first, the others under the headings of GROUPS.
    """

    def parse_args(self, ctx, args) -> list[str]:
        """Read what was given; a word that stands alone where --data is missing is told to be data."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except UsageError:
            if word := self.data_without_option(ctx, given):
                raise UsageError(f"{word!r} stands alone: data are given as --data {shlex.quote(word)}", ctx) from None
            raise

    def data_without_option(self, ctx, args: list[str]) -> str:
        """The first word that is no argument and no option's, where --data could be given and was not, else ''."""
        try:
            found, rest, _ = self.make_parser(ctx).parse_args(args=args)
        except UsageError:
            return ""
        takes = any(param.name == "data" for param in self.params)
        return rest[0] if takes and rest and not isinstance(found.get("data"), str) else ""

    def format_help(self, ctx, formatter) -> None:
        """Print the help, told in full."""
        told(self)
        super().format_help(ctx, formatter)

    def format_options(self, ctx, formatter) -> None:
        """Print the options, in groups where they are many."""
        if len(self.params) < MANY:
            return super().format_options(ctx, formatter)
        group = {name: head for head, names in GROUPS.items() for name in names}
        told: dict[str, list] = {head: [] for head in ("Options", *GROUPS)}
        for param in self.get_params(ctx):
            told[group.get(param.name.removesuffix("_"), "Options")].append(param.get_help_record(ctx))
        for head, rows in told.items():
            if rows:
                with formatter.section(head):
                    formatter.write_dl(rows)


def told(command):
    """A command with what the methods say in the help of its options."""
    for option in command.params:
        text = option.help or ""
        if "{" in text:
            from . import options

            option.help = text.format(**options.words())
    return command


def settings_of(context: typer.Context, kind: type) -> tuple[object, list[str]]:
    """A command's settings, of a dataclass with fields of its options' names; and those that were given.

    An option whose name is taken in its module ends in "_" there.
    """
    options = {name.removesuffix("_"): (name, value) for name, value in context.params.items()}
    found = {f.name: options[f.name] for f in dataclasses.fields(kind) if f.name in options}
    made = kind(**{field: list(v) if isinstance(v, tuple) else v for field, (_, v) in found.items()})
    return made, [f for f, (name, _) in found.items() if context.get_parameter_source(name).name == "COMMANDLINE"]


WHOLE = number(int, "a whole number")
REAL = number(float, "a number")


def learning_rate(text: str) -> float | None:
    """A learning rate; None for `auto`, which is found."""
    return None if text == "auto" else REAL(text)


learning_rate.__name__ = "float|auto"
Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on stdout and nothing else there.")]
Threads = Annotated[int | None, typer.Option(parser=WHOLE, help="CPU threads; default all.")]
Subject = Annotated[
    int | None,
    typer.Option(parser=WHOLE, help="Held-out person (1 to 10) of watch, or speaker of clips of sound; default 1."),
]
Method = Annotated[list[str], typer.Option(help="{methods}")]
TrainLast = Annotated[str | None, typer.Option(help="Last convolutions to train, or all; default {layers_rule}.")]
Momentum = Annotated[float | None, typer.Option(parser=REAL, help="Momentum of SGD; default 0.9, with {plain_sgd} 0.")]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        help="Most that the arrays of a step may take, its state (trained weights, optimizer) and arena, as 256KiB; "
        "it is not of the process: Python with its libraries, frozen weights and data come on top."
    ),
]
Backend = Annotated[
    str,
    typer.Option(
        help="cuda, fast or reference kernels, or rows: nets in whole numbers in the least memory; auto, the default, "
        "is cuda where there is an NVIDIA GPU and a package for it, else fast."
    ),
]
Whole = Annotated[
    bool, typer.Option("--whole", help="A quantized net (.npz, .onnx, .tflite) trains in its own whole numbers.")
]
FromScratch = Annotated[
    bool, typer.Option("--from-scratch", help="Begin with random weights, where a model comes without any.")
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out files, rows and classes that cannot be used, and list them.")
]
Axes = Annotated[
    str | None,
    typer.Option(help="Letters of the axes of arrays: NTC, NCT (T: time), NHW, NHWC, NCHW …; default by their shape."),
]
Window = Annotated[
    str | None, typer.Option(help="Cut long recordings into windows of so many samples, 100, or seconds, 2s.")
]
Stride = Annotated[str | None, typer.Option(help="From one window to the next; default half a window.")]
Rate = Annotated[
    float | None, typer.Option(parser=REAL, help="Samples a second of recordings; of sound, to which it is resampled.")
]
Label = Annotated[str | None, typer.Option(help="Column of a table with the labels, by name or number from 1.")]
Group = Annotated[
    str | None,
    typer.Option(
        help="Who or what samples are of, so that nobody trains and judges: a column of a table, an array, or for "
        "files a regular expression with the group in parentheses, found in their names, as '(.+)_'."
    ),
]
Values = Annotated[
    str | None,
    typer.Option(help="keep, standardise or pixels: what is done to the values of arrays and tables; default by them."),
]
Pixels = Annotated[
    str | None,
    typer.Option(
        help="What a model of another program takes for pixels of 0 and of 255, where it does not say: imagenet, each "
        "channel by the mean and deviation of ImageNet's photographs, or LOW,HIGH, as -1,1; default 0,1."
    ),
]
Augment = Annotated[
    str | None,
    typer.Option(
        help="Alter training samples each time they are drawn: some of flip, shift, crop, rotate, colour (pictures), "
        "jitter, scale, time-shift (sensors, sound), each with an amount if wanted, as flip,shift=0.1."
    ),
]
Recipe = Annotated[
    str, typer.Option("--recipe", help=f"How the run goes: {'; '.join(f'{n} {h}' for n, h in recipe.RECIPES.items())}.")
]
LearningRate = Annotated[float | None, typer.Option(parser=learning_rate, help=recipe.RATE_HELP)]
Optimizer = Annotated[str, typer.Option(help=f"{' or '.join(recipe.OPTIMIZERS)}, where the method takes it.")]
Clip = Annotated[
    float | None, typer.Option(parser=REAL, help="Most that the gradient's norm may be, 0 for no limit; default 1.")
]
Warmup = Annotated[int, typer.Option(parser=WHOLE, help="Steps in which the learning rate rises to its start.")]
BatchNorm = Annotated[
    str | None,
    typer.Option(help="frozen, or train: batch statistics, and its factors learn; default train with --from-scratch."),
]
LabelSmoothing = Annotated[
    float, typer.Option(parser=REAL, help="Share of a label that is spread over all classes, from 0 to below 1.")
]
ClassWeights = Annotated[
    str | None, typer.Option(help="balanced: every class weighs alike in the loss, however many samples it has.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", help="Folder for weights, record and plot; default the next of gradledger-out/run-1, …."),
]
