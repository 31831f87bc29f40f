"""Work of the kernels of refimpl.methods.quantized."""

from ..stated import states_work


@states_work("quantized.forward", "quantized.grad_x", "quantized.grad_w")
def product(launch, threads):
    """Products of whole numbers, those at padded taps included."""
    sizes = launch.covers[0].sizes
    pairs = sizes["C"] // sizes["G"] * sizes["K"]
    return {"mac": sizes["N"] * sizes["P"] * sizes["Q"] * sizes["R"] * sizes["S"] * pairs}


@states_work("quantized.batch_scales")
def compared(launch, threads):
    """Each sample goes over the magnitudes of all."""
    return {"pair": launch.covers[0].sizes["N"] ** 2}
