"""Functions broken on purpose: what is changed, and that a test which would not notice is told."""

import ast

import pytest
from test_equations import FAKE, METHOD, TESTS, survey

from validation.instruments import mutants

PYTEST = "[pytest]\npythonpath = . tests\nfilterwarnings = error\n"


def silent(done, total, name):
    """No progress bar."""


def changes(body: str) -> list[str]:
    """What each mutant of a function with this body changes."""
    source = f"def f(x, y):\n    {body}\n"
    found = list(mutants.mutants(source, "f", 99))
    assert all(ast.dump(ast.parse(text)) != ast.dump(ast.parse(source)) for _, text in found)
    return [what.partition(": ")[2] for what, _ in found]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("return x", ["return x → return x + 1"]),
        ("return x, y", ["return (x, y) → return (x + 1, y)"]),
        ("return {5: x}", ["return {5: x} → return {5: x + 1}", "5 → 6"]),
        ("return g(x, a=y)", ["return g(x, a=y) → return g(x)"]),
        ("x[y] = y", ["x[y] = y → x[y] = y + 1"]),
        ("g(x + y)", ["x + y → x - y"]),
        ("g(-x)", ["-x → +x"]),
        ("x *= y", ["x *= y → x += y"]),
        ("g(x < y <= x)", ["x < y <= x → x >= y <= x"]),
        ("g(x and y)", ["x and y → x or y"]),
        ("g(x if y else None)", ["x if y else None → None if y else x"]),
        ("g(2, True)", ["2 → 3", "True → False"]),
        ("g(x[2], x.shape[0])", []),  # another index is no other value but an error
        ("raise ValueError(f'{x + 1}')", []),
    ],
)
def test_what_is_changed(body, found):
    assert changes(body) == found


def test_places_are_taken_from_first_to_last_and_one_of_each_method():
    source = "def f(x):\n    g((x + 1) * 2 - 3)\n\nclass A:\n"
    source += "    def g(self):\n        g(4, 5)\n    def h(self):\n        g(6)\n"
    lines = [what for what, _ in mutants.mutants(source, "f", 2)]
    assert lines == ["f, line 2: (x + 1) * 2 - 3 → (x + 1) * 2 + 3", "f, line 2: 3 → 4"]
    assert [what for what, _ in mutants.mutants(source, "A", 2)] == ["g, line 6: 4 → 5", "h, line 8: 6 → 7"]
    assert [what for what, _ in mutants.mutants(source, "A.g", 2)] == ["g, line 6: 4 → 5", "g, line 6: 5 → 6"]
    assert [what for what, _ in mutants.mutants(source, "(module)", 2)] == lines


def broken(root, tests: str) -> dict:
    """The record of a small repository with three functions and these tests."""
    for package in ("refimpl", "refimpl/methods"):
        (root / package).mkdir(parents=True, exist_ok=True)
        (root / package / "__init__.py").write_text("")
    (root / "refimpl/__init__.py").write_text("from .methods.halve import Rule\n")
    (root / "pytest.ini").write_text(PYTEST)
    method = METHOD.replace('"""A slow walk."""', '"""A slow walk."""\n        return 1')
    assert survey(root, method.replace("_again(half(x))", "half(half(x))"), tests)[1] == []
    return mutants.run(root, silent, root, FAKE)


STRONG = (
    TESTS.replace("(x):", "():")
    .replace("twice()\n\ndef", "twice() == 0.25\n\ndef")
    .replace("passes()", "passes() == 1")
)
LABEL = "arXiv 1111.11111 eq. (1), refimpl/methods/halve.py:half"


def test_a_test_that_notices_holds_its_function(tmp_path):
    record = broken(tmp_path, STRONG)
    assert record["ok"] and "reason" not in record and record["survivors"] == []
    assert record["measured"][LABEL] == {"killed": 3, "error": 0, "survived": 0}
    assert (tmp_path / "refimpl/methods/halve.py").read_text().count("x / 2") == 1  # no file is changed


def test_tests_that_do_not_notice_are_told(tmp_path):
    """The table of equations takes both for tests: they have the name, use the function and assert something."""
    tests = STRONG.replace("halve.half(2) == 1", "halve.half(2) is not None")  # whatever it is
    tests = tests.replace("twice() == 0.25", "[5][int(halve.quarter(0))]")  # a change that raises shows only a call
    record = broken(tmp_path, tests)
    second = LABEL.replace("(1)", "(2)").replace("half", "quarter")
    assert not record["ok"] and record["reason"] == (
        f"{LABEL}: none of 3 changes fails an assertion of tests/test_halve.py::test_eq_1_is_half; "
        f"{second}: none of 1 changes fails an assertion of tests/test_halve.py::test_eq_2_is_a_quarter"
    )
    assert [s.rpartition(": ")[2] for s in record["survivors"]] == [
        "return x / 2 → return x / 2 + 1", "x / 2 → x * 2", "2 → 3",
    ]  # fmt: skip
    assert [m["verdict"] for m in record["mutants"][1]["mutants"]] == ["error"]


def test_tests_that_fail_unchanged_end_the_run(tmp_path):
    record = broken(tmp_path, STRONG.replace("halve.half(2) == 1", "halve.half(2) == 7"))
    assert record["mutants"] == [] and not record["ok"]
    assert record["reason"] == (
        "tests/test_halve.py::test_eq_1_is_half fails on the sources as they are (builtins.AssertionError)"
    )
