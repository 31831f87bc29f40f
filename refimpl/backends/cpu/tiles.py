"""How fast kernels cut their work: borders that follow from the shapes alone, so any thread count gives the same bits.

A tiling is a flat tuple of integers, made once for the largest batch and passed to the kernel with every call, which
unpacks it by name: a named tuple would cost every launch half a microsecond, to tell its type.
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


# ---- conv2d, from the sizes of the letters of ops.conv2d and its attributes


def geometry(attrs: Mapping) -> tuple[int, ...]:
    """(stride_h, stride_w, dilation_h, dilation_w, top, left) as the kernels take them: of rows, of columns."""
    return (*attrs["stride"], *attrs["dilation"], attrs["pad"][0][0], attrs["pad"][1][0])


def in_place(sizes: Mapping, attrs: Mapping) -> bool:
    """Does the convolution read x as it lies: 1×1, stride 1, no padding?"""
    return sizes["R"] == sizes["S"] == 1 and tuple(attrs["stride"]) == (1, 1) and not any(map(any, attrs["pad"]))


def _gathering(samples: int, pixels: int, width: int, kernel: tuple[int, int], depth: int, groups: int):
    """Tiling of a convolution to maps of `pixels` and `width` channels, each from `depth` channels under the kernel."""
    weights = kernel[0] * kernel[1] * depth * width
    together, part = row_tiles(samples, pixels, weights)
    items = ceil_div(samples, together) * ceil_div(pixels, part)
    channels = parts_of_channels(width, ceil_div(ITEMS // 2, items)) if groups == 1 else width
    return together, part, channels, *taps(together * part, kernel, depth)


def forward_tiles(sizes: Mapping, attrs: Mapping) -> tuple[int, ...]:
    """(samples, part, channels, tap_rows, tap_columns) of a tile: part counts pixels of a sample."""
    return _gathering(
        sizes["N"], sizes["P"] * sizes["Q"], sizes["K"], (sizes["R"], sizes["S"]), sizes["C"] // sizes["G"], sizes["G"]
    )


def forward_scratch(sizes: Mapping, attrs: Mapping, tiles: tuple[int, ...], threads: int) -> tuple[int, int]:
    """Shape of `scratch` (float dtype)."""
    samples, part, _, r, s = tiles
    gathered = 0 if in_place(sizes, attrs) else samples * part * r * s * (sizes["C"] // sizes["G"])
    transposed = samples * part * sizes["K"] if sizes["K"] < NARROW and sizes["C"] == 1 and gathered else 0
    return threads, gathered + transposed


def turns(sizes: Mapping, attrs: Mapping) -> bool:
    """Is grad_x made as a convolution of dy with the turned kernel?

    It needs stride 1, channels enough to fill a vector, and pixels enough to pay for turning the kernel.
    """
    wide = sizes["C"] // sizes["G"] >= NARROW and sizes["N"] * sizes["H"] * sizes["W"] >= 4 * ROWS
    return wide and tuple(attrs["stride"]) == (1, 1) and not in_place(sizes, attrs)


def grad_x_tiles(sizes: Mapping, attrs: Mapping) -> tuple[int, ...]:
    """(samples, part, channels, piece, tap_rows, tap_columns) of a tile.

    In place, or as a convolution of dy (`turns`), part counts pixels of dx, and piece the pixels of dy that they read.
    Else part counts map rows of dx, and a tile reads all of dy that reaches them, piece by piece; pixels at its borders
    are multiplied for both neighbours, so tiles are as large as the wanted number allows.
    """
    window, depth = (sizes["R"], sizes["S"]), sizes["C"] // sizes["G"]
    reach = attrs["dilation"][0] * (sizes["R"] - 1)  # map rows that two neighbours share
    if turns(sizes, attrs) or in_place(sizes, attrs):
        samples, part, channels, r, s = _gathering(
            sizes["N"], sizes["H"] * sizes["W"], sizes["C"], window, sizes["K"] // sizes["G"], sizes["G"]
        )  # fmt: skip
        return samples, part, channels, pixels_read(sizes, attrs, samples, part), r, s
    pixels = sizes["P"] * sizes["Q"]
    samples = min(sizes["N"], max(1, 2 * ROWS // pixels, sizes["N"] // (2 * ITEMS)))
    items = ceil_div(sizes["N"], samples)
    wanted = 1 if samples > 1 else min(ceil_div(ITEMS // 2, items), max(1, sizes["H"] // max(1, 4 * reach, 4)))
    rows = ceil_div(sizes["H"], wanted)
    items *= ceil_div(sizes["H"], rows)
    channels = parts_of_channels(sizes["C"], ceil_div(ITEMS // 2, items)) if sizes["G"] == 1 else sizes["C"]
    part = min(2 * ROWS if channels < sizes["C"] else ROWS, samples * pixels)
    return samples, rows, channels, part, *((1, 1) if channels < sizes["C"] else taps(part, window, depth))


def pixels_read(sizes: Mapping, attrs: Mapping, samples: int, part: int) -> int:
    """Pixels of dy that a tile of `part` pixels of dx of each of `samples` samples reads, stride 1."""
    if in_place(sizes, attrs):
        return samples * part
    rows = ceil_div(part - 1, sizes["W"]) + 1 + attrs["dilation"][0] * (sizes["R"] - 1)
    return ((samples - 1) * sizes["P"] + min(rows, sizes["P"])) * sizes["Q"]


def grad_x_scratch(
    sizes: Mapping, attrs: Mapping, tiles: tuple[int, ...], threads: int, staged: bool = True
) -> tuple[int, int]:
    """Shape of `scratch` (float dtype); staged: does the call read dy through a mask or a scale?"""
    samples, part, channels, pixels, r, s = tiles
    if turns(sizes, attrs) or in_place(sizes, attrs):
        columns = 0 if in_place(sizes, attrs) else samples * part * r * s * (sizes["K"] // sizes["G"])
        return threads, columns + (pixels * sizes["K"] if staged else 0)
    return threads, pixels * (sizes["K"] + r * s * (channels if sizes["G"] == 1 else sizes["C"] // sizes["G"]))


def grad_x_turned(sizes: Mapping, attrs: Mapping) -> tuple[int, ...]:
    """Shape of `turned` (float dtype), which tells the kernel how to go about it."""
    return (sizes["R"], sizes["S"], sizes["K"] // sizes["G"], sizes["C"]) if turns(sizes, attrs) else (0, 0, 0, 0)


def grad_w_tiles(sizes: Mapping, attrs: Mapping) -> tuple[int, ...]:
    """(per_slice, part, tap_rows, tap_columns, channels): pixels of a slice and of a tile, taps and channels of a tile.

    Work is shared by cutting dw where it is large, and by slices of pixels with partial sums where it is small.
    """
    pixels, depth, window = sizes["N"] * sizes["P"] * sizes["Q"], sizes["C"] // sizes["G"], (sizes["R"], sizes["S"])
    size = sizes["R"] * sizes["S"] * depth * sizes["K"]
    part = min(2 * DEPTH, pixels)
    r, s = taps(part, window, depth)
    slices = min(ITEMS // 2, max(1, PARTIALS // size), ceil_div(pixels, part))
    channels = depth
    if slices == 1 and sizes["G"] == 1:
        while r * s > 1 and ceil_div(sizes["R"], r) * ceil_div(sizes["S"], s) < ITEMS:
            r, s = (ceil_div(r, 2), s) if r > 1 else (1, ceil_div(s, 2))
        if r * s == 1:
            channels = parts_of_channels(depth, ceil_div(ITEMS, sizes["R"] * sizes["S"]), 32)
    per_slice = ceil_div(ceil_div(pixels, slices), part) * part
    return per_slice, part, r, s, channels


def grad_w_scratch(
    sizes: Mapping, attrs: Mapping, tiles: tuple[int, ...], threads: int, staged: bool = True
) -> tuple[int, int]:
    """Shape of `scratch` (float dtype); staged: does the call read dy through a mask or a scale?"""
    _, part, r, s, channels = tiles
    gathered = 0 if in_place(sizes, attrs) else part * r * s * channels
    return threads, gathered + (part * sizes["K"] if staged else 0)


def grad_w_partials(sizes: Mapping, attrs: Mapping, tiles: tuple[int, ...]) -> tuple[int, int]:
    """Shape of `partials` (float dtype): one partial dw per slice of pixels; none where there is one slice."""
    slices = ceil_div(sizes["N"] * sizes["P"] * sizes["Q"], tiles[0])
    return (slices, sizes["R"] * sizes["S"] * sizes["C"] // sizes["G"] * sizes["K"]) if slices > 1 else (0, 0)


def grad_b_partials(sizes: Mapping) -> tuple[int, int]:
    """Shape of `partials` (float dtype): one partial db per slice of samples."""
    return min(ITEMS, sizes["N"]), sizes["K"]
