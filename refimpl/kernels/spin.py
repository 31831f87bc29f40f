"""How long a thread that waits for the others keeps a core busy before it sleeps.

OpenMP's runtimes spin for many milliseconds by default: where another program has one of the cores, the threads that
wait then hold the one that they wait for. A short spin keeps the speed of an idle machine and gives the core back soon.
GNU's libgomp (Numba's layer `omp` on Linux) reads GOMP_SPINCOUNT, LLVM's and Intel's runtime (`omp` on macOS)
KMP_BLOCKTIME. The layers `tbb` and `workqueue` have nothing to set: their threads soon sleep between looks for work.
"""

import os

# Turns of a loop, and ms. A step of MobileNetV2 at 96x96, batch 8, on two cores of a server, took this much of the time
# of the runtime's default, idle and beside three busy processes: 20,000 turns 1.01 and 0.29, 5,000 turns 1.02 and 0.15,
# 2,000 turns 1.04 and 0.10, none 1.25 and 0.03.
BOUNDED = {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "1"}
LONG = 100_000  # turns: some 10 ms, in which another program could work
OURS: dict[str, str] = {}  # what `bound` set in this process


def bound() -> None:
    """Set the bounded spin in the environment, except what the user set by the same names or by OMP_WAIT_POLICY.

    A runtime reads it as it is loaded, which Numba does when the first parallel kernel is made ready.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        OURS.update({name: value for name, value in BOUNDED.items() if name not in os.environ})
        os.environ.update(OURS)


def chosen() -> str:
    """What libgomp goes by, as `NAME=value`."""
    name = next((n for n in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY") if n in os.environ), None)
    return f"{name}={os.environ[name]}" if name else "the runtime's default"


def long() -> bool:
    """Does libgomp spin for so long that other programs on the cores bring it to a halt?"""
    if count := os.environ.get("GOMP_SPINCOUNT"):
        return not count.isdigit() or int(count) > LONG  # words such as INFINITY, or 30M
    return os.environ.get("OMP_WAIT_POLICY", "active").lower() == "active"  # the default is not much shorter
