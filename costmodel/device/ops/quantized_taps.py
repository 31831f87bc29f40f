"""Work of refimpl.backends.cpu.quantized_taps: words of the columns under a row of outputs, and their products."""

from refimpl.backends.cpu import quantized_taps

from ..stated import in_lanes, states_work


@states_work("quantized_taps.forward", alone=True)
def forward(launch, threads):
    """Whole words of kernel rows, whole vectors of channels."""
    y, w, (_, stride, _, dilation, *_) = (launch.args[i] for i in (0, 2, 6))
    n, rows, out, channels = y.shape
    (down, across), lanes = w.shape[:2], in_lanes(channels)
    deep = 4 * quantized_taps.groups(down)
    met = (out - 1) * stride + (across - 1) * dilation + 1
    return {
        "mac": n * rows * out * deep * across * lanes,
        "gather": n * rows * met * deep * lanes,
        "sums": n * rows * out * lanes,
        "row": n * rows * lanes // in_lanes(1),
    }
