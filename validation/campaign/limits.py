"""Full disks and memory limits, step by step: one sentence, and results that are old or new, never mixed.

Files may grow to so many bytes and no more (RLIMIT_FSIZE), from 2 KiB to more than a run writes; where mounting is
allowed, a disk of so many bytes holds the folder. Memory (RLIMIT_AS): so much beyond what the imported process takes.
Below a certain limit a C library ends the process before Python can speak; the results must be whole even then.
"""

import json
import shutil
import subprocess
from pathlib import Path

from gradledger.run_folder import FILES, PLOT, RECORD, RESUME, WEIGHTS, RunFolder

from . import Outcome
from .forks import Forks

RUN = ["adapt", "--epochs", "1", "--batch", "64", "--seed", "0"]
BEFORE = ["adapt", "--epochs", "1", "--batch", "64", "--seed", "1"]
KIB, MIB = 1 << 10, 1 << 20
FILE_SIZES = [*range(2 * KIB, 32 * KIB, 2 * KIB), *range(32 * KIB, 320 * KIB, 16 * KIB)]
DISKS = [*range(384 * KIB, 1536 * KIB, 64 * KIB)]
MEMORY = [*range(0, 64 * MIB, 4 * MIB), *range(64 * MIB, 512 * MIB, 32 * MIB)]
LIBRARIES = ("LLVM ERROR", "libgomp", "OpenBLAS")  # that end a process themselves, with words of their own
NO_ROOM = "make room"  # what a sentence about a disk advises


def files(folder: Path) -> dict[str, bytes]:
    """The results of a folder, after what a start repairs."""
    with RunFolder(folder):
        return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def wrong(status: int, said: str, folder: Path, old: dict[str, bytes], new: dict, advice: str) -> str | None:
    """What is not as it must be after a run under a limit."""
    *noise, last = said.strip().split("\n")
    # the interpreter's own words about an exception that it ignored come before the sentence
    sentence = last.startswith("gradledger: ") and (not noise or noise[0].startswith("Exception ignored"))
    silent = status < 0 or any(word in said for word in LIBRARIES)
    if not silent and (status not in (0, 2) or status == 2 and not (sentence and advice in last.lower())):
        return f"it leaves with {status}: {said!r}"
    now = files(folder)
    if left := now.keys() - set(FILES) - old.keys():
        return f"it leaves {sorted(left)}"
    results = {n: now[n] for n in (WEIGHTS, RECORD, PLOT) if n in now}
    if results == {n: old[n] for n in results} and len(results) == len(old):
        return "it leaves with 0 without new results" if status == 0 else None
    if results.get(WEIGHTS) != new[WEIGHTS]:
        return "its weights are of neither run"
    if RECORD not in results:  # weights alone: told, and to be finished
        return None if status and RESUME in now and PLOT not in results and "the record was not" in said else "half"
    if json.loads(results[RECORD])["weights_sha256"] != json.loads(new[RECORD])["weights_sha256"]:
        return "its record is of other weights"
    if PLOT in results and results[PLOT] != new[PLOT]:
        return "its plot is of another run"
    return None


def mounted(disk: Path, size: int) -> bool:
    """Mount an empty file system of so many bytes; False where that is not allowed."""
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], capture_output=True, check=False
        )
    except OSError:
        return False
    return done.returncode == 0


def run(short: bool, seed: int, folder: Path, watch) -> Outcome:
    """Run under each limit, over the results of an earlier run."""
    found = Outcome()
    kept, start, disk = folder / "kept", folder / "start", folder / "disk"
    kept.mkdir()
    disk.mkdir()
    figures = dict.fromkeys(("finished", "refused in a sentence", "ended by a library"), 0)
    pick = (lambda steps: steps[seed % 7 :: len(steps) // 2]) if short else list
    plans = [("a file limit", "FSIZE", n) for n in pick(FILE_SIZES)]
    plans += [("a disk", None, n) for n in pick(DISKS)] + [("memory", "AS", n) for n in pick(MEMORY)]
    with Forks(kept) as forks:
        for args, target in ((BEFORE, start), (RUN, folder / "new")):
            status, said, _ = forks.run([*args, "--output", str(target)])
            if status:
                raise RuntimeError(f"a run without limits fails: {said}")
        old, new = files(start), files(folder / "new")
        for what, limit, nbytes in plans:
            watch(found.tried, len(plans))
            out = disk if limit is None else folder / "out"
            if limit is None and not mounted(disk, nbytes):
                figures["disks that could not be mounted"] = figures.get("disks that could not be mounted", 0) + 1
                continue
            try:
                shutil.copytree(start, out, dirs_exist_ok=True)
                limits = {} if limit is None else {limit: nbytes}
                status, said, _ = forks.run([*RUN, "--output", str(out)], limits=limits)
                advice = "memory" if limit == "AS" else NO_ROOM
                found.tried += 1
                figures["finished" if status == 0 else "refused in a sentence" if status == 2 else
                        "ended by a library"] += 1  # fmt: skip
                if problem := wrong(status, said, out, old, new, advice):
                    found.wrong.append(f"{what} of {nbytes:,} bytes: {problem}")
            finally:
                if limit is None:
                    subprocess.run(["umount", str(disk)], check=True)
                else:
                    shutil.rmtree(out, ignore_errors=True)
    found.figures = figures
    return found
