"""Tiles of a convolution: taps of x gathered (im2col), products scattered back (col2im), dy read through its mask."""

from ..kernel import inline
from .memory import clear, copy, read_masked


@inline
def up(a, b):
    """⌈a / b⌉."""
    return (a + b - 1) // b


@inline
def gather(own, x, row0, rows, height, across, r0, r1, s0, s1, channel, depth, geometry):
    """Fill own (rows, (r1-r0)·(s1-s0)·depth): the inputs under taps `r0 : r1`, `s0 : s1` of each pixel, 0 outside.

    Pixels are those of a (N, height, across) map from row0 on; input channels `channel : channel + depth`.
    """
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    q = row0 % across
    p = row0 // across % height
    n = row0 // across // height
    whole = dilation_w == 1 and depth == x.shape[3]  # the taps of a kernel row lie side by side
    taps_ = s1 - s0
    o = 0
    for _ in range(rows):
        v0 = q * stride_w - left + s0 * dilation_w
        for r in range(r0, r1):
            h = p * stride_h - top + r * dilation_h
            line = (n * x.shape[1] + h) * x.shape[2]
            if h < 0 or h >= x.shape[1]:
                clear(own, o, taps_ * depth)
            elif whole:
                low = min(max(0, -v0), taps_)
                high = max(min(taps_, x.shape[2] - v0), low)
                if low > 0:
                    clear(own, o, low * depth)
                copy(own, o + low * depth, x, (line + v0 + low) * depth, (high - low) * depth)
                if high < taps_:
                    clear(own, o + high * depth, (taps_ - high) * depth)
            else:
                for s in range(taps_):
                    v = v0 + s * dilation_w
                    if 0 <= v and v < x.shape[2]:
                        copy(own, o + s * depth, x, (line + v) * x.shape[3] + channel, depth)
                    else:
                        clear(own, o + s * depth, depth)
            o += taps_ * depth
        q += 1
        if q == across:
            q = 0
            p += 1
            if p == height:
                p = 0
                n += 1


@inline
def gather_taps(own, x, row0, rows, height, across, r0, r1, s0, s1, geometry):
    """Fill own ((r1-r0)·(s1-s0), rows): as `gather` for one channel, transposed."""
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    flat = x.reshape(-1)
    o = 0
    for r in range(r0, r1):
        for s in range(s0, s1):
            done = 0
            while done < rows:  # one run of pixels within a row of the output map
                q = (row0 + done) % across
                p = (row0 + done) // across % height
                n = (row0 + done) // across // height
                run = min(across - q, rows - done)
                h = p * stride_h - top + r * dilation_h
                v = q * stride_w - left + s * dilation_w
                if h < 0 or h >= x.shape[1]:
                    clear(own, o, run)
                else:
                    low = min(max(0, up(-v, stride_w)), run)  # first pixel of the run that lies inside
                    high = max(min(run, up(x.shape[2] - v, stride_w)), low)
                    start = (n * x.shape[1] + h) * x.shape[2] + v
                    clear(own, o, low)
                    if stride_w == 1:
                        copy(own, o + low, x, start + low, high - low)
                    else:
                        for i in range(low, high):
                            own[o + i] = flat[start + i * stride_w]
                    clear(own, o + high, run - high)
                done += run
                o += run


@inline
def scatter(dx, own, row0, rows, height, across, h0, h1, r0, r1, s0, s1, channel, depth, c0, geometry):
    """Add `own` (rows, (r1-r0)·(s1-s0)·depth) to dx where `gather` would have read, in map rows `h0 : h1` only.

    The products of a tap go to the channels `channel + c0 : + depth` of dx. Sums run in the order of the pixels.
    """
    stride_h, stride_w, dilation_h, dilation_w, top, left = geometry
    flat, total = dx.reshape(-1), dx.shape[3]
    q = row0 % across
    p = row0 // across % height
    n = row0 // across // height
    whole = dilation_w == 1 and depth == total
    taps_ = s1 - s0
    o = 0
    for _ in range(rows):
        v0 = q * stride_w - left + s0 * dilation_w
        for r in range(r0, r1):
            h = p * stride_h - top + r * dilation_h
            line = (n * dx.shape[1] + h) * dx.shape[2]
            if h0 <= h and h < h1:
                if whole:
                    low = min(max(0, -v0), taps_)
                    high = max(min(taps_, dx.shape[2] - v0), low)
                    start = (line + v0) * total
                    for i in range(low * depth, high * depth):
                        flat[start + i] += own[o + i]
                else:
                    for s in range(taps_):
                        v = v0 + s * dilation_w
                        if 0 <= v and v < dx.shape[2]:
                            start = (line + v) * total + channel + c0
                            for i in range(depth):
                                flat[start + i] += own[o + s * depth + i]
            o += taps_ * depth
        q += 1
        if q == across:
            q = 0
            p += 1
            if p == height:
                p = 0
                n += 1


@inline
def dy_tile(own, start, dy, row0, rows, mask, scale):
    """Fill own[start:] (rows, K) with dy_eff of the pixels from row0 on: dy·scale where the mask is set, else 0."""
    width = dy.shape[3]
    if mask.shape[1] == 0:
        copy(own, start, dy, row0 * width, rows * width)
    else:
        pixels = dy.shape[1] * dy.shape[2]
        done = 0
        while done < rows:  # the part of the tile that lies in one sample
            n = (row0 + done) // pixels
            first = (row0 + done) % pixels
            run = min(pixels - first, rows - done)
            read_masked(own, start + done * width, dy, (row0 + done) * width, run * width,
                        mask, n * mask.shape[1], first * width)  # fmt: skip
            done += run
    if scale.shape[0] > 0:
        for i in range(rows):
            for k in range(width):
                own[start + i * width + k] *= scale[k]
