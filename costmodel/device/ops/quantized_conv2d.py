"""Work of refimpl.backends.cpu.quantized_conv2d: packed panels times rows of bytes, and whole vectors of channels."""

from refimpl.backends.cpu import quantized_conv2d, tiles
from refimpl.backends.cpu.quantized_product import COLUMNS, NARROW_ROWS, ROWS
from refimpl.backends.cpu.simd import LANES
from refimpl.compiler.executed import pieces

from ..stated import in_lanes, states_work


@states_work("quantized_conv2d.dense", alone=True)
def dense(launch, threads):
    """Blocks of rows and columns, what is gathered for them, the weights that are packed and the sums."""
    y, x, w, source, (_, shared) = (launch.args[i] for i in (0, 1, 2, 8, 11))
    rows, per = y.shape[0] * y.shape[1] * y.shape[2], quantized_conv2d.each(w.dtype)
    groups, terms = x.shape[3] // w.shape[2], w.shape[0] * w.shape[1] * w.shape[2]
    width, depth = w.shape[3] // groups, quantized_conv2d.words(terms, per) * per
    panels, blocks, cells, packed = groups * tiles.ceil_div(width, COLUMNS), 0, 0, 0
    for columns, times in pieces(width, COLUMNS):
        filled, together = (LANES, NARROW_ROWS) if columns <= LANES else (COLUMNS, ROWS)
        found = tiles.ceil_div(rows, together) * groups * times
        blocks, cells, packed = blocks + found, cells + found * together * filled, packed + groups * times * filled
    gathered = source.root is not x.root  # for each group, or for each item that shares the rows
    times = max(groups, tiles.ceil_div(panels, shared))
    return {
        "mac": cells * depth,
        "gather": rows * depth * times if gathered else 0,
        "weight": packed * depth // per,
        "sums": rows * w.shape[3],
        "tile": blocks,
    }


@states_work("quantized_conv2d.depthwise", alone=True)
def depthwise(launch, threads):
    """A tap at a time, whole vectors of channels."""
    y, w = launch.args[0], launch.args[2]
    channels, out = in_lanes(y.shape[3]), y.shape[0] * y.shape[1] * y.shape[2]
    return {"mac": out * w.shape[0] * w.shape[1] * channels, "sums": out * y.shape[3], "row": y.shape[0] * y.shape[1]}
