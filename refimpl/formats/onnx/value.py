"""What stands for tensors, parameters and nodes of an ONNX graph while it is read, and what is told of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...graph import Graph
from ...surgery.quantize import MapScale
from . import layout as layouts
from .layout import Layout
from .model_file import ModelFile

MAP = (0, 3, 1, 2)  # our axes, in ONNX's order, of a map (N, C, H, W) → (N, H, W, C)
ROW = (0, 3, 2)  # of a sequence (N, C, T), a map of one row
Sides = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right))
NO_PAD: Sides = ((0, 0), (0, 0))
FLOATS = (1, 10, 11)  # ONNX's numbers of float32, float16 and float64, all of which we compute in float32
TRAINS, FORWARD, MISSING, BEHIND = "trains", "forward only", "missing", "behind a missing one"


class Unsupported(ValueError):
    """A node that cannot be converted: why."""


@dataclass(frozen=True)
class Value:
    """A tensor of the ONNX graph.

    tensor: of ours; own: its shape, without the batch; layout: of its elements. pad: zeros around the map that ours
    lacks, for the convolution that follows.
    """

    tensor: str
    own: tuple[int, ...]
    layout: Layout
    pad: Sides = NO_PAD

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in ONNX's order, at a batch of one."""
        return layouts.shape_of(self.layout)

    @property
    def axes(self) -> tuple[int | layouts.Axis | None, ...]:
        """Of our tensor, one for each of ONNX's, None for an axis of length 1; digits where it is no whole one."""
        return layouts.axes_of(self.layout, self.own)

    def theirs(self, array: np.ndarray) -> np.ndarray:
        """Values of our tensor (N, …) as ONNX has them, where samples are along its first axis."""
        places = layouts.places(self.layout)
        return array.reshape(len(array), -1)[:, places].reshape(-1, *places.shape[1:])

    def ours(self, array: np.ndarray) -> np.ndarray:
        """What `theirs` makes this array of."""
        places = layouts.places(self.layout)
        found = np.empty((array.size // places.size, places.size), array.dtype)
        found[:, places.reshape(-1)] = array.reshape(len(found), -1)
        return found.reshape(-1, *self.own)


@dataclass(frozen=True)
class Stored:
    """Where a parameter is in the ONNX file.

    name: of the constant; node, place: what reads it, by its first output, and as which input; axes: its axes in our
    order; split: its shape before that, where one axis stands for several; factor: ours is so many times it; inverse:
    ours is that of the inverse of each number; shape: of a constant that nodes compute; also: other nodes that read it,
    and as which input.
    """

    name: str
    node: str
    place: int
    axes: tuple[int, ...]
    split: tuple[int, ...] = ()
    factor: float = 1.0
    inverse: bool = False
    shape: tuple[int, ...] = ()
    also: tuple[tuple[str, int], ...] = ()

    @property
    def read(self) -> tuple:
        """How the constant becomes the parameter."""
        return self.axes, self.split, self.factor, self.inverse

    @classmethod
    def of(cls, said: Mapping) -> "Stored":
        """What `Graph.stored` says of a parameter."""
        tuples = {name: tuple(said[name]) for name in ("axes", "split", "shape") if name in said}
        return cls(**{**said, **tuples, "also": tuple((node, place) for node, place in said.get("also", ()))})

    def ours(self, array: np.ndarray) -> np.ndarray:
        """The initializer in our order, with as many axes as it has."""
        found = array.reshape(self.split or array.shape).transpose(self.axes)
        found = 1 / found if self.inverse else found
        return found if self.factor == 1 else found * found.dtype.type(self.factor)

    def theirs(self, array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """What `ours` makes this array of; shape: of the initializer."""
        split = [0] * len(self.axes)
        for own, axis in enumerate(self.axes):
            split[axis] = array.shape[own]
        found = array.transpose(np.argsort(self.axes)).reshape(shape)
        found = found if self.factor == 1 else found / found.dtype.type(self.factor)
        return 1 / found if self.inverse else found


@dataclass(frozen=True)
class Mark:
    """A place where a map becomes whole numbers. scale: by the zero point as the file has it; dtype: of them."""

    scale: MapScale
    dtype: np.dtype


@dataclass
class Told:
    """What became of one node. what: TRAINS, FORWARD, MISSING or BEHIND; why: in words, empty where nothing is to say.

    nodes: of ours that it became.
    """

    name: str
    op: str
    what: str
    why: str = ""
    nodes: tuple[str, ...] = ()


@dataclass
class Imported:
    """What `imported` made of a file. graph, end: None where a node is missing; end stands for the file's output.

    told: of each node that computes something. stored: parameter → where the file has it. folded: nodes that depend on
    no input. notes: in words, for people. marks: our node → which whole numbers the file makes there. constants: what
    depends on no input, by the name of the file.
    """

    file: ModelFile
    graph: Graph | None
    end: Value | None
    told: list[Told]
    stored: Mapping[str, Stored]
    folded: int
    notes: list[str]
    marks: Mapping[str, Mark] = field(default_factory=dict)
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def missing(self) -> list[Told]:
        """The nodes that cannot be converted."""
        return [t for t in self.told if t.what == MISSING]
