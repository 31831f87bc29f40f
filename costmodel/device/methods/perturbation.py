"""Work of refimpl.backends.cpu.perturbation: each element is drawn once for each draw."""

import math

from ..stated import states_work


@states_work("perturbation.summed")
def summed(launch, threads):
    """Draws of all elements."""
    return {"mac": math.prod(launch.writes[0].shape) * math.prod(launch.args[3].shape)}
