"""Work of refimpl.backends.cpu.depthwise, which goes over whole rows of channels."""

from refimpl.compiler.grouping import convolution

from ..stated import in_lanes, product, states_work


@states_work("depthwise.forward", "depthwise.backward", alone=True)
def rows_of_channels(launch, threads):
    """A tap at a time, whole vectors of channels."""
    z, _, _ = convolution(product(launch))
    channels, out, back = in_lanes(z["C"]), z["N"] * z["P"] * z["Q"], z["N"] * z["H"] * z["W"]
    return {
        "mac": out * z["R"] * z["S"] * channels, "sums": out * channels, "left": back * channels,
        "weight": z["R"] * z["S"] * z["C"], "row": z["N"] * z["P"],
    }  # fmt: skip
