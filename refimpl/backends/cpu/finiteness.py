"""Which slices of a gradient are not finite, many elements at a time."""

from functools import partial

from ...compiler.executed import NOTHING, executes
from ...kernels.geometry import SLICE
from ...kernels.kernel import fast


@executes(lambda bad, dw, largest: NOTHING)
@partial(fast, parallel=False)
def check(bad, dw, largest):
    """Flags bad, (L,): 1 where a value of a slice of dw, (E,), is not finite, which is |v| ≤ largest, else 0."""
    for t in range(bad.shape[0]):
        part = dw[t * SLICE : (t + 1) * SLICE]
        found = True
        for e in range(part.shape[0]):
            found &= abs(part[e]) <= largest  # no early end: that would not vectorise
        bad[t] = 0 if found else 1
