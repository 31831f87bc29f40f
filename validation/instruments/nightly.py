"""New drawn cases every night: the tests that draw, with seeds of their own, until the time is over.

python -m validation.instruments.nightly                               up to an hour; part of `make nightly`
python -m validation.instruments.nightly --seed 7 --minutes 5 tests/test_arena.py

`make test` draws the same cases each time, so that it tells of the change and not of the day. Here each round takes a
seed of its own, the first one by the clock: what is drawn differs, and a test that states no number of cases gets
`EXAMPLES`. Rounds go on until the time is over; a file of tests runs in a process of its own, one for each core. The
record tells each test that failed with the drawn case, the seed, and the command that runs it again. Leaves with 1
where one failed.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import equations
from .provenance import provenance

NAME = "nightly"
MINUTES = 60
EXAMPLES = 100
RECORD = equations.ROOT / "build" / f"{NAME}.json"
NOTHING = 5  # pytest's status where no test of a file draws
OURS = re.compile(r"^(?:FAILED|ERROR) (\S+)(?: - .*)?$", re.MULTILINE)
CASE = re.compile(r"^E[ |]+((?:Failing test case|Falsifying example): .*(?:\nE[ |]+\S.*)*)", re.MULTILINE)
PASSED = re.compile(r"(\d+) passed")


def command(path: str, seed: int) -> list[str]:
    """The command that runs the drawn tests of a file (or one test) with a seed."""
    drawn = ["-m", "hypothesis", "--hypothesis-profile=nightly", f"--hypothesis-seed={seed}"]
    return ["python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *drawn, path]


def run_file(path: str, seed: int, examples: int, end: float) -> dict:
    """Run the drawn tests of a file: how many passed, what failed, and whether there was time for it."""
    left = end - time.monotonic()
    if left <= 0:
        return {"file": path, "seed": seed, "reached": False}
    path_of_ours = os.pathsep.join(filter(None, [str(equations.ROOT), os.environ.get("PYTHONPATH", "")]))
    places = {"GRADLEDGER_EXAMPLES": str(examples), "PYTHONPATH": path_of_ours}
    start = time.monotonic()
    words = [sys.executable, *command(path, seed)[1:]]
    try:
        done = subprocess.run(
            words, cwd=equations.ROOT, env=os.environ | places, capture_output=True, text=True, timeout=left
        )
    except subprocess.TimeoutExpired:
        return {"file": path, "seed": seed, "reached": False}
    passed = PASSED.search(done.stdout.strip().rpartition("\n")[2])
    found = {"file": path, "seed": seed, "reached": True, "seconds": round(time.monotonic() - start, 1)}
    found["passed"] = int(passed[1]) if passed else 0
    if done.returncode not in (0, NOTHING):
        run = f"GRADLEDGER_EXAMPLES={examples} {shlex.join(command('TEST', seed))}"
        tests = sorted(set(OURS.findall(done.stdout))) or [path]
        found["failed"] = [run.replace("TEST", shlex.quote(test)) for test in tests]
        found["cases"] = [re.sub(r"\nE[ |]+", "\n", case) for case in CASE.findall(done.stdout)]
        found["said"] = (done.stdout + done.stderr)[-4000:]
    return found


def rounds(files: Sequence[str], seed: int, examples: int, minutes: float) -> list[dict]:
    """Run the files with one seed after the other until the time is over, on every core."""
    end = time.monotonic() + 60 * minutes
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    found: list[dict] = []
    drawing = list(files)
    with ThreadPoolExecutor(cores) as pool:
        while drawing and time.monotonic() < end:
            ran = list(pool.map(lambda path: run_file(path, seed, examples, end), drawing))  # noqa: B023
            found += ran
            drawing = [r["file"] for r in ran if r["reached"] and (r["passed"] or "failed" in r)]
            seed += 1
    return found


def run(files: Sequence[str], seed: int, examples: int = EXAMPLES, minutes: float = MINUTES) -> dict:
    """The record of a night: seeds, passed tests, what failed and how to run it again, what was not reached."""
    found = rounds(files, seed, examples, minutes)
    failed = [r for r in found if "failed" in r]
    return {
        "name": NAME,
        **provenance(),
        "command": shlex.join(["python", "-m", "validation.instruments.nightly", *sys.argv[1:]]),
        "seeds": sorted({r["seed"] for r in found}),
        "examples": examples,
        "minutes": minutes,
        "passed": sum(r.get("passed", 0) for r in found),
        "failures": [{k: r[k] for k in ("failed", "cases", "said")} for r in failed],
        "not_reached": [f"{r['file']}, seed {r['seed']}" for r in found if not r["reached"]],
        "seconds": {r["file"]: r["seconds"] for r in found if r["reached"] and r["passed"]},
        "ok": not failed,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of this module; 1 where a test failed."""
    parser = argparse.ArgumentParser(description="Run the tests that draw cases, with new seeds.")
    parser.add_argument("files", nargs="*", help="files of tests; all if none is given")
    parser.add_argument("--seed", type=int, help="of the first round, default by the clock")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="cases of a test that states no number")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="the time for all of it")
    parser.add_argument("--output", type=Path, default=RECORD, help="the file of the record")
    args = parser.parse_args(argv)
    seed = int(time.time()) if args.seed is None else args.seed
    files = args.files or [
        p.relative_to(equations.ROOT).as_posix() for p in sorted((equations.ROOT / "tests").glob("test_*.py"))
    ]
    print(f"seed {seed}", flush=True)
    record = run(files, seed, args.examples, args.minutes)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for failure in record["failures"]:
        print("\n".join([*failure["failed"], *failure["cases"]]))
    print(
        f"{record['passed']} drawn tests passed in {len(record['seeds'])} rounds, "
        f"{sum(len(f['failed']) for f in record['failures'])} failed; {len(record['not_reached'])} files were begun or "
        f"waiting when the time was over; see {args.output}"
    )
    return not record["ok"]


if __name__ == "__main__":
    sys.exit(main())
