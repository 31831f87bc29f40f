"""Depthwise convolution and its gradients: neighbouring threads work on neighbouring channels of the same pixels.

These read and write much and compute little, so each map is gone over once. A thread makes a block of ROWS by EACH
pixels of a channel; of the gradient of the weights it makes all taps of a channel over a slice of the output pixels,
EACH of a row at a time. What several of its products need of a row it loads once. Where a few channels train, as in
sparse update, the gradient of their weights is made of these alone.

A GPU has some ten instructions for each product before its memory is slower than they are, so none is spent on asking:
all of a geometry but the sizes of its maps is constants of the kernel, rows are written out one after the other, and
what lies beside a map is loaded from its edge and counts as zero. Places are unsigned where an array is read, so that
none is asked whether it counts from the end.

What follows forward (a frozen norm's scale and shift or a bias, a rectifier) is done on the results in registers; dy
comes through a rectifier's mask and a frozen norm's scale, as in the convolutions on tiles. Maps, (pixels, C), are
given as their elements, weights as (taps, C).
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ...compiler.executed import MAC, MUL, NOTHING, Ops, executes
from ...kernels.cuda import at, device, jit
from ...kernels.cuda import late as cuda
from ..activation import RELU, RELU6
from .tile import up
from .unrolled import Taps, Unrolled, multiple, nearest, parted

ROWS, EACH = 2, 4  # pixels of a thread along both axes, in dx the next multiples of the steps from output to output


def of_x(taps: Taps) -> int:
    """Columns of x that EACH outputs of a row are made of."""
    return (EACH - 1) * taps.across + (taps.columns - 1) * taps.apart_across + 1


def of_dx(down: int, across: int) -> tuple[int, int]:
    """Rows and columns of dx that a thread makes: each pixel meets the same taps in every such block."""
    return multiple(ROWS, down), multiple(EACH, across)


def in_turn(count: int, function: Callable):
    """Device function that calls `function(i, …)`, with its own arguments, for each i < count, a constant of each call.

    The calls are source text, for the compiler leaves loops over so much as they are.
    """
    names = ", ".join(list(inspect.signature(function).parameters)[1:])
    lines = (f"def calls({names}):", *(f"    one({i}, {names})" for i in range(count)))
    scope: dict[str, Any] = {"one": device(function), "__name__": __name__}
    exec(compile("\n".join(lines), __file__, "exec"), scope)
    return device(scope["calls"])


def finder(count: int):
    """Device function `(steps, there, first, width, channels)`: where columns of a row lie; it gives the first's.

    there: does each, from `first` on, lie in the row? steps: elements from the first of them to each. Where one does
    not, the nearest that does is in its place.
    """

    def find(steps, there, first, width, channels):
        start = nearest(first, width)
        for i in range(count):
            near = nearest(first + i, width)
            steps[i], there[i] = (near - start) * channels, near == first + i
        return start

    return device(find)


def loader(count: int, dtype):
    """Device function `(values, flat, start, steps, there, row_there)`: values ← of a row's columns, zeros beside it.

    flat: a map's elements; start: the number of the first column's.
    """
    zero = dtype(0)

    def load(values, flat, start, steps, there, row_there):
        for i in range(count):
            value = flat[at(start + steps[i])]
            values[i] = value if there[i] & row_there else zero

    return device(load)


def masker(count: int, dtype):
    """Device function `(values, mask, n, start, steps)`: those of a row come through the mask of sample n."""
    zero = dtype(0)

    def through(values, mask, n, start, steps):
        for i in range(count):
            e = at(start + steps[i])
            byte = mask[at(n), e >> at(3)]
            values[i] = values[i] if (byte >> (e & at(7))) & at(1) else zero

    return device(through)


def forward(taps: Taps, dtype):
    """y ← act(scale · (x ∗ w) + shift), ROWS by EACH pixels and a channel a thread."""
    taps_h, taps_w, up_h, up_w, apart_h, apart_w, above, left, _ = taps
    zero, six, columns, shape = dtype(0), dtype(6), of_x(taps), (ROWS, EACH)
    find, load = finder(columns), loader(columns, dtype)

    def row(a, total, values, steps, there, x, w, top, height, line, start, c):
        r, i = a // ROWS, a % ROWS
        h = top + i * up_h + r * apart_h
        near = nearest(h, height)
        load(values, x, start + near * line, steps, there, near == h)
        for s in range(taps_w):
            factor = w[at(r * taps_w + s), at(c)]
            for j in range(EACH):
                total[i, j] += values[j * up_w + s * apart_w] * factor

    add_rows = in_turn(taps_h * ROWS, row)

    @jit
    def kernel(items, y, x, w, scale, shift, geometry, act):
        height, width, out_h, out_w, channels = geometry[:5]
        blocks_h, blocks_w = (out_h + ROWS - 1) // ROWS, (out_w + EACH - 1) // EACH
        t = at(cuda.grid(1))
        while t < at(items):
            total = cuda.local.array(shape, dtype)
            values = cuda.local.array(columns, dtype)
            steps = cuda.local.array(columns, np.int64)
            there = cuda.local.array(columns, np.bool_)
            rest, c = parted(t, channels)
            rest, side = parted(rest, blocks_w)
            n, top = parted(rest, blocks_h)
            p, q = top * ROWS, side * EACH
            for i in range(ROWS):
                for j in range(EACH):
                    total[i, j] = zero
            first = find(steps, there, q * up_w - left, width, channels)
            start, line = (n * height * width + first) * channels + c, width * channels
            add_rows(total, values, steps, there, x, w, p * up_h - above, height, line, start, c)
            if scale.shape[0]:
                factor = scale[at(c)]
                for i in range(ROWS):
                    for j in range(EACH):
                        total[i, j] *= factor
            if shift.shape[0]:
                term = shift[at(c)]
                for i in range(ROWS):
                    for j in range(EACH):
                        total[i, j] += term
            if act >= RELU:
                for i in range(ROWS):
                    for j in range(EACH):
                        total[i, j] = zero if total[i, j] <= zero else total[i, j]
            if act == RELU6:
                for i in range(ROWS):
                    for j in range(EACH):
                        total[i, j] = six if total[i, j] >= six else total[i, j]
            for i in range(ROWS):
                start = ((n * out_h + p + i) * out_w + q) * channels + c
                for j in range(EACH):
                    if p + i < out_h and q + j < out_w:
                        y[at(start + j * channels)] = total[i, j]
            t += at(cuda.gridsize(1))

    return kernel


def grad_x(taps: Taps, dtype):
    """dx ← the sum over taps of dy · w, a block (`of_dx`) and a channel a thread.

    Along an axis tap r meets every `up`-th pixel of the block: i of them, of the output (i + above − r · apart) / up
    from that of the block on.
    """
    taps_h, taps_w, up_h, up_w, apart_h, apart_w, above, left, masked = taps
    zero, (tall, wide) = dtype(0), of_dx(taps.down, taps.across)
    times_h, times_w, shape = tall // up_h, wide // up_w, (tall, wide)
    q_first, q_last = up(left - (taps_w - 1) * apart_w, up_w), (left + wide - 1) // up_w
    columns = q_last - q_first + 1
    find, load, through = finder(columns), loader(columns, dtype), masker(columns, dtype)

    def row(a, total, values, steps, there, dy, mask, w, top, out_h, line, n, start, c):
        r, i = a // times_h, a % times_h * up_h + (a // times_h * apart_h - above) % up_h
        p = top + (i + above - r * apart_h) // up_h
        near = nearest(p, out_h)
        load(values, dy, (n * out_h + near) * line + start, steps, there, near == p)
        if masked:
            through(values, mask, n, near * line + start, steps)
        for s in range(taps_w):
            factor = w[at(r * taps_w + s), at(c)]
            for b in range(times_w):
                j = b * up_w + (s * apart_w - left) % up_w
                total[i, j] += values[(j + left - s * apart_w) // up_w - q_first] * factor

    add_rows = in_turn(taps_h * times_h, row)

    @jit
    def kernel(items, dx, dy, mask, scale, w, geometry):
        height, width, out_h, out_w, channels = geometry[:5]
        blocks_h, blocks_w = (height + tall - 1) // tall, (width + wide - 1) // wide
        t = at(cuda.grid(1))
        while t < at(items):
            total = cuda.local.array(shape, dtype)
            values = cuda.local.array(columns, dtype)
            steps = cuda.local.array(columns, np.int64)
            there = cuda.local.array(columns, np.bool_)
            rest, c = parted(t, channels)
            rest, side = parted(rest, blocks_w)
            n, top = parted(rest, blocks_h)
            h, v = top * tall, side * wide
            for i in range(tall):
                for j in range(wide):
                    total[i, j] = zero
            first = find(steps, there, side * times_w + q_first, out_w, channels)
            start, line = first * channels + c, out_w * channels
            add_rows(total, values, steps, there, dy, mask, w, top * times_h, out_h, line, n, start, c)
            if scale.shape[0]:
                factor = scale[at(c)]
                for i in range(tall):
                    for j in range(wide):
                        total[i, j] *= factor
            for i in range(tall):
                start = ((n * height + h + i) * width + v) * channels + c
                for j in range(wide):
                    if h + i < height and v + j < width:
                        dx[at(start + j * channels)] = total[i, j]
            t += at(cuda.gridsize(1))

    return kernel


def grad_w(taps: Taps, dtype):
    """dw (slices, R, S, 1, C), each the sum over `length` runs of EACH output pixels of a row.

    A thread makes all taps of a channel and a slice. kept: the channels of dy that x, (pixels, M), and dw,
    (slices, R, S, 1, M), are of; empty where that is all of them.
    """
    taps_h, taps_w, up_h, up_w, apart_h, apart_w, above, left, masked = taps
    zero, columns, shape = dtype(0), of_x(taps), (taps_h, taps_w)
    find, load = finder(columns), loader(columns, dtype)
    find_dy, load_dy, through = finder(EACH), loader(EACH, dtype), masker(EACH, dtype)

    def row(r, total, errors, values, steps, there, x, top, height, line, start):
        h = top + r * apart_h
        near = nearest(h, height)
        load(values, x, start + near * line, steps, there, near == h)
        for s in range(taps_w):
            for j in range(EACH):
                total[r, s] += values[j * up_w + s * apart_w] * errors[j]

    add_rows = in_turn(taps_h, row)

    @jit
    def kernel(items, dw, dy, mask, scale, kept, x, geometry, length):
        height, width, out_h, out_w, outputs = geometry[:5]
        channels, runs = dw.shape[4], (out_w + EACH - 1) // EACH
        last = dy.shape[0] // (out_w * outputs) * runs
        t = at(cuda.grid(1))
        while t < at(items):
            total = cuda.local.array(shape, dtype)
            values = cuda.local.array(columns, dtype)
            steps = cuda.local.array(columns, np.int64)
            there = cuda.local.array(columns, np.bool_)
            errors = cuda.local.array(EACH, dtype)
            dy_steps = cuda.local.array(EACH, np.int64)
            dy_there = cuda.local.array(EACH, np.bool_)
            piece, c = parted(t, channels)
            k = c
            if kept.shape[0]:
                k = np.int64(kept[at(c)])
            for r in range(taps_h):
                for s in range(taps_w):
                    total[r, s] = zero
            turn = piece * length
            end = min(turn + length, last)
            rest, run = parted(turn, runs)
            n, p = parted(rest, out_h)
            while turn < end:
                q = run * EACH
                find_dy(dy_steps, dy_there, q, out_w, outputs)
                start = (p * out_w + q) * outputs + k
                load_dy(errors, dy, n * out_h * out_w * outputs + start, dy_steps, dy_there, True)
                if masked:
                    through(errors, mask, n, start, dy_steps)
                first = find(steps, there, q * up_w - left, width, channels)
                start, line = (n * height * width + first) * channels + c, width * channels
                add_rows(total, errors, values, steps, there, x, p * up_h - above, height, line, start)
                turn, run = turn + 1, run + 1
                if run == runs:
                    p, run = p + 1, 0
                if p == out_h:
                    n, p = n + 1, 0
            if scale.shape[0]:
                factor = scale[at(k)]
                for r in range(taps_h):
                    for s in range(taps_w):
                        total[r, s] *= factor
            for r in range(taps_h):
                for s in range(taps_w):
                    dw[at(piece), r, s, 0, at(c)] = total[r, s]
            t += at(cuda.gridsize(1))

    return kernel


def _forward_executes(items, y, x, w, scale, shift, geometry, act) -> Ops:
    """Of a block's pixels beside y too."""
    after = Ops(mul=bool(scale.shape[0]), add=bool(shift.shape[0]))
    return (MAC * w.shape[0] + after) * (items * ROWS * EACH)


def _grad_x_executes(items, dx, dy, mask, scale, w, geometry) -> Ops:
    """Of a block's pixels beside dx too."""
    _, _, _, _, _, _, _, down, across, *_ = geometry
    tall, wide = of_dx(down, across)
    met = tall // down * (wide // across) * w.shape[0]  # pixels and taps that meet
    return MAC * (items * met) + (MUL * (items * tall * wide) if scale.shape[0] else NOTHING)


def _grad_w_executes(items, dw, dy, mask, scale, kept, x, geometry, length) -> Ops:
    """Of a run's pixels beside dy too."""
    _, _, _, out_w, outputs, *_ = geometry
    pixels = dy.size // (out_w * outputs) * multiple(out_w, EACH)
    return MAC * (pixels * dw[0].size) + (MUL * dw.size if scale.shape[0] else NOTHING)


FORWARD = executes(_forward_executes)(Unrolled(forward, 5))
GRAD_X = executes(_grad_x_executes)(Unrolled(grad_x, 5, 2))
GRAD_W = executes(_grad_w_executes)(Unrolled(grad_w, 6, 2))
