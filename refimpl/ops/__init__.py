"""Operators, one a file: the equations, SHAPES, and one pass for the forward result and for each gradient.

An operator is a module of this package, or one of another that is registered. Beside its passes it may state INPUTS
(default `("x",)`; a last one with a star, `("x*",)`, stands for any number of inputs x0, x1, …), OUTPUTS (default
`("y",)`), PARAMS (trainable arrays), STATE (arrays that training updates without a gradient, such as running
statistics) and ALIASES (arrays that are another one under a new shape). One of several inputs has a function
`bind(inputs)` that says how its passes work on them.

TANGENT says how the derivative of its output along a direction, the tangent ty, follows from those of its inputs and
PARAMS, tx, tw, …: ty is the sum of the terms that TANGENT lists. A term is the name of a tangent, a pass that writes
ty, or, where an existing pass is the same linear map, that pass bound to other arrays, as forward to tx in the place
of x. It is left out where a tangent that it needs is zero, which is to say, absent; an optional one is taken by the
first term that can. A pass that writes another array is for what a term reads. A loss states tloss.

STOPS names inputs at which gradients stop, since the output does not follow small changes of them, as that of a
rounding does not: no pass gives their gradient, no tangent goes through them, and what lies before them alone is
frozen.

What else it may state, for a step: `variant(training, statistics)`, the operator that stands for it in a step that
trains or only infers, with or without the statistics of the batch; HOST, arrays that the host fills before a step, each
with what it holds ("update", the number of the update from 1, or "seed"); STREAM, the first of the random streams of
its nodes, whose attribute `stream` is that plus the node's place; STATISTICS, the letters that statistics of the batch
run over, of which a step that trains needs more than one value.

For plans, methods and surgery, which ask no operator for its name:
TRAINS, when its PARAMS train; there is none without it.
    "always"      as a classifier does, whatever the plan
    "counted"     if it is among the last that `Plan.train_last` counts; the rules of a plan are for such layers
    "behind"      if it stands behind a counted one that trains, so that its gradient lies on the way
    "statistics"  if the plan trains with the statistics of the batch
BIAS, the one of PARAMS that is added to the output, which a plan can train or leave by itself.
SCALES, the PARAMS that all together multiply the output by a factor when they are multiplied by it.
CHANNELS, what the channels of the output (its last axis) are; without it nothing can be pruned around it.
    "kept"        those of every input, in their order; its parameters have them along their axis 0
    "made"        new ones, the last axis of `w`, from those of the input, the axis before
    "flattened"   each channel of a map at every pixel

Of a loss: `measures(output, y, ignored)`, what outputs are worth beside labels or targets, by name, the main one first.

For tests: `drawn(pick, large)`, letter sizes and attributes of a call, where the passes do not take just any;
`pick(low, high)` draws a whole number, `large` asks for the sizes of real layers (`validation.instruments`).
`drawn_in(graph, pick, name, x)` adds a node to a drawn net and gives its output.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from types import ModuleType

from ..kernels.passes import Binding, Bound, Pass, ShapeError


@dataclass(frozen=True)
class Operator:
    """What an operator's module offers: its passes, by what they write, and what it states of itself."""

    name: str
    shapes: Mapping[str, str]
    inputs: tuple[str, ...]
    params: tuple[str, ...]
    state: tuple[str, ...]
    aliases: Mapping[str, str]
    passes: Mapping[str, Pass]  # pass name → pass
    derive: Callable[[dict, Mapping], dict] | None
    tangent: tuple[str | Bound, ...] = ()
    shared: tuple[Bound, ...] = ()  # passes of other files
    outputs: tuple[str, ...] = ("y",)
    bind: Callable[[Sequence], Binding] | None = None  # of an operator of any number of inputs
    variant: Callable[[bool, bool], str] | None = None
    host: Mapping[str, str] = field(default_factory=dict)
    stream: int | None = None
    statistics: tuple[str, ...] = ()
    trains: str | None = None
    stops: tuple[str, ...] = ()
    bias: str | None = None
    scales: tuple[str, ...] = ()
    channels: str | None = None

    def locals(self, count: int) -> tuple[str, ...]:
        """The operator's names of `count` inputs; ShapeError where it takes another number."""
        fixed = tuple(name for name in self.inputs if not name.endswith("*"))
        several = [name.removesuffix("*") for name in self.inputs if name.endswith("*")]
        rest = count - len(fixed)
        if rest < len(several) or rest and not several:
            least = f"at least {len(fixed) + 1}" if several else f"{len(fixed)}"
            what = "input" if least.endswith("1") else "inputs"
            raise ShapeError(f"{self.name} takes {least} {what}, got {count}")
        return fixed + tuple(f"{several[0]}{i}" for i in range(rest))

    def writer(self, array: str) -> Pass | None:
        """The pass that computes `array`."""
        return next((p for p in self.passes.values() if array in p.writes and array not in p.inplace), None)

    @property
    def is_sum(self) -> bool:
        """Is its output the sum of its two inputs? Then the gradient of both is that of the output."""
        return len(self.inputs) == 2 and all(self.aliases.get(f"d{local}") == "dy" for local in self.inputs)

    @cached_property
    def bound(self) -> list[Bound]:
        """Its passes on a node's own arrays, and those of other files."""
        return [*map(Bound, self.passes.values()), *self.shared]

    @cached_property
    def defaults(self) -> dict[str, object]:
        """Default of every attribute of its passes: that of the first pass that has it."""
        return {a: v for p in reversed(list(self.passes.values())) for a, v in p.attributes.items()}


def passes_of(module: ModuleType) -> dict[str, Pass]:
    """The passes that a module declares, by name, in the order of its text."""
    return {name: p for name, p in vars(module).items() if isinstance(p, Pass) and p.body.__module__ == module.__name__}


TRAINS = ("always", "counted", "behind", "statistics")
CHANNELS = ("kept", "made", "flattened")
_REGISTERED: dict[str, ModuleType] = {}  # operators of other packages


def register_operator(module: ModuleType) -> None:
    """Let graphs use the operator of a module under the module's own name; ValueError where there is such a one."""
    name = module.__name__.rpartition(".")[2]
    if _REGISTERED.get(name, module) is not module or importlib.util.find_spec(f"{__name__}.{name}"):
        raise ValueError(f"there is an operator {name!r} already: give the file of yours another name")
    _REGISTERED[name] = module


def forget_operator(name: str) -> None:
    """Take a registered operator away again; KeyError where there is none of the name."""
    del _REGISTERED[name]
    operator.cache_clear()


def operators() -> list[str]:
    """Names of all operators, those of other packages included."""
    return sorted({*_REGISTERED, *(module.name for module in pkgutil.iter_modules(__path__))})


def operator_module(name: str) -> ModuleType:
    """The file of an operator, `refimpl/ops/NAME.py` or a registered one; KeyError where there is none."""
    try:
        return _REGISTERED.get(name) or importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as e:
        raise KeyError(f"there is no operator {name!r} in {__name__}, nor a registered one") from e


def tangent_terms(stated: Sequence[str | Pass | Bound]) -> tuple[str | Bound, ...]:
    """What TANGENT states, a pass on the node's own arrays as one that is bound."""
    return tuple(Bound(term) if isinstance(term, Pass) else term for term in stated)


@cache
def operator(name: str) -> Operator:
    """The operator of `operator_module`; ValueError where it states what there is not."""
    module = operator_module(name)
    passes = passes_of(module)
    derive = getattr(module, "derive", None) or next((p.derive for p in passes.values() if "y" in p.writes), None)
    declared = Operator(
        name=name,
        shapes=module.SHAPES,
        inputs=getattr(module, "INPUTS", ("x",)),
        params=getattr(module, "PARAMS", ()),
        state=getattr(module, "STATE", ()),
        aliases=getattr(module, "ALIASES", {}),
        passes=passes,
        derive=derive,
        tangent=tangent_terms(getattr(module, "TANGENT", ())),
        shared=tuple(getattr(module, "BOUND", ())),
        outputs=getattr(module, "OUTPUTS", ("y",)),
        bind=getattr(module, "bind", None),
        variant=getattr(module, "variant", None),
        host=getattr(module, "HOST", {}),
        stream=getattr(module, "STREAM", None),
        statistics=getattr(module, "STATISTICS", ()),
        trains=getattr(module, "TRAINS", None),
        stops=getattr(module, "STOPS", ()),
        bias=getattr(module, "BIAS", None),
        scales=getattr(module, "SCALES", ()),
        channels=getattr(module, "CHANNELS", None),
    )
    _check_statements(declared)
    return declared


def _check_statements(op: Operator) -> None:
    """ValueError where what an operator states is none of the possible, or is missing."""
    tangents = [f"t{local}" for local in (*op.inputs, *op.params)]
    for term in op.tangent:
        if not isinstance(term, Bound) and term not in tangents:
            wanted = ", ".join(map(repr, tangents))
            raise ValueError(
                f"each of TANGENT of the operator {op.name} must be a pass, a bound one, or {wanted}, got {term!r}"
            )
    for local in op.stops:
        if local not in op.inputs or op.writer(f"d{local}") or f"d{local}" in op.aliases:
            raise ValueError(
                f"each of STOPS of the operator {op.name} must be an input without a gradient, got {local!r}"
            )
    for statement, given, possible in (
        ("TRAINS", op.trains, TRAINS if op.params else (None,)),
        ("CHANNELS", op.channels, (None, *CHANNELS)),
        ("BIAS", op.bias, (None, *op.params)),
        *(("each of SCALES", local, op.params) for local in op.scales),
    ):
        if given not in possible:
            wanted = " or ".join("left out" if p is None else repr(p) for p in possible) or "one of its PARAMS"
            raise ValueError(f"{statement} of the operator {op.name} must be {wanted}, got {given!r}")
