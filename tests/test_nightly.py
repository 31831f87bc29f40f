"""A night draws other cases in each round, tells what failed with the command that shows it, and ends in time."""

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from validation.instruments import equations, nightly

TESTS = """
import os, pathlib
from hypothesis import given, settings, strategies
SEEN = pathlib.Path(os.environ["SEEN"])

@given(strategies.integers(0, 10**6))
def test_draws(n):
    with SEEN.open("a") as seen:
        print(n, file=seen)

@settings(max_examples=300)
@given(strategies.integers(0, 10**6))
def test_fails(n):
    assert n < 1000

def test_draws_nothing():
    assert False
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with tests of its own and this one's conftest, in the place of the checkout; what its tests drew."""
    (tmp_path / "tests").mkdir()
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path / "tests")
    (tmp_path / "tests/test_drawn.py").write_text(TESTS)
    (tmp_path / "tests/test_plain.py").write_text("def test_plain():\n    assert False\n")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    monkeypatch.setenv("PYTHONPATH", str(equations.ROOT))
    monkeypatch.setattr(nightly.equations, "ROOT", tmp_path)
    return tmp_path


def drawn(checkout) -> list[str]:
    numbers = (checkout / "seen").read_text().split()
    (checkout / "seen").unlink()
    return numbers


def test_a_failure_is_told_with_its_case_and_a_command_that_shows_it(checkout, capsys):
    found = nightly.run_file("tests/test_drawn.py", 5, 20, time.monotonic() + 100)
    assert found["passed"] == 1 and "test_fails(\nn=1000,\n)" in found["cases"][0]
    first = drawn(checkout)
    assert len(set(first)) > 10
    (again,) = found["failed"]
    assert again.endswith("--hypothesis-profile=nightly --hypothesis-seed=5 tests/test_drawn.py::test_fails")
    words = shlex.split(again)
    done = subprocess.run(["env", words[0], sys.executable, *words[2:]], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 1 and "n=1000" in done.stdout
    nightly.run_file("tests/test_drawn.py", 5, 20, time.monotonic() + 100)
    assert drawn(checkout) == first
    nightly.run_file("tests/test_drawn.py", 6, 20, time.monotonic() + 100)
    assert drawn(checkout) != first


def test_rounds_go_on_until_the_time_is_over(checkout):
    start = time.monotonic()
    status = nightly.main(
        ["--seed", "5", "--minutes", "0.1", "--examples", "10", "--output", str(checkout / "out.json")]
    )
    assert time.monotonic() - start < 30
    record = json.loads((checkout / "out.json").read_text())
    assert status == 1 and not record["ok"]
    assert record["seeds"][:2] == [5, 6] and record["seconds"].keys() == {"tests/test_drawn.py"}
    assert record["failures"] and record["not_reached"]
