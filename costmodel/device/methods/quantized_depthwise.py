"""Work of refimpl.backends.cpu.quantized_depthwise: a tap at a time, whole vectors of channels."""

from ..stated import in_lanes, states_work


@states_work("quantized_depthwise.depthwise", "quantized_depthwise.grad_w", alone=True)
def depthwise(launch, threads):
    """The taps of every output, those outside the map included, and rows of maps."""
    sizes = launch.covers[0].sizes
    outputs = sizes["N"] * sizes["P"] * sizes["Q"]
    return {
        "mac": outputs * sizes["R"] * sizes["S"] * in_lanes(sizes["C"]),
        "sums": sum(b.nbytes // b.dtype.itemsize for b in launch.writes),
        "row": sizes["N"] * sizes["P"],
    }
