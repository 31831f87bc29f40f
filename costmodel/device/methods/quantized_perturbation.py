"""Work of refimpl.ops.quantized_perturbation: each element is drawn once for each draw."""

from ..stated import states_work


@states_work("quantized_perturbation.perturb", "quantized_perturbation.step")
def drawn(launch, threads):
    """Draws of all elements."""
    sizes = launch.covers[0].sizes
    return {"mac": sizes["E"] * sizes["J"]}
