"""The commands about files of nets: `info`, `predict`, `evaluate`, `runs`, `check`, `export`; `cli` registers them."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from .command import WHOLE, Json, Pixels, SkipBad, Subject, Threads
from .exits import emit

File = Annotated[str, typer.Argument(help="A .safetensors of adapt, a run's folder, or another file that check takes.")]
Data = Annotated[
    str, typer.Option(help="An image, a WAV file, a table, a folder of them, a .npy, a .npz, or a data set's name.")
]


def info(file: File, as_json: Json = False) -> None:
    """What a file holds: net, classes, samples it takes, how it was trained, accuracy, size; and what takes it."""
    from . import info as work
    from . import show_use

    record = work.run(file)
    if as_json:
        emit(record)
    else:
        show_use.told(record)


def predict(
    file: File,
    data: Data,
    top: Annotated[int, typer.Option(parser=WHOLE, help="Likeliest classes that are told of each sample.")] = 3,
    sample: Annotated[int | None, typer.Option(parser=WHOLE, help="Number of the one that is told, from 0.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="File for a table of comma-separated values.")] = None,
    subject: Subject = None,
    skip_bad: SkipBad = False,
    pixels: Pixels = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Tell the class of new samples, by name, and how sure the net is."""
    from . import predict as work
    from . import show_use

    record = work.run(file, data, top, csv, subject, threads, sample, pixels, skip_bad)
    if as_json:
        emit(record)
    else:
        show_use.predicted(record)


def evaluate(
    file: File,
    data: Annotated[str, typer.Option(help="A data set, as for adapt.")],
    part: Annotated[str, typer.Option(help="Of the data: test, train, val or all.")] = "test",
    subject: Subject = None,
    seed: Annotated[
        int | None,
        typer.Option(parser=WHOLE, help="Splits data that are not split; default that of the net's training."),
    ] = None,
    skip_bad: SkipBad = False,
    pixels: Pixels = None,
    threads: Threads = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder for record and picture; default evaluate-1, … in that of the run."),
    ] = None,
    as_json: Json = False,
) -> None:
    """How well a net tells the classes of a data set: accuracy, each class, which ones it takes for each other."""
    from . import evaluate as work
    from . import show_use

    record = work.run(file, data, part, subject, seed, threads, output, pixels, skip_bad)
    if as_json:
        emit(record)
    else:
        show_use.evaluated(record)


def runs(
    folder: Annotated[Path, typer.Argument(help="The folder that holds runs.")] = Path("gradledger-out"),
    as_json: Json = False,
) -> None:
    """The runs of adapt: accuracy before and after, method, multiply-adds, seconds, and what became of each."""
    from . import numbered, show_use

    record = numbered.run(folder)
    if as_json:
        emit(record)
    else:
        show_use.listed(record)


def check(
    model: Annotated[
        str,
        typer.Argument(help="A file (.onnx, .tflite, .pth, .h5, .keras, .safetensors, .npz) or a model's name."),
    ],
    size: Annotated[str | None, typer.Option(help="Size HxW of its maps, default its own.")] = None,
    batch: Annotated[int, typer.Option(parser=WHOLE, help="Samples in the step that is priced.")] = 1,
    as_json: Json = False,
) -> None:
    """Can a model be trained? Every operator, the layers, what each method takes; status 1 where one is missing."""
    from . import check as work
    from . import show_check
    from .errors import Refused

    try:
        record = work.run(model, size, batch)
    except Refused as e:
        if not as_json and e.record["operators"]:
            show_check.operators(e.record)
        raise
    if as_json:
        emit(record)
    else:
        show_check.checked(record)


def export(
    file: Annotated[
        str, typer.Argument(help="A .safetensors of adapt, of a net that came as a model of ONNX or TensorFlow Lite.")
    ],
    like: Annotated[str | None, typer.Option(help="The model that it came from; default beside it, or here.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="File to write; default FILE with the end of that model.")
    ] = None,
    int8: Annotated[
        str | None,
        typer.Option("--quantize", help="Samples, as for predict, whose ranges make an int8 model too."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write an adapted net as the model that it came from: same graph and names, the weights of now."""
    from . import export as work
    from . import show_check

    record = work.run(file, like, output, int8)
    if as_json:
        emit(record)
    else:
        show_check.exported(record)


COMMANDS: tuple[Callable, ...] = (info, predict, evaluate, runs, check, export)
