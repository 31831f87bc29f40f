"""Time our kernels and training steps against PyTorch: each side in processes of its own, in turns.

    gradledger bench --peer torch              every family
    gradledger bench filtered                  the seven latency cases of arXiv 2301.00330, Table 10, at patch 2 and 4
    gradledger bench step-lenet5 block-0       cases by the beginning of their names
    gradledger bench method                    steps under the methods beside our own back-propagation
    gradledger bench imported                  steps of nets read from ONNX beside those of our own builders
    gradledger bench integers                  inference in whole numbers beside float32
    gradledger bench quantized                 training steps in 8 bits beside float32
    gradledger bench --backend cuda            the cases of a GPU beside PyTorch there: `step`, `filtered`, `product`
    gradledger bench forward                   steps without a backward pass beside our own back-propagation

A case (`Case`) gives the work of each side, the error of ours against a float64 result, and the bytes that must move.
Its `peers`, where it has some, are other work in the place of PyTorch's: side "backprop" is `case.backprop()`. They are
ours, or where `peer` is "torch" PyTorch's in forms of their own.
Every case is checked, in a process of its own, before it is timed. Where rounding alone may carry a result far, the
case tells how far (`rounding()`), and an error of ours above its tolerance is held against that. A side of PyTorch's
that fails is recorded, and everything else goes on.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Protocol

import numpy as np

from refimpl.kernels import spin

from .clock import copy_bandwidth, milliseconds, our_threads

PEERS = {"torch": ("torch-nchw", "torch-nhwc")}
ROUNDINGS = 3  # our assumption: errors of right results that sum in other orders lie within this factor


class Case(Protocol):
    """A piece of work that both sides can do."""

    tolerance: float  # largest error of ours that is timed at all

    def ours(self) -> Callable[[], None]:
        """Our work, ready to be called again and again."""

    def torch(self, channels_last: bool) -> Callable[[], None]:
        """The same work for PyTorch, in one of its layouts."""

    def error(self) -> float:
        """‖ours − float64‖ / ‖float64‖ of one call."""

    def bytes(self) -> int | None:
        """What must move between memory and processor, each array once; None where nobody has counted."""


def cases() -> dict[str, Case]:
    """Every case by name, families together."""
    from . import blocks, filtered, forward, gpu, imported, integers, methods, quantized, start, steps

    own = methods.CASES | imported.CASES | integers.CASES | quantized.CASES | forward.CASES | gpu.CASES
    return filtered.CASES | steps.CASES | blocks.CASES | start.CASES | own


def families() -> list[str]:
    """The first words of the cases' names, each once."""
    return list(dict.fromkeys(name.split("-")[0] for name in cases()))


def choose(names: list[str]) -> list[str]:
    """Cases by name or by the words that their names begin with; ValueError for what begins no name."""
    known, chosen = cases(), []
    for name in names:
        found = [case for case in known if f"{case}-".startswith(f"{name}-")]
        if not found:
            near = [case for case in known if case.startswith(f"{name.split('-')[0]}-")] or families()
            raise ValueError(f"unknown case {name!r}: choose from {', '.join(near)}")
        chosen += [case for case in found if case not in chosen]
    return chosen


def run_side(side: str, name: str, threads: int, repeats: int) -> dict:
    """What one side finds in this process: `times` in milliseconds and more of the case's own, or `error`."""
    case = cases()[name]
    if hasattr(case, "measure"):  # what is measured is the process itself
        return case.measure(side, threads, repeats)
    if side in PEERS["torch"] or (side == "check" and not own_peers(case)):
        for setting in spin.OURS:  # PyTorch brings a runtime of its own, which is to run as it does without us
            os.environ.pop(setting, None)
        import torch

        torch.set_num_threads(threads)
    with nullcontext() if side.startswith("torch") else our_threads(threads):
        if side == "check":
            error = case.error()
            asked = hasattr(case, "rounding") and error > case.tolerance
            return {"error": error} | ({"rounding": case.rounding()} if asked else {})
        work = case.torch(side == "torch-nhwc") if side.startswith("torch") else getattr(case, side)()
        timed = getattr(work, "milliseconds", partial(milliseconds, work))  # the first by a clock of its own
        return {"times": timed(repeats)}


def own_peers(case: Case) -> tuple[str, ...]:
    """The sides of a case that have names of their own."""
    return getattr(case, "peers", ())


def sides_of(case: Case, peer: str | None) -> tuple[str, ...]:
    """All sides of a case that are timed, ours first."""
    if getattr(case, "peer", peer) != peer:
        return ("ours",)
    return ("ours", *(own_peers(case) or PEERS.get(peer, ())))


def of_pytorch(side: str, case: Case) -> bool:
    """Is a side PyTorch's?"""
    return side in PEERS["torch"] or (side in own_peers(case) and getattr(case, "peer", None) == "torch")


class Unfinished(RuntimeError):
    """Ours failed or is wrong. records: of the cases that were finished before, as of `run_cases`."""

    def __init__(self, reason: str, records: list[dict]):
        super().__init__(reason)
        self.records = records


def launch(side: str, name: str, threads: int, repeats: int) -> dict:
    """`run_side` in a process of its own; RuntimeError with its last line where it fails."""
    command = [sys.executable, "-m", "validation.bench", side, name, str(threads), str(repeats)]
    limits = {"NUMBA_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    inherited = {name: value for name, value in os.environ.items() if name not in spin.OURS}
    done = subprocess.run(command, capture_output=True, text=True, env=inherited | limits)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(f"{side} failed on {name}: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_cases(
    names: list[str],
    peer: str | None = "torch",
    threads: int = 2,
    repeats: int = 7,
    turns: int = 2,
    watch: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> list[dict]:
    """Time cases on our side and on the peer's, in turns.

    Each record: name; ours_ms, peer_ms (the better of PyTorch's layouts), peer_nchw_ms and peer_nhwc_ms, medians over
    the repeats of all turns; ratio = ours / peer; error; floor_ms, the bytes that must move over the measured bandwidth
    of a copy; spread, the larger relative interquartile range of ours and the peer. Without a peer its keys are None.
    A case with peers of its own that are ours is timed beside them, whatever `peer`; its record has what `predicted`
    tells too. failed: side of PyTorch's → why it failed, in one sentence; nothing else is told of it. rounding: how far
    rounding alone may carry the result, None where that was not asked.
    ValueError for an unknown name or peer, Unfinished where a side of ours fails or our result is wrong.
    """
    if peer is not None and peer not in PEERS:
        raise ValueError(f"unknown peer {peer!r}: choose from {', '.join(PEERS)}")
    chosen, known = choose(names), cases()
    sides = {name: sides_of(known[name], peer) for name in chosen}
    done, total = 0, turns * sum(map(len, sides.values()))
    bandwidth = copy_bandwidth(threads)
    records: list[dict] = []
    try:
        for name in chosen:
            case, found, failed = known[name], {side: [] for side in sides[name]}, {}
            for turn in range(turns):
                for side in sides[name]:
                    watch(done, total, f"{name} {side}")
                    done += 1
                    if turn == 0 and side == "ours":
                        alone = len(sides[name]) == 1 and not own_peers(case)  # and its check is of PyTorch
                        checked = {"error": None} if alone else check(name, case, threads)
                    if side in failed:
                        continue
                    try:
                        found[side].append(launch(side, name, threads, repeats))
                    except RuntimeError as e:
                        if not of_pytorch(side, case):
                            raise
                        failed[side] = str(e)
            timed = {side: turns for side, turns in found.items() if side not in failed}
            records.append(record(name, timed, checked, case.bytes(), bandwidth) | {"failed": failed})
        for found in records:
            if own_peers(known[found["name"]]):
                found |= known[found["name"]].predicted()
    except (RuntimeError, MemoryError) as e:
        raise Unfinished(str(e), records) from e
    return records


def check(name: str, case: Case, threads: int) -> dict:
    """`error` of our result, and `rounding` where that was asked; RuntimeError where the result is wrong."""
    found = launch("check", name, threads, 1)
    error, allowed = found["error"], max(case.tolerance, ROUNDINGS * found.get("rounding", 0.0))
    if error is not None and not error <= allowed:
        raise RuntimeError(f"ours is wrong by {error:.1e} on {name}, more than {allowed:.0e}")
    return found


def record(name: str, found: dict[str, list[dict]], checked: dict, nbytes: int | None, bandwidth: float) -> dict:
    """The record of a case from what each side found in each turn. checked: of `check`."""
    times = {side: [t for turn in turns for t in turn["times"]] for side, turns in found.items()}
    middle = {side: float(np.median(t)) for side, t in times.items()}
    ours, *peers = middle
    best = min(peers, key=middle.get, default=None)
    quartiles = [np.percentile(times[side], (25, 50, 75)) for side in (ours, best) if side]
    kept = {
        "name": name,
        "ours_ms": middle[ours],
        "peer_ms": middle[best] if best else None,
        "ratio": middle[ours] / middle[best] if best else None,
        **{f"peer_{side.split('-')[-1]}_ms": middle[side] for side in peers},
        "ratio_nchw": middle[ours] / middle["torch-nchw"] if "torch-nchw" in middle else None,
        "error": checked["error"],
        "rounding": checked.get("rounding"),
        "floor_ms": nbytes / bandwidth * 1e3 if nbytes else None,
        "spread": float(max((high - low) / mid for low, mid, high in quartiles)),
    }
    if "resident_mb" in found[ours][0]:
        memory = {side: max(turn["resident_mb"] for turn in turns) for side, turns in found.items()}
        kept |= {"ours_resident_mb": memory[ours], "peer_resident_mb": memory[best] if best else None}
        kept |= {"resident_ratio": memory[ours] / memory[best] if best else None}
    return kept
