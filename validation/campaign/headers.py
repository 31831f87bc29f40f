"""Every bit of the header of a saved run and of saved weights, flipped: refused in one sentence, or nothing changes.

What is flipped is the file of a run of the watch net that was interrupted, and the weights that a finished one wrote.
"""

import os
import signal
from pathlib import Path

import numpy as np

from gradledger import adapt, run_state
from gradledger.errors import MALFORMED
from gradledger.run_folder import RESUME, WEIGHTS
from refimpl.recipes.head import PART
from refimpl.storage import checkpoint

from . import Outcome

SHORT = 61  # bits from one that is tried to the next, in the short form; a prime: all bits of a byte have their turn


def saved(folder: Path) -> tuple[Path, Path]:
    """The state of a run that is interrupted after three steps, and the weights of its net as a run writes them."""
    job = adapt.prepare(adapt.AdaptSettings(epochs=1))

    def watch(progress):
        if progress.step == 3 and progress.part != PART:  # the state is there once the classifier has trained
            signal.raise_signal(signal.SIGTERM)

    try:
        adapt.run(job.settings, folder, False, watch)
    except adapt.Interrupted:
        pass
    job.trainer.save(folder / WEIGHTS, run="0" * 64)
    return folder / RESUME, folder / WEIGHTS


def same(a, b) -> bool:
    """Are two things that were read equal, arrays to the bit?"""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def run(short: bool, seed: int, folder: Path, watch) -> Outcome:
    """Flip one bit at a time and read."""
    found = Outcome()
    state, weights = saved(folder)
    readers = {
        "the state": (state, lambda: vars(run_state.read(folder))),
        "the weights": (weights, lambda: checkpoint.load(weights)),
    }
    sizes = {what: 8 * (8 + int.from_bytes(path.read_bytes()[:8], "little")) for what, (path, _) in readers.items()}
    step, refused, done = SHORT if short else 1, 0, 0
    for what, (path, read) in readers.items():
        whole = read()
        with open(path, "r+b") as file:
            for bit in range(seed % step, sizes[what], step):
                watch(done, sum(sizes.values()) // step)
                done += 1
                byte = os.pread(file.fileno(), 1, bit // 8)
                os.pwrite(file.fileno(), bytes([byte[0] ^ 1 << bit % 8]), bit // 8)
                try:
                    if not same(read(), whole):
                        found.wrong.append(f"bit {bit} of the header of {what} changes what is read")
                except MALFORMED as e:
                    refused += 1
                    if "\n" in str(e) or str(path) not in str(e):
                        found.wrong.append(f"bit {bit} of the header of {what} is refused without a sentence: {e!r}")
                except Exception as e:
                    found.wrong.append(f"bit {bit} of the header of {what} ends in {e!r}")
                os.pwrite(file.fileno(), byte, bit // 8)
    found.tried = done
    found.figures = {"refused": refused, "harmless": done - refused - len(found.wrong)}
    found.figures |= {f"bits of the header of {what}": size for what, size in sizes.items()}
    return found
