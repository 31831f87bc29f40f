"""What the commands share: how a number is read, the help that names the methods, and options that several have."""

from pathlib import Path
from typing import Annotated

import typer
import typer.core


def number(kind: type, name: str):
    """A parser of one number that names the text it cannot read, which Typer's own messages do not."""

    def parse(text: str):
        try:
            return kind(text)
        except ValueError:
            raise typer.BadParameter(f"must be {name}, got {text!r}") from None

    parse.__name__ = kind.__name__
    return parse


class Command(typer.core.TyperCommand):
    """A command whose help names the methods. They are asked when it is: to import them takes a second and Numba."""

    def format_help(self, ctx, formatter) -> None:
        """Print the help, told in full."""
        told(self)
        super().format_help(ctx, formatter)


def told(command):
    """A command with what the methods say in the help of its options."""
    for option in command.params:
        text = option.help or ""
        if "{" in text:
            from . import options

            option.help = text.format(**options.words())
    return command


WHOLE = number(int, "a whole number")
REAL = number(float, "a number")

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
        help="Most that state (trained weights, optimizer) and arena may take, as 256KiB; frozen weights come on top."
    ),
]
Backend = Annotated[
    str, typer.Option(help="fast or reference kernels, or rows: nets in whole numbers in the least memory.")
]
Whole = Annotated[
    bool, typer.Option("--whole", help="A quantized .npz stays one of whole numbers, and trains in them.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", help="Folder for weights, record and plot; default the next of gradledger-out/run-1, …."),
]
