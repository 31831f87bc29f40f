"""Many small calls of one pass in one launch, such as the optimizer over all parameters.

A parameter is soon updated, and a launch for each takes longer than the work: MobileNetV2 has 158. The arrays of such
calls lie in two memories, the arena and that of the state, so that one kernel on a table of where they lie does them
all: a block finds the call that its numbers belong to, and its threads run the pass's own body on views of its arrays.
The bits are those of a launch for each.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from typing import cast

import numpy as np

from ...compiler.executed import EACH
from ...compiler.ir import Buffer, Call, Launch, Region, Segment, Segments
from ...compiler.lower import Lowering
from ...kernels import cuda
from ...kernels.kernel import helper
from ...kernels.passes import Pass
from ...ops import adam, batch_norm, clip_norm, finiteness, sgd

SHARE = 4  # items of a thread, which finds once where the arrays of its call lie


@helper
def row_of(table, t):
    """The row of a table (calls, 2 + 2·arrays) to which item t belongs: the first that ends behind it."""
    low, high = 0, table.shape[0] - 1
    while low < high:
        middle = (low + high) // 2
        if t < table[middle, 0]:
            high = middle
        else:
            low = middle + 1
    return low


class OfEach:
    """A kernel `(threads, table, *memories, *shared, *attributes)` that runs a pass's body for the calls of a table.

    own: the arrays that each call has for itself, each a part of a memory; the others are shared by all of them.
    """

    def __init__(self, passed: Pass, own: tuple[str, ...]):
        self.passed, self.own = passed, own
        self.__name__, self.__module__ = f"{passed.name}_of_each", passed.body.__module__

    def source(self) -> str:
        """The text of the kernel."""
        names = [*self.passed.arrays, *self.passed.attributes]
        shared = [name for name in names if name not in self.own]
        given = ", ".join(["items", "table", *(f"all_{a}" for a in self.own), *shared])
        lines = [
            f"def {self.__name__}({given}):",
            "    found = cuda.shared.array(1, np.int64)",
            *(f"    {line}" for line in cuda.STRIDING),
            "        if cuda.threadIdx.x == 0:",
            "            found[0] = row_of(table, t * SHARE)",
            "        cuda.syncthreads()",
            "        row = found[0]",
            "        first = 0 if row == 0 else table[row - 1, 0]",
            "        own = (t - cuda.threadIdx.x) * SHARE + cuda.threadIdx.x - first",
        ]
        for i, a in enumerate(self.own):
            start, length = f"table[row, {2 + 2 * i}]", f"table[row, {3 + 2 * i}]"
            lines.append(f"        {a} = all_{a}[{start} : {start} + {length}]")
        lines += [
            "        for _ in range(SHARE):",
            "            if own < table[row, 1]:",
            f"                item(own, {', '.join(names)})",
            "            own += cuda.blockDim.x",
        ]
        lines += ["        cuda.syncthreads()", f"        {cuda.STRIDE}"]
        return "\n".join(lines)

    def function(self) -> Callable:
        """The same, not compiled."""
        file = cast(str, inspect.getsourcefile(self.passed.body))  # Numba's disk cache asks where a kernel comes from
        scope: dict = {"np": np, "cuda": cuda.toolkit(), "item": cuda.device(self.passed.body)}
        scope |= {"row_of": row_of, "SHARE": SHARE}
        scope |= {"__name__": self.__module__, "__file__": file}
        exec(compile(self.source(), file, "exec"), scope)
        return cuda.with_toolkit(scope[self.__name__])

    @cached_property
    def loop(self):
        """The CUDA kernel."""
        return cuda.compiled(self.function())

    def __call__(self, threads: int, *args, stream=0) -> None:
        """Launch it in a stream. threads: each with SHARE items."""
        blocks, block = cuda.grid(threads)
        self.loop[blocks, block, stream](threads, *args)


@cache
def of_each(passed: Pass, own: tuple[str, ...]) -> OfEach:
    """The kernel, made once. It executes what is counted of each call."""
    made = OfEach(passed, own)
    EACH.add(made)
    return made


def together(lowering: Lowering, call: Call) -> list[Launch] | None:
    """A call and those like it in its section, as far as none of them needs what comes between; None where it is alone.

    Alike are calls of the same pass and attributes, on arrays of the same memories and dtypes.
    """
    calls = alike(lowering, call)
    if len(calls) < 2:
        return None
    passed = call.passed
    own = tuple(a for a in passed.arrays if any(c.arrays.get(a) is not call.arrays.get(a) for c in calls))
    dtype = next((b.dtype for a, b in call.arrays.items() if ":" not in passed.shapes[a]), None)
    args = dict(
        zip([*passed.arrays, *passed.attributes], passed.arguments(call.arrays, call.attrs, dtype), strict=True)
    )
    end, rows, step = 0, [], SHARE * cuda.grid(1)[1]  # no block works for two calls
    for c in calls:
        items = passed.count_items(c.sizes)
        end += -(-items // step) * step
        rows.append(Segment(end, items, tuple(passed.seen(a, c.arrays[a]) for a in own)))
    memories = [Region(call.arrays[a].root.region, call.arrays[a].dtype) for a in own]
    shared = [value for name, value in args.items() if name not in own]
    reads, writes = once(b for c in calls for b in c.reads), once(b for c in calls for b in c.writes)
    name = f"{passed} of {len(calls)} arrays"
    return [
        Launch(
            name, of_each(passed, own), (end // SHARE, Segments(tuple(rows)), *memories, *shared), reads, writes, calls
        )
    ]


def once(buffers: Iterable[Buffer]) -> tuple[Buffer, ...]:
    """Each of some buffers once."""
    return tuple(dict.fromkeys(buffers))


def alike(lowering: Lowering, call: Call) -> tuple[Call, ...]:
    """A call, and those after it in its section that may run at the same time, in its place."""
    section = lowering.step.calls[call.section]
    group, read, written = [call], set[Buffer](), set[Buffer]()  # by calls in between that are not of the group
    for c in section[section.index(call) + 1 :]:
        apart = written.isdisjoint(map(lowering.value, (*c.reads, *c.writes)))
        if same(c, call) and lowering.free(c) and apart and read.isdisjoint(map(lowering.value, c.writes)):
            group.append(c)
        else:
            read |= set(map(lowering.value, c.reads))
            written |= set(map(lowering.value, c.writes))
    return tuple(group)


def same(one: Call, call: Call) -> bool:
    """Are two calls alike?"""
    return one.passed is call.passed and one.when == call.when and kind(one) == kind(call)


def kind(call: Call) -> tuple:
    """What calls must have in common to be alike."""
    arrays = {a: (b.root.region, b.dtype) for a, b in call.arrays.items() if a in call.passed.arrays}
    return arrays, {a: call.attrs.get(a) for a in call.passed.attributes}, [b.batched for b in call.arrays.values()]


RULES: dict[Callable, Sequence[Pass]] = {  # rule → the passes of the calls that it begins at
    together: (
        sgd.step, sgd.momentum_step, adam.update, finiteness.check, clip_norm.partial_squares, clip_norm.nothing,
        batch_norm.update_mean, batch_norm.update_var,
    ),
}  # fmt: skip
