"""`gradledger adapt` as a person runs it: on files, in a process of its own."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LONGEST = 1200  # seconds of a run: what takes longer is stopped


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
def commanded(
    samples: Samples, folder: Path, options: Sequence[str], longest: int = LONGEST
) -> Iterator[tuple[dict, Path | None]]:
    """The record that the command printed, and the weights that it wrote, None where it wrote none; gone afterwards.

    options: of the command, beside data, output and `--json`; folder: in which its files lie meanwhile; longest: the
    seconds that it may take. A run that is stopped, or prints no record, has an `error`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        source, output = samples.write(place / "data"), place / "run"
        command = [
            sys.executable,
            "-m",
            "gradledger",
            "adapt",
            "--json",
            "--data",
            str(source),
            "--output",
            str(output),
        ]
        try:
            done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=longest, check=False)
        except subprocess.TimeoutExpired:
            yield {"ok": False, "error": f"not done after {longest} s"}, None
            return
        try:
            record = json.loads(done.stdout)
        except ValueError:
            record = {"ok": False, "error": done.stderr.strip() or f"exit status {done.returncode}"}
        weights = output / "adapted.safetensors"
        yield record | {"status": done.returncode}, weights if weights.exists() else None
