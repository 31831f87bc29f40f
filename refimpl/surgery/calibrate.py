"""What range each map of a net takes over some samples, by which its whole numbers are scaled."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np

from ..compiler.compile import compile
from ..graph import INPUT, Graph
from ..training.runner import Runner
from ..training.state import initial


def ranges(
    graph: Graph,
    weights: Mapping[str, np.ndarray],
    samples: np.ndarray,
    tensors: Sequence[str],
    percentile: float | None = None,
    batch: int = 32,
) -> dict[str, tuple[float, float]]:
    """Least and largest value of each of `tensors` in inference on samples (M, …), the input among them.

    percentile: of the values of a mini-batch above 50, such as 99.9; the widest of all mini-batches is taken, so that a
    few large values do not make all others coarse. ValueError where there is no sample, or a range is not finite.
    """
    if not len(samples):
        raise ValueError("there are no samples to calibrate on: at least 1 is needed")
    observed = copy.copy(graph)
    observed.weights = dict(weights)
    observed.outputs = [t for t in tensors if t != INPUT] or graph.outputs
    program = compile(observed, None, min(batch, len(samples)), None)
    runner = Runner(program, initial(program, 0))
    first, *others = observed.outputs
    hosts = {first: "output"} | {name: f"output.{name}" for name in others}
    found: dict[str, tuple[float, float]] = {}
    for start in range(0, len(samples), program.batch):
        part = np.asarray(samples[start : start + program.batch])
        runner.write(INPUT, len(part), part)
        runner.run("forward", len(part))
        for tensor in tensors:
            values = part if tensor == INPUT else runner.read(hosts[tensor], len(part))
            low, high = _ends(values, percentile)
            if not (np.isfinite(low) and np.isfinite(high)):
                last = start + len(part) - 1
                raise ValueError(
                    f"{tensor} of {graph.name} goes from {low} to {high} on samples {start} to {last}: a scale needs a "
                    "finite range"
                )
            least, most = found.get(tensor, (low, high))
            found[tensor] = min(least, low), max(most, high)
    return found


def _ends(values: np.ndarray, percentile: float | None) -> tuple[float, float]:
    if percentile is None or not np.isfinite(values).all():
        return float(values.min()), float(values.max())
    low, high = np.percentile(values, [100 - percentile, percentile])
    return float(low), float(high)
