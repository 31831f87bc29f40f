"""Training for 100,000 steps: resident memory, open files and Numba's live arrays stay what they were.

Each plan trains in a process of its own. What may grow is one loss a step, which a trainer keeps.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from . import Outcome

STEPS = 100_000
SHORT = 1_500
WARM = 500  # steps after which nothing new may be allocated: every batch size has been seen, every view been made
PER_STEP = 40  # bytes: a float of Python and its place in the list of losses
SLACK = 1 << 20  # bytes: what the allocator of the system rounds up
# model, method as the command line takes it, batch; the last batch of an epoch is a smaller one
CASES = (
    ("lenet5", "backprop", 4),
    ("lenet5", "instance-filter:keep=0.3", 4),
    ("resnet8", "stochastic-depth:survival=0.5", 2),
    ("lenet5", "sparse-update:ratio=0.1", 4),
    ("lenet5", "gradient-filter:patch=2", 4),
)


def run(short: bool, seed: int, folder: Path, watch) -> Outcome:
    """Train each case; a sentence for each whose process failed or grew."""
    found = Outcome()
    cases = CASES[:2] if short else CASES
    for i, (model, method, batch) in enumerate(cases):
        watch(i, len(cases))
        steps = SHORT if short else STEPS
        given = json.dumps([model, method, batch, steps, seed])
        done = subprocess.run([sys.executable, "-m", __name__, given], capture_output=True, text=True)
        found.tried += 1
        name = f"{model}, {method}, batch {batch}"
        if done.returncode:
            found.wrong.append(f"{name}: the process left with {done.returncode}: {done.stderr.strip()[-300:]}")
            continue
        grew = json.loads(done.stdout)
        found.figures[f"{name}: bytes more after {steps:,} steps than after {WARM:,}"] = grew["resident"]
        found.wrong += [f"{name}: {sentence}" for sentence in judged(grew, steps)]
    return found


def judged(grew: dict[str, int], steps: int) -> list[str]:
    """A sentence for each figure of `trained` that grew more than it may in `steps` steps."""
    most = {"resident": SLACK + PER_STEP * steps, "files": 0, "arrays": 0}
    return [f"{what} grew by {grew[what]:,} in {steps:,} steps" for what in most if grew[what] > most[what]]


def trained(model: str, method: str, batch: int, steps: int, seed: int) -> dict[str, int]:
    """Train for so many steps; how much resident bytes, open files and Numba's live arrays grew after `WARM`."""
    import numpy as np

    import refimpl as ri
    from gradledger import options

    graph = ri.models.build(model, classes=3, size=(16, 16), channels=1)
    program = ri.compile(graph, options.plan(options.methods([method]), None, 0.0, lr=1e-3), batch)
    rng = np.random.default_rng(seed)
    samples = 16 * batch + batch // 2
    x, y = rng.normal(size=(samples, 16, 16, 1)).astype(np.float32), np.arange(samples) % 3
    trainer, before = ri.Trainer(program, seed), None
    for progress in trainer.steps(x, y, -(-steps // 17)):
        if progress.step == WARM:
            before = state()
        if progress.step == steps:
            break
    after = state()
    return {name: after[name] - before[name] for name in after}


def state() -> dict[str, int]:
    """Resident bytes of this process, its open files, and Numba's live arrays."""
    from numba.core.runtime import rtsys

    stats = rtsys.get_allocation_stats()
    if not stats.alloc:
        raise RuntimeError("Numba counts no arrays: NUMBA_NRT_STATS was not set before its import")
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "resident": pages * os.sysconf("SC_PAGE_SIZE"),
        "files": len(os.listdir("/proc/self/fd")),
        "arrays": stats.alloc - stats.free,
    }


if __name__ == "__main__":
    os.environ["NUMBA_NRT_STATS"] = "1"  # read when numba is imported
    print(json.dumps(trained(*json.loads(sys.argv[1]))))
