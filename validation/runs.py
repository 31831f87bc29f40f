"""Finished runs of a long experiment, kept as they come, so that an interrupted one goes on where it stood."""

import hashlib
import json
from pathlib import Path

import numpy as np

from refimpl import checkpoint, files
from refimpl.data import DataError

MOST = 2**26  # bytes of a file of runs


class Runs:
    """The runs of one experiment in `output/NAME.jsonl`, a line of JSON each.

    DataError where a line is none; CheckpointError, before the first run, where the file cannot be written.

    settings: whatever decides a run beside its key, as JSON: runs of other settings stay in the file and do not count.
    """

    def __init__(self, output: Path, name: str, settings):
        self.path = output / f"{name}.jsonl"
        self.digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        raw = files.read_bytes(self.path, str(self.path), DataError, MOST) if self.path.exists() else b""
        self.lines = raw.decode(errors="replace").splitlines()
        self.found: list[dict] = []
        wrong = f"is no run of {name}; delete the line or the file"
        for i, line in enumerate(self.lines, start=1):
            with files.reading(f"line {i} of {self.path}", DataError, wrong):
                one = json.loads(line)
                if one["digest"] == self.digest:
                    self.found.append(one)
        self._write()  # hours of training must not end at a folder that is missing or cannot be written

    def get(self, **key) -> dict | None:
        """The finished run with these entries, if there is one."""
        return next((r for r in self.found if all(r.get(k) == v for k, v in key.items())), None)

    def add(self, **run) -> dict:
        """Keep a finished run."""
        run = {"digest": self.digest, **run}
        self.found.append(run)
        self.lines.append(json.dumps(run))
        self._write()
        return run

    def _write(self) -> None:
        checkpoint.write_atomic(self.path, [line.encode() + b"\n" for line in self.lines])


def spread(values: list[float]) -> dict[str, float]:
    """Mean, standard deviation (of the sample), smallest and largest."""
    x = np.array(values, float)
    found = {"mean": x.mean(), "std": x.std(ddof=1) if len(x) > 1 else 0.0, "min": x.min(), "max": x.max()}
    return {name: round(float(v), 2) for name, v in found.items()}


def percents(shares: list[float]) -> dict[str, float]:
    """`spread` of shares, in percent."""
    return spread([100 * share for share in shares])
