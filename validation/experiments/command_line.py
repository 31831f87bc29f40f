"""The command line as a person uses it: on files, each command in a process of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LONGEST = 1200  # seconds of a command: what takes longer is stopped


@dataclass(frozen=True)
class Samples:
    """What a seed draws: x (M, …) maps, or (M,) JPEG streams as objects; y (M,); the names of the classes."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: tuple[str, ...]

    def write(self, folder: Path) -> Path:
        """As what the command line takes: a `.npz`, or JPEG files in folders of classes."""
        folder.mkdir(parents=True)
        if self.x_train.dtype != object:
            path = folder / "samples.npz"
            np.savez(path, **vars(self))
            return path
        for part, x, y in (("train", self.x_train, self.y_train), ("test", self.x_test, self.y_test)):
            for i, (stream, label) in enumerate(zip(x, y, strict=True)):
                path = folder / part / self.classes[label] / f"{i:05}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(stream)
        return folder


@contextmanager
def laid_out(samples: Samples, folder: Path) -> Iterator[tuple[Path, Path]]:
    """The samples as files, and a place for what commands write; in `folder`, gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        yield samples.write(Path(name) / "data"), Path(name)


def printed(command: Sequence[str], longest: float = LONGEST) -> dict:
    """The record that a command of `gradledger` printed with `--json`, and its exit `status`.

    `error` says why there is none: it was stopped after `longest` seconds, or refused.
    """
    call = [sys.executable, "-m", "gradledger", *command, "--json"]
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=longest, check=False)
    except subprocess.TimeoutExpired:
        return {"ok": False, "error": f"not done after {longest} s", "status": None}
    try:
        record = json.loads(done.stdout)
    except ValueError:
        record = {"ok": False, "error": done.stderr.strip() or f"exit status {done.returncode}"}
    return record | {"status": done.returncode}


@contextmanager
def commanded(
    samples: Samples, folder: Path, options: Sequence[str], longest: float = LONGEST
) -> Iterator[tuple[dict, Path | None]]:
    """The record of `gradledger adapt` on samples, and the weights that it wrote, None where it wrote none.

    options: of the command, beside data and output; folder: in which its files lie meanwhile.
    """
    with laid_out(samples, folder) as (source, place):
        output = place / "run"
        record = printed(["adapt", "--data", str(source), "--output", str(output), *options], longest)
        weights = output / "adapted.safetensors"
        yield record, weights if weights.exists() else None
