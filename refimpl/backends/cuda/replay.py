"""A section's launches as one: captured as a CUDA graph and replayed."""

import os
from collections.abc import Callable, Sequence

from ...kernels import cuda

Queued = tuple[Callable, list, dict]  # a kernel, its arguments, and the stream that it is queued in
CAPTURES = "GRADLEDGER_CUDA_GRAPHS"  # set to 0, launches are made one by one


class Replayed:
    """Call it to make the launches `calls`, which always have the same arguments.

    The first time compiles and loads the kernels, which no capture may. The second captures them, and from then on the
    graph is launched. state: "plain" where nothing is captured, with the reason in `why`.
    """

    def __init__(self, calls: Sequence[Queued], stream):
        self.calls, self.stream = calls, stream
        self.graph, self.why = None, ""
        self.state = "new" if captures() else "plain"
        if self.state == "plain":
            self.why = "the GPU is simulated" if cuda.simulated() else f"{CAPTURES} is 0"

    def __call__(self) -> None:
        if self.state == "loaded":
            self._capture()
        if self.graph is not None:
            self.graph.launch(self.stream)
            return
        self._queue()
        if self.state == "new":
            self.state = "loaded"

    def _queue(self) -> None:
        for kernel, args, queued in self.calls:
            kernel(*args, **queued)

    def _capture(self) -> None:
        """Record what is queued meanwhile; nothing of it runs."""
        try:
            self.graph = cuda.captured(self.stream, self._queue)
            self.state = "captured"
        except Exception as e:  # of whatever kind: the launches themselves still work
            self.state, self.why = "plain", f"{type(e).__name__}: {e}"


def captures() -> bool:
    """Are sections to be captured? Not in the simulator, and not where `CAPTURES` says so."""
    return not cuda.simulated() and os.environ.get(CAPTURES) != "0"
