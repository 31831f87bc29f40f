import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

SCRIPT = """
import resource, sys
import numpy as np
from numba.core.runtime import rtsys
import refimpl as ri
from refimpl.kernels.running import threads
from test_train import small_net

scale, backend, steps = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
step = ri.Backprop(ri.SGD(lr=0.01, momentum=0.9))
size = (6 * scale, 9 * scale)
program = ri.compile(small_net(), ri.Plan(rules=[ri.GradientFilter(2)], step=step), 4 * scale, size, backend=backend)
trainer = ri.Trainer(program)
rng = np.random.default_rng(0)
x, y = rng.normal(size=(4 * scale, *size, 3)).astype(np.float32), rng.integers(0, 4, 4 * scale)
with threads(2):
    for _ in range(3):
        trainer.train_step(x, y, 10)
    before, resident = rtsys.get_allocation_stats().alloc, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(steps):
        trainer.train_step(x, y, 10)
print(rtsys.get_allocation_stats().alloc - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident)
"""


def run(*args) -> tuple[int, int]:
    """(allocations by Numba's runtime, growth of resident memory in KiB) over the steps."""
    env = {**os.environ, "NUMBA_NRT_STATS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, args)], env=env, cwd=ROOT, capture_output=True, text=True, check=True
    )
    allocations, growth = done.stdout.split()
    return int(allocations), int(growth)


def test_a_step_allocates_the_same_small_number_of_times_whatever_the_sizes():
    small, _ = run(1, "fast", 10)
    large, _ = run(3, "fast", 10)
    assert small == large


def test_resident_memory_is_flat_over_a_thousand_steps():
    _, growth = run(1, "fast", 1000)
    assert growth < 1024, "resident memory grew by more than 1 MiB over 1,000 steps"
