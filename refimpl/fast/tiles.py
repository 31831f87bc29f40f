"""How fast kernels cut their work: borders that follow from the shapes alone, so any thread count gives the same bits.

A tiling is a flat tuple of integers, made once for the largest batch and passed to the kernel with every call.
"""

from collections.abc import Mapping

ROWS = 128  # rows of a tile: enough to keep a product busy, few enough for a tile to stay in cache
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
    """Width of `wanted` equal parts of the channels, a multiple of 16 not below `smallest`; all of them where not."""
    if wanted <= 1 or channels % 16 or channels < 2 * smallest:
        return channels
    return min(channels, max(smallest, ceil_div(ceil_div(channels, wanted), 16) * 16))


def row_tiles(samples: int, pixels: int, rows: int = ROWS) -> tuple[int, int]:
    """Tile of (samples, pixels): whole samples where they are small, else part of one, pixels a multiple of 8.

    A multiple of 8 pixels makes a tile begin on a whole byte of the mask.
    """
    rows = min(rows, max(32, ceil_div(samples * pixels, ITEMS)))
    if pixels > 1.5 * rows:
        return 1, even(pixels, rows, 8)
    return min(samples, max(1, even(samples, max(1, rows // pixels)))), pixels


def taps(rows: int, kernel: tuple[int, int], depth: int, columns: int = COLUMNS) -> tuple[int, int]:
    """Kernel rows and columns gathered at once for `rows` pixels: whole kernel rows while they fit, at least one tap."""
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


def forward_tiles(z: Mapping, attrs: Mapping) -> tuple[int, ...]:
    """(samples, pixels, channels, kernel rows, kernel columns) of a tile, from the letter sizes `z`."""
    pixels, depth = z["P"] * z["Q"], z["C"] // z["G"]
    samples, part = row_tiles(z["N"], pixels, 256 if z["R"] * z["S"] * z["C"] * z["K"] > 400_000 else 128)
    items = ceil_div(z["N"], samples) * ceil_div(pixels, part)
    channels = parts_of_channels(z["K"], ceil_div(ITEMS // 2, items)) if z["G"] == 1 else z["K"]
    return samples, part, channels, *taps(samples * part, (z["R"], z["S"]), depth)


def forward_scratch(z: Mapping, attrs: Mapping, tiles: tuple[int, ...], threads: int) -> tuple[int, int]:
    """Shape of `scratch` (float dtype)."""
    samples, part, channels, r, s = tiles
    gathered = 0 if in_place(z, attrs) else samples * part * r * s * (z["C"] // z["G"])
    transposed = samples * part * z["K"] if z["K"] < NARROW and z["C"] == 1 and gathered else 0
    return threads, gathered + transposed


def grad_x_tiles(z: Mapping, attrs: Mapping) -> tuple[int, ...]:
    """(samples, map rows, channels, pixels, kernel rows, kernel columns) of a tile, from the letter sizes `z`.

    In place: pixels of a tile in `map rows`. Else a tile owns rows of dx and reads every pixel that reaches them; the
    pixels at its borders are multiplied for both neighbours, so tiles are as large as the wanted number allows.
    """
    pixels, depth = z["P"] * z["Q"], z["C"] // z["G"]
    if in_place(z, attrs):
        samples, part = row_tiles(z["N"], pixels)
        items = ceil_div(z["N"], samples) * ceil_div(pixels, part)
        channels = parts_of_channels(z["C"], ceil_div(ITEMS // 2, items)) if z["G"] == 1 else z["C"]
        return samples, part, channels, samples * part, 1, 1
    samples = min(z["N"], max(1, 256 // pixels, z["N"] // (2 * ITEMS)))
    items = ceil_div(z["N"], samples)
    reach = attrs["dilation"][0] * (z["R"] - 1)  # map rows that two neighbours share
    wanted = 1 if samples > 1 else min(ceil_div(ITEMS // 2, items), max(1, z["H"] // max(1, 4 * reach, 4)))
    rows = ceil_div(z["H"], wanted)
    items *= ceil_div(z["H"], rows)
    channels = parts_of_channels(z["C"], ceil_div(ITEMS // 2, items)) if z["G"] == 1 else z["C"]
    part = min(256 if channels < z["C"] else 128, samples * pixels)
    r, s = taps(part, (z["R"], z["S"]), depth)
    return samples, rows, channels, part, *((1, 1) if channels < z["C"] else (r, s))


def grad_x_scratch(z: Mapping, attrs: Mapping, tiles: tuple[int, ...], threads: int) -> tuple[int, int]:
    """Shape of `scratch` (float dtype)."""
    _, _, channels, part, r, s = tiles
    depth = channels if z["G"] == 1 else z["C"] // z["G"]
    products = 0 if in_place(z, attrs) else part * r * s * depth
    return threads, part * z["K"] + products


def grad_w_tiles(z: Mapping, attrs: Mapping) -> tuple[int, ...]:
    """(pixels of a slice, pixels of a tile, kernel rows, kernel columns, channels) from the letter sizes `z`.

    Work is shared by cutting dw where it is large, and by slices of pixels with partial sums where it is small.
    """
    pixels, depth, window = z["N"] * z["P"] * z["Q"], z["C"] // z["G"], (z["R"], z["S"])
    size = z["R"] * z["S"] * depth * z["K"]
    part = min(256, pixels)
    r, s = taps(part, window, depth)
    slices = min(ITEMS // 2, max(1, PARTIALS // size), ceil_div(pixels, part))
    channels = depth
    if slices == 1 and z["G"] == 1:
        while r * s > 1 and ceil_div(z["R"], r) * ceil_div(z["S"], s) < ITEMS:
            r, s = (ceil_div(r, 2), s) if r > 1 else (1, ceil_div(s, 2))
        if r * s == 1:
            channels = parts_of_channels(depth, ceil_div(ITEMS, z["R"] * z["S"]), 32)
    else:
        wanted = ceil_div(pixels, slices)
        part = even(wanted, part) if wanted > part else wanted
    per_slice = ceil_div(ceil_div(pixels, slices), part) * part
    return per_slice, part, r, s, channels


def grad_w_scratch(z: Mapping, attrs: Mapping, tiles: tuple[int, ...], threads: int) -> tuple[int, int]:
    """Shape of `scratch` (float dtype)."""
    _, part, r, s, channels = tiles
    gathered = 0 if in_place(z, attrs) else part * r * s * channels
    return threads, gathered + part * z["K"]


def grad_w_partials(z: Mapping, attrs: Mapping, tiles: tuple[int, ...]) -> tuple[int, int]:
    """Shape of `partials` (float dtype): one partial dw per slice of pixels; none where there is one slice."""
    slices = ceil_div(z["N"] * z["P"] * z["Q"], tiles[0])
    return (slices, z["R"] * z["S"] * z["C"] // z["G"] * z["K"]) if slices > 1 else (0, 0)


def grad_b_partials(z: Mapping) -> tuple[int, int]:
    """Shape of `partials` (float dtype): one partial db per slice of samples."""
    return min(ITEMS, z["N"]), z["K"]
