"""How fast kernels cut their work: borders that follow from the shapes alone, so any thread count gives the same bits.

A tiling is a flat tuple of integers, made once for the largest batch and passed to the kernel with every call.
"""

from collections.abc import Mapping

ROWS = 120  # rows of a tile: enough to pay for reading the weights, few enough for a tile to stay in cache
DEPTH = 96  # rows of B that a product reads from level-one cache
COLUMNS = 48 * 1024  # elements of a gathered tile, of one thread: 192 KiB in float32
ITEMS = 16  # tiles wanted at least, so that a few threads share them evenly
NARROW = 16  # fewer output channels than this leave vector lanes empty: the product is then made transposed
PARTIALS = 256 * 1024  # elements of all partial weight gradients together: 1 MiB in float32


def ceil_div(a: int, b: int) -> int:
    """⌈a / b⌉."""
    return -(-a // b)


def even(total: int, size: int, multiple: int = 1) -> int:
    """Size of equal parts of `total`, near `size`, rounded up to a multiple."""
    parts = max(1, round(total / size))
    return ceil_div(ceil_div(total, parts), multiple) * multiple


def parts_of_channels(channels: int, wanted: int, smallest: int = 64) -> int:
    """Width of about `wanted` parts of the channels, a multiple of 16 not below `smallest`; else all of them.

    Channels are a multiple of 8 then, so the mask of a part of a pixel is whole bytes.
    """
    if wanted <= 1 or channels % 8 or channels <= smallest:
        return channels
    return min(channels, max(smallest, ceil_div(ceil_div(channels, wanted), 16) * 16))


def row_tiles(samples: int, pixels: int, weights: int) -> tuple[int, int]:
    """Tile of (samples, pixels): whole samples where they are small, else part of one, pixels a multiple of 8.

    A multiple of 8 pixels makes a tile begin on a whole byte of the mask. Every tile reads all `weights`, so tiles are
    small only where those stay in cache.
    """
    least = 48 if weights <= 64 * 1024 else ROWS
    rows = min(ROWS, max(least, ceil_div(samples * pixels, ITEMS)))
    if pixels > 1.5 * rows:
        return 1, even(pixels, rows, 8)
    return min(samples, max(1, even(samples, max(1, rows // pixels)))), pixels


def taps(rows: int, kernel: tuple[int, int], depth: int, columns: int = COLUMNS) -> tuple[int, int]:
    """Kernel rows and columns gathered at once for `rows` pixels; whole kernel rows if they fit, at least a tap."""
    r, s = kernel
    fit = max(1, columns // (rows * depth))
    if fit >= s:
        return even(r, min(r, fit // s)) if fit // s < r else r, s
    return 1, ceil_div(s, ceil_div(s, fit))


# ---- conv2d, from the letter sizes `z` of ops.conv2d and its attributes


def geometry(attrs: Mapping) -> tuple[int, ...]:
    """(stride, stride, dilation, dilation, top, left) as the kernels take them."""
    return (*attrs["stride"], *attrs["dilation"], attrs["pad"][0][0], attrs["pad"][1][0])


def in_place(z: Mapping, attrs: Mapping) -> bool:
    """Does the convolution read x as it lies: 1×1, stride 1, no padding?"""
    return z["R"] == z["S"] == 1 and tuple(attrs["stride"]) == (1, 1) and not any(map(any, attrs["pad"]))


def _gathering(samples: int, pixels: int, width: int, kernel: tuple[int, int], depth: int, groups: int):
    """Tiling of a convolution to maps of `pixels` and `width` channels, each from `depth` channels under the kernel."""
    weights = kernel[0] * kernel[1] * depth * width
    together, part = row_tiles(samples, pixels, weights)
    items = ceil_div(samples, together) * ceil_div(pixels, part)
    channels = parts_of_channels(width, ceil_div(ITEMS // 2, items)) if groups == 1 else width
    return together, part, channels, *taps(together * part, kernel, depth)


def forward_tiles(z: Mapping, attrs: Mapping) -> tuple[int, ...]:
    """(samples, pixels, channels, kernel rows, kernel columns) of a tile."""
    return _gathering(z["N"], z["P"] * z["Q"], z["K"], (z["R"], z["S"]), z["C"] // z["G"], z["G"])


def forward_scratch(z: Mapping, attrs: Mapping, tiles: tuple[int, ...], threads: int) -> tuple[int, int]:
    """Shape of `scratch` (float dtype)."""
    samples, part, _, r, s = tiles
    gathered = 0 if in_place(z, attrs) else samples * part * r * s * (z["C"] // z["G"])
    transposed = samples * part * z["K"] if z["K"] < NARROW and z["C"] == 1 and gathered else 0
    return threads, gathered + transposed


def turns(z: Mapping, attrs: Mapping) -> bool:
    """Is grad_x made as a convolution of dy with the turned kernel?

    It needs stride 1, channels enough to fill a vector, and pixels enough to pay for turning the kernel.
    """
    wide = z["C"] // z["G"] >= NARROW and z["N"] * z["H"] * z["W"] >= 4 * ROWS
    return wide and tuple(attrs["stride"]) == (1, 1) and not in_place(z, attrs)


def grad_x_tiles(z: Mapping, attrs: Mapping) -> tuple[int, ...]:
    """(samples, part, channels, pixels of dy, kernel rows, kernel columns) of a tile.

    In place, or as a convolution of dy (`turns`), part counts pixels of dx, and pixels of dy are those that they read.
    Else part counts map rows of dx, and a tile reads, some pixels at a time, all of dy that reaches them; pixels at its
    borders are multiplied for both neighbours, so tiles are as large as the wanted number allows.
    """
    window, depth = (z["R"], z["S"]), z["C"] // z["G"]
    reach = attrs["dilation"][0] * (z["R"] - 1)  # map rows that two neighbours share
    if turns(z, attrs) or in_place(z, attrs):
        samples, part, channels, r, s = _gathering(
            z["N"], z["H"] * z["W"], z["C"], window, z["K"] // z["G"], z["G"]
        )  # fmt: skip
        return samples, part, channels, pixels_read(z, attrs, samples, part), r, s
    pixels = z["P"] * z["Q"]
    samples = min(z["N"], max(1, 2 * ROWS // pixels, z["N"] // (2 * ITEMS)))
    items = ceil_div(z["N"], samples)
    wanted = 1 if samples > 1 else min(ceil_div(ITEMS // 2, items), max(1, z["H"] // max(1, 4 * reach, 4)))
    rows = ceil_div(z["H"], wanted)
    items *= ceil_div(z["H"], rows)
    channels = parts_of_channels(z["C"], ceil_div(ITEMS // 2, items)) if z["G"] == 1 else z["C"]
    part = min(2 * ROWS if channels < z["C"] else ROWS, samples * pixels)
    return samples, rows, channels, part, *((1, 1) if channels < z["C"] else taps(part, window, depth))


def pixels_read(z: Mapping, attrs: Mapping, samples: int, part: int) -> int:
    """Pixels of dy that a tile of `part` pixels of dx of each of `samples` samples reads, stride 1."""
    if in_place(z, attrs):
        return samples * part
    rows = ceil_div(part - 1, z["W"]) + 1 + attrs["dilation"][0] * (z["R"] - 1)
    return ((samples - 1) * z["P"] + min(rows, z["P"])) * z["Q"]


def grad_x_scratch(
    z: Mapping, attrs: Mapping, tiles: tuple[int, ...], threads: int, staged: bool = True
) -> tuple[int, int]:
    """Shape of `scratch` (float dtype); staged: does the call read dy through a mask or a scale?"""
    samples, part, channels, pixels, r, s = tiles
    if turns(z, attrs) or in_place(z, attrs):
        columns = 0 if in_place(z, attrs) else samples * part * r * s * (z["K"] // z["G"])
        return threads, columns + (pixels * z["K"] if staged else 0)
    return threads, pixels * (z["K"] + r * s * (channels if z["G"] == 1 else z["C"] // z["G"]))


def grad_x_turned(z: Mapping, attrs: Mapping) -> tuple[int, ...]:
    """Shape of `turned` (float dtype), which tells the kernel how to go about it."""
    return (z["R"], z["S"], z["K"] // z["G"], z["C"]) if turns(z, attrs) else (0, 0, 0, 0)


def grad_w_tiles(z: Mapping, attrs: Mapping) -> tuple[int, ...]:
    """(pixels of a slice, pixels of a tile, kernel rows, kernel columns, channels).

    Work is shared by cutting dw where it is large, and by slices of pixels with partial sums where it is small.
    """
    pixels, depth, window = z["N"] * z["P"] * z["Q"], z["C"] // z["G"], (z["R"], z["S"])
    size = z["R"] * z["S"] * depth * z["K"]
    part = min(2 * DEPTH, pixels)
    r, s = taps(part, window, depth)
    slices = min(ITEMS // 2, max(1, PARTIALS // size), ceil_div(pixels, part))
    channels = depth
    if slices == 1 and z["G"] == 1:
        while r * s > 1 and ceil_div(z["R"], r) * ceil_div(z["S"], s) < ITEMS:
            r, s = (ceil_div(r, 2), s) if r > 1 else (1, ceil_div(s, 2))
        if r * s == 1:
            channels = parts_of_channels(depth, ceil_div(ITEMS, z["R"] * z["S"]), 32)
    per_slice = ceil_div(ceil_div(pixels, slices), part) * part
    return per_slice, part, r, s, channels


def grad_w_scratch(
    z: Mapping, attrs: Mapping, tiles: tuple[int, ...], threads: int, staged: bool = True
) -> tuple[int, int]:
    """Shape of `scratch` (float dtype); staged: does the call read dy through a mask or a scale?"""
    _, part, r, s, channels = tiles
    gathered = 0 if in_place(z, attrs) else part * r * s * channels
    return threads, gathered + (part * z["K"] if staged else 0)


def grad_w_partials(z: Mapping, attrs: Mapping, tiles: tuple[int, ...]) -> tuple[int, int]:
    """Shape of `partials` (float dtype): one partial dw per slice of pixels; none where there is one slice."""
    slices = ceil_div(z["N"] * z["P"] * z["Q"], tiles[0])
    return (slices, z["R"] * z["S"] * z["C"] // z["G"] * z["K"]) if slices > 1 else (0, 0)


def grad_b_partials(z: Mapping) -> tuple[int, int]:
    """Shape of `partials` (float dtype): one partial db per slice of samples."""
    return min(ITEMS, z["N"]), z["K"]
