"""Does breaking a function make its test fail? Every function of the table of equations, broken on purpose.

gradledger reproduce mutants        takes a quarter of an hour; `make nightly` does it and keeps the record

For each statement of `instruments.equations` and each function that holds it, the function is changed at a few places,
one at a time (`sites`: + for −, < for ≥, a number one larger, …), and the tests that are named after the statement run
on it. They hold the function where one of them fails at an assertion for one change at least; a change that only makes
Python raise shows no more than that the function is called. What no test notices is a survivor: a test that is missing,
or a change that changes nothing. A class whose docstring cites a statement is changed and listed too, but not judged:
most of it is about other things.

No file of the checkout is changed: the process of the tests imports the one module from a copy (`Redirect`). Kernels
run there as plain Python, with Numba's compiler off: the same bodies, without minutes of compiling for each change, and
nothing changed gets into a kernel cache. A test that needs compiled kernels is left out and listed.
"""

import ast
import contextlib
import importlib.util
import itertools
import json
import os
import queue
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import equations
from .equations import FUNCTIONS, MODULE, Row, SourceFile
from .statements import PAPERS, Paper

NAME = "mutants"
EACH = 3  # places at which a function is changed, its value first, and each method of a class at one
PATIENCE = 60  # seconds beside ten times what the tests take unchanged: a changed loop may not end
SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd, ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or,
    ast.Or: ast.And, ast.USub: ast.UAdd,
}  # fmt: skip
COMPILED = re.compile(r"numba\.|builtins\.NotImplementedError")  # what is raised where compiled code alone will do
SLOW = ("hypothesis", "numba", "pytest", "scipy.stats", "sympy")  # imports of others that the tests share
SILENT = (ast.Raise, ast.JoinedStr)  # messages: no statement is held by them


class Redirect:
    """Finds one module in another file; put it first into sys.meta_path."""

    def __init__(self, module: str, path: Path):
        self.module, self.path = module, path

    def find_spec(self, name, path=None, target=None):
        """The spec of the module from the other file, None for any other module."""
        return importlib.util.spec_from_file_location(name, self.path) if name == self.module else None


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """A piece of code from its first line to its last, without messages and without numbers that index."""
    if not isinstance(node, SILENT):
        yield node
        index = getattr(node, "slice", None)
        for child in ast.iter_child_nodes(node):
            yield from (n for n in walk(child) if child is not index or not isinstance(n, ast.Constant))


def sites(function: ast.AST) -> list[tuple[ast.AST, Callable[[], None]]]:
    """What can be changed in a function: its value (`value`), then the rest in order; what does it in place."""
    changes = []
    body = [n for statement in function.body for n in walk(statement)]
    for node in body:
        if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp, ast.UnaryOp)) and type(node.op) in SWAPS:
            changes.append((node, lambda n=node: setattr(n, "op", SWAPS[type(n.op)]())))
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
            changes.append((node, lambda n=node: n.ops.__setitem__(0, SWAPS[type(n.ops[0])]())))
        elif isinstance(node, ast.IfExp):
            changes.append((node, lambda n=node: n.__dict__.update(body=n.orelse, orelse=n.body)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
            change = (not node.value) if isinstance(node.value, bool) else node.value + 1
            changes.append((node, lambda n=node, v=change: setattr(n, "value", v)))
    return value(body) + changes


def value(body: list[ast.AST]) -> list[tuple[ast.AST, Callable[[], None]]]:
    """What a function returns last, else stores last, one more: of several values the first; a call loses a keyword."""
    ends = [n for n in body if isinstance(n, ast.Return) and n.value]
    ends = ends or [n for n in body if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Subscript)]
    if not ends:
        return []
    end = ends[-1]

    def change() -> None:
        given = end.value
        if isinstance(given, ast.Call) and given.keywords:
            given.keywords.pop()
        elif isinstance(given, ast.Tuple):
            given.elts[0] = more(given.elts[0])
        elif isinstance(given, ast.Dict) and given.values:
            given.values[0] = more(given.values[0])
        else:
            end.value = more(given)

    return [(end, change)]


def more(node: ast.expr) -> ast.expr:
    """An expression, one more."""
    return ast.BinOp(node, ast.Add(), ast.Constant(1))


def parts(tree: ast.Module, name: str) -> list[ast.AST]:
    """The function of that name; of a class its methods, of `MODULE` the module's functions."""
    nodes = [tree]
    for part in () if name == MODULE else name.split("."):
        nodes = [n for n in nodes[0].body if getattr(n, "name", None) == part]
    return [n for n in nodes[0].body if isinstance(n, FUNCTIONS)] if not isinstance(nodes[0], FUNCTIONS) else nodes


def mutants(text: str, name: str, each: int) -> Iterator[tuple[str, str]]:
    """(what is changed, the whole changed source) of a function in a source, at `each` places from first to last."""
    counts = [len(sites(node)) for node in parts(ast.parse(text), name)]
    for part, count in enumerate(counts):
        most = min(count, each if len(counts) == 1 else 1)
        for i in range(most):
            tree = ast.parse(text)
            function = parts(tree, name)[part]
            node, change = sites(function)[i * (count - 1) // max(1, most - 1)]
            before = ast.unparse(node)
            change()
            ast.fix_missing_locations(tree)
            yield f"{function.name}, line {node.lineno}: {before} → {ast.unparse(node)}", ast.unparse(tree)


class Tests:
    """Runs tests of a checkout, on its sources or with one module from another text, each time in a fork of `serve`.

    folder: made, and kept by the caller.
    """

    def __init__(self, root: Path, folder: Path):
        self.folder = folder
        folder.mkdir()
        path = os.pathsep.join(filter(None, [str(root), str(equations.ROOT), os.environ.get("PYTHONPATH")]))
        places = {"PYTHONPATH": path, "NUMBA_DISABLE_JIT": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        places["GRADLEDGER_CACHE"] = str(folder / "kernels")  # nothing can go to the user's
        command = [sys.executable, "-m", "validation.instruments.mutants"]
        self.server = subprocess.Popen(
            command, cwd=root, env=os.environ | places, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait()

    def unchanged(self, tests: list[str]) -> tuple[dict[str, str], dict[str, float]]:
        """Run them on the sources as they are: what those that fail raise, and the seconds of each, by test."""
        _, _, seconds, failed = self._run(tests, [], None)
        return failed, seconds

    def changed(self, tests: list[str], source: SourceFile, text: str, limit: float) -> dict[str, str]:
        """What became of a module's changed text within `limit` seconds: `verdict`, and `by` which test.

        killed: an assertion failed. error: something else was raised, crashed or did not end. survived: nothing.
        """
        place = self.folder / Path(source.path).name
        place.write_text(text, encoding="utf-8")
        verdict, by, *_ = self._run(["-x", *tests], [source.module, str(place)], limit)
        return {"verdict": verdict, "by": by}

    def _run(self, tests: list[str], redirect: list[str], limit: float | None) -> tuple[str, str, dict, dict]:
        print(json.dumps([tests, redirect, limit]), file=self.server.stdin, flush=True)
        return tuple(json.loads(self.server.stdout.readline()))


def serve() -> None:
    """Run what `Tests` asks for, a line each, in a fork of this process, which has imported what takes long."""
    for module in SLOW:
        importlib.import_module(module)
    for line in sys.stdin:
        tests, redirect, limit = json.loads(line)
        read, write = os.pipe()
        if not (fork := os.fork()):
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            os.write(write, json.dumps(result(tests, redirect)).encode())
            os._exit(0)
        os.close(write)
        if select.select([read], [], [], limit)[0]:
            with open(read, "rb") as pipe:
                answer = pipe.read()  # nothing where it crashed
            how = f"the process left with {os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1])}"
        else:
            os.close(read)
            os.kill(fork, signal.SIGKILL)
            os.waitpid(fork, 0)
            answer, how = b"", f"not done after {limit:.0f} s"
        print(answer.decode() or json.dumps(["error", how, {}, {"the tests": how}]), flush=True)


class Recorder:
    """A pytest plugin: how the last test that failed did, the seconds of each, and what each raised."""

    def __init__(self):
        self.verdict, self.by, self.seconds, self.failed = "survived", "", Counter(), {}

    def pytest_runtest_makereport(self, item, call):
        """See what a test, its set-up or its end raised."""
        import pytest

        name = item.nodeid.partition("[")[0]
        self.seconds[name] += call.duration
        if call.excinfo and not call.excinfo.errisinstance(pytest.skip.Exception):
            asserted = call.excinfo.errisinstance((AssertionError, pytest.fail.Exception))
            self.verdict, self.by = "killed" if asserted else "error", name
            self.failed[name] = f"{call.excinfo.type.__module__}.{call.excinfo.typename}"

    def pytest_collectreport(self, report):
        """See a file of tests that cannot be imported."""
        if report.failed:
            self.verdict, self.by = "error", f"the import of {report.nodeid}"
            self.failed[self.by] = "an error"


def result(tests: list[str], redirect: list[str]) -> list:
    """Run tests, with one module from another file where `redirect` is both: what a `Recorder` saw."""
    import hypothesis
    import pytest

    hypothesis.settings.register_profile("mutants", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
    hypothesis.settings.load_profile("mutants")  # the first failing case will do: no time for the smallest
    if redirect:
        sys.meta_path.insert(0, Redirect(*redirect))
    seen = Recorder()
    known = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"  # of SLOW
    pytest.main(["-q", "-p", "no:cacheprovider", "--tb=no", "-W", known, *tests], plugins=[seen])
    return [seen.verdict, seen.by, seen.seconds, seen.failed]


def work(root: Path, rows: list[Row]) -> Iterator[tuple[Row, str, SourceFile, list[str]]]:
    """Each statement with a function that holds it and the tests named after it."""
    sources: dict[str, SourceFile] = {}
    for row in rows:
        for path, name in row.functions if row.status == "tested" else ():
            source = sources.setdefault(path, SourceFile(root / path, root))
            yield row, name, source, [f"{t.path}::{t.name}" for t in row.tests]


def run(
    output: Path,
    watch: Callable[[int, int, str], None],
    root: Path | None = None,
    papers: tuple[Paper, ...] = PAPERS,
    each: int = EACH,
) -> dict:
    """Break every function and run its tests; `reason` names each that no test holds. output: unused.

    FileNotFoundError where there are no tests.
    """
    root = root or equations.ROOT
    jobs = list(work(root, equations.survey(root, papers)[0]))
    rows, problems = [], []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = [stack.enter_context(Tests(root, folder / str(i))) for i in range(len(os.sched_getaffinity(0)))]
        watch(0, len(jobs), "tests on the sources as they are")
        failed, seconds = servers[0].unchanged(sorted({test for *_, named in jobs for test in named}))
        left_out = [test for test, raised in failed.items() if COMPILED.match(raised)]
        problems += [f"{t} fails on the sources as they are ({failed[t]})" for t in failed if t not in left_out]
        free, started = queue.SimpleQueue(), itertools.count()
        for server in servers:
            free.put(server)

        def judge(job: tuple[Row, str, SourceFile, list[str]]) -> dict:
            row, name, source, named = job
            label = f"arXiv {row.paper.number} {row.statement.label}, {source.path}:{name}"
            tests = sorted((test for test in named if test not in left_out), key=seconds.get)
            limit = PATIENCE + 10 * sum(map(seconds.get, tests))
            server = free.get()
            watch(next(started), len(jobs), label)
            changes = mutants((root / source.path).read_text(encoding="utf-8"), name, each)
            verdicts = [{"change": what} | server.changed(tests, source, text, limit) for what, text in changes]
            free.put(server)
            return {"what": label, "class": len(parts(source.tree, name)) > 1, "tests": tests, "mutants": verdicts}

        with ThreadPoolExecutor(len(servers)) as pool:
            rows = list(pool.map(judge, [] if problems else jobs))
    for row in rows:
        if not row["class"] and not any(v["verdict"] == "killed" for v in row["mutants"]):
            tests = ", ".join(row["tests"])
            problems.append(f"{row['what']}: none of {len(row['mutants'])} changes fails an assertion of {tests}")
    every = [v for row in rows for v in row["mutants"]]
    count = {verdict: sum(v["verdict"] == verdict for v in every) for verdict in ("killed", "error", "survived")}
    return {
        "name": NAME,
        "published": {},
        "measured": {r["what"]: _counted(r["mutants"]) for r in rows},
        "mutants": rows,
        "left_out": left_out,
        "survivors": [f"{r['what']}: {v['change']}" for r in rows for v in r["mutants"] if v["verdict"] == "survived"],
        "units": "killed: an assertion fails; error: something is raised, crashes or does not end; survived: no test "
        "notices",
        **count,
        "ok": not problems,
        "goal": f"each of {sum(not r['class'] for r in rows)} functions is held by a test that fails at an assertion "
        "when it is broken; "
        f"{count['killed']} of {len(every)} changes fail an assertion, {count['error']} end in an error, "
        f"{count['survived']} survive",
        **({"reason": "; ".join(problems)} if problems else {}),
    }


def _counted(verdicts: list[dict]) -> dict[str, int]:
    return {k: sum(v["verdict"] == k for v in verdicts) for k in ("killed", "error", "survived")}


if __name__ == "__main__":
    serve()
