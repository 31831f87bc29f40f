"""Work of refimpl.backends.cpu.quantized_conv2d: packed panels times rows of bytes, and whole vectors of channels."""

from refimpl.backends.cpu import quantized_conv2d, tiles
from refimpl.backends.cpu.quantized_product import COLUMNS, ROWS

from ..stated import in_lanes, states_work


@states_work("quantized_conv2d.dense", alone=True)
def dense(launch, threads):
    """Blocks of rows and columns, what is gathered for them, the weights that are packed and the sums."""
    y, x, w, source, (_, together) = (launch.args[i] for i in (0, 1, 2, 8, 11))
    rows, per = y.shape[0] * y.shape[1] * y.shape[2], quantized_conv2d.each(w.dtype)
    groups, terms = x.shape[3] // w.shape[2], w.shape[0] * w.shape[1] * w.shape[2]
    depth, panels = quantized_conv2d.words(terms, per) * per, groups * tiles.ceil_div(w.shape[3] // groups, COLUMNS)
    blocks = tiles.ceil_div(rows, ROWS) * panels
    gathered = source.root is not x.root  # for each group, or for each item that shares the rows
    times = max(groups, tiles.ceil_div(panels, together))
    return {
        "mac": blocks * ROWS * COLUMNS * depth,
        "gather": rows * depth * times if gathered else 0,
        "weight": panels * COLUMNS * depth // per,
        "sums": rows * w.shape[3],
        "tile": blocks,
    }


@states_work("quantized_conv2d.depthwise", alone=True)
def depthwise(launch, threads):
    """A tap at a time, whole vectors of channels."""
    y, w = launch.args[0], launch.args[2]
    channels, out = in_lanes(y.shape[3]), y.shape[0] * y.shape[1] * y.shape[2]
    return {"mac": out * w.shape[0] * w.shape[1] * channels, "sums": out * y.shape[3], "row": y.shape[0] * y.shape[1]}
