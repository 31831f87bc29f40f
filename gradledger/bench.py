"""`gradledger bench`: time training steps and kernels, beside PyTorch where it is installed."""

import importlib.util
from collections.abc import Callable

from refimpl.backends import best
from refimpl.kernels import cuda
from validation import bench
from validation.instruments.provenance import provenance

from . import options
from .errors import Malformed, Refused

CUDA, GPU = "cuda", "gpu-"  # the backend, and what the names of its cases begin with


def run(
    names: list[str], backend: str | None, peer: str | None, threads: int, repeats: int, turns: int,
    watch: Callable[[int, int, str], None],
) -> dict:  # fmt: skip
    """Time the cases of some names, default all that can run here; returns the record.

    backend: "cuda" for the cases of a GPU alone, whose names need no `gpu-` then; None for those of the names.
    Malformed for an unknown case or peer and for a peer that is not installed, CudaError for a case of a GPU where none
    can be used. Refused where a side of ours fails or its result is wrong: its record has what was finished before.
    """
    if backend not in (None, CUDA):
        raise options.unknown("--backend", backend, [CUDA])
    for name, value in (("threads", threads), ("repeats", repeats), ("turns", turns)):
        options.at_least_1(name, value)
    if peer == "torch" and importlib.util.find_spec("torch") is None:
        raise Malformed("the peer torch is not installed: pip install torch, or leave out --peer")
    told = {"peer": peer, "threads": threads}
    try:
        if backend == CUDA:
            chosen = [name if f"{name}-".startswith(GPU) else GPU + name for name in names] or ["gpu"]
        else:
            chosen = names or [name for name in bench.families() if name != "gpu" or best() == CUDA]
        if any(f"{name}-".startswith(GPU) for name in bench.choose(chosen)):
            cuda.check()
        cases = bench.run_cases(chosen, peer, threads, repeats, turns, watch)
    except ValueError as e:
        raise Malformed(str(e)) from None
    except bench.Unfinished as e:
        raise Refused(str(e), {**told, "cases": e.records, **provenance()}) from None
    return {"ok": True, **told, "cases": cases, **provenance()}
