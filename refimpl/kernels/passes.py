"""A pass: one kernel and what it reads, writes and needs to know, declared once.

From the declaration derive the eager function `forward(x, w, b)`, the call that a Program makes on arena views, the
counted run of `instruments.counting`, and the mirror test with `costmodel`. The body's signature is the declaration:

    @declare(SHAPES, items="N K", writes="y")
    def forward(t, y, x, w, b=None): ...

A parameter named in SHAPES is an array, any other an attribute; a default of None marks an optional array, any other
default the attribute's default and structure. Shapes are letters of one alphabet (N H W C K R S P Q G …), integers or
quotients such as `C/G`; an entry may begin with a dtype (`uint8: N M`), otherwise it has the float dtype of the call.
An array that is read may be of one of several (`int8|int16: D K`): each call is compiled for the one that it gets.
A `*` behind a letter lets it stand for any number of axes, merged into one for the body: `N E*` fits maps (N, H, W, C)
and features (N, D) alike, seen as (N, E), E elements a sample; `N* D` fits rows of any number of axes before the last.

An array whose elements a body uses as indices is declared with the letter that they must lie below (`indices`): a body
cannot refuse a number, and one out of range is an access outside memory.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from . import cuda
from .kernel import Kernel
from .traced import Traced


class ShapeError(ValueError):
    """An array does not have the shape that its operator declares."""


def dims(entry: str) -> list[str]:
    """Dimensions of a SHAPES entry: `"uint8: N M"` gives `["N", "M"]`, `"N E*"` gives `["N", "E"]`."""
    return entry.split(":")[-1].replace("*", "").split()


def span(entry: str, rank: int) -> slice | None:
    """The axes of an array of `rank` axes that the starred letter of an entry takes; None where none is or can be."""
    tokens = entry.split(":")[-1].split()
    at = next((i for i, token in enumerate(tokens) if token.endswith("*")), None)
    if at is None or rank < len(tokens) - 1:
        return None
    return slice(at, at + rank - len(tokens) + 1)


def merged(entry: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a body sees: the starred letter of an entry such as `N E*` takes all the axes that it spans."""
    axes = span(entry, len(shape))
    if axes is None:
        return tuple(shape)
    return (*shape[: axes.start], math.prod(shape[axes]), *shape[axes.stop :])


def starred(shapes: Mapping[str, str]) -> set[str]:
    """The letters that stand for any number of axes in some of the entries."""
    tokens = (token for entry in shapes.values() for token in entry.split(":")[-1].split())
    return {token.removesuffix("*") for token in tokens if token.endswith("*")}


def starred_axes(shapes: Mapping[str, str], arrays: Mapping) -> dict[str, tuple[int, ...]]:
    """Starred letter → the axes that it stands for in `arrays`; ShapeError where two of them disagree."""
    spanned: dict[str, tuple[int, ...]] = {}
    owner: dict[str, str] = {}
    for name, array in arrays.items():
        if axes := span(shapes[name], len(array.shape)):
            letter, own = dims(shapes[name])[axes.start], tuple(array.shape[axes])
            if spanned.setdefault(letter, own) != own:
                other = arrays[owner[letter]]
                raise ShapeError(f"{name} has shape {tuple(array.shape)}, but {owner[letter]} has {tuple(other.shape)}")
            owner.setdefault(letter, name)
    return spanned


def full_shape(entry: str, sizes: Mapping[str, int], axes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of an array of an entry: the axes of its starred letter, where they are known, and the other sizes."""
    sides: list[int] = []
    for token in entry.split(":")[-1].split():
        letter = token.removesuffix("*")
        sides += axes[letter] if token.endswith("*") and letter in axes else [size_of(letter, sizes)]
    return tuple(sides)


def dtypes_of(entry: str) -> tuple[np.dtype, ...]:
    """The dtypes that a SHAPES entry names; none for the float dtype of the call."""
    return tuple(np.dtype(name) for name in entry.split(":")[0].split("|")) if ":" in entry else ()


def dtype_of(entry: str, float_dtype) -> np.dtype:
    """Dtype of a SHAPES entry: the first that it names, else `float_dtype`."""
    return dtypes_of(entry)[0] if ":" in entry else np.dtype(float_dtype)


def size_of(dim: str, sizes: Mapping[str, int]) -> int:
    """Value of one dimension (`"C"`, `"C/G"`, `"1"`) for the given letter sizes; KeyError where a letter is unknown."""
    if dim.isdigit():
        return int(dim)
    if "/" in dim:
        over, under = dim.split("/")
        if sizes[over] % sizes[under]:
            raise ShapeError(f"{over}={sizes[over]} is not a multiple of {under}={sizes[under]}")
        return sizes[over] // sizes[under]
    return sizes[dim]


def read_sizes(shapes: Mapping[str, str], arrays: Mapping, known: Mapping[str, int] | None = None) -> dict[str, int]:
    """Letter sizes read off `arrays` (name → anything with a `.shape`); ShapeError names the array that disagrees."""
    sizes = dict(known or {})
    owner = dict.fromkeys(sizes, "the call")
    quotients = []
    for name, array in arrays.items():
        letters = dims(shapes[name])
        shape = merged(shapes[name], array.shape)
        if len(shape) != len(letters):
            raise ShapeError(f"{name} must be ({', '.join(letters)}), but its shape is {tuple(array.shape)}")
        for dim, n in zip(letters, shape, strict=True):
            if dim.isdigit():
                if n != int(dim):
                    raise ShapeError(f"{name} has {n} where {dim} is needed: its shape is {tuple(array.shape)}")
            elif "/" in dim:
                quotients.append((name, dim, n))
            elif sizes.setdefault(dim, n) != n:
                raise ShapeError(f"{name} has {dim}={n}, but {owner[dim]} has {dim}={sizes[dim]}")
            else:
                owner.setdefault(dim, name)
    for name, dim, n in quotients:
        over, under = dim.split("/")
        if over in sizes and under not in sizes:
            if n == 0 or sizes[over] % n:
                raise ShapeError(f"{name} has {dim}={n}, which does not divide {over}={sizes[over]} of {owner[over]}")
            sizes[under] = sizes[over] // n
        elif over not in sizes:
            sizes[over] = n * sizes.setdefault(under, 1)
        if over in sizes and size_of(dim, sizes) != n:
            raise ShapeError(f"{name} has {dim}={n}, but {over}={sizes[over]} and {under}={sizes[under]}")
        owner.setdefault(over, name)
        owner.setdefault(under, name)
    return sizes


def canonical(name: str, value, default):
    """Attribute in the structure of its default: `stride=2` becomes `(2, 2)`, `pad=1` becomes `((1, 1), (1, 1))`."""
    if isinstance(default, tuple):
        if not isinstance(value, (tuple, list)):
            value = (value,) * len(default)
        if len(value) != len(default):
            raise ShapeError(f"{name} must have {len(default)} entries like {default}, got {value!r}")
        return tuple(canonical(name, v, d) for v, d in zip(value, default, strict=True))
    if isinstance(value, (tuple, list)):
        raise ShapeError(f"{name} must be like {default}, got {value!r}")
    if isinstance(value, Traced):
        return value
    try:
        converted = type(default)(value)
    except (TypeError, ValueError):
        raise ShapeError(f"{name} must be a number like {default}, got {value!r}") from None
    if isinstance(default, bool) and converted != value:
        raise ShapeError(f"{name} must be True or False, got {value!r}")
    if isinstance(default, int) and converted != value:
        raise ShapeError(f"{name} must be a whole number like {default}, got {value!r}")
    return converted


class Pass:
    """One kernel with its declaration; calling it runs it eagerly on new arrays."""

    def __init__(
        self, body: Callable, shapes: Mapping[str, str], items: str, writes: str, derive, alike, inplace, sums,
        examples, indices, parts, spared, adds, divisors, like,
    ):  # fmt: skip
        self.body, self.shapes, self.items = body, shapes, items.split()
        self.operator = body.__module__.rsplit(".", 1)[-1]
        self.name = body.__name__
        self.kernel = Kernel(body)
        self.derive = derive
        self.alike = alike or {}
        self.sums, self.adds = sums.split(), adds.split()
        self.divisors: Mapping[str, Callable] = divisors or {}
        self.examples = examples or {}
        self.indices: Mapping[str, str] = indices or {}
        self.spared: Mapping[str, str] = spared or {}
        self.like: Mapping[str, str] = like or {}
        parameters = list(inspect.signature(body).parameters.values())[1:]
        self.arrays = [p.name for p in parameters if p.name in shapes]
        self.optional = {p.name for p in parameters if p.name in shapes and p.default is None}
        self.attributes = {p.name: p.default for p in parameters if p.name not in shapes}
        self.writes = writes.split()
        if absent := [a for a in self.writes if a not in self.arrays]:
            raise TypeError(f"{self}: it writes {', '.join(absent)}, which must be among its parameters and in SHAPES")
        told = {letter for a in self.arrays for d in dims(shapes[a]) for letter in d.split("/")}
        if not derive and (untold := self.letters() - told):
            raise TypeError(f"{self}: its items run over {', '.join(sorted(untold))}, a letter of none of its arrays")
        self.inplace = inplace.split()  # written arrays whose old values are read too (parameters, state)
        self.parts = parts.split()  # arrays in place of which a call writes a part; together the calls write them whole
        self.reads = [a for a in self.arrays if a not in self.writes or a in self.inplace]
        self.__doc__ = body.__doc__
        summed = {letter for d in self.sums for letter in d.split("/")[:1]}
        if common := summed & {letter for d in self.items for letter in d.split("/")}:
            raise TypeError(f"{self}: an item cannot stand for one index along {common} and sum over it")
        own = [a for a in self.writes if a not in self.inplace and a not in self.like]
        if several := [a for a in own if len(dtypes_of(shapes[a])) > 1]:
            raise TypeError(f"{self}: it makes {', '.join(several)}, whose entry must name one dtype, not several")
        for a, other in self.like.items():
            if a not in self.writes or other not in self.reads or dtypes_of(shapes[a]) != dtypes_of(shapes[other]):
                raise TypeError(f"{self}: {a} is like {other}: it must write the one, read the other, of equal dtypes")
        if unknown := set(self.adds) - set(self.sums) or self.divisors.keys() - set(self.writes):
            raise TypeError(f"{self}: adds are letters of its sums and divisors are of what it writes: {unknown}")
        for letter in self.adds:
            whole = [a for a in self.reads if letter in dims(shapes[a])]
            beside = [d for a in self.arrays for d in dims(shapes[a]) if "/" in d and letter in d.split("/")]
            if not whole or beside or letter in self.indices.values():
                raise TypeError(f"{self}: no arrays can be cut into slices along {letter}, so it adds nothing along it")
        missing = [a for a, default in self.attributes.items() if default is inspect.Parameter.empty]
        if missing or [p.name for p in parameters] != self.arrays + list(self.attributes):
            raise TypeError(
                f"{self}: arrays come first and are in SHAPES, attributes follow and have defaults: {missing}"
            )

    def __repr__(self) -> str:
        return f"{self.operator}.{self.name}"

    def attrs(self, given: Mapping) -> dict:
        """All attributes in their canonical structure, defaults filled in; other names are left out."""
        return {a: canonical(a, given.get(a, default), default) for a, default in self.attributes.items()}

    def sizes(self, arrays: Mapping, attrs: Mapping, known: Mapping[str, int] | None = None) -> dict[str, int]:
        """Every letter size of a call: read off the arrays that it reads, given in `known`, or derived."""
        sizes = read_sizes(self.shapes, arrays, known)
        if self.derive:
            for letter, n in self.derive(sizes, attrs).items():
                if sizes.setdefault(letter, n) != n:
                    where = next((a for a in arrays if letter in dims(self.shapes[a])), "the call")
                    raise ShapeError(f"{where} has {letter}={sizes[letter]}, but the operator gives {letter}={n}")
        return sizes

    def shape(self, array: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Shape of one of its arrays; ShapeError says which letter the caller must give."""
        try:
            return tuple(size_of(d, sizes) for d in dims(self.shapes[array]))
        except KeyError as e:
            letter = e.args[0]
            raise ShapeError(f"{self}: {array} needs {letter}, which no input tells: call with {letter}=…") from None

    def count_items(self, sizes: Mapping[str, int]) -> int:
        """Number of output items of a call."""
        return math.prod(size_of(d, sizes) for d in self.items)

    def arguments(self, arrays: Mapping, attrs: Mapping, dtype, like=None) -> list:
        """Positional arguments of the kernel, with an empty array on the device of `like` for an absent optional one.

        Float attributes get the call's dtype.
        """
        given = {a: self.seen(a, arrays[a]) for a in self.arrays if arrays.get(a) is not None}
        args = [given[a] if a in given else self.absent(a, dtype, like) for a in self.arrays]
        return args + [_typed(attrs[a], dtype) for a in self.attributes]

    def seen(self, array: str, value):
        """`value` as its body sees it: a view with the merged axes in one."""
        shape = merged(self.shapes[array], value.shape)
        return value if len(shape) == len(value.shape) else value.reshape(shape)

    def absent(self, array: str, dtype, like=None):
        """The empty array that stands for an optional array that is not given, on the device of `like`."""
        return empty((0,) * len(dims(self.shapes[array])), dtype_of(self.shapes[array], dtype), like)

    def __call__(self, *args, **keywords):
        """Run on `args` (the arrays it reads, in order) and return what it writes (a tuple if several).

        Keywords give arrays, attributes and the letter sizes that the arrays do not tell. Raises ShapeError.
        """
        arrays = dict(zip(self.reads, args, strict=False))
        if len(args) > len(self.reads):
            raise TypeError(f"{self} takes {', '.join(self.reads)}, got {len(args)} arrays")
        arrays |= {a: keywords.pop(a) for a in self.reads if a in keywords}
        attrs = self.attrs({a: keywords.pop(a) for a in self.attributes if a in keywords})
        unknown = [k for k in keywords if k not in self.letters()]
        absent = [a for a in self.reads if arrays.get(a) is None and a not in self.optional]
        if unknown or absent:
            raise TypeError(
                f"{self}({', '.join([*self.reads, *self.attributes])}): missing {absent}, unknown {unknown}"
            )
        arrays = {a: v for a, v in arrays.items() if v is not None}
        axes = starred_axes(self.shapes, arrays)
        sizes = self.sizes(arrays, attrs, keywords)
        for a, (bound, spared) in self.bounds(sizes, attrs).items():
            if isinstance(arrays.get(a), np.ndarray):
                check_indices(a, arrays[a], bound, spared)
        floats = [v for a, v in arrays.items() if ":" not in self.shapes[a]]
        model = next(iter(floats or arrays.values()), np.empty(0))  # of a pass that reads nothing: the host's
        dtype = model.dtype if floats else np.dtype(float)  # arrays of named dtypes alone do not tell one of floats
        new = {a: empty(self.shape(a, sizes), self.dtype(a, arrays, dtype), model) for a in self.writes}
        new = {a: copy_into(v, self.seen(a, arrays[a])) if a in self.inplace else v for a, v in new.items()}
        self.kernel(self.count_items(sizes), *self.arguments(arrays | new, attrs, dtype, model))
        new = {a: v.reshape(full_shape(self.shapes[a], sizes, axes)) for a, v in new.items()}
        return new[self.writes[0]] if len(new) == 1 else tuple(new.values())

    def dtype(self, array: str, given: Mapping, float_dtype) -> np.dtype:
        """The dtype of an array that a call writes: where it may have several, that of the one in `given` it is like.

        An array in place is like its old values.
        """
        several = len(dtypes_of(self.shapes[array])) > 1
        return given[self.like.get(array, array)].dtype if several else dtype_of(self.shapes[array], float_dtype)

    def bounds(self, sizes: Mapping[str, int], attrs: Mapping) -> dict[str, tuple[int, int | None]]:
        """Arrays whose elements are indices → what they must lie below, and the value that is none, if one is."""
        none = {a: attrs[name] for a, name in self.spared.items() if attrs[name] != self.attributes[name]}
        return {a: (sizes[letter], none.get(a)) for a, letter in self.indices.items() if letter in sizes}

    def letters(self) -> set[str]:
        """Every dimension letter that its arrays and items use."""
        entries = [d for a in self.arrays for d in dims(self.shapes[a])] + self.items
        return {letter for d in entries for letter in d.split("/") if not letter.isdigit()}


def check_indices(name: str, values: np.ndarray, bound: int, spared: int | None = None) -> None:
    """ValueError where values that a kernel indexes with are neither from 0 to bound − 1 nor `spared`."""
    if values.size and (values.min() < 0 or values.max() >= bound):
        if spared is not None:
            check_indices(name, values[values != spared], bound)
            return
        raise ValueError(
            f"{name} must hold indices from 0 to {bound - 1}, but it holds {values.min()} to {values.max()}"
        )


def _typed(value, dtype):
    """Python floats as the call's dtype: a float64 constant would widen the whole kernel."""
    if isinstance(value, tuple):
        return tuple(_typed(v, dtype) for v in value)
    return np.dtype(dtype).type(value) if isinstance(value, float) else value


def copy_into(new, old):
    """`new` with the values of `old`, both on one device."""
    if isinstance(new, np.ndarray):
        new[...] = old
    else:
        new.copy_to_device(old)
    return new


def empty(shape: tuple[int, ...], dtype, like=None):
    """Uninitialised array on the device of `like`; None is the host."""
    if like is None or isinstance(like, np.ndarray):
        return np.empty(shape, dtype)
    return cuda.empty(shape, dtype)


def declare(
    shapes: Mapping[str, str],
    items: str,
    writes: str,
    derive=None,
    alike=None,
    inplace: str = "",
    sums: str = "",
    examples=None,
    indices=None,
    parts: str = "",
    spared=None,
    adds: str = "",
    divisors=None,
    like=None,
):
    """Turn a body into a Pass.

    items: letters whose product is the number of items; t counts them in this order, the last fastest.
    derive: `derive(sizes, attrs) -> {letter: size}`, the sizes that follow from others; it checks them too.
    alike: letter → `classes(sizes, attrs)`, an array with a class for each index along it: items of equal class cost
    the same operations. Indices along other letters are all alike.
    inplace: written arrays whose old values are read.
    sums: letters or quotients that each item runs over in full: along them its operations are an affine function of
    the size, which lets `validation.instruments.counting` count a long sum by its first two lengths.
    examples: index array → `values(sizes)`, one possible choice, for counting: each choice must cost the same in all.
    indices: array whose elements the body indexes with → the letter that they must lie below.
    spared: index array → the attribute whose value, unless it is the default, stands for no index: the body leaves it
    out.
    adds: those of the sums' letters of which this holds: cut all arrays that have the letter into slices along it, let
    the body run on each, and the results add up to that of the whole (`compiler.two_stage`).
    divisors: written array → `divisor(sizes)` by which its sum is divided in the end, such as the number of terms of a
    mean: then it is the results times their own divisors that add up to the whole times its divisor.
    like: written array → the array that the body reads and whose dtype it has, where that may be one of several.
    parts: arrays in place, of which a call writes a part: in a step one call for each input writes them together.
    """
    return lambda body: Pass(
        body,
        shapes,
        items,
        writes,
        derive,
        alike,
        inplace,
        sums,
        examples,
        indices,
        parts,
        spared,
        adds,
        divisors,
        like,
    )


@dataclass(frozen=True)
class Bound:
    """A pass on arrays of a node that are called otherwise there: how one method's pass works on another's result.

    names: the pass's array → the node's array; letters: the pass's letter → the node's letter; where they differ.
    attrs, known: attributes and letters of this binding alone, such as those of one input of several.
    """

    passed: Pass
    names: Mapping[str, str] = field(default_factory=dict)
    letters: Mapping[str, str] = field(default_factory=dict)
    attrs: Mapping[str, object] = field(default_factory=dict)
    known: Mapping[str, int] = field(default_factory=dict)

    def name(self, array: str) -> str:
        """The node's name of one of the pass's arrays."""
        return self.names.get(array, array)

    @cached_property
    def writes(self) -> list[str]:
        """The node's arrays that it computes; those that it only updates are left out."""
        passed = self.passed
        return [self.name(a) for a in passed.writes if a not in passed.inplace or a in passed.parts]

    def sizes(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """The pass's letter sizes that the node's sizes tell."""
        if not self.letters:
            return {**sizes, **self.known}
        kept = {letter: n for letter, n in sizes.items() if letter not in self.letters}
        told = {letter: sizes[other] for letter, other in self.letters.items() if other in sizes}
        return {**kept, **told, **self.known}


@dataclass(frozen=True)
class Binding:
    """How the passes of an operator work on the several inputs of a node, and the letter sizes that follow.

    tangent: as TANGENT of an operator (`refimpl.ops`).
    """

    passes: Sequence[Bound]
    sizes: Mapping[str, int]
    tangent: "Sequence[str | Pass | Bound]" = ()
