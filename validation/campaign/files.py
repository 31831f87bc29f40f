"""Damaged and malicious files of every format that is read: one sentence and status 2, under 5 s and 1 GB."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import Outcome
from .bombs import all_bombs
from .samples import all_samples, damaged

MUTATIONS = 600  # of each format
WHOLE = 4  # of each format that go through a command of their own, beside those that children of one process read
SHORT = 8, 0
SECONDS, BYTES = 5.0, 10**9  # of a case: processor time and resident memory
AT_ONCE = 2  # processes
ENDLESS = 300  # seconds after which a command is held to wait for ever, also on a machine that does much else
COMMANDS = {
    "data": ("adapt", "--output", "out", "--data"), "images": ("adapt", "--output", "out", "--size", "8x8", "--data"),
    "weights": ("cost", "--model"), "device": ("cost", "--device"), "record": ("compare",),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A file that is read. kind: of `reader.READERS`; refused: must the status be 2?"""

    name: str
    kind: str
    path: str
    refused: bool


def run(short: bool, seed: int, folder: Path, watch) -> Outcome:
    """Read every damaged file and every bomb; a damaged file may still be whole enough to be taken."""
    count, whole = SHORT if short else (MUTATIONS, WHOLE)
    cases = list(made(count, seed, folder))
    out, done = Outcome(tried=len(cases)), itertools.count(1)
    worst, statuses = {"seconds": 0.0, "bytes": 0}, {}
    parts = [cases[i::AT_ONCE] for i in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        refused: dict[str, list[Case]] = {}
        for answers in pool.map(lambda part: answered(part, lambda: watch(next(done), len(cases))), parts):
            for case, (status, said, seconds, size) in answers:
                out.wrong += judged(case, status, said, seconds, size)
                worst = {"seconds": max(worst["seconds"], seconds), "bytes": max(worst["bytes"], size)}
                statuses[status] = statuses.get(status, 0) + 1
                if status == 2 and case.kind in COMMANDS:
                    refused.setdefault(case.name.split(" #")[0], []).append(case)
        chosen = [case for same in refused.values() for case in same[:whole]]
        out.tried += len(chosen)
        for found in pool.map(lambda case: commanded(case, folder), chosen):
            out.wrong += found
    out.figures = {f"files with status {status}": n for status, n in sorted(statuses.items())}
    out.figures |= {
        "commands of their own": len(chosen),
        "most seconds of the processor": round(worst["seconds"], 2),
        "most bytes of memory": worst["bytes"],
    }
    return out


def made(count: int, seed: int, folder: Path) -> Iterator[Case]:
    """Write `count` damaged files of each format and every bomb, each into a folder of its own."""
    numbers = itertools.count()

    def fresh() -> Path:
        new = folder / f"{next(numbers)}"
        new.mkdir()
        return new

    for place, (name, sample) in enumerate(all_samples(fresh()).items()):
        for i in range(count):
            rng = np.random.default_rng((seed, place, i))
            damage = sample.inner if sample.inner and i % 2 else damaged
            path = sample.write(damage(sample.raw, rng), fresh())
            yield Case(f"{name} #{i}", sample.kind, str(path), False)
    for name, (kind, lay) in all_bombs(fresh()).items():
        yield Case(name, kind, lay(fresh()), True)


def answered(cases: list[Case], tell) -> list[tuple[Case, list]]:
    """What a reader says of each case."""
    command = [sys.executable, "-m", f"{__package__}.reader"]
    found = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        for case in cases:
            reader.stdin.write(json.dumps([case.kind, case.path]) + "\n")
            reader.stdin.flush()
            found.append((case, json.loads(reader.stdout.readline())))
            tell()
        reader.stdin.close()
    return found


def judged(case: Case, status: int, said: str, seconds: float, size: int) -> list[str]:
    """What is wrong with an answer."""
    problems = [f"status {status}"] * (status not in ((2,) if case.refused else (0, 1, 2)))
    problems += [f"took {seconds:.1f} s"] * (seconds > SECONDS)
    problems += [f"took {size:,} bytes of memory"] * (size > BYTES)
    return [f"{case.name}: {p}: {said[-300:]!r}" for p in problems + worded(status, said)]


def worded(status: int, said: str) -> list[str]:
    """What is wrong with the words of a status: one line for a refusal, none for success."""
    if status == 0:
        return ["words without a refusal"] * bool(said)
    one = said.startswith("gradledger: ") and said.count("\n") == 1 and said[:-1].isprintable()
    return ["no single clean sentence"] * (not one)


def commanded(case: Case, folder: Path) -> list[str]:
    """What is wrong where the command line itself reads a file that was refused."""
    command = [sys.executable, "-m", "gradledger", *COMMANDS[case.kind], case.path]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=ENDLESS, cwd=folder)
    except subprocess.TimeoutExpired:
        return [f"{case.name}: {' '.join(command)} does not end"]
    problems = [f"status {done.returncode}"] * (done.returncode != 2) + worded(done.returncode, done.stderr)
    return [f"{case.name}: {p} of a command: {done.stderr[-300:]!r}" for p in problems]
