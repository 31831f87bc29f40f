"""Two stages for a call of few items and long sums: partial results of slices, then their sum in index order.

A reference kernel computes an output item in one go: a bias gradient of 16 channels keeps 16 threads busy, however many
samples and pixels it sums. Along a letter of which a pass says that it `adds`, its own body runs on slices instead, on
each for all items, and a second kernel adds what it wrote:

    partial[s] = body(slice s of every array that has the letter),   y = Σ_s partial[s]

or for a mean, with its divisors d, y = Σ_s partial[s]·d(slice s) / d(whole). Slices follow from the shapes at a full
batch alone, so bits do not depend on the number of threads; a smaller batch has fewer of them. Both kernels are made of
bodies, as reference kernels are: the same in Python, on a CPU and on a GPU.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from inspect import getsourcefile
from typing import NamedTuple, cast

from ..kernels.kernel import Kernel, helper
from ..kernels.passes import Pass, ShapeError, dims, size_of
from .executed import ADD, CUT, MUL, Ops, executes
from .ir import AtBatch, Buffer, Call, Launch, Prefix
from .lower import reference


@dataclass(frozen=True)
class Pays:
    """When two stages pay, which is for a backend to say.

    items: output items that keep it busy: a call that has fewer is cut, into no more slices than give so many.
    terms: the fewest elements of an array that an item goes over in a slice.
    """

    items: int
    terms: int


class Slices(NamedTuple):
    """Slices of `length` along `letter`; at a full batch they are `number`."""

    letter: str
    length: int
    number: int


def slices_of(call: Call, pays: Pays) -> Slices | None:
    """How a call is cut, along the letter that gives most of them; None where no letter adds or none pays.

    A call that writes something for each sample is not: it has items enough for that.
    """
    passed, sizes = call.passed, call.sizes
    items = passed.count_items(sizes)
    if not items or passed.inplace or any(b.batched for b in call.writes):
        return None
    most = min(-(-pays.items // items), _terms(call) // pays.terms)
    if most < 2:
        return None
    lengths = {letter: -(-sizes[letter] // most) for letter in passed.adds if sizes[letter] > 1}
    ways = [Slices(letter, each, -(-sizes[letter] // each)) for letter, each in lengths.items() if _valid(call, letter)]
    return max(ways, key=lambda slices: slices.number, default=None)


def _terms(call: Call) -> int:
    """How many elements an item goes over, of the array of which they are most; 0 where nothing adds."""
    passed, own = call.passed, {letter for d in call.passed.items for letter in d.split("/")}
    shapes = [dims(passed.shapes[a]) for a in passed.reads if a in call.arrays]
    summed = [[d for d in shape if d not in own] for shape in shapes if set(passed.adds) & set(shape)]
    return max((math.prod(size_of(d, call.sizes) for d in shape) for shape in summed), default=0)


def _valid(call: Call, letter: str) -> bool:
    """May the smallest slice of the smallest batch stand alone? One value has no variance."""
    sizes = {**call.sizes_at(1), letter: 1}
    try:
        derived = call.passed.derive(sizes, call.attrs) if call.passed.derive else {}
    except ShapeError:
        return False
    return all(sizes.get(d, size) == size for d, size in derived.items())


def two_stage(call: Call, pays: Pays, form: Callable = lambda kernel: kernel.cpu) -> list[Launch] | None:
    """The launches of a call that is cut: one that covers it, and for each array that it writes one that adds.

    form: what a backend launches of a `Kernel`. None where the call is not cut.
    """
    slices = slices_of(call, pays)
    if slices is None:
        return None
    passed, whole = call.passed, reference(call)
    kernel, number, items = form(sliced(passed, slices.letter)), slices_at(call, slices), passed.count_items(call.sizes)
    CUT[kernel] = slices.letter
    args, partials, adding = list(whole.args), [], []
    for a in passed.writes:
        y = passed.seen(a, call.arrays[a])
        partial = Buffer(f"{call.node}.{a}_slices", (slices.number, *y.shape), y.dtype, "arena")
        args[1 + passed.arrays.index(a)] = Prefix(partial, number)
        partials.append(partial)
        adding.append(_adding(whole, a, slices, y.reshape((math.prod(y.shape),)), partial, form))
    args[0] = AtBatch(lambda n: number(n) * items)
    return [replace(whole, function=kernel, args=(*args, items, slices.length), writes=tuple(partials)), *adding]


def slices_at(call: Call, slices: Slices) -> Callable[[int], int]:
    """The number of slices of n samples."""
    return lambda n: -(-call.sizes_at(n)[slices.letter] // slices.length)


def _adding(whole: Launch, array: str, slices: Slices, y: Buffer, partial: Buffer, form: Callable) -> Launch:
    """The launch that adds the partial results of a written array, y (E,)."""
    call, number = whole.covers[0], slices_at(whole.covers[0], slices)
    kernel = ADD_SLICES
    divisors: tuple[AtBatch, ...] = ()  # of a slice, of the last one and of the whole
    if divisor := call.passed.divisors.get(array):
        kernel = AVERAGE_SLICES

        def of(n: int, length: int) -> int:
            return divisor({**call.sizes_at(n), slices.letter: length})

        def last(n: int) -> int:
            return call.sizes_at(n)[slices.letter] - (number(n) - 1) * slices.length

        divisors = (
            AtBatch(lambda n: of(n, slices.length)),
            AtBatch(lambda n: of(n, last(n))),
            AtBatch(lambda n: divisor(call.sizes_at(n))),
        )
    function, rows = form(kernel), Prefix(partial.reshape((slices.number, *y.shape)), number)
    executes(EXECUTED[kernel])(function)
    return replace(
        whole, name=f"{call.node} add slices of {array}", function=function, args=(y.shape[0], y, rows, *divisors),
        reads=(partial,), writes=(y,), covers=(),
    )  # fmt: skip


@cache
def sliced(passed: Pass, letter: str) -> Kernel:
    """The kernel that runs a pass's body on slices along a letter.

    It takes the arguments of the body, with the partial results, (slices, …), in the place of what is written, then the
    number of items of a slice, and the length of a slice; an item is one of a slice.
    """
    names = [*passed.arrays, *passed.attributes]
    given = ", ".join([*passed.arrays, *(f"{a}={default!r}" for a, default in passed.attributes.items())])
    shown = ", ".join(_slice(passed, name, letter) for name in names)
    name = f"{passed.name}_along_{letter}"
    source = "\n".join([
        f"def {name}(t, {given}, slice_items=1, slice_length=1):",
        "    slice_number, slice_item = divmod(t, slice_items)",
        "    slice_start = slice_number * slice_length",
        f"    body(slice_item, {shown})",
    ])  # fmt: skip
    file = cast(str, getsourcefile(passed.body))  # a body is in a file, in which Numba's cache finds the kernel
    scope: dict = {"body": _helper(passed.body), "__name__": passed.body.__module__, "__file__": file}
    exec(compile(source, file, "exec"), scope)
    return Kernel(scope[name])


_helper = cache(helper)


def _slice(passed: Pass, name: str, letter: str) -> str:
    """What the body gets of one of its arguments."""
    if name in passed.writes:
        return f"{name}[slice_number]"
    letters = dims(passed.shapes[name]) if name in passed.arrays else []
    if letter not in letters:
        return name
    axis = letters.index(letter)
    # numba-cuda-mlir cuts no slice off at the end of an axis
    return f"{name}[{':, ' * axis}slice_start : min(slice_start + slice_length, {name}.shape[{axis}])]"


def add_slices(t, y, partial):
    """Output y, (E,), the sum of partial, (slices, E), over the slices."""
    total = partial[0, t]
    for s in range(1, partial.shape[0]):
        total += partial[s, t]
    y[t] = total


def average_slices(t, y, partial, each=1, last=1, whole=1):
    """Output y, (E,), of the means partial, (slices, E), by the divisors of a slice, of the last one and of the whole.

    For E items.
    """
    total = partial[partial.shape[0] - 1, t] * y.dtype.type(last)
    for s in range(partial.shape[0] - 1):
        total += partial[s, t] * y.dtype.type(each)
    y[t] = total / y.dtype.type(whole)


ADD_SLICES, AVERAGE_SLICES = Kernel(add_slices), Kernel(average_slices)
EXECUTED: dict[Kernel, Callable[..., Ops]] = {
    ADD_SLICES: lambda items, y, partial: ADD * (items * (partial.shape[0] - 1)),
    AVERAGE_SLICES: lambda items, y, partial, *divisors: (ADD + MUL) * (items * (partial.shape[0] - 1)) + MUL * items,
}
