"""Find the model that a command names: built by name, with bundled or saved weights."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from refimpl import data, models
from refimpl.data.pixels import Level, each, suit, words
from refimpl.data.scale import IMAGE_CHANNELS
from refimpl.formats import efficientnet_names, onnx, tflite_whole, weight_files
from refimpl.formats.npz import holds_whole, load_npz, read_npz
from refimpl.graph import Graph
from refimpl.saved import described as reader
from refimpl.saved import labels
from refimpl.saved.described import LITE, ONNX, Saved

from . import options
from .errors import Malformed
from .recipe import start_small
from .run_folder import settled

PACKAGES = {"efficientnet_lite0": efficientnet_names.from_package}  # a net's name → its graph, of an optional package
RANDOM = "random"  # where first weights are from
FILES = (
    "a .safetensors of an earlier run, a model of ONNX or TensorFlow Lite, weights of PyTorch, timm or Keras that "
    "gradledger check knows, a .npz of a quantized microcontroller net"
)
SUFFIXES = (".safetensors", ".npz", ONNX, LITE, *weight_files.SUFFIXES)


def pretrained(
    name: str, dataset: data.Dataset, subject: int | None, classes: int | None, whole: bool = False, seed: int = 0,
    scratch: bool = False,
) -> Graph:  # fmt: skip
    """The graph for a data set: `watch` comes with weights trained without `subject`; a file brings its own.

    A name of PACKAGES has weights where its package is installed. A `.npz` is a net of another program
    (`refimpl.formats.npz`), any other file says what it is (`refimpl.saved.described`). whole: a quantized one stays
    one of whole numbers. The classifier of a file that names its classes follows those of the data by name; seed: draws
    what is new of it. scratch: a net that is built by name brings no weights. Raises ModelError for an unknown name,
    CheckpointError for a file that cannot be used, Malformed where the model does not fit the data.
    """
    found = classes or len(dataset.classes)
    if found < len(dataset.classes):
        raise Malformed(f"--classes {found} is too few: {dataset.name} has {len(dataset.classes)} classes")
    height, width, channels = dataset.x_train.shape[1:]
    if describes_itself(name) and not whole:
        return by_names(saved(name), dataset, classes, seed)
    graph = None
    if name.endswith(".npz"):
        graph = load_npz(name, found, (height, width), whole)
    elif whole:
        graph = whole_for(name, dataset.classes, found, (height, width))
    elif name in PACKAGES and not scratch:
        graph = PACKAGES[name](found, (height, width))
    if graph is not None:
        if graph.channels != channels:
            raise Malformed(f"{name} takes maps with C={graph.channels}, but {dataset.name} has C={channels}")
        start_small(graph)
    else:
        graph = models.build(name, classes=found, size=(height, width), channels=channels)
        if name == "watch" and dataset.name == "watch" and not scratch:
            graph.weights = models.watch_weights(subject)
    graph.classes = (*dataset.classes, *[None] * (found - len(dataset.classes)))
    return graph


def whole_for(
    name: str, wanted: Sequence[str] | None, classes: int | None, size: tuple[int, int] | None
) -> Graph:  # fmt: skip
    """A quantized model of another program in whole numbers; its classifier stays where it is of the same classes.

    wanted: names of the classes, None where they are not known. Where the file names other ones, or has another number,
    a classifier of floats takes its place.
    """
    file, load = saved(name), onnx.load_whole if name.endswith(ONNX) else tflite_whole.load_whole
    own = file.own_classes
    keeps = classes in (None, own) and (wanted is None or not file.classes or file.classes[: len(wanted)] == (*wanted,))
    graph = load(settled(Path(name)), None if keeps else classes, size, file.pixels)
    graph.origin = graph.origin if keeps else ""
    return graph


def by_names(file: Saved, dataset: data.Dataset, classes: int | None, seed: int) -> Graph:
    """The net of a file of ours for a data set, its classifier's rows by the names of the classes.

    A file that names none, as those of earlier versions, keeps its rows where it has as many classes.
    """
    own, wanted, (height, width, channels) = file.own_classes, dataset.classes, dataset.x_train.shape[1:]
    if (made := file.made) and made.channels not in (None, channels):
        raise Malformed(f"{file.path} takes maps with C={made.channels}, but {dataset.name} has C={channels}")
    outputs = classes or (max(own, len(wanted)) if file.whole else len(wanted))
    graph = file.graph(outputs, (height, width), channels)
    if len(file.classes) != own:
        graph.classes = (*wanted, *[None] * (outputs - len(wanted)))
        start_small(graph)
        return graph
    match = labels.matched(file.classes, wanted, outputs)
    if file.whole and not set(wanted) <= set(file.classes):
        raise Malformed(
            f"{file.path} holds whole numbers that were found for the classes {labels.listed(file.classes)}, but "
            f"{dataset.name} has {labels.listed(wanted)}: a new classifier needs a net of floats"
        )
    labels.with_rows(graph, dict(file.weights), match, seed)
    graph.origin = match.told and f"pre-trained; {match.told}"
    return graph


def taking(graph: Graph, name: str, asked: str | None) -> Graph:
    """The graph of a model, which takes for pixels what `--pixels` asks for where the model itself does not say.

    Malformed where that is no range, is not of its channels, or the model says that it takes something else.
    """
    if (pixels := options.pixels(asked)) is None:
        return graph
    if graph.channels not in IMAGE_CHANNELS:
        raise Malformed(f"--pixels is of nets of pixels, of 1 or 3 channels, but {name} takes C={graph.channels}")
    if not suit(*pixels, graph.channels):
        raise Malformed(f"--pixels {asked} is of {len(each(pixels[0]))} channels, but {name} takes C={graph.channels}")
    made = saved(name).made if describes_itself(name) else None
    if made and made.mean:
        raise Malformed(f"--pixels is of nets of pixels, but {name} takes numbers that it standardises")
    if (says_pixels(name) or graph.tensors[graph.inputs[0]].dtype is not None) and pixels != graph.pixels:
        takes = words(*graph.pixels)
        raise Malformed(f"--pixels {asked} is not what {name} takes, which is {takes}: leave --pixels out")
    graph.pixels = pixels
    return graph


def says_pixels(name: str) -> bool:
    """Does a model say what it takes for pixels? One of another program does where a run of ours wrote it."""
    if name.endswith(".npz"):
        return holds_whole(name) or weight_files.of_arrays(read_npz(name), name).fit.layout.pixels is None
    if not describes_itself(name):
        return True
    file = saved(name)
    return file.pixels is not None or not file.other


def assumed(graph: Graph, name: str, asked: str | None) -> tuple[str, ...]:
    """A sentence about what is taken for pixels where neither the model nor --pixels says it."""
    if asked is not None or says_pixels(name) or graph.tensors[graph.inputs[0]].dtype is not None:
        return ()
    most = "imagenet, as most nets of photographs take it, or --pixels " if graph.channels == 3 else ""
    return (
        f"{Path(name).name} does not say what it takes for pixels: {words(*graph.pixels)} is assumed, --pixels "
        f"{most}LOW,HIGH says otherwise",
    )


def pixel_range(graph: Graph, name: str, asked: str | None = None) -> tuple[Level, Level] | None:
    """What a net that was trained takes for pixels of 0 and of 255; None where it takes none, or that is not known.

    asked: by --pixels.
    """
    if not graph.weights or graph.channels not in IMAGE_CHANNELS:
        return None
    if asked is None and describes_itself(name) and saved(name).pixels is None:
        return None
    return graph.pixels


def origin(graph: Graph) -> str:
    """Where the first weights of a graph are from, in words."""
    if graph.origin:
        return graph.origin
    missing = [name for name in graph.parameters if name not in graph.weights]
    if not missing:
        return "pre-trained"
    return f"pre-trained but for {', '.join(missing)}, which are random" if graph.weights else RANDOM


def without_weights(name: str, dataset: str) -> str:
    """The sentence about a net that has nothing to adapt: where weights are to be had, and how it trains without."""
    scratch = f"--from-scratch trains {name} from random weights"
    if name in PACKAGES:
        return (
            f"{name} would begin with random weights: those of ImageNet are in a package that is not installed, pip "
            f"install 'gradledger[weights]'; {scratch}"
        )
    own = f"has weights for the watch recordings only, and for {dataset} random ones" if name == "watch" else (
        "comes without weights, and would begin with random ones"
    )  # fmt: skip
    return (
        f"{name} {own}: give a net that was trained, --model efficientnet_lite0 for pictures (ImageNet's weights, pip "
        f"install 'gradledger[weights]') or a file ({FILES}); {scratch}"
    )


def stays_whole(name: str, asked: bool, quantizes: bool) -> bool:
    """Is the net of a file to stay one of whole numbers? asked: by --whole; quantizes: does the step train such nets?

    Malformed where --whole is given for what is no file of a quantized net.
    """
    if not name.endswith((".npz", ONNX, LITE)):
        if asked:
            raise Malformed(
                f"--whole trains a quantized net in its own whole numbers, of a .npz, an ONNX model or one of "
                f"TensorFlow Lite, but --model is {name}"
            )
        return False
    if name.endswith(".npz"):
        return asked or (quantizes and holds_whole(name))
    if not asked and not quantizes:
        return False
    quantized = quantized_file(name)
    if asked and not quantized:
        raise Malformed(f"--whole trains a quantized net in its own whole numbers, but {name} holds floats")
    return quantized


def quantized_file(name: str) -> bool:
    """Is a model of ONNX or TensorFlow Lite a quantized one?"""
    if not name.endswith((ONNX, LITE)):
        return False
    holds = holds_quantized if name.endswith(ONNX) else tflite_whole.holds_quantized
    return found_once(settled(Path(name)), name, holds)


def holds_quantized(path: Path, name: str) -> bool:
    """`onnx.holds_quantized`, of a file by its name."""
    return onnx.holds_quantized(path)


def described(name: str, classes: int | None, size: tuple[int, int] | None, whole: bool = False) -> Graph:
    """The graph of a model before any data: by name, or as a file describes it; None takes its own value.

    whole: as `pretrained` has it. Raises ModelError, CheckpointError, Malformed like `pretrained`.
    """
    if name.endswith(".npz"):
        return load_npz(name, classes, size, whole)
    if not is_file(name):
        return models.build(name, classes=classes, size=size)
    return whole_for(name, None, classes, size) if whole else saved(name).graph(classes, size)


def own_size(name: str) -> tuple[int, int] | None:
    """The size that a net's weights were trained for; None for a net without weights of its own, which takes any."""
    if name.endswith(".npz"):
        return load_npz(name).size
    if name in PACKAGES:
        return models.build(name).size
    return saved(name).size if is_file(name) else None


def stretched(size: tuple[int, int] | None, name: str, source: str) -> tuple[int, int] | None:
    """The size for the samples of a source: as given, else that of the net where images are stretched to any."""
    return size or (own_size(name) if data.stretches(source) else None)


def results(name: str, weights: int) -> int:
    """Bytes of the weights that a run writes in the end, of `weights` bytes: once more where an ONNX model came."""
    return weights * (2 if name.endswith(ONNX) else 1)


def is_file(name: str) -> bool:
    """Does a model's name mean a file, of ours or a `.npz`, or a run's folder, unless that is called as a model?"""
    return (
        name.endswith(SUFFIXES) or Path(name).is_file() or name not in models.MODELS and settled(Path(name)).is_file()
    )


def describes_itself(name: str) -> bool:
    """Is it a file that `saved` reads?"""
    return is_file(name) and not name.endswith(".npz")


T = TypeVar("T")
KEPT: ContextVar[dict[tuple, Any] | None] = ContextVar("KEPT", default=None)  # what was found of files in a block


@contextmanager
def read_once() -> Iterator[None]:
    """A block in which `saved` and `quantized_file` read a file once, however often; arrays of it are not written to.

    At the end of the outermost one what was found is let go.
    """
    if KEPT.get() is not None:
        yield
        return
    before = KEPT.set({})
    try:
        yield
    finally:
        KEPT.reset(before)


def saved(name: str | os.PathLike) -> Saved:
    """A file of ours, or an ONNX model, as it describes itself; where a crash may have left it (`run_folder`)."""
    path = settled(Path(name))
    return found_once(path, str(name), reader.described)


def found_once(path: Path, name: str, find: Callable[[Path, str], T]) -> T:
    """find(path, name); within `read_once` what it found before, while the file is the same."""
    kept = KEPT.get()
    if kept is None or not path.is_file():
        return find(path, name)
    is_now = path.stat()
    key = (find, name, path, is_now.st_ino, is_now.st_size, is_now.st_mtime_ns)
    if key not in kept:
        kept[key] = find(path, name)
    return kept[key]
