"""Training steps of nets that came as ONNX files, beside the same steps of the nets as our own builders make them.

The file is written by PyTorch's exporter in a process of its own, from our weights, its batch norms folded into the
convolutions as exporters leave them; ours has them frozen, which its kernels do on their way. Plain SGD on all weights.
What is timed is processor time, on which other programs of the machine have little influence: of a step, and from the
first import of a fresh process to the end of its first step, with a warm kernel cache.
"""

import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import refimpl as ri
from refimpl.formats.onnx import imported

from .clock import milliseconds, our_threads
from .methods import LR, pretrained
from .steps import StepCase


@dataclass(frozen=True)
class ImportedCase:
    """A model with ten classes at an input size and a batch size."""

    model: str
    size: tuple[int, int]
    batch: int
    tolerance = 1e-4  # of the scores
    peers = ("built",)

    @contextmanager
    def file(self) -> Iterator[Path]:
        """The file that PyTorch writes; RuntimeError with the last line of a process that wrote none."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.onnx"
            words = (self.model, *self.size, self.batch, path)
            last_line("-m", "validation.bench.imported", *map(str, words))
            yield path

    def read(self) -> ri.Graph:
        """The graph of that file."""
        with self.file() as path:
            return imported(path).graph

    def measure(self, side: str, threads: int, repeats: int) -> dict:
        """Milliseconds of the processor of each step of a side; or our error."""
        with our_threads(threads):
            if side == "check":
                return {"error": self.error()}
            return {"times": milliseconds(getattr(self, side)(), repeats, time.process_time)}

    def step(self, graph: ri.Graph):
        """A training step of a net on random samples."""
        trainer = ri.Trainer(ri.compile(graph, ri.Plan(step=ri.Backprop(ri.SGD(lr=LR))), self.batch))
        x, y = StepCase(self.model, self.size, self.batch).samples(graph)
        return lambda: trainer.train_step(x, y, 1)

    def ours(self):
        """A step of the net that was read."""
        return self.step(self.read())

    def built(self):
        """A step of the net as our builder makes it."""
        return self.step(pretrained(self.model, self.size, self.batch))

    def error(self) -> float:
        """Error of the scores of the net that was read, against those of the one that was built."""
        graphs = self.read(), pretrained(self.model, self.size, self.batch)
        x, _ = StepCase(self.model, self.size, self.batch).samples(graphs[0])
        found, wanted = (ri.Trainer(ri.compile(g, None, self.batch)).predict(x).reshape(self.batch, -1) for g in graphs)
        return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))

    def bytes(self) -> None:
        """Nobody has counted them."""

    def predicted(self) -> dict:
        """Nothing is: both do the same work."""
        return {}


START = """
import sys, time
import numpy as np
import refimpl as ri
from refimpl.formats.onnx import load_onnx
path, batch, threads, rate = sys.argv[1], *map(int, sys.argv[2:4]), float(sys.argv[4])
graph = load_onnx(path)
trainer = ri.Trainer(ri.compile(graph, ri.Plan(step=ri.Backprop(ri.SGD(lr=rate))), batch, threads=threads))
trainer.train_step(np.zeros((batch, *graph.size, graph.channels), np.float32), np.zeros(batch, int), 1)
print(time.process_time() * 1e3)
"""


@dataclass(frozen=True)
class ImportedStart(ImportedCase):
    """The same file from the start of a process to the end of its first step; there is nothing beside it."""

    peers = ()

    def measure(self, side: str, threads: int, repeats: int) -> dict:
        """Milliseconds of the processor that up to three processes take, after one that warms the kernel cache up."""
        with self.file() as path:
            words = (path, self.batch, threads, LR)
            found = [float(last_line("-c", START, *map(str, words))) for _ in range(1 + min(repeats, 3))]
        return {"times": found[1:]}


def last_line(*command: str) -> str:
    """What a Python process printed last; RuntimeError with the last line of what it said where it fails."""
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["?"])[-1]
        raise RuntimeError(f"no ONNX file was written or read: {said}")
    return (done.stdout.splitlines() or [""])[-1]


def write(case: ImportedCase, path: str) -> None:
    """The ONNX file of a case."""
    import torch

    from validation.instruments import torch_nets

    graph = pretrained(case.model, case.size, case.batch)
    net = torch_nets.with_weights(graph, graph.weights, dropout=0.0).float().eval()
    x = torch.zeros(1, graph.channels, *case.size)
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # of the exporter that needs no other package
    torch.onnx.export(net, (x,), path, dynamo=False, opset_version=17)


CASES = {
    f"imported-{model}-{h}x{w}-batch{batch}": ImportedCase(model, (h, w), batch)
    for model, (h, w), batch in (("mobilenet_v2", (224, 224), 8), ("resnet18", (64, 64), 8))
} | {"imported-start-mobilenet_v2-224x224-batch8": ImportedStart("mobilenet_v2", (224, 224), 8)}

if __name__ == "__main__":
    name, high, wide, batch, target = sys.argv[1:]
    write(ImportedCase(name, (int(high), int(wide)), int(batch)), target)
