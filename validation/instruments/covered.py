"""Which lines of the packages do the tests run, kernels included? Numba's compiled code is not seen, so it is off.

python -m validation.instruments.covered        about two hours on one core; `make coverage` keeps the record

First every test runs with Numba's compiler off (NUMBA_DISABLE_JIT), where a kernel body is plain Python and each of its
lines counts. Some tests cannot pass so: they need compiled kernels, run the command line, which refuses to start
without, or take longer than `LIMIT` seconds in plain Python. They are run once more with the compiler on: what they run
of a kernel then does not count, everything else does. A test that fails there too is named. What runs in a process that
a test starts is not seen. Every `MINUTES` what was found is put into a file of its own, and a run that was interrupted
goes on after the last of them.

What counts is lines, not branches: that a line is run says nothing about whether what it does is right. The mutants and
the drawn cases do.
"""

import argparse
import ast
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from refimpl.storage import checkpoint

from . import equations
from .provenance import provenance

NAME = "coverage"
RECORD = equations.ROOT / "validation" / "results" / f"{NAME}.json"
KEEP = Path("gradledger-out") / NAME
PACKAGES = ("refimpl", "costmodel", "validation", "gradledger")
MINUTES = 10  # after which what was found is kept
LIMIT = 5.0  # seconds of a test with the compiler off: plain Python is some hundred times slower
EXAMPLES = 3  # drawn cases of a test that states no number of its own
COMPILED = ("fast", "inline", "intrinsic", "njit", "cfunc", "Helper")  # decorators of what is written for the compiler


class Part(NamedTuple):
    """What one process found: file → numbers of its lines that ran, and what became of the tests."""

    lines: dict[str, list[int]]
    passed: list[str]
    failed: dict[str, str]
    not_reached: list[str]


def measure(folder: Path, tests: Iterable[str], compiler: bool, limit: float, minutes: float) -> Part:
    """Run tests in a process of their own, which begins no test after some minutes; folder: for its files."""
    import coverage

    data, out, listed = folder / "lines", folder / "tests.json", folder / "listed.txt"
    places = {
        "PYTHONDONTWRITEBYTECODE": "1",
        "GRADLEDGER_EXAMPLES": os.environ.get("GRADLEDGER_EXAMPLES", str(EXAMPLES)),
    }
    path = [str(equations.ROOT), os.environ.get("PYTHONPATH", "")]
    places["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    if not compiler:
        places |= {"NUMBA_DISABLE_JIT": "1", "GRADLEDGER_CACHE": str(folder / "kernels")}
    listed.write_text("\n".join(tests), encoding="utf-8")
    command = [sys.executable, "-m", "coverage", "run", f"--data-file={data}", f"--source={','.join(PACKAGES)}"]
    command += ["-m", "validation.instruments.covered_tests", str(out), str(limit), str(minutes), str(listed)]
    subprocess.run(command, cwd=equations.ROOT, env=os.environ | places, check=True)
    found = coverage.CoverageData(str(data))
    found.read()
    files = {f: Path(f).relative_to(equations.ROOT).as_posix() for f in found.measured_files()}
    lines = {name: sorted(found.lines(f) or ()) for f, name in files.items()}
    return Part(lines, **json.loads(out.read_text(encoding="utf-8")))


def state_of(tests: Sequence[str], limit: float) -> str:
    """A digest of the tests, the limit and every source that they may run."""
    digest = hashlib.sha256(json.dumps([*tests, limit]).encode())
    for folder in (*PACKAGES, "tests"):
        for path in sorted((equations.ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def measure_all(keep: Path, tests: Sequence[str], compiler: bool, limit: float, minutes: float) -> Part:
    """Run tests in one process after the other until each was reached; what they found is kept in `keep`.

    What was kept of other tests, another limit or other sources is not taken.
    """
    of, found, waiting = state_of(tests, limit), Part({}, [], {}, []), list(tests)
    for i in itertools.count():
        file = keep / f"{of}-{'on' if compiler else 'off'}-{i}.json"
        if not waiting:
            return found
        if file.exists():
            part = Part(**json.loads(file.read_text(encoding="utf-8")))
        else:
            with tempfile.TemporaryDirectory() as name:
                part = measure(Path(name), waiting, compiler, limit, minutes)
            checkpoint.write_json(file, part._asdict())
        if not (part.passed or part.failed):
            raise RuntimeError(f"no test was run of {len(part.not_reached)}: give more than {minutes:g} minutes")
        lines = {f: sorted({*found.lines.get(f, ()), *part.lines.get(f, ())}) for f in {**found.lines, **part.lines}}
        found = Part(lines, found.passed + part.passed, found.failed | part.failed, [])
        waiting = part.not_reached
    raise AssertionError


def functions(text: str) -> dict[str, tuple[range, bool]]:
    """Function of a source → (lines of its body without docstring, is it written for the compiler alone?)."""
    found = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                body = child.body[1:] if ast.get_docstring(child) is not None else child.body
                names = {n.id for d in child.decorator_list for n in ast.walk(d) if isinstance(n, ast.Name)}
                if body:
                    lines = range(body[0].lineno, child.end_lineno + 1)
                    found[prefix + child.name] = lines, bool(names & set(COMPILED))
            inside = f"{prefix}{child.name}." if isinstance(child, (ast.FunctionDef, ast.ClassDef)) else prefix
            visit(child, inside)

    visit(ast.parse(text), "")
    return found


def spans(lines: Iterable[int]) -> str:
    """Line numbers as `3–5, 8`."""
    runs: list[list[int]] = []
    for line in sorted(lines):
        if runs and line == runs[-1][-1] + 1:
            runs[-1][1:] = [line]
        else:
            runs.append([line])
    return ", ".join("–".join(map(str, r)) for r in runs)


def of_file(path: str, plain: set[int], compiled: set[int]) -> dict:
    """Of one file: how many lines can run, how many did with the compiler off, how many more with it on, and the rest.

    never: functions of which no line of the body ran. for_compiler: the same of those that are written for it.
    """
    import coverage

    measured = coverage.Coverage(data_file=None)
    _, every, _, _, _ = measured.analysis2(str(equations.ROOT / path))
    every_line = set(every)
    missed = every_line - plain - compiled
    never: dict[bool, list[str]] = {False: [], True: []}
    for name, (lines, for_compiler) in functions((equations.ROOT / path).read_text(encoding="utf-8")).items():
        own = every_line & set(lines)
        if own and own <= missed:
            never[for_compiler].append(name)
    return {
        "lines": len(every_line),
        "compiler_off": len(every_line & plain),
        "compiler_on": len((every_line & compiled) - plain),
        "missed": spans(missed),
        "never": never[False],
        "for_compiler": never[True],
    }


def run(keep: Path, tests: Sequence[str] = ("tests",), limit: float = LIMIT, minutes: float = MINUTES) -> dict:
    """Measure the lines that tests run: the record, by file.

    keep: folder of what was found so far; it is made, and left to its owner.
    """
    keep.mkdir(parents=True, exist_ok=True)
    plain = measure_all(keep, tests, False, limit, minutes)
    compiled = measure_all(keep, sorted(plain.failed), True, 0, minutes)
    files = sorted(
        path.relative_to(equations.ROOT).as_posix()
        for package in PACKAGES
        for path in (equations.ROOT / package).rglob("*.py")
    )
    measured = {path: of_file(path, *(set(part.lines.get(path, ())) for part in (plain, compiled))) for path in files}
    total = sum(f["lines"] for f in measured.values())
    off, on = (sum(f[key] for f in measured.values()) for key in ("compiler_off", "compiler_on"))
    return {
        "name": NAME,
        **provenance(),
        "command": f"python -m validation.instruments.covered --limit {limit:g}",
        "tests": list(tests),
        "limit_seconds": limit,
        "passed": {"compiler_off": len(plain.passed), "compiler_on": len(compiled.passed)},
        "failed": {test: why.replace(f"{equations.ROOT}/", "") for test, why in compiled.failed.items()},
        "lines": {"all": total, "compiler_off": off, "compiler_on": on},
        "files": measured,
    }


def main(argv: list[str] | None = None) -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description="Which lines of the packages do the tests run, kernels included?")
    parser.add_argument("tests", nargs="*", default=["tests"], help="as for pytest; all of them if none is given")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds of a test with the compiler off")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="after which what was found is kept")
    parser.add_argument("--keep", type=Path, default=KEEP, help="folder of what was found; a later run goes on from it")
    parser.add_argument("--output", type=Path, default=RECORD, help="the file of the record")
    args = parser.parse_args(argv)
    record = run(args.keep, args.tests, args.limit, args.minutes)
    shutil.rmtree(args.keep)
    args.output.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    n = record["lines"]
    print(f"{n['compiler_off']:,} of {n['all']:,} lines with the compiler off, {n['compiler_on']:,} more with it on")


if __name__ == "__main__":
    main()
