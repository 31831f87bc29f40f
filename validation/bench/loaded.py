"""Steps beside busy processes, by how waiting threads spin: `python -m validation.bench.loaded [--busy 3] [--turns 2]`.

Each setting runs in processes of its own, in turns with the others; what is told of a step is the least median of a
turn, idle and busy, in ms. Idle figures need a machine where nothing else runs.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

from .clock import our_threads
from .steps import StepCase

STEPS = {
    "mobilenet_v2 96x96 batch 8": StepCase("mobilenet_v2", (96, 96), 8),
    "resnet18 64x64 batch 8": StepCase("resnet18", (64, 64), 8),
    "lenet5 28x28 batch 1": StepCase("lenet5", (28, 28), 1),
}
CHOICES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")
SETTINGS = {  # name → environment, threads
    "ours": ({}, 2),
    "libgomp's default": ({"GOMP_SPINCOUNT": "300000"}, 2),
    "passive": ({"OMP_WAIT_POLICY": "passive"}, 2),
    "one thread": ({}, 1),
}
SECONDS = 5.0  # of steps in a turn, at least five of them


def milliseconds(name: str, threads: int) -> float:
    """The median of a step's times in this process, after two steps that warm up."""
    with our_threads(threads):
        work, times = STEPS[name].ours(), []
        started = time.perf_counter()
        while len(times) < 7 or time.perf_counter() < started + SECONDS:
            mark = time.perf_counter()
            work()
            times.append(1e3 * (time.perf_counter() - mark))
    return statistics.median(times[2:])


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes that do nothing but use a core."""
    endless = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: pass"  # it ends with us, however we end
    running = [subprocess.Popen([sys.executable, "-c", endless]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def turn(name: str, setting: str) -> float:
    """`milliseconds` in a process of its own."""
    given, threads = SETTINGS[setting]
    env = {n: v for n, v in os.environ.items() if n not in CHOICES} | {"NUMBA_NUM_THREADS": str(threads)} | given
    command = [sys.executable, "-m", "validation.bench.loaded", "--step", name, "--threads", str(threads)]
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Print a line for each net and setting: idle, and beside busy processes."""
    parser = argparse.ArgumentParser(prog="python -m validation.bench.loaded", description=__doc__)
    parser.add_argument("--busy", type=int, default=3)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(milliseconds(asked.step, asked.threads)))
        return
    found: dict[tuple, list[float]] = {}
    for name in STEPS:
        for _ in range(asked.turns):
            for count in (0, asked.busy):
                with busy(count):
                    for setting in SETTINGS:
                        found.setdefault((name, setting, count), []).append(turn(name, setting))
        for setting in SETTINGS:
            idle, loaded = (min(found[name, setting, count]) for count in (0, asked.busy))
            print(f"{name:28s} {setting:18s} {idle:8.2f} idle {loaded:8.2f} beside {asked.busy} busy", flush=True)


if __name__ == "__main__":
    main()
