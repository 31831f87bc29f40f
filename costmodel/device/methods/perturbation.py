"""Work of refimpl.ops.perturbation and its tuned kernel: each element is drawn once for each draw."""

from ..stated import states_work


@states_work("perturbation.summed", "perturbation.perturb", "perturbation.estimate")
def drawn(launch, threads):
    """Draws of all elements."""
    sizes = launch.covers[0].sizes
    return {"mac": sizes["E"] * sizes["J"]}
