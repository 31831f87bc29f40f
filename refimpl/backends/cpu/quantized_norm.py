"""Range batch norm on the CPU: the tables of `batch_norm` from a map's ends, and a gradient that is even elsewhere.

With M = N·H·W values x a channel, S1 = Σx and span = 2·√(2·ln M) (arXiv 1805.11046, `methods.quantized_norm`):

    σ = (max x − min x) / span,  z = a·x + b  with  a = gamma / √(σ² + eps),  b = beta − a·S1 / M

and with dz = ∂L/∂z, D1 = Σ dz, D2 = Σ dz·x, rstd = 1 / √(σ² + eps):

    dbeta = D1,  dgamma = rstd·(D2 − mean·D1),  dx = A·dz + C,  A = a,  C = −a·D1 / M,
    less `slope` at the maximum and more by it at the minimum,  slope = gamma·dgamma·rstd²·σ / span

Of equal ends the first one counts. A run of rows is gone over for its ends alone, in vectors; where they are beyond all
before, the run is noted, and only in the run of the end of all rows the row itself is looked for.
"""

import numpy as np
from numba import prange

from ...compiler.executed import ADD, IADD, IMAC, MAC, MUL, Ops, executes
from ...kernels.kernel import fast, inline
from .batch_norm import BLOCK, _slices, gather, gather_executes, parts_of
from .rows import SUM_ROWS, clear, lanes
from .simd import LANES, accumulate, address, clamp, inside, load, splat, store


@inline
def note(ends, runs, at, found, bits, start, n):
    """Keep the first n lanes of `found` as ends from element `at` on, and the run that begins at row `start`.

    bits: of the lanes in which it is beyond the end so far.
    """
    store(ends, at, found, n)
    for lane in range(min(LANES, n)):
        if (bits >> np.uint64(lane)) & np.uint64(1):
            runs[at + lane] = start


@inline
def statistics_rows(x, first, end, channels, sums, sums_at, ends, runs, at):
    """Sums, ends and their runs of rows first … end−1, by addresses; those of a slice begin at `sums_at` and `at`."""
    least, most, none = splat(x, -np.inf), splat(x, np.inf), splat(x, np.nan)
    clear(sums, sums_at, sums_at + channels)
    for c in range(0, channels, LANES):
        store(ends, at + c, most, channels - c)
        store(ends, at + channels + c, least, channels - c)
    for c in range(2 * channels):
        runs[at + c] = first
    for start in range(first, end, SUM_ROWS):
        stop = min(start + SUM_ROWS, end)
        for c in range(0, channels, LANES):
            m = channels - c
            total, low, high = splat(x, 0.0), most, least
            for row in range(start, stop):
                v = load(x, row * channels + c, m)
                total = total + v
                low = clamp(low, least, v)
                high = clamp(high, v, most)
            accumulate(sums, sums_at + c, total, m)
            before = load(ends, at + c, m)
            bits = inside(low, none, before)
            if bits:
                note(ends, runs, at + c, clamp(before, least, low), bits, start, m)
            before = load(ends, at + channels + c, m)
            bits = inside(high, before, none)
            if bits:
                note(ends, runs, at + channels + c, clamp(before, high, most), bits, start, m)


def statistics_executes(sums, ends, runs, x) -> Ops:
    """The sums: of a run of rows in registers, then added to all."""
    return ADD * (sum(rows + -(-rows // SUM_ROWS) for rows in parts_of(x)) * lanes(x.shape[3]))


@executes(statistics_executes)
@fast
def statistics(sums, ends, runs, x):
    """Σx of x (N, H, W, C) by slice, and its ends: sums (slices, C) float64, ends and runs (slices, 2, C).

    ends: minimum and maximum of a slice; runs: int32, the row at which the run of rows begins that has it first.
    """
    channels = x.shape[3]
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    parts = _slices(rows, channels)
    for t in prange(parts):
        part = np.int64(t)
        statistics_rows(
            address(x), rows * part // parts, rows * (part + 1) // parts, channels, address(sums), part * channels,
            address(ends), address(runs), 2 * part * channels,
        )  # fmt: skip


@inline
def place_of(x, value, start, rows, channels, c):
    """The first row from `start` on, of a run, in which channel c of x, by address, has the value."""
    for row in range(start, min(start + SUM_ROWS, rows)):
        if x[row * channels + c] == value:
            return row
    return start


def table_executes(affine, moments, low, high, running_mean, running_var, sums, *rest) -> Ops:
    """Of each channel the sum of the slices, the moments and the norm; two places; the running statistics."""
    each = ADD * (sums.shape[0] + 2) + MUL * 4 + IADD * 2
    return each * affine.shape[1] + (MUL * 4 + ADD * 2) * running_mean.size


@executes(table_executes)
@fast
def table(affine, moments, low, high, running_mean, running_var, sums, ends, runs, x, gamma, beta, eps, momentum):
    """Write affine (2, C) = (a, b), moments (3, C) float64 = (mean, rstd, σ), and low and high (C,), the ends' rows.

    sums, ends, runs: of `statistics` of x (N, H, W, C). The running statistics are updated, their variance by σ² as it
    is; empty ones (0,) are left out.
    """
    channels, parts = gamma.shape[0], sums.shape[0]
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    span = 2.0 * np.sqrt(2.0 * np.log(rows))
    for t in prange(-(-channels // BLOCK)):
        first = np.int64(t) * BLOCK
        values = address(x)
        for c in range(first, min(first + BLOCK, channels)):
            total, lowest, highest = sums[0, c], 0, 0
            for part in range(1, parts):
                total = total + sums[part, c]
                if ends[part, 0, c] < ends[lowest, 0, c]:
                    lowest = part
                if ends[part, 1, c] > ends[highest, 1, c]:
                    highest = part
            least, most = ends[lowest, 0, c], ends[highest, 1, c]
            low[c] = place_of(values, least, runs[lowest, 0, c], rows, channels, c)
            high[c] = place_of(values, most, runs[highest, 1, c], rows, channels, c)
            mean, deviation = total / rows, (np.float64(most) - np.float64(least)) / span
            var = deviation * deviation
            rstd = 1.0 / np.sqrt(var + eps)
            moments[0, c], moments[1, c], moments[2, c] = mean, rstd, deviation
            affine[0, c] = gamma[c] * rstd
            affine[1, c] = beta[c] - gamma[c] * rstd * mean
            if running_mean.size:
                running_mean[c] = (1.0 - momentum) * running_mean[c] + momentum * mean
                running_var[c] = (1.0 - momentum) * running_var[c] + momentum * var


def gradient_table_executes(coef, slope, dgamma, dbeta, sums, moments, gamma, count) -> Ops:
    """The sums of the slices, and of each channel dgamma, A, C and, where it moves, slope."""
    return gather_executes(sums) + (MUL * 4 + ADD) * gamma.size + MUL * (3 * slope.size)


@executes(gradient_table_executes)
@fast
def gradient_table(coef, slope, dgamma, dbeta, sums, moments, gamma, count):
    """Write coef (2, C) = (A, C), slope, dgamma and dbeta (C,) from sums (…, 2, C) of dz and dz·x, and moments.

    count: M. sums are used up. Empty slope, dgamma and dbeta are left out.
    """
    channels = gamma.shape[0]
    span = 2.0 * np.sqrt(2.0 * np.log(count))
    for t in prange(-(-channels // BLOCK)):
        first = np.int64(t) * BLOCK
        gather(address(sums), sums.shape[0], channels, first, min(first + BLOCK, channels))
        for c in range(first, min(first + BLOCK, channels)):
            total, products = sums[0, 0, c], sums[0, 1, c]
            mean, rstd, deviation = moments[0, c], moments[1, c], moments[2, c]
            moved = rstd * (products - mean * total)
            a = gamma[c] * rstd
            coef[0, c], coef[1, c] = a, -a * total / count
            if slope.size:
                slope[c] = a * rstd * moved * deviation / span
            if dgamma.size:
                dgamma[c] = moved
            if dbeta.size:
                dbeta[c] = total


@inline
def apply_rows(dx, dz, coef, first, end, channels):
    """Rows first … end−1 of dx but for the ends, by addresses."""
    for row in range(first, end):
        for c in range(0, channels, LANES):
            i, m = row * channels + c, channels - c
            store(dx, i, load(dz, i, m) * load(coef, c, m) + load(coef, channels + c, m), m)


@executes(
    lambda dx, dz, coef, slope, low, high: (
        MAC * (dz.size // dz.shape[3] * lanes(dz.shape[3])) + (ADD + IMAC) * (2 * dz.shape[3])
    )
)
@fast
def apply_gradient(dx, dz, coef, slope, low, high):
    """Gradient dx = A·dz + C, (N, H, W, C), of coef (2, C), and slope (C,) at the rows low and high (C,).

    dx may be dz. A channel whose ends are in one row is constant, and its slope 0.
    """
    channels = dz.shape[3]
    rows = dz.shape[0] * dz.shape[1] * dz.shape[2]
    parts = _slices(rows, channels)
    for t in prange(parts):
        part = np.int64(t)
        first, end = rows * part // parts, rows * (part + 1) // parts
        out = address(dx)
        apply_rows(out, address(dz), address(coef), first, end, channels)
        for c in range(channels):
            if first <= high[c] < end:
                out[high[c] * channels + c] -= slope[c]
            if first <= low[c] < end:
                out[low[c] * channels + c] += slope[c]
