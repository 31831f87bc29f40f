"""README's Python and that of the pages runs; README is short, and what it quotes of a record is in the record."""

import re
import shlex
from pathlib import Path

import numba
import pytest

from costmodel.formulas import cost
from gradledger import cli
from refimpl.methods.registry import forget_method, known
from refimpl.ops import forget_operator, operators
from refimpl.surgery.prune import count
from tools.docs import measured, site
from validation.instruments import snapshot

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MOST_BYTES = 8000
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def run(text: str) -> dict:
    """Names after the Python of a page has run, one block after the other."""
    cost.load_formulas()
    found, costs, ops, methods = {}, dict(cost.COSTS), {*operators()}, {*known()}
    try:
        for code in PYTHON.findall(text):
            exec(code, found)
    finally:  # what a page registers is no part of the library
        for added in cost.COSTS.keys() - costs.keys():
            del cost.COSTS[added]
        for name in {*operators()} - ops:
            forget_operator(name)
        for name in known().keys() - methods:
            forget_method(name)
    return found


def test_the_python_runs(capsys):
    run(README)
    assert "lenet5: one step on 8 samples" in capsys.readouterr().out


@pytest.mark.parametrize("page", [p for p in site.pages() if "```python" in site.written(p)])
def test_the_python_of_a_page_runs(page):
    found = run(site.filled(page))
    assert found["program"].training
    if "smaller" in found:
        assert count(found["smaller"]) <= 0.6 * count(found["model"])
        assert {n.op for n in found["zeroing"].nodes} > {"block_prune"}


PRINTED = re.compile(r"`gradledger (cost [^`]*)`[^`#]*?```text\n(.*?)```", re.DOTALL)  # a command and what it prints
QUOTED = [
    (page, command, block)
    for page, text in [("README.md", README), *((str(p), site.written(p)) for p in site.pages())]
    for command, block in PRINTED.findall(text)
]
OF_THE_MACHINE = re.compile(r"a step on this|its energy|RAM that|time:|energy:")  # where no device is named


def words(line: str) -> str:
    """A line without the blanks between its columns, which are as wide as what this machine takes is long."""
    return " ".join(line.split())


def test_printed_blocks_are_found():
    assert {page for page, _, _ in QUOTED} >= {"README.md"} and len(QUOTED) >= 4


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS != 2, reason="the pages quote a machine with two cores")
@pytest.mark.parametrize("page, command, block", QUOTED, ids=[f"{p} {c}"[:60] for p, c, _ in QUOTED])
def test_a_page_quotes_what_the_command_prints(page, command, block, capsys):
    if "executed" in block and not snapshot.avx512():
        pytest.skip("the page quotes what kernels execute on vectors of AVX-512")
    with pytest.raises(SystemExit) as left:
        cli.main(shlex.split(command))
    printed = {words(line) for stream in capsys.readouterr() for line in stream.splitlines()}
    assert left.value.code == block.startswith("gradledger:")
    own = OF_THE_MACHINE if "--device" not in command else re.compile("$^")
    assert [line for line in block.splitlines() if line and words(line) not in printed and not own.match(line)] == []


def test_it_is_short():
    assert len(README.encode()) <= MOST_BYTES


def test_the_test_command_is_there():
    assert re.search(r"^make test +#", README, re.MULTILINE) and "make test" in (ROOT / ".ci/run").read_text()


def test_what_it_quotes_of_records_is_theirs():
    people = measured.record("watch-adapt")["measured"]
    before, filtered, dense = (people[m]["mean"] for m in ("before", "gradient-filter:patch=2", "backprop"))
    readme = " ".join(README.split())
    assert f"rises from {before} to {filtered} %, with dense gradients to {dense} %" in readme
    shares = [
        v["within_15, %"] for n in ("seconds", "seconds-epyc") for v in measured.record(n)["measured"].values()
        if "inside_interval, %" in v
    ]  # fmt: skip
    assert f"{min(shares)} to {max(shares)} % of 86 whole nets" in readme
