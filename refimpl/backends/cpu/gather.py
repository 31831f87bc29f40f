"""Tiles of a convolution: taps of x gathered (im2col), products scattered back (col2im), dy read through its mask.

A map is given by an array, the element where sample 0 would begin in it, and its rows, columns and channels; so a
part of a map that was copied elsewhere can be read by the same indices.
"""

from ...kernels.kernel import inline
from .memory import accumulate, clear, copy, read_masked
from .shared import bytes_, floats, shared


@inline
def up(a, b):
    """⌈a / b⌉."""
    return (a + b - 1) // b


@shared
def gather(
    zero,
    own,
    to,
    x,
    origin,
    high_x,
    wide_x,
    total,
    row0,
    rows,
    height,
    across,
    r0,
    r1,
    s0,
    s1,
    channel,
    depth,
    stride_h,
    stride_w,
    dilation_h,
    dilation_w,
    top,
    left,
):
    """Fill own[to:] (rows, (r1-r0)·(s1-s0)·depth): the inputs under taps `r0 : r1`, `s0 : s1` of each pixel, else 0.

    x, origin, high_x, wide_x, total: the map that is read, the element where sample 0 begins in it, its rows, columns
    and channels. row0, rows: the first pixel and how many, of the output map of height × across pixels a sample.
    channel, depth: the first input channel and how many. The last six: the geometry of `tiles.geometry`.
    """
    own, x = floats(zero, own), floats(zero, x)
    q = row0 % across
    p = row0 // across % height
    n = row0 // across // height
    whole = dilation_w == 1 and depth == total  # the taps of a kernel row lie side by side
    taps = s1 - s0
    o = to
    for _ in range(rows):
        col0 = q * stride_w - left + s0 * dilation_w
        for r in range(r0, r1):
            h = p * stride_h - top + r * dilation_h
            line = (n * high_x + h) * wide_x
            if h < 0 or h >= high_x:
                clear(own, o, taps * depth)
            elif whole:
                low = min(max(0, -col0), taps)
                high = max(min(taps, wide_x - col0), low)
                if low > 0:
                    clear(own, o, low * depth)
                copy(own, o + low * depth, x, origin + (line + col0 + low) * depth, (high - low) * depth)
                if high < taps:
                    clear(own, o + high * depth, (taps - high) * depth)
            else:
                for s in range(taps):
                    col = col0 + s * dilation_w
                    if 0 <= col and col < wide_x:
                        copy(own, o + s * depth, x, origin + (line + col) * total + channel, depth)
                    else:
                        clear(own, o + s * depth, depth)
            o += taps * depth
        q += 1
        if q == across:
            q = 0
            p += 1
            if p == height:
                p = 0
                n += 1


@shared
def gather_taps(
    zero,
    own,
    to,
    x,
    high_x,
    wide_x,
    row0,
    rows,
    height,
    across,
    r0,
    r1,
    s0,
    s1,
    stride_h,
    stride_w,
    dilation_h,
    dilation_w,
    top,
    left,
):
    """Fill own[to:] ((r1-r0)·(s1-s0), rows): as `gather` for a map x of one channel, transposed.

    high_x, wide_x: rows and columns of x. The others as in `gather`.
    """
    own, x = floats(zero, own), floats(zero, x)
    q = row0 % across
    p = row0 // across % height
    n = row0 // across // height
    done = 0
    while done < rows:  # one run of pixels within a row of the output map
        run = min(across - q, rows - done)
        o = to + done
        for r in range(r0, r1):
            h = p * stride_h - top + r * dilation_h
            line = (n * high_x + h) * wide_x
            for s in range(s0, s1):
                col = q * stride_w - left + s * dilation_w
                first, end = -col, wide_x - col
                if stride_w > 1:
                    first, end = up(first, stride_w), up(end, stride_w)
                low = min(max(0, first), run)  # first pixel of the run that lies inside
                high = max(min(run, end), low)
                if h < 0 or h >= high_x:
                    low = high = run
                for i in range(low):
                    own[o + i] = 0
                if stride_w == 1:
                    copy(own, o + low, x, line + col + low, high - low)
                else:
                    for i in range(low, high):
                        own[o + i] = x[line + col + i * stride_w]
                for i in range(high, run):
                    own[o + i] = 0
                o += rows
        done += run
        q = 0
        p += 1
        if p == height:
            p = 0
            n += 1


@shared
def scatter(
    zero,
    dx,
    high_x,
    wide_x,
    total,
    own,
    start,
    row0,
    rows,
    height,
    across,
    h0,
    h1,
    r0,
    r1,
    s0,
    s1,
    channel,
    depth,
    stride_h,
    stride_w,
    dilation_h,
    dilation_w,
    top,
    left,
):
    """Add own[start:] (rows, (r1-r0)·(s1-s0)·depth) to dx where `gather` would have read, in map rows `h0 : h1` only.

    The products of a tap go to the channels `channel : channel + depth`. Sums run in the order of the pixels.
    high_x, wide_x, total: rows, columns and channels of dx. The others as in `gather`, the pixels being those of dy.
    """
    own, dx = floats(zero, own), floats(zero, dx)
    q = row0 % across
    p = row0 // across % height
    n = row0 // across // height
    whole = dilation_w == 1 and depth == total
    taps = s1 - s0
    o = start
    for _ in range(rows):
        col0 = q * stride_w - left + s0 * dilation_w
        for r in range(r0, r1):
            h = p * stride_h - top + r * dilation_h
            line = (n * high_x + h) * wide_x
            if h0 <= h and h < h1:
                if whole:
                    low = min(max(0, -col0), taps)
                    high = max(min(taps, wide_x - col0), low)
                    accumulate(dx, (line + col0 + low) * depth, own, o + low * depth, (high - low) * depth)
                else:
                    for s in range(taps):
                        col = col0 + s * dilation_w
                        if 0 <= col and col < wide_x:
                            accumulate(dx, (line + col) * total + channel, own, o + s * depth, depth)
            o += taps * depth
        q += 1
        if q == across:
            q = 0
            p += 1
            if p == height:
                p = 0
                n += 1


@shared
def dy_tile(zero, own, to, dy, pixels, width, row0, rows, mask, mask_bytes, scale, scaled):
    """Fill own[to:] (rows, K) with dy_eff of the pixels from row0 on: dy·scale where the mask is set, else 0."""
    own, dy, scale, mask = floats(zero, own), floats(zero, dy), floats(zero, scale), bytes_(mask)
    if mask_bytes == 0:
        copy(own, to, dy, row0 * width, rows * width)
    else:
        done = 0
        while done < rows:  # the part of the tile that lies in one sample
            n = (row0 + done) // pixels
            first = (row0 + done) % pixels
            run = min(pixels - first, rows - done)
            read_masked(own, to + done * width, dy, (row0 + done) * width, run * width,
                        mask, n * mask_bytes, first * width)  # fmt: skip
            done += run
    if scaled:
        for i in range(rows):
            for k in range(width):
                own[to + i * width + k] *= scale[k]
