"""Work of the kernels of refimpl.ops.niti_linear."""

from ..stated import states_work


@states_work("niti_linear.accumulate", "niti_linear.grad_x", "niti_linear.grad_w")
def product(launch, threads):
    """Products of whole numbers."""
    sizes = launch.covers[0].sizes
    return {"mac": sizes["N"] * sizes["D"] * sizes["K"]}
