"""Which lines tests run: kernel bodies count with the compiler off, and what did not end or was not run is told."""

import json
import subprocess
import sys

import pytest

from validation.instruments import covered, equations

SOURCE = '''"""Two functions."""
from numba import njit


def used(n):
    """Doc."""
    return n


class Holder:
    def never(self, n):
        if n:
            return 1
        return 2


@njit
def kernel(n):
    return n
'''


def test_functions_of_a_source():
    found = covered.functions(SOURCE)
    assert found == {
        "used": (range(7, 8), False), "Holder.never": (range(12, 15), False), "kernel": (range(19, 20), True),
    }  # fmt: skip


def test_spans():
    assert covered.spans([5, 3, 4, 8]) == "3–5, 8"
    assert covered.spans([]) == ""


def test_what_no_line_ran_of_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.py").write_text(SOURCE)
    monkeypatch.setattr(covered.equations, "ROOT", tmp_path)
    found = covered.of_file("a.py", {2, 5, 7}, {2, 10, 11, 17, 18})
    assert found == {
        "lines": 11, "compiler_off": 3, "compiler_on": 4, "missed": "12–14, 19", "never": ["Holder.never"],
        "for_compiler": ["kernel"],
    }  # fmt: skip


@pytest.mark.parametrize("compiler", [False, True])
def test_lines_of_a_kernel_body_count_where_it_is_plain_python(tmp_path, compiler):
    """With the compiler off the packages are imported and their bodies run; with it on nothing of a body is seen."""
    test = "tests/test_relu.py::test_at_the_kinks_and_for_nan_as_torch"
    found = covered.measure(tmp_path, [test], compiler, 60, 5)
    body, _ = covered.functions((equations.ROOT / "refimpl/ops/relu.py").read_text())["forward"]
    assert found.passed and not found.failed and not found.not_reached
    ran = found.lines["refimpl/ops/relu.py"]
    assert ran and bool(set(ran) & set(body)) is not compiler


def test_a_run_goes_on_after_what_was_kept(tmp_path, monkeypatch):
    parts = iter([
        covered.Part({"a.py": [1, 2]}, ["one"], {"two": "AssertionError"}, ["three"]),
        covered.Part({"a.py": [2, 3], "b.py": [1]}, ["three"], {}, []),
    ])  # fmt: skip
    asked = []

    def measure(folder, tests, *rest):
        asked.append(tests)
        return next(parts)

    monkeypatch.setattr(covered, "measure", measure)
    wanted = covered.Part({"a.py": [1, 2, 3], "b.py": [1]}, ["one", "three"], {"two": "AssertionError"}, [])
    assert covered.measure_all(tmp_path, ["tests"], False, 5, 1) == wanted
    assert asked == [["tests"], ["three"]]
    assert covered.measure_all(tmp_path, ["tests"], False, 5, 1) == wanted and len(asked) == 2
    with pytest.raises(StopIteration):  # another limit: nothing of it was kept
        covered.measure_all(tmp_path, ["tests"], False, 6, 1)


def test_a_part_in_which_no_test_ran_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(covered, "measure", lambda *given: covered.Part({}, [], {}, ["one"]))
    with pytest.raises(RuntimeError, match="no test was run of 1: give more than 0.5 minutes"):
        covered.measure_all(tmp_path, ["tests"], True, 0, 0.5)


def test_what_takes_too_long_and_what_is_not_reached(tmp_path):
    test = tmp_path / "test_three.py"
    test.write_text(
        "import time\n\n\ndef test_quick():\n    pass\n\n\ndef test_slow():\n    time.sleep(60)\n\n\n"
        "def test_late():\n    pass\n"
    )
    out, listed = tmp_path / "out.json", tmp_path / "listed"
    listed.write_text(str(test))
    words = [sys.executable, "-m", "validation.instruments.covered_tests", str(out), "2", "0.03", str(listed)]
    subprocess.run(words, cwd=equations.ROOT, check=True, capture_output=True, timeout=60)
    found = {key: [t.rpartition("::")[2] for t in tests] for key, tests in json.loads(out.read_text()).items()}
    assert found == {"passed": ["test_quick"], "failed": ["test_slow"], "not_reached": ["test_late"]}
