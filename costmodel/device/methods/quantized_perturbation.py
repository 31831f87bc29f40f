"""Work of refimpl.ops.quantized_perturbation: each element is drawn once for each draw."""

from ..stated import states_work


@states_work(*(f"quantized_perturbation.{kernel}" for kernel in ("perturb", "step", "perturbed", "stepped")))
def drawn(launch, threads):
    """Draws of all elements."""
    sizes = launch.covers[0].sizes
    return {"mac": sizes["E"] * sizes["J"]}
