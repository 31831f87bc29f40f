"""Work of refimpl.backends.cpu.quantized_gradient: packed panels times rows of bytes, sums scaled to floats."""

from refimpl.backends.cpu import quantized_gradient as fast
from refimpl.backends.cpu import tiles
from refimpl.backends.cpu.quantized_product import COLUMNS, ROWS

from ..stated import states_work


@states_work("quantized_gradient.product", alone=True)
def product(launch, threads):
    """Blocks of rows and columns, what is gathered for them, the weights that are packed and the outputs."""
    (y, x, w), (geometry, cut, as_it_lies, turned) = launch.args[:3], launch.args[11:]
    groups = (y if turned else x).shape[3] // w.shape[2]
    depth, width = x.shape[3] // groups, y.shape[3] // groups
    panels, per = groups * tiles.ceil_div(width, COLUMNS), fast.each(w.dtype)
    terms = dict.fromkeys(("mac", "gather", "weight", "tile"), 0)
    for h, v in fast.plan(turned, y.shape[1:3], w.shape[:2], geometry):
        words, rows = fast.words(h[3] * v[3] * depth, per), y.shape[0] * h[0] * v[0]
        blocks = tiles.ceil_div(rows, ROWS) * panels
        terms["mac"] += blocks * ROWS * COLUMNS * words * per
        terms["gather"] += 0 if as_it_lies else rows * words * per * max(groups, tiles.ceil_div(panels, cut[1]))
        terms["weight"] += panels * COLUMNS * words
        terms["tile"] += blocks
    return terms | {"sums": y.shape[0] * y.shape[1] * y.shape[2] * y.shape[3]}


@states_work("quantized_gradient.grad_w", alone=True)
def grad_w(launch, threads):
    """Blocks of channels and columns of each tile of pixels, what is gathered and packed for them, the sums of each."""
    (dw, dy, x), partials, (_, most, *_) = launch.args[:3], launch.args[5], launch.args[11]
    as_it_lies, one_scale = launch.args[12:]
    per, groups = fast.each(dy.dtype), x.shape[3] // dw.shape[2]
    columns, width = dw.shape[0] * dw.shape[1] * dw.shape[2], dw.shape[3] // groups
    pixels = dy.shape[1] * dy.shape[2] * (dy.shape[0] if one_scale else 1)
    times = tiles.ceil_div(pixels, most) * (1 if one_scale else dy.shape[0])
    words = times * fast.words(min(most, pixels), per)
    panels = groups * tiles.ceil_div(columns, COLUMNS)
    blocks = panels * tiles.ceil_div(width, ROWS)
    return {
        "mac": blocks * ROWS * COLUMNS * words * per,
        "gather": 0 if as_it_lies else groups * columns * words * per,
        "left": dy.shape[0] * dy.shape[1] * dy.shape[2] * dy.shape[3],
        "right": panels * COLUMNS * words * per,
        "sums": times * groups * columns * width,
        "partial": partials.shape[0] * partials.shape[1],
        "tile": blocks * times,
    }
