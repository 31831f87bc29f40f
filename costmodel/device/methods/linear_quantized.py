"""Work of the kernels of refimpl.methods.linear_quantized."""

from ..stated import states_work


@states_work("linear_quantized.forward", "linear_quantized.grad_x", "linear_quantized.grad_w")
def product(launch, threads):
    """Products of whole numbers."""
    sizes = launch.covers[0].sizes
    return {"mac": sizes["N"] * sizes["M"] * sizes["D"] * sizes["K"]}
