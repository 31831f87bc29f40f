"""Work of the kernels of refimpl.methods.gradient_filter."""

from ..stated import in_lanes, states_work


@states_work("gradient_filter.grad_w", "gradient_filter.grad_x")
def product_of_patches(launch, threads):
    """The product of pooled maps, and the weights or their gradient that it reads or writes."""
    sizes = launch.covers[0].sizes
    depth, width = sizes["C"] // sizes["G"], sizes["K"] // sizes["G"]
    patches = sizes["N"] * sizes["U"] * sizes["V"] * sizes["G"]
    return {
        "mac": patches * depth * (width if depth == width == 1 else in_lanes(width)),
        "weight": depth * sizes["K"],
    }
