"""Work of the kernels of refimpl.ops.niti_conv2d."""

from ..stated import states_work


@states_work("niti_conv2d.accumulate", "niti_conv2d.grad_x", "niti_conv2d.grad_w")
def product(launch, threads):
    """Products of whole numbers, those at padded taps included."""
    sizes = launch.covers[0].sizes
    pairs = sizes["C"] // sizes.get("G", 1) * sizes["K"]
    return {"mac": sizes["N"] * sizes["P"] * sizes["Q"] * sizes["R"] * sizes["S"] * pairs}
