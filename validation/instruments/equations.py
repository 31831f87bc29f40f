"""The table paper → equation → function → test → status, from sources: `python -m validation.instruments.equations`.

A function or class holds a statement of `validation.instruments.statements` where its docstring cites it: `eq. (N)`,
`eqs. (N)–(M)`, `Proposition N`, or the statement's name. The paper is the last arXiv number before the citation, else
the first one in the module's docstring, else the first one in that docstring. A module holds what no function cites
but its own docstring does.

A test holds a statement where all of this is true:
- it is named `test_eq_N_…`, `test_eq_N_and_M_…`, or `test_`, the statement's slug, `_…`;
- it lies in tests/test_<module>.py or tests/test_<module>_*.py of a module whose function holds the statement;
- it is neither skipped nor expected to fail;
- its decorators and body, or what they use from tests/, mention that function, a function of its module that calls it,
  a class of its module, or the module;
- there, something is asserted that is no constant, or an error is expected (`asserts`).

That an assertion fails when the function is broken is what `validation.instruments.mutants` tries, in a nightly job.
"""

import ast
import re
import sys
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from .statements import PAPERS, Paper, Statement

ROOT = Path(__file__).parents[2]
PACKAGES = ("refimpl", "costmodel", "validation")
TABLE = "validation/results/equations.md"
MODULE = "(module)"
ARXIV = re.compile(r"arXiv[: ](\d{4}\.\d{5})")
EQUATIONS = re.compile(r"\b(?:eqs?\.|equations?) ?((?:\(\d+\)(?:,? and |, ?| ?– ?|-| to )?)+)", re.IGNORECASE)
RANGE = re.compile(r"\((\d+)\)(?: ?– ?|-| to )\((?=(\d+))")
NUMBERED = re.compile(r"\b(?:Proposition|Theorem|Lemma) \d+")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)


class Place(NamedTuple):
    """Where a function or a test is: its file, from the repository's root, and its name."""

    path: str
    name: str


class Row(NamedTuple):
    """A statement, what holds it, and its status: tested, untested, missing, or the reason why it comes later."""

    paper: Paper
    statement: Statement
    functions: tuple[Place, ...]
    tests: tuple[Place, ...]
    status: str


class Source:
    """A parsed file and what it defines at the top level."""

    def __init__(self, path: Path, root: Path):
        self.path = path.relative_to(root).as_posix()
        self.module = self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.stem = self.module.rpartition(".")[2]
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.definitions: dict[str, ast.AST] = {}
        self.docstrings = {MODULE: docstring(self.tree)}
        for node in self.tree.body:
            if isinstance(node, DEFINITIONS):
                self.definitions[node.name] = node
                self.docstrings[node.name] = docstring(node)
                for inner in node.body if isinstance(node, ast.ClassDef) else ():
                    if isinstance(inner, FUNCTIONS):
                        self.docstrings[f"{node.name}.{inner.name}"] = docstring(inner)
            elif isinstance(node, ast.Assign):
                self.definitions |= {name.id: node for name in node.targets if isinstance(name, ast.Name)}

    @cached_property
    def imports(self) -> dict[str, str]:
        """What the names that it imports stand for."""
        names = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom):
                names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
            elif isinstance(node, ast.Import):
                names |= {a.asname: a.name for a in node.names if a.asname}
        return names

    def stands_for(self, function: str) -> set[str]:
        """The names here that stand for a function: its own, those of its direct callers, and those of classes."""
        name = function.partition(".")[0]
        if name == MODULE:
            return set(self.definitions)
        callers = (k for k, v in self.definitions.items() if isinstance(v, ast.ClassDef) or name in chains(v))
        return {name, *callers}


def docstring(node: ast.AST) -> str:
    """Its docstring in one line."""
    return " ".join((ast.get_docstring(node) or "").split())


def chains(node: ast.AST) -> Iterator[str]:
    """The longest dotted names in a piece of code."""
    if isinstance(node, (ast.Name, ast.Attribute)) and re.fullmatch(r"[\w.]+", name := ast.unparse(node)):
        yield name
    else:
        for child in ast.iter_child_nodes(node):
            yield from chains(child)


def used(test: str, source: Source, tests: dict[str, Source]) -> tuple[set[str], list[ast.AST]]:
    """Full dotted names that a test mentions, directly or through helpers and fixtures in test files; all that code."""
    mentioned, code, seen, todo = set(), [], set(), [(source, test)]
    while todo:
        source, name = todo.pop()
        if name not in source.definitions or (source.module, name) in seen:
            continue
        seen.add((source.module, name))
        code.append(source.definitions[name])
        for chain in chains(source.definitions[name]):
            head, dot, rest = chain.partition(".")
            todo.append((source, head))
            full = source.imports.get(head, head) + dot + rest
            mentioned.add(full)
            module, _, rest = full.partition(".")
            if module in tests:
                todo.append((tests[module], rest.partition(".")[0]))
    return mentioned, code


def asserts(names: set[str], code: list[ast.AST]) -> bool:
    """Does code with these names assert anything but constants, itself, by an `assert_…` or by `pytest.raises`?"""
    last = {name.rpartition(".")[2] for name in names}
    tested = (n.test for node in code for n in ast.walk(node) if isinstance(n, ast.Assert))
    return "raises" in last or any(n.startswith("assert_") for n in last) or any(map(varies, tested))


def varies(test: ast.AST) -> bool:
    """Has an expression a name in it?"""
    return any(isinstance(n, ast.Name) for n in ast.walk(test))


def uses(names: set[str], source: Source, function: str) -> bool:
    """Is the module among these names, alone or before a name that stands for the function?

    A package that the module lies in may take its place, as in `refimpl.GradientFilter`.
    """
    wanted = source.stands_for(function)
    split = [n.split(".") for n in names]
    pairs = ((".".join(parts[:i]), part) for parts in split for i, part in enumerate(parts))
    return source.module in names or any(
        part in wanted and f"{source.module}.".startswith(f"{head}.") for head, part in pairs
    )


def citations(text: str, module: str, papers: tuple[Paper, ...]) -> set[tuple[str | None, str]]:
    """(arXiv number, key) of everything that a docstring cites; the number is None where no paper is named."""
    numbers = list(ARXIV.finditer(text))
    default = next((m[1] for m in (*ARXIV.finditer(module), *numbers)), None)

    def paper(match: re.Match) -> str | None:
        return next((m[1] for m in reversed(numbers) if m.start() < match.start()), default)

    cited = {(paper(m), m[0]) for m in NUMBERED.finditer(text)}
    for m in EQUATIONS.finditer(text):
        cited |= {(paper(m), n) for n in re.findall(r"\d+", m[1])}
        cited |= {(paper(m), str(n)) for first, last in RANGE.findall(m[1]) for n in range(int(first), int(last))}
    for p in papers:
        for key in (s.key for s in p.statements if not s.key.isdecimal() and not NUMBERED.fullmatch(s.key)):
            words = "[- ]".join(map(re.escape, re.split("[- ]", key)))
            matches = re.finditer(rf"(?<!\w){words}(?!\w)", text, re.IGNORECASE)
            cited |= {(p.number, key) for m in matches if paper(m) == p.number}
    return cited


def survey(root: Path | None = None, papers: tuple[Paper, ...] = PAPERS) -> tuple[list[Row], list[str]]:
    """The rows of the table, and a sentence for each thing that is wrong; FileNotFoundError where tests/ is missing."""
    root = root or ROOT
    if not (root / "tests").is_dir():
        raise FileNotFoundError(2, "the table of equations is made from a checkout with its tests", str(root / "tests"))
    tests = {f.stem: Source(f, root / "tests") for f in sorted((root / "tests").glob("*.py"))}
    known = {(p.number, s.key): s for p in papers for s in p.statements}
    holders: dict[tuple, list[tuple[Source, str]]] = {key: [] for key in known}
    problems = []
    for file in (f for package in PACKAGES for f in sorted((root / package).rglob("*.py"))):
        source = Source(file, root)
        for name, text in source.docstrings.items():
            for cited in sorted(citations(text, source.docstrings[MODULE], papers), key=str):
                what = f"eq. ({cited[1]})" if cited[1].isdecimal() else cited[1]
                if cited in known:
                    holders[cited].append((source, name))
                elif cited[0] is None:
                    problems.append(f"{source.path}, {name}: cites {what} of no paper, write arXiv NNNN.NNNNN {what}")
                elif cited[0] in {p.number for p in papers}:
                    problems.append(f"{source.path}, {name}: cites {what}, which is not listed for arXiv {cited[0]}")
    rows = []
    for p in papers:
        for s in p.statements:
            held = holders[p.number, s.key]
            held = [h for h in held if h[1] != MODULE] or held
            checks = tuple(dict.fromkeys(check for h in held for check in checked_by(s, *h, tests)))
            functions = tuple(Place(source.path, name) for source, name in held)
            status, wrong = judge(root, p, s, functions, checks)
            rows.append(Row(p, s, functions, checks, status))
            problems += [f"arXiv {p.number} {s.label}: {wrong}"] * bool(wrong)
    return rows, problems


def checked_by(statement: Statement, source: Source, function: str, tests: dict[str, Source]) -> Iterator[Place]:
    """The tests that hold a statement for one function."""
    equation = rf"test_eqs?_(\d+_and_)*{statement.key}(_and_\d+)*_"
    claim = equation if statement.key.isdecimal() else f"test_{statement.slug}_"
    for file in (t for stem, t in tests.items() if f"{stem}_".startswith(f"test_{source.stem}_")):
        for name, node in file.definitions.items():
            if isinstance(node, FUNCTIONS) and re.match(claim, f"{name}_"):
                skipped = re.search(r"mark\.(skip|xfail)\b", " ".join(map(ast.unparse, node.decorator_list)))
                names, code = used(name, file, tests)
                if not skipped and asserts(names, code) and uses(names, source, function):
                    yield Place(f"tests/{file.path}", name)


def judge(root: Path, paper: Paper, statement: Statement, functions: tuple, tests: tuple) -> tuple[str, str]:
    """Status of a statement, and what is wrong with it or an empty text."""
    if paper.later and not functions:
        return paper.later, ""
    if not functions:
        there = (root / statement.home).exists()
        return "missing", f"no docstring in {statement.home} cites it" if there else f"there is no {statement.home}"
    if not tests:
        files = " or ".join(dict.fromkeys(f"tests/test_{Path(f.path).stem}.py" for f in functions))
        names = ", ".join(f.name for f in functions)
        return "untested", f"{files} has no test_{statement.slug}_… that runs, uses {names} and asserts"
    return "tested", ""


def markdown(rows: list[Row]) -> str:
    """The table as a Markdown file, with links relative to where `TABLE` lies."""
    text = [
        "# Equations of the papers, the functions that hold them, the tests that check them", "",
        "Made by `python -m validation.instruments.equations`, which tells how functions and tests are found;",
        "`tests/test_equations.py` fails where this file is out of date or an equation has no test.",
    ]  # fmt: skip
    for paper in dict.fromkeys(row.paper for row in rows):
        cells = [("", "statement", "source", "functions", "tests", "status")]
        for _, s, functions, tests, status in (row for row in rows if row.paper is paper):
            cells.append((s.label, s.text, s.source, links(functions), links(tests), status))
        widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
        cells.insert(1, tuple("-" * w for w in widths))
        text += ["", f"## {paper.title} (arXiv {paper.number})", ""]
        for line in cells:
            padded = (cell + " " * (w - width(cell)) for cell, w in zip(line, widths, strict=True))
            text.append(f"| {' | '.join(padded)} |")
    return "\n".join(text) + "\n"


def links(places: tuple[Place, ...]) -> str:
    """The names in each file, and a link to the file."""
    up = "../" * TABLE.count("/")
    names = {path: ", ".join(f"`{f.name}`" for f in places if f.path == path) for path in dict(places)}
    return "; ".join(f"{listed} in [{path}]({up}{path})" for path, listed in names.items())


def width(text: str) -> int:
    """Columns that a text takes: marks such as the tilde of g̃ take none."""
    return sum(not unicodedata.combining(letter) for letter in text)


def reproduce(output: Path) -> dict:
    """Write the table into the folder `output`; the record of `gradledger reproduce equations`."""
    rows, problems = survey()
    (output / Path(TABLE).name).write_text(markdown(rows), encoding="utf-8")
    named = {f"{row.paper.number} {row.statement.label}": row for row in rows}
    return {
        "name": "equations",
        "published": {name: row.statement.text for name, row in named.items()},
        "measured": {name: row.status for name, row in named.items()},
        "functions": {name: [":".join(f) for f in row.functions] for name, row in named.items()},
        "tests": {name: ["::".join(f) for f in row.tests] for name, row in named.items()},
        "problems": problems,
        "ok": not problems,
        "reason": "; ".join(problems),
    }


def main() -> int:
    """Write the committed table anew and print what is wrong; 1 where something is."""
    rows, problems = survey()
    (ROOT / TABLE).write_text(markdown(rows), encoding="utf-8")
    for problem in problems:
        print(problem)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
