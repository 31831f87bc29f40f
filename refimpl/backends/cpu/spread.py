"""Products and sums with what is the same along some axes, and the sums over those axes: factors of channels, weights.

Axes of a tensor are joined where they lie together (`spread_rules.axes`), so that the loops inside are long.
"""

import numpy as np
from numba import prange

from ...compiler.executed import ADD, MAC, MUL, Ops, executes
from ...kernels.kernel import fast, inline
from .moves import rows_of

OUTER = 3  # axes around a row
SLICES, LEAST = 16, 64  # of rows whose sums are added up in the end; rows of a slice at least


@inline
def start_of(row, lengths, steps):
    """The element of w that a row of x begins with: its number in digits of these lengths, each times its step."""
    total, rest = 0, row
    for i in range(OUTER):
        length = lengths[OUTER - 1 - i]
        total += rest % length * steps[OUTER - 1 - i]
        rest //= length
    return total


@executes(lambda y, x, w, lengths, steps, run, step: MUL * x.size)
@fast
def product(y, x, w, lengths, steps, run, step):
    """Output y = x·w; y may be x. An axis of x has a length, and elements of w from one index to the next as its step.

    lengths, steps: of the axes around a row, each as often as its axes repeat; run, step: of a row, step 0 or 1.
    """
    into, of, factors = y.reshape(-1), x.reshape(-1), w.reshape(-1)
    count, many = x.size // run, rows_of(run)
    for t in prange((count + many - 1) // many):
        first = np.int64(t) * many
        for r in range(first, min(first + many, count)):
            start = start_of(r, lengths, steps)
            row, result = of[r * run : (r + 1) * run], into[r * run : (r + 1) * run]
            if step == 0:
                factor = factors[start]
                for i in range(run):
                    result[i] = row[i] * factor
            else:
                own = factors[start : start + run]
                for i in range(run):
                    result[i] = row[i] * own[i]


@executes(lambda y, x, w, lengths, steps, run, step: ADD * x.size)
@fast
def total(y, x, w, lengths, steps, run, step):
    """Output y = x + w, as `product`."""
    into, of, terms = y.reshape(-1), x.reshape(-1), w.reshape(-1)
    count, many = x.size // run, rows_of(run)
    for t in prange((count + many - 1) // many):
        first = np.int64(t) * many
        for r in range(first, min(first + many, count)):
            start = start_of(r, lengths, steps)
            row, result = of[r * run : (r + 1) * run], into[r * run : (r + 1) * run]
            if step == 0:
                term = terms[start]
                for i in range(run):
                    result[i] = row[i] + term
            else:
                own = terms[start : start + run]
                for i in range(run):
                    result[i] = row[i] + own[i]


def slices(rows: int) -> int:
    """Slices of so many rows."""
    return min(SLICES, -(-rows // LEAST))


def sums_executes(out, partials, dy, x, run) -> Ops:
    """Each element to its sum, and the slices added up."""
    return (MAC if x.size else ADD) * dy.size + ADD * partials.size


@executes(sums_executes)
@fast
def sums(out, partials, dy, x, run):
    """out (groups, run) = Σ_r dy·x, or Σ_r dy where x is empty, of dy and x, (groups, rows, run).

    partials, (slices, run): scratch of one group, whose rows are summed in slices; (0, 0) where each group has its
    own item.
    """
    into, error, of, parts = out.reshape(-1), dy.reshape(-1), x.reshape(-1), partials.reshape(-1)
    count, many = dy.size // run, partials.shape[0]
    zero, items = out.dtype.type(0), many if many else out.size // run
    per = (count + items - 1) // items
    for t in prange(items):
        item = np.int64(t)
        first = item * run
        own = parts[first : first + run] if many else into[first : first + run]
        own[:] = zero
        for r in range(item * per, min((item + 1) * per, count)):
            given = error[r * run : (r + 1) * run]
            if of.size:
                beside = of[r * run : (r + 1) * run]
                for i in range(run):
                    own[i] += given[i] * beside[i]
            else:
                for i in range(run):
                    own[i] += given[i]
    if many:
        for i in range(run):
            summed = zero
            for item in range(many):
                summed += parts[item * run + i]
            into[i] = summed
