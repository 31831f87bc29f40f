"""Which of our nets the arrays of another program are, told by their names and shapes.

A layout is how one program names and turns the arrays of some of our nets. Each net of each layout whose first kernel
is there is built with the classes, channels and width that the arrays have, and compared with them name by name: what
is missing, what is not expected, what has another shape. The net with the fewest differences is the one; without any,
or where only the classifier is missing, the arrays fit it.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..data.pixels import IMAGENET, Level
from ..graph import Graph
from ..models import MOST, ModelError, build
from ..models.mobilenet_v2 import width_of
from ..storage.checkpoint import CheckpointError, check_floats
from ..storage.files import quoted
from . import keras_names, torch_names
from .efficientnet_names import efficientnet_names
from .timm_names import timm_names

SIZES = ((224, 224), (32, 32), (28, 28))  # at which a layer behind flattened maps is tried
LEAST = 0.5  # share of a net's arrays that must be there for it to be the nearest one
SHOWN = 3  # arrays that a sentence names of each kind
COUNTS = "num_batches_tracked"  # of PyTorch's batch norms: how often, which nothing here needs
LENETS = ("lenet5", "lenet", "slim_lenet")
CIFAR_NETS = ("resnet8", "resnet20", "resnet74", "resnet110")
SIGNED = (-1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Layout:
    """How a program names and turns the arrays of nets. models: names; first: the first kernel of all of them.

    names: our parameter → the program's name. shape, turned: of a graph, a parameter and, for `turned`, its array: the
    program's shape, and our array of the program's. options: of `models.build`. pixels: what such nets mostly take for
    black and white, None for those of the graph. told: a sentence about what is assumed.
    """

    program: str
    first: str
    models: tuple[str, ...]
    names: Callable[[Graph], dict[str, str]]
    shape: Callable[[Graph, str], tuple[int, ...]] = torch_names.torch_shape
    turned: Callable[[Graph, str, np.ndarray], np.ndarray] = torch_names.from_torch_layout
    options: Mapping[str, str] = field(default_factory=dict)
    pixels: tuple[Level, Level] | None = None
    told: str = ""


def _from_keras(graph: Graph, parameter: str, array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(graph.parameters[parameter].shape)


KERAS: dict = {"shape": keras_names.keras_shape, "turned": _from_keras, "options": {"variant": "keras"}}
LITE = (
    "timm's tf_efficientnet_lite0 is taken, whose maps are padded as TensorFlow does; of its efficientnet_lite0, which "
    "has the same arrays, outputs would differ a little"
)
OURS = torch_names.torch_names
LAYOUTS = (
    Layout("torchvision", "features.0.0.weight", ("mobilenet_v2",), OURS, pixels=IMAGENET),
    Layout("torchvision", "conv1.weight", ("resnet18", "resnet34"), OURS, pixels=IMAGENET),
    Layout("PyTorch", "conv1.weight", LENETS + CIFAR_NETS, OURS),
    Layout("PyTorch", "conv1_1.weight", ("vgg11", "vgg16"), OURS),
    Layout("timm", "conv_stem.weight", ("mobilenet_v2",), timm_names, pixels=IMAGENET),
    Layout("timm", "conv_stem.weight", ("efficientnet_lite0",), timm_names, pixels=SIGNED, told=LITE),
    Layout("efficientnet-lite0-pytorch", "_conv_stem.weight", ("efficientnet_lite0",), efficientnet_names),
    Layout("Keras", "Conv1.kernel", ("mobilenet_v2",), keras_names.keras_names, **KERAS),
    Layout("Keras", "conv2d.0", ("mobilenet_v2",), keras_names.counted_names, **KERAS),
)


@dataclass(frozen=True, eq=False)
class Mismatched:
    """An array of another shape than the net needs."""

    name: str
    shape: tuple[int, ...]
    wanted: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Fit:
    """Arrays beside the net that is nearest to them.

    graph: the net, without weights; names: its parameter → the arrays' name. missing, unexpected: names of arrays.
    headless: is nothing missing but the classifier, which starts anew?
    """

    layout: Layout
    graph: Graph
    names: Mapping[str, str]
    arrays: Mapping[str, np.ndarray]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[Mismatched, ...]
    headless: bool

    @property
    def fits(self) -> bool:
        """Can the net take the arrays?"""
        return not (self.unexpected or self.mismatched or self.missing and not self.headless)

    @property
    def differences(self) -> int:
        """How many arrays differ."""
        return len(self.missing) + len(self.unexpected) + len(self.mismatched)

    @property
    def near(self) -> bool:
        """Are enough of the net's arrays there?"""
        return len(self.names) - len(self.missing) - len(self.mismatched) >= LEAST * len(self.names)

    @property
    def classes(self) -> int | None:
        """How many classes the arrays tell apart; None without a classifier."""
        return None if self.headless else self.graph.shape(self.graph.output)[-1]

    @property
    def pixels(self) -> tuple[Level, Level]:
        """What such a net mostly takes for pixels of 0 and of 255."""
        known = self.layout.pixels
        return self.graph.pixels if known is None or known == IMAGENET and self.graph.channels != 3 else known

    @property
    def net(self) -> str:
        """The net in words: `mobilenet_v2 of torchvision, width 0.35, 7 classes`."""
        width = self.graph.options.get("width")
        return (
            f"{self.graph.name} of {self.layout.program}" + (f", width {width:g}" if width else "")
            + (", without a classifier" if self.headless else f", {self.classes} classes")
        )  # fmt: skip

    def sentence(self, what: str) -> str:
        """What differs, in one sentence. what: the file."""
        parts, shape = [], self.layout.shape
        wanted = {name: shape(self.graph, parameter) for parameter, name in self.names.items()}
        if self.missing:
            of = f" ({len(self.missing)} of {len(self.names)} arrays are missing)"
            parts.append("it lacks " + _listed(f"{n} {wanted[n]}" for n in self.missing) + of)
        if self.mismatched:
            parts.append(_listed(f"{m.name} has shape {m.shape}, but needs {m.wanted}" for m in self.mismatched))
        if self.unexpected:
            others = _listed(f"{quoted(n)} {tuple(self.arrays[n].shape)}" for n in self.unexpected)
            parts.append(f"it has {others}, which the net does not know")
        return f"{what} does not fit {self.net}, which is nearest: {'; '.join(parts)}"

    def weights(self, what: str) -> dict[str, np.ndarray]:
        """Our arrays, float32; CheckpointError where one holds no floats, or such as are not finite. what: the file."""
        theirs = {p: self.arrays[n] for p, n in self.names.items() if n not in self.missing}
        check_floats({self.names[p]: a for p, a in theirs.items()}, what)
        return {p: self.layout.turned(self.graph, p, a.astype(np.float32, copy=False)) for p, a in theirs.items()}


class Misfit(CheckpointError):
    """The arrays are those of no net that is known, or not all of them are; `fit` says how, None where none is near."""

    def __init__(self, message: str, fit: Fit | None):
        super().__init__(message)
        self.fit = fit


def fitted(arrays: Mapping[str, np.ndarray], what: str) -> Fit:
    """The net that the arrays are; Misfit in one sentence where they are none. what: the file, for the sentence."""
    arrays = {name: array for name, array in arrays.items() if not name.endswith(COUNTS)}
    found = None
    for fit in (fit for layout in LAYOUTS for fit in _fits(layout, arrays)):
        if not fit.differences:
            return fit
        if found is None or fit.differences < found.differences:
            found = fit
    if found is None or not found.near:
        nets: dict[str, list[str]] = {}
        for layout in LAYOUTS:
            nets.setdefault(layout.program, []).extend(layout.models)
        known = "; ".join(f"of {program} {', '.join(dict.fromkeys(models))}" for program, models in nets.items())
        shown = ", ".join(quoted(n) for n in itertools.islice(arrays, SHOWN)) or "none"
        raise Misfit(
            f"{what} holds no net that is known by the names of its arrays, whose first are {shown}: export the model "
            f"to ONNX; known are {known}",
            None,
        )
    if not found.fits:
        raise Misfit(found.sentence(what), found)
    return found


def _fits(layout: Layout, arrays: Mapping[str, np.ndarray]) -> Iterator[Fit]:
    """The nets of a layout beside the arrays, each at the sizes that may matter."""
    if layout.first not in arrays:
        return
    for model in layout.models:
        plain = build(model, **layout.options)
        names = layout.names(plain)
        last = names[plain.nodes[-1].params["w"]]
        options: dict = dict(layout.options)
        kernels = layout.shape is torch_names.torch_shape
        if "width" in plain.options:
            axis = 0 if kernels else -1
            blocks = [names[p] for p in plain.parameters if p.endswith(".project.w")]
            channels = [_side(arrays.get(name), axis, 4) or 0 for name in (layout.first, *blocks)]
            options["width"] = width_of(channels[0], channels[1:])
        options["classes"] = _side(arrays.get(last), 0 if kernels else -1, 2)
        options["channels"] = _side(arrays.get(layout.first), 1 if kernels else 2, 4)
        flat = any(node.op == "flatten" for node in plain.nodes)
        sizes = [plain.size, *SIZES] if flat and options["channels"] != 3 else SIZES[1:2] if flat else [plain.size]
        for size in sizes:
            try:
                yield _beside(layout, build(model, size=size, **options), arrays)
            except ModelError:
                continue


def _side(array: np.ndarray | None, axis: int, rank: int) -> int | None:
    """A side of an array; None, which takes the default, where the array is none or its side no number of channels."""
    if array is None or array.ndim != rank or not 0 < array.shape[axis] < MOST:
        return None
    return array.shape[axis]


def _beside(layout: Layout, graph: Graph, arrays: Mapping[str, np.ndarray]) -> Fit:
    names = layout.names(graph)
    wanted = {name: layout.shape(graph, parameter) for parameter, name in names.items()}
    head = {names[p] for p in graph.nodes[-1].params.values()}
    missing = tuple(name for name in wanted if name not in arrays)
    mismatched = tuple(
        Mismatched(name, tuple(arrays[name].shape), shape) for name, shape in wanted.items()
        if name in arrays and tuple(arrays[name].shape) != shape
    )  # fmt: skip
    unexpected = tuple(name for name in arrays if name not in wanted)
    return Fit(layout, graph, names, arrays, missing, unexpected, mismatched, set(missing) == head)


def _listed(words) -> str:
    """The first words, and how many more there are."""
    words = list(words)
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more


__all__ = ["Fit", "Misfit", "fitted"]
