"""The table of equations: the committed one, and its rules on small repositories with one fault each."""

import json

import pytest

from gradledger import show
from gradledger.cli import main
from validation.instruments import equations
from validation.instruments.statements import PAPERS, Paper, rows

HOME = "refimpl/methods/halve.py"
FAKE = (
    Paper("1111.11111", "Halving", rows(HOME, "paper", {"1": "y = x/2", "2": "z = y/2", "slow walk": "x falls"})),
    Paper("2222.22222", "Later", rows("refimpl/later.py", "paper", {"1": "y = 2x"}), later="another issue"),
)
METHOD = '''"""Halving (arXiv 1111.11111)."""

class Rule:
    def passes(self):
        """A slow walk."""

def half(x):
    """Y, eq. (1)."""
    return x / 2

def quarter(x):
    """Z, eq. (2)."""
    return _again(half(x))
'''
TESTS = """
from helpers import build
from refimpl.methods import halve
import refimpl as ri

QUARTER = halve.quarter

def twice():
    return QUARTER(1)

def test_eq_1_is_half():
    assert halve.half(2) == 1

def test_eq_2_is_a_quarter(x):
    assert twice()

def test_slow_walk_falls():
    assert build().passes()
"""
HELPERS = "from refimpl import Rule\n\ndef build():\n    return Rule()\n"


def survey(root, method=METHOD, tests=TESTS, **more):
    """The fake repository's statuses and problems; more: other files, `/` and `.py` left out of their names."""
    files = {HOME: method, "tests/test_halve.py": tests, "tests/helpers.py": HELPERS, **more}
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    found, problems = equations.survey(root, FAKE)
    return [row.status for row in found], problems


@pytest.fixture(scope="module")
def ours():
    """The rows and the problems of this repository."""
    return equations.survey()


def test_the_committed_table_is_up_to_date(ours):
    found, _ = ours
    committed = (equations.ROOT / equations.TABLE).read_text(encoding="utf-8")
    assert committed == equations.markdown(found), "run python -m validation.instruments.equations"


def test_every_equation_is_tested_or_belongs_to_another_issue(ours):
    found, problems = ours
    assert problems == []
    assert {r.status for r in found if not r.paper.later} == {"tested"}
    assert [paper.number for paper in PAPERS if not paper.later] == [
        "2301.00330", "2007.03213", "2503.17959", "2010.14298", "1805.11046",
        "2009.13108", "2206.15472",
    ]  # fmt: skip


def test_statements_are_listed_once_and_their_slugs_differ():
    for paper in PAPERS:
        slugs = [s.slug for s in paper.statements]
        assert len(set(slugs)) == len(slugs), paper.number
    assert {s.slug for s in FAKE[0].statements} == {"eq_1", "eq_2", "slow_walk"}


def test_functions_and_tests_are_found(tmp_path):
    assert survey(tmp_path) == (["tested"] * 3 + ["another issue"], [])
    found, _ = equations.survey(tmp_path, FAKE)
    assert [list(row.functions) for row in found] == [
        [(HOME, "half")],
        [(HOME, "quarter")],
        [(HOME, "Rule.passes")],
        [],
    ]
    assert found[1].tests == (("tests/test_halve.py", "test_eq_2_is_a_quarter"),)


UNTESTED = "arXiv 1111.11111 eq. (1): tests/test_halve.py has no test_eq_1_… that runs, uses half and asserts"


@pytest.mark.parametrize(
    "tests",
    [
        TESTS.replace("test_eq_1_", "test_"),
        TESTS.replace("test_eq_1_", "test_eq_10_"),
        TESTS.replace("test_eq_1_", "check_eq_1_"),
        TESTS.replace("assert halve.half(2) == 1", "pass"),
        TESTS.replace("assert halve.half(2) == 1", "halve.half(2)"),
        TESTS.replace("assert halve.half(2) == 1", "halve.half(2)\n    assert True"),
        TESTS.replace("assert halve.half(2) == 1", "halve.half(2)\n    assert 1 == 1"),
        TESTS.replace("halve.half(2) == 1", "2 / 2 == 1"),
        TESTS.replace("halve.half(2) == 1", "halve.PATCH == 1"),
        TESTS.replace("halve.half(2) == 1", "other.half(2) == 1"),
        TESTS.replace("def test_eq_1_", "@pytest.mark.skip\ndef test_eq_1_"),
        TESTS.replace("def test_eq_1_", "@pytest.mark.xfail(strict=True)\ndef test_eq_1_"),
    ],
    ids=[
        "no name",
        "another number",
        "no test",
        "empty",
        "a call",
        "a call and True",
        "a call and a constant",
        "nothing used",
        "a constant",
        "another module",
        "skipped",
        "xfail",
    ],
)
def test_an_equation_without_a_test_is_wrong(tmp_path, tests):
    assert survey(tmp_path, tests=tests) == (["untested", "tested", "tested", "another issue"], [UNTESTED])


def test_a_test_in_another_file_does_not_count(tmp_path):
    statuses, problems = survey(tmp_path, tests="", **{"tests/test_other.py": TESTS})
    assert statuses == ["untested"] * 3 + ["another issue"]
    assert len(problems) == 3


@pytest.mark.parametrize(
    "use",
    [
        "halve.half(2)", "passes_of(halve)", "halve.quarter(2)", "ri.half(2)", "ri.methods.halve.half(2)", "build()",
    ],
    ids=["itself", "its module", "its caller", "its package", "its full name", "a class of its module"],
)  # fmt: skip
@pytest.mark.parametrize("file", ["tests/test_halve.py", "tests/test_halve_more.py"])
def test_what_counts_as_a_use(tmp_path, use, file):
    tests = TESTS.replace("halve.half(2)", use)
    assert survey(tmp_path, tests="", **{file: tests})[1] == []


@pytest.mark.parametrize(
    "how",
    [
        "np.testing.assert_equal(halve.half(2), 1)",
        "with pytest.raises(TypeError):\n        halve.half('x')",
        "check(halve.half(2))",
    ],
)
def test_what_counts_as_an_assertion(tmp_path, how):
    tests = TESTS.replace("assert halve.half(2) == 1", how) + "\n\ndef check(y):\n    assert y == 1\n"
    assert survey(tmp_path, tests=tests)[1] == []


def test_one_test_of_several_equations(tmp_path):
    tests = TESTS.replace("test_eq_1_", "test_eq_1_and_2_").replace("test_eq_2_is", "test_is")
    tests = tests.replace("halve.half(2)", "halve.quarter(2)")
    assert survey(tmp_path, tests=tests)[1] == []


def test_fixtures_and_decorators_are_followed(tmp_path):
    tests = TESTS.replace("test_eq_1_is_half()", "test_eq_1_is_half(value)").replace("halve.half(2) == 1", "value")
    fixture = "@pytest.fixture\ndef value():\n    return halve.half(2)\n"
    assert survey(tmp_path, tests=tests)[1] == [UNTESTED]
    assert survey(tmp_path, tests=tests + fixture)[1] == []
    decorated = TESTS.replace("halve.half(2) == 1", "f").replace(
        "def test_eq_1", "@given(st.just(halve.half))\ndef test_eq_1"
    )
    assert survey(tmp_path, tests=decorated)[1] == []


def test_an_equation_that_nothing_cites_is_wrong(tmp_path):
    statuses, problems = survey(tmp_path, METHOD.replace("Z, eq. (2).", "Z."))
    assert statuses == ["tested", "missing", "tested", "another issue"]
    assert problems == [f"arXiv 1111.11111 eq. (2): no docstring in {HOME} cites it"]
    (tmp_path / HOME).unlink()
    found, problems = equations.survey(tmp_path, FAKE)
    assert [row.status for row in found][:3] == ["missing"] * 3
    labels = [row.statement.label for row in found[:3]]
    assert problems == [f"arXiv 1111.11111 {label}: there is no {HOME}" for label in labels]


def test_a_module_holds_what_no_function_cites(tmp_path):
    method = METHOD.replace("Y, eq. (1).", "Y.").replace("11111).", "11111) eq. (1), eq. (2).")
    assert survey(tmp_path, method)[1] == []
    found, _ = equations.survey(tmp_path, FAKE)
    assert [row.functions[0].name for row in found[:2]] == ["(module)", "quarter"]
    untested = TESTS.replace("halve.half(2) == 1", "2 / 2 == 1")
    assert survey(tmp_path, method, untested)[1] == [
        UNTESTED.replace("half", "(module)").replace("test_(module)", "test_half")
    ]


@pytest.mark.parametrize(
    ("cited", "problem"),
    [
        ("eq. (7)", f"{HOME}, half: cites eq. (7), which is not listed for arXiv 1111.11111"),
        ("Proposition 3", f"{HOME}, half: cites Proposition 3, which is not listed for arXiv 1111.11111"),
        ("eqs. (1)–(3)", f"{HOME}, half: cites eq. (3), which is not listed for arXiv 1111.11111"),
    ],
)
def test_wrong_citations(tmp_path, cited, problem):
    assert survey(tmp_path, METHOD.replace("eq. (1).", f"eq. (1). See {cited}."))[1] == [problem]


def test_a_statement_of_a_later_paper_is_to_be_tested_once_something_cites_it(tmp_path):
    cited = METHOD.replace("eq. (1).", "eq. (1). See arXiv 2222.22222 eq. (1).")
    assert survey(tmp_path, cited) == (survey(tmp_path)[0][:-1] + ["tested"], [])
    _, problems = survey(tmp_path, cited, TESTS.replace("test_eq_1_is_half", "test_half"))
    assert problems[-1] == "arXiv 2222.22222 eq. (1): " + UNTESTED.partition(": ")[2]


def test_an_equation_of_no_paper_is_wrong_and_that_of_another_paper_is_not_ours(tmp_path):
    path = "costmodel/price.py"
    assert survey(tmp_path, **{path: '"""Prices, eq. (4)."""'})[1] == [
        f"{path}, (module): cites eq. (4) of no paper, write arXiv NNNN.NNNNN eq. (4)"
    ]
    assert survey(tmp_path, **{path: '"""Prices, eq. (4) of arXiv 3333.33333."""'})[1] == []


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("eq. (2): as in eq. (5)", "2 5"),
        ("eqs. (1), (2) and (4)", "1 2 4"),
        ("Eqs. (11)(14), and", "11 14"),
        ("equations (1)–(3), and (5)", "1 2 3 5"),
        ("eqs. (1) to (3)", "1 2 3"),
        ("x (2), Fig. 3 (4)", ""),
    ],
)
def test_lists_of_equations(text, keys):
    found = equations.citations(text, "arXiv 1111.11111", FAKE)
    assert found == {("1111.11111", key) for key in keys.split()}


def test_the_nearest_paper_before_a_citation_is_meant():
    text = "eq. (1); arXiv 2222.22222 eq. (2), arXiv 3333.33333 eq. (3) and a Slow-walk"
    found = equations.citations(text, "arXiv 1111.11111", FAKE)
    assert found == {("1111.11111", "1"), ("2222.22222", "2"), ("3333.33333", "3")}
    assert equations.citations("a Slow-walk", "arXiv 1111.11111", FAKE) == {("1111.11111", "slow walk")}
    assert equations.citations("eq. (1)", "", FAKE) == {(None, "1")}
    assert equations.citations("eq. (1) of arXiv 2222.22222", "", FAKE) == {("2222.22222", "1")}


def test_columns_are_aligned_and_links_lead_to_files(ours):
    text = equations.markdown(ours[0])
    for block in text.split("\n\n"):
        assert len({equations.width(line) for line in block.splitlines() if line.startswith("|")}) <= 1
    links = {part.split(")")[0] for part in text.split("](")[1:]}
    assert "../../refimpl/methods/gradient_filter.py" in links
    for link in links:
        assert (equations.ROOT / equations.TABLE).parent.joinpath(link).resolve().is_file(), link


def test_reproduce_writes_the_table_and_its_record(tmp_path, capsys, ours):
    with pytest.raises(SystemExit) as end:
        main(["reproduce", "equations", "--json", "--output", str(tmp_path)])
    assert end.value.code == (1 if ours[1] else 0)
    record = json.loads(capsys.readouterr().out)
    assert record["ok"] == (not ours[1]) and record["problems"] == ours[1]
    assert record["measured"]["2301.00330 eq. (2)"] == "tested"
    assert "refimpl/methods/gradient_filter.py:pool_dy" in record["functions"]["2301.00330 eq. (2)"]
    assert (tmp_path / "equations.md").read_text(encoding="utf-8") == equations.markdown(ours[0])


def test_reproduce_says_what_is_wrong_and_leaves_with_1(tmp_path, capsys, monkeypatch):
    survey(tmp_path, **{"refimpl/methods/gradient_filter.py": '"""Nothing cited."""', "validation/results/x": ""})
    monkeypatch.setattr(equations, "ROOT", tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["reproduce", "equations", "--json", "--output", str(tmp_path)])
    assert end.value.code == 1
    wrong = "arXiv 2301.00330 eq. (2): no docstring in refimpl/methods/gradient_filter.py cites it"
    printed = capsys.readouterr()
    assert printed.err.startswith(f"gradledger: {wrong}; ")
    assert json.loads(printed.out)["problems"][0] == wrong
    assert equations.main() == 1
    assert capsys.readouterr().out.startswith(wrong + "\n")
    assert "| missing |" in " ".join((tmp_path / equations.TABLE).read_text(encoding="utf-8").split())


def test_brackets_of_a_statement_are_printed(capsys):
    show.reproduced({"measured": {"eq. (2)": "tested"}, "published": {"eq. (2)": "dw[r]"}, "ok": True, "file": "x"})
    assert "dw[r]" in capsys.readouterr().out


def test_without_a_checkout_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(equations, "ROOT", tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["reproduce", "equations", "--output", str(tmp_path)])
    assert end.value.code == 2
    message = (
        f"gradledger: cannot use {tmp_path}/tests: the table of equations is made from a checkout with its tests\n"
    )
    assert capsys.readouterr().err == message
