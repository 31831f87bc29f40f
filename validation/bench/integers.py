"""Inference in whole numbers beside the same nets in float32: the int8 microcontroller nets of arXiv 2206.15472.

The weights are random, with scales under which maps use most of their 8 bits: whole numbers take the same time whatever
they are. The peer is our own float32 net with the dequantized weights.
"""

from dataclasses import dataclass

import numpy as np

import refimpl as ri
from refimpl.data import Resized
from refimpl.formats.int8_nets import from_int8
from refimpl.formats.int8_whole import whole_from_int8
from refimpl.training.runner import Runner
from refimpl.training.state import initial

from ..instruments import int8_files


@dataclass(frozen=True)
class IntegerCase:
    """A forward pass of a net of `int8_files.BLOCKS` at 128×128 and a batch size."""

    net: str
    batch: int
    tolerance = 0.0  # both backends give the same whole numbers
    peers = ("float32",)

    def program(self, whole: bool, backend: str | None = None, batch: int | None = None) -> ri.Program:
        """Inference in whole numbers, or in float32."""
        arrays = int8_files.whole_size(self.net)
        graph = (whole_from_int8 if whole else from_int8)(arrays)
        return ri.compile(graph, None, batch or self.batch, backend=backend)

    def forward(self, program: ri.Program):
        """A forward pass on random pixels, ready to be called again; it returns the logits."""
        runner, n, graph = Runner(program, initial(program, 0)), program.batch, program.graph
        pixels = np.random.default_rng(0).integers(0, 256, (n, *graph.size, graph.channels), np.uint8)
        x = Resized(pixels).with_pixels(*graph.pixels, graph.tensors["input"].dtype or np.float32)[:]

        def forward() -> np.ndarray:
            runner.write("input", n, x)
            runner.run("forward", n)
            return runner.read("output", n)

        return forward

    def ours(self):
        """A forward pass in whole numbers."""
        return self.forward(self.program(True))

    def float32(self):
        """A forward pass in float32."""
        return self.forward(self.program(False))

    def error(self) -> float:
        """Share of the logits of one image that differ from those of the reference kernels."""
        found, wanted = (self.forward(self.program(True, backend, 1))() for backend in (None, "reference"))
        return float((found != wanted).mean())

    def bytes(self) -> int:
        """Bytes that the launches read and write, each array of a launch once."""
        return sum(b.nbytes for launch in self.program(True).order for b in launch.buffers)

    def predicted(self) -> dict[str, float]:
        """Bytes of the arenas and of the constants, and their ratios to those of float32."""
        whole, floats = self.program(True), self.program(False)
        return {
            "peak_bytes": whole.peak_bytes, "peer_peak_bytes": floats.peak_bytes,
            "peak_ratio": whole.peak_bytes / floats.peak_bytes,
            "constant_bytes": whole.constant_bytes, "peer_constant_bytes": floats.constant_bytes,
        }  # fmt: skip


CASES = {f"integers-{net}-batch{batch}": IntegerCase(net, batch) for net in int8_files.BLOCKS for batch in (1, 8)}
