"""Kills at random instants and at every fsync and rename of runs, saves and resumes: old or new, never mixed.

What must hold after each: the folder's results are those of the run before or those of this one, all of them; nothing
half-written is left; what the run said is true; and the run, resumed where it left a state, ends with the bytes of one
that nothing disturbed.
"""

import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

from gradledger import run_state
from gradledger.run_folder import FILES, PLOT, RECORD, RESUME, WEIGHTS, RunFolder

from . import Outcome
from .forks import Forks

RUN = ["adapt", "--epochs", "1", "--batch", "64", "--seed", "0"]  # five steps
BEFORE = ["adapt", "--epochs", "1", "--batch", "64", "--seed", "1"]  # the run whose results lie there already
AT = 14  # the call after which the run is killed that is resumed: its fourth save lies there
RANDOM = 100  # kills at random instants; those at calls are as many as there are calls, before and after each
SHORT = 3  # of each kind, in the short form
SIGNALS = ("SIGKILL", "SIGKILL", "SIGTERM", "SIGINT", "SIGHUP")


class Trial:
    """Folders to start from, and what must be true of them afterwards."""

    def __init__(self, forks: Forks, folder: Path, found: Outcome):
        self.forks, self.found = forks, found
        self.out, self.starts = folder / "out", folder / "starts"
        self.new = self.made("whole", RUN)
        self.old = self.made("over older results", BEFORE)
        shutil.copytree(self.starts / "over older results", self.starts / "resumed")
        forks.run([*RUN, "--output", str(self.starts / "resumed")], save_always=True, kill=(AT, True))
        if run_state.read(self.starts / "resumed").step != 2:
            raise RuntimeError("the run that is resumed was not killed after its second step")
        shutil.copytree(self.starts / "resumed", self.starts / "of a new folder")
        for name in (WEIGHTS, RECORD, PLOT):
            (self.starts / "of a new folder" / name).unlink()
        (self.starts / "into a new folder").mkdir()

    def made(self, name: str, args: list[str]) -> dict[str, bytes]:
        status, said, _ = self.forks.run([*args, "--output", str(self.starts / name)])
        if status:
            raise RuntimeError(f"a run that nothing disturbs fails: {said}")
        return self.results(self.starts / name)

    def begin(self, start: str) -> list[str]:
        """Lay a start out; the command that goes on from it."""
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.copytree(self.starts / start, self.out)
        resumed = (self.out / RESUME).exists()
        return [*(["adapt", "--resume"] if resumed else RUN), "--output", str(self.out)]

    @staticmethod
    def results(folder: Path) -> dict[str, bytes]:
        return {n: (folder / n).read_bytes() for n in (WEIGHTS, RECORD, PLOT) if (folder / n).exists()}

    def is_new(self, results: dict[str, bytes]) -> bool:
        """Are results those of the run? Of the record, which holds times, by the digests that it names."""
        if results.keys() != self.new.keys():
            return False
        ours, theirs = (json.loads(r[RECORD]) for r in (results, self.new))
        same = all(ours[key] == theirs[key] for key in ("run", "weights_sha256", "losses", "accuracy_after"))
        return same and all(results[n] == self.new[n] for n in (WEIGHTS, PLOT))

    def wrong(self, start: str, status: int, said: str) -> str | None:
        """What is not as it must be; it resumes the run."""
        with RunFolder(self.out):
            left = {p.name for p in self.out.iterdir()} - set(FILES)
        results = self.results(self.out)
        older = self.results(self.starts / start)
        new = self.is_new(results)
        # steps that were made, those of probes too, of which a run tells
        state = len(run_state.read(self.out).step_seconds) if (self.out / RESUME).exists() else None
        if left:
            return f"it leaves {sorted(left)}"
        if not new and results != older:
            return f"its results are mixed: {sorted(results)}"
        if status not in (0, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP):
            return f"it leaves with {status}: {said}"
        if status == 130 and (problem := untrue(said, state, new, had_state=(self.starts / start / RESUME).exists())):
            return f"it says {said!r}, but {problem}"
        if status == 0 and not new:
            return "it leaves with 0 without results"
        if state is not None or not new:
            args = ["adapt", "--resume"] if state is not None else RUN
            status, said, _ = self.forks.run([*args, "--output", str(self.out)])
            if status or not self.is_new(self.results(self.out)):
                return f"going on from step {state} leaves {status} {said!r} and other results"
        return None


def untrue(said: str, state: int | None, new: bool, had_state: bool) -> str | None:
    """Why a sentence about an interruption is not true, or None where it is."""
    if "Traceback" in said or said.count("\n") != 1:
        return "that is not one sentence"
    if "finished and saved" in said:
        return None if new else "it is not finished"
    if "before anything was saved" in said or said == "gradledger: interrupted\n":  # before the run began
        return None if state is None or had_state else f"step {state} is saved"
    named = re.search(r"step (\d+) is saved", said)
    return None if named and int(named[1]) == state else f"step {state} is saved"


def run(short: bool, seed: int, folder: Path, watch) -> Outcome:
    """Kill runs and judge what is left."""
    found, draw = Outcome(), random.Random(seed)
    kept = folder / "kept"
    kept.mkdir()
    with Forks(kept) as forks:
        trial = Trial(forks, folder, found)
        plans = []
        for start in ("over older results", "resumed"):
            args = trial.begin(start)
            _, _, calls = forks.run(args, save_always=True, count=True)
            found.figures[f"calls of a run {start}"] = calls
            plans += [(start, (k, after)) for k in range(1, calls + 1) for after in (False, True)]
        seconds = {}
        starts = ("into a new folder", "over older results", "resumed", "of a new folder")
        for start in starts if not short else starts[1:2]:
            args, began = trial.begin(start), time.perf_counter()
            forks.run(args)
            seconds[start] = time.perf_counter() - began
        at_random = [(draw.choice(list(seconds)), draw.choice(SIGNALS)) for _ in range(SHORT if short else RANDOM)]
        plans = draw.sample(plans, SHORT if short else len(plans)) + at_random
        draw.shuffle(plans)
        ends = dict.fromkeys(("killed", "interrupted", "finished"), 0)
        for start, how in plans:
            watch(found.tried, len(plans))
            args = trial.begin(start)
            if isinstance(how, tuple):
                what = f"SIGKILL {'after' if how[1] else 'before'} call {how[0]}"
                status, said, _ = forks.run(args, save_always=True, kill=how)
            else:
                moment = draw.uniform(0, seconds[start])
                what = f"{how} after {moment:.2f} s"
                child = forks.start(args, save_always=draw.random() < 0.5)
                time.sleep(moment)
                # a child that has ended is not replaced before it is waited for, here below: its id is its own
                if alive(child):
                    os.kill(child, getattr(signal, how))
                status, said, _ = forks.end()
            ends["killed" if status < 0 else "interrupted" if status == 130 else "finished"] += 1
            found.tried += 1
            if problem := trial.wrong(start, status, said):
                found.wrong.append(f"a run {start}, {what}: {problem}")
    at_calls = len(plans) - len(at_random)
    found.figures |= {"kills at calls": at_calls, "signals at random instants": len(at_random), **ends}
    return found


def alive(pid: int) -> bool:
    """Does the process still run?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
