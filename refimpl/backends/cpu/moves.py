"""Elements moved and nothing computed: rows side by side, and the axes of a sample in another order.

Runs that lie together are copied a vector at a time, and where the innermost axis changes blocks of 8×8 are transposed.
"""

import numpy as np
from numba import prange

from ...compiler.executed import NOTHING, executes
from ...kernels.kernel import fast, inline
from .memory import clear, copy, transpose

RUN = 8192  # elements: enough to be worth a thread
OUTER = 4  # axes around a block


@inline
def rows_of(width):
    """Rows of an item."""
    return max(1, RUN // width)


@executes(lambda y, x, y_start, y_row, x_start, x_row, run: NOTHING)
@fast
def rows(y, x, y_start, y_row, x_start, x_row, run):
    """y[y_start + r·y_row + i] = x[x_start + r·x_row + i], i < run, of every row r of x, in elements."""
    into, of = y.reshape(-1), x.reshape(-1)
    count, many = x.size // x_row, rows_of(run)
    for t in prange((count + many - 1) // many):
        first = np.int64(t) * many
        for r in range(first, min(first + many, count)):
            copy(into, y_start + r * y_row, of, x_start + r * x_row, run)


@executes(lambda dx, dy, start: NOTHING)
@fast
def placed(dx, dy, start):
    """Rows dx, (N, C): those of dy, (N, K), from element `start` on, and 0 elsewhere."""
    width, run = dx.shape[1], dy.shape[1]
    end, many = start + run, rows_of(dx.shape[1])
    into, of = dx.reshape(-1), dy.reshape(-1)
    for t in prange((dx.shape[0] + many - 1) // many):
        first = np.int64(t) * many
        for r in range(first, min(first + many, dx.shape[0])):
            clear(into, r * width, start)
            copy(into, r * width + start, of, r * run, run)
            clear(into, r * width + end, width - end)


@executes(lambda y, x, w, after: NOTHING)
@fast
def attached(y, x, w, after):
    """Rows y, (N, P, Q, K): each of x, (N, P, Q, C), behind that of w, (P, Q, R), or before it where `after`."""
    per, own, other = w.shape[0] * w.shape[1], x.shape[3], w.shape[2]
    width, many, count = own + other, rows_of(own + other), y.shape[0] * w.shape[0] * w.shape[1]
    into, of, weights = y.reshape(-1), x.reshape(-1), w.reshape(-1)
    for t in prange((count + many - 1) // many):
        first = np.int64(t) * many
        for r in range(first, min(first + many, count)):
            copy(into, r * width + (0 if after else other), of, r * own, own)
            copy(into, r * width + (own if after else 0), weights, r % per * other, other)


@inline
def element_of(number, lengths, steps):
    """The element at which a block begins: its number in digits of these lengths, each times its step."""
    total, rest = 0, number
    for i in range(OUTER):
        length = lengths[OUTER - 1 - i]
        total += rest % length * steps[OUTER - 1 - i]
        rest //= length
    return total


@executes(lambda y, x, lengths, y_steps, x_steps, block, y_row, x_row: NOTHING)
@fast
def blocks_copied(y, x, lengths, y_steps, x_steps, block, y_row, x_row):
    """Blocks of rows of each sample of x, (N, …), to their places in y, (N, …); lengths, steps: of `digits`.

    block: rows and elements of a row; y_row, x_row: elements from a row to the next.
    """
    size, blocks = y.size // max(1, y.shape[0]), lengths[0] * lengths[1] * lengths[2] * lengths[3]
    into, of = y.reshape(-1), x.reshape(-1)
    for t in prange(y.shape[0] * blocks):
        sample, number = np.int64(t) // blocks * size, np.int64(t) % blocks
        to, origin = sample + element_of(number, lengths, y_steps), sample + element_of(number, lengths, x_steps)
        for r in range(block[0]):
            copy(into, to + r * y_row, of, origin + r * x_row, block[1])


@executes(lambda y, x, lengths, y_steps, x_steps, block, y_row, x_row: NOTHING)
@fast
def blocks_transposed(y, x, lengths, y_steps, x_steps, block, y_row, x_row):
    """As `blocks_copied`: the rows of a block of x become columns of y, and y_row counts from one to the next."""
    size, blocks = y.size // max(1, y.shape[0]), lengths[0] * lengths[1] * lengths[2] * lengths[3]
    into, of = y.reshape(-1), x.reshape(-1)
    for t in prange(y.shape[0] * blocks):
        sample, number = np.int64(t) // blocks * size, np.int64(t) % blocks
        to, origin = sample + element_of(number, lengths, y_steps), sample + element_of(number, lengths, x_steps)
        transpose(into, to, y_row, of, origin, x_row, block[0], block[1])
