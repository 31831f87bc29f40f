"""`gradledger bench`: time training steps and kernels, beside PyTorch where it is installed."""

import importlib.util
from collections.abc import Callable

from refimpl.backends import best
from validation import bench
from validation.instruments.provenance import provenance

from . import options
from .errors import Malformed, Refused


def run(
    names: list[str], peer: str | None, threads: int, repeats: int, turns: int, watch: Callable[[int, int, str], None]
) -> dict:
    """Time the cases of some names, default all that can run here; returns the record.

    Malformed for an unknown case or peer and for a peer that is not installed, Refused where a result is wrong.
    """
    for name, value in (("threads", threads), ("repeats", repeats), ("turns", turns)):
        options.at_least_1(name, value)
    if peer == "torch" and importlib.util.find_spec("torch") is None:
        raise Malformed("the peer torch is not installed: pip install torch, or leave out --peer")
    try:
        chosen = names or [name for name in bench.families() if name != "gpu" or best() == "cuda"]
        cases = bench.run_cases(chosen, peer, threads, repeats, turns, watch)
    except ValueError as e:
        raise Malformed(str(e)) from None
    except RuntimeError as e:
        raise Refused(str(e), {"cases": []}) from None
    return {"ok": True, "peer": peer, "threads": threads, "cases": cases, **provenance()}
