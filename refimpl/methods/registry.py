"""What each method states of itself, and the list of all methods: the modules of this folder and those registered.

A method is a class with `method`, its name as `--method` takes it, and `states`, a `Statement`. The command line, the
table of combinations, the advice and its plots, the tables of the docs, calibration and the drawn tests read these.

A class may also have `drawn(pick, other)`, which makes one with drawn settings for the drawn nets of the tests
(`validation.instruments.drawn_nets`): `pick(low, high)` draws a whole number, `other(outputs)` a small net with the
same input for a method that has a net of its own. Without it, the defaults are taken.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..graph import Graph

KINDS = ("plain", "instances", "rule", "bias", "depth", "step")
ONE_CHOICE = "both choose which instances train"  # why what enters a step combines with no other such choice
JUDGED_WHOLE = (  # why a choice by losses combines with no choice of blocks
    "it judges instances by the net in inference mode, whose branches then need a scale that training lacks"
)
TRAITS = (  # what a method is to others beside its kind
    "prunes",  # its gradients know some output channels alone
    "filters",  # its gradients are computed on means of the maps
)
Pick = Callable[[int, int], int]  # a whole number from the first to the second, drawn
Other = Callable[[int], "Graph"]  # a drawn net of so many outputs
LAYERS = "layers"  # a setting of a method that is none of its class, but the plan's `train_last`


@dataclass(frozen=True)
class Grid:
    """What the advice searches of a method: the values of a setting, with which it is exact at `exact`."""

    setting: str | None = None
    values: tuple = (None,)
    exact: float | None = None


@dataclass(frozen=True)
class Tried:
    """With which settings a method is tried and measured.

    small: on a few samples, where its defaults would leave too little to do. timed: those at which `calibrate` times
    the kernels of a rule or a step. variants: cases of `validation.instruments.snapshot` beside the one of its
    defaults: what their names add to its own → its settings, and those of the Plan. few: its variants and its
    combinations with other methods are cases on a few nets alone, for they are many.
    """

    small: Mapping[str, object] = field(default_factory=dict)
    timed: Sequence[Mapping[str, object]] = ()
    variants: Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]] = field(default_factory=dict)
    few: bool = False


@dataclass(frozen=True)
class Statement:
    """What a method says of itself.

    kind: where a Plan takes it: "instances" (what enters a step), "rule" (of gradients), "depth" (which blocks), "bias"
    (its bias_only), "step" (how a step is made; a command gives it its optimizer) or "plain" (none). place: in lists,
    small ones first. help: its part of the help of `--method`. settings: name → int, float or a tuple of words. traits:
    which of TRAITS it has. combines, refuses: name, trait or kind of another method → what the two do together, or why
    not; one of the two says it, a name goes before a trait, that before a kind, and a refusal before the other.
    plain_sgd: why it takes no optimizer with state; None where it takes any. momentum: of a command's optimizer unless
    asked; None: as for any other method. rate: factor on a command's own learning rate, which falls
    with the root of the weights that train where these are more than rate_weights. at_most: the most last
    convolutions that train unless somebody asks for more, and why; None: all. norms: can batch norms train with it, on
    statistics of the batch? fitted: the setting, a share, that
    `cost --fit` chooses for a memory limit, with the number of layers. grid: for the advice; None: not searched. mark:
    of the advice's plot. tried: settings of checks and measurements. ValueError for another kind or trait, or a grid
    without a mark.
    """

    kind: str
    place: int
    help: str
    settings: Mapping[str, object] = field(default_factory=dict)
    combines: Mapping[str, str] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)
    traits: tuple[str, ...] = ()
    plain_sgd: str | None = None
    momentum: float | None = None
    rate: float = 1.0
    rate_weights: int | None = None
    grid: Grid | None = None
    mark: str | None = None
    at_most: tuple[int, str] | None = None
    norms: bool = True
    fitted: str | None = None
    tried: Tried = Tried()

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"the kind of a method must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if unknown := set(self.traits) - set(TRAITS):
            raise ValueError(f"the traits of a method are of {', '.join(TRAITS)}, got {min(unknown)!r}")
        if (self.grid is None) != (self.mark is None):
            raise ValueError("a method that states a grid for the advice needs a mark in its plot, and no other does")


_registered: dict[str, type[Any]] = {}


def register_method(found: type[Any]) -> type[Any]:
    """Add a method to the list, also as a decorator of its class.

    ValueError where its name is taken, or where it states settings that it does not have.
    """
    for needed in ("method", "states"):
        if not hasattr(found, needed):
            raise ValueError(f"the class {found.__name__} must have {needed} to be a method")
    if _registered.get(found.method, found) is not found:
        raise ValueError(f"the method {found.method} is registered twice: give one of them another name")
    fields = {f.name for f in dataclasses.fields(found)} if dataclasses.is_dataclass(found) else set()
    states: Statement = found.states
    searched = {states.grid.setting} - {None} if states.grid else set()
    for what, names, possible in (
        ("settings", {*states.settings}, fields | {LAYERS}),
        ("priced", {*getattr(found, "priced", ())}, fields),
        ("the grid", searched, {*states.settings}),
    ):
        if unknown := names - possible:
            known_ones = ", ".join(sorted(possible)) or "there are none"
            raise ValueError(f"{what} of the method {found.method} must be of {known_ones}, got {min(unknown)!r}")
    _registered[found.method] = found
    return found


def forget_method(name: str) -> None:
    """Take a method off the list; KeyError where it is not there."""
    del _registered[name]


@cache
def _load_folder() -> None:
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        importlib.import_module(f"{__package__}.{module.name}")


def known() -> dict[str, type[Any]]:
    """Every method, name → class, in the order of their places."""
    _load_folder()
    return dict(sorted(_registered.items(), key=lambda item: item[1].states.place))


def fitted() -> tuple[str, ...]:
    """Names of the methods that state a share to be chosen for a memory limit."""
    return tuple(name for name, found in known().items() if found.states.fitted)


def of_kind(kind: str) -> tuple[str, ...]:
    """Names of the methods of a kind."""
    return tuple(name for name, found in known().items() if found.states.kind == kind)
