"""From a fresh process to the first training step and to the end of a short training, and the memory that it takes.

Ours is `gradledger adapt` as a user runs it, with a warm kernel cache, up to its record; the peer is a script that does
the same training and nothing else. The time of a case is that from the first import to the end of the first step.
"""

import json
import subprocess
import sys
from dataclasses import dataclass

OURS = """
import time
start = time.perf_counter()
import resource, sys, json, pathlib, tempfile
from gradledger import adapt, cli
first = []
def watch(progress):
    if not first:
        first.append(time.perf_counter() - start)
with tempfile.TemporaryDirectory() as folder:
    adapt.run(adapt.AdaptSettings(method=["backprop"]), pathlib.Path(folder), False, watch)
resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"first": first[0] * 1e3, "resident_mb": resident}))
"""

TORCH = """
import time
start = time.perf_counter()
import resource, json, sys
import torch
from torch import nn
class Watch(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = ((6, 32, 7), (32, 64, 5), (64, 64, 5))
        self.convs = nn.ModuleList(nn.Conv2d(c, k, (1, s), padding=(0, s // 2), bias=False) for c, k, s in sizes)
        self.norms = nn.ModuleList(nn.BatchNorm2d(k) for _, k, _ in sizes)
        self.fc = nn.Linear(64, 7)
    def forward(self, x):
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms)):
            x = norm(conv(x)).relu()
            x = nn.functional.max_pool2d(x, (1, 2)) if i < 2 else x.mean((2, 3))
        return self.fc(x)
torch.set_num_threads(int(sys.argv[1]))
net = Watch().eval()  # running statistics, as ours
if sys.argv[2] == "torch-nhwc":
    net = net.to(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
x, y = torch.randn(300, 6, 1, 100), torch.randint(0, 7, (300,))
first = None
for epoch in range(20):
    order = torch.randperm(300)
    for i in range(0, 300, 32):
        chosen = order[i : i + 32]
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[chosen]), y[chosen]).backward()
        optimizer.step()
        first = first or time.perf_counter() - start
resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"first": first * 1e3, "resident_mb": resident}))
"""


@dataclass(frozen=True)
class Start:
    """The default adaptation by back-propagation: the watch net, 300 samples, 20 epochs of batches of 32."""

    tolerance = 0.0

    def measure(self, side: str, threads: int, repeats: int) -> dict:
        """Milliseconds to the first step of up to three processes after one that warms up, and the largest memory."""
        if side == "check":
            return {"error": None}  # tests of `adapt` check what is trained
        script = [OURS] if side == "ours" else [TORCH, str(threads), side]
        found = []
        for _ in range(1 + min(repeats, 3)):
            done = subprocess.run([sys.executable, "-c", *script], capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
        found = found[1:]
        return {"times": [f["first"] for f in found], "resident_mb": max(f["resident_mb"] for f in found)}

    def bytes(self) -> None:
        """Nobody has counted what an import moves."""


CASES = {"start-watch": Start()}
