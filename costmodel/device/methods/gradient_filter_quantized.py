"""Work of the kernels of refimpl.methods.gradient_filter_quantized."""

from ..stated import states_work


@states_work(
    "gradient_filter_quantized.patch_grad", "gradient_filter_quantized.patch_grad_w",
    "gradient_filter_quantized.patch_grad_dilated",
)  # fmt: skip
def product_of_patches(launch, threads):
    """Products of whole numbers of pooled maps, those at taps outside the grid included."""
    sizes = launch.covers[0].sizes
    taps = sizes.get("R", 1) * sizes.get("S", 1)
    return {"mac": sizes["N"] * sizes["U"] * sizes["V"] * taps * (sizes["C"] // sizes["G"]) * sizes["K"]}
