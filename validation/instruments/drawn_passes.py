"""Drawn calls of every pass: sizes of any geometry, attributes, optional arrays; for `validation.instruments.drawn`.

A case follows from the pass's name and a seed alone.
"""

import pkgutil
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import numpy as np

import refimpl.methods
from refimpl.kernels.geometry import out_size
from refimpl.kernels.passes import Pass, dtypes_of
from refimpl.methods.registry import known
from refimpl.ops import operator_module, operators, passes_of

Pick = Callable[[int, int], int]  # a whole number from the first to the second


def picker(name: str, seed: int) -> Pick:
    """What draws the whole numbers of a case; the same for the same name and seed everywhere."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return lambda low, high: int(rng.integers(low, high + 1))


def passes() -> dict[str, Pass]:
    """Every pass of the operators and of the methods by its name, `operator.pass`, those of other packages included.

    The passes of the methods follow those of the operators.
    """
    modules = (*map(operator_module, operators()), *_methods())
    return {str(p): p for module in modules for p in passes_of(module).values()}


def _methods() -> list[ModuleType]:
    """The files of methods: every one of `refimpl.methods`, then those of registered classes."""
    rooms = [f"refimpl.methods.{module.name}" for module in pkgutil.iter_modules(refimpl.methods.__path__)]
    return [import_module(name) for name in dict.fromkeys([*rooms, *(m.__module__ for m in known().values())])]


@dataclass(frozen=True)
class PassCase:
    """One call of a pass: letters, canonical attributes, optional arrays that are given, dtypes of those of several."""

    passed: Pass
    sizes: dict[str, int]
    attrs: dict
    present: tuple[str, ...]
    dtypes: dict[str, np.dtype]

    def __str__(self) -> str:
        given = [f"{k}={v}" for k, v in sorted(self.sizes.items())]
        given += [f"{a}={v}" for a, v in self.attrs.items()] + [f"with {a}" for a in self.present]
        given += [f"{a} of {dtype}" for a, dtype in self.dtypes.items()]
        return f"{self.passed}({', '.join(given)})"


def pass_case(name: str, seed: int) -> PassCase:
    """The case of a pass for a seed; KeyError for an unknown pass."""
    found = passes()
    if name not in found:
        raise KeyError(f"there is no pass {name!r} of an operator or a method, here or registered")
    passed, pick = found[name], picker(name, seed)
    large = not pick(0, 7)  # one in eight has the sizes of real layers
    letters, given = getattr(sys.modules[passed.body.__module__], "drawn", alphabet)(pick, large)
    attrs = passed.attrs({a: given[a] if a in given else setting(a, d, pick) for a, d in passed.attributes.items()})
    sizes = {d: letters[d] if d in letters else pick(1, most(large)) for d in sorted(passed.letters())}
    if passed.derive:
        sizes |= passed.derive(sizes, attrs)
    present = tuple(sorted(a for a in passed.optional if pick(0, 1)))
    dtypes = {a: dtypes_of(passed.shapes[a]) for a in passed.arrays if a not in passed.like}
    chosen = {a: several[pick(0, len(several) - 1)] for a, several in dtypes.items() if len(several) > 1}
    chosen |= {a: chosen[other] for a, other in passed.like.items() if other in chosen}
    return PassCase(passed, {d: n for d, n in sizes.items() if d in passed.letters()}, attrs, present, chosen)


def most(large: bool) -> int:
    """Most elements along a letter that is free."""
    return 4096 if large else 40


def alphabet(pick: Pick, large: bool) -> tuple[dict[str, int], dict]:
    """Letters and attributes that fit together, where the file of a pass has no `drawn` of its own."""
    letters, given = convolution(pick, large)
    letters |= {"E": pick(1, most(large)), "D": pick(1, most(large)), "J": pick(1, 40)}
    return letters | {"B": letters["N"] + pick(0, 3), "L": pick(1, letters["K"]), "M": pick(1, letters["C"])}, given


def convolution(pick: Pick, large: bool) -> tuple[dict[str, int], dict]:
    """Letters and attributes of a convolution of any geometry, of its patches too."""
    window, stride, dilation = ((pick(1, 3), pick(1, 3)) for _ in range(3))
    pad = tuple((pick(0, 2), pick(0, 2)) for _ in range(2))
    room = 20 if large else 6
    least = [max(1, dilation[i] * (window[i] - 1) + 1 - sum(pad[i])) for i in range(2)]
    size = [n + pick(0, room) for n in least]
    out = [out_size(size[i], window[i], stride[i], dilation[i], pad[i]) for i in range(2)]
    patch = (pick(1, 4), pick(1, 4))
    most = 96 if large else 4
    groups = (1, pick(1, most))[pick(0, 1)]
    depth, width = ((pick(1, most), pick(1, most)), (1, 1))[pick(0, 1)]  # (1, 1) with groups: depthwise
    letters = {
        "N": pick(1, 32 if large else 3), "H": size[0], "W": size[1], "C": groups * depth, "K": groups * width,
        "R": window[0], "S": window[1], "P": out[0], "Q": out[1], "G": groups,
        "U": -(-out[0] // patch[0]), "V": -(-out[1] // patch[1]),
    }  # fmt: skip
    return letters, {"stride": stride, "dilation": dilation, "pad": pad, "patch": patch}


def setting(name: str, default, pick: Pick):
    """A value of an attribute that is no geometry: a share is 0 half of the time, for there formulas turn.

    A whole number whose default is above 0 is too.
    """
    if isinstance(default, bool):
        return bool(pick(0, 1))
    if isinstance(default, float):
        return pick(0, 1) * pick(1, 99) / 100
    if isinstance(default, tuple):
        return tuple(pick(1, 3) for _ in default)
    return pick(1, 4) if default > 0 else pick(0, 1)
