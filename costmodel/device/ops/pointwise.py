"""Work of refimpl.backends.cpu.pointwise, which goes over whole rows of channels."""

from refimpl.compiler.grouping import convolution

from ..stated import in_lanes, product, states_work


@states_work("pointwise.forward", "pointwise.backward", alone=True)
def rows_of_channels(launch, threads):
    """A product of rows with the kernel."""
    z, _, _ = convolution(product(launch))
    out = z["N"] * z["P"] * z["Q"]
    return {
        "mac": out * z["C"] * in_lanes(z["K"]), "left": out * z["C"], "sums": out * z["K"], "weight": z["C"] * z["K"],
    }  # fmt: skip
