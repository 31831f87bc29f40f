"""The pages: what they name is there, links lead somewhere, tables are those of the records, the site can be built."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from refimpl.plan.combinations import METHODS
from tools.docs import measured, site, sources

ROOT = Path(__file__).parent.parent
ROOMS = (*sources.PACKAGES, "tests", "tools", "docs", "notebooks")
FILE = re.compile(rf"(?<![\w./-])(?:(?:{'|'.join(ROOMS)})/[\w./-]*\w/?|\.ci/run)")
DOTTED = re.compile(rf"^(ri|{'|'.join(sources.PACKAGES)})((?:\.[A-Za-z_]\w*)+)")
MODULE = re.compile(r"python -m (\w[\w.]*)")
RUN = re.compile(r'python -c "([^"]+)"')
COMMAND = re.compile(r"(?:^|[/ ])gradledger ([a-z]+)\b")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
BUILD_SECONDS = 300
# records without a table of their own → what tells of them
TOLD_OF = {"campaign.json": "docs/campaign.md", "equations.md": "docs/equations.md", "snapshot.json": "CONTRIBUTING.md"}
PAGES = [f"docs/{page}" for page in site.pages()]
EVERY = pytest.mark.parametrize("name", [*PAGES, "README.md", "CONTRIBUTING.md"])


@cache
def text(name: str) -> str:
    """A page, or another file of the repository, as a reader sees it."""
    inside = name.removeprefix("docs/")
    return site.filled(inside) if name in PAGES else (ROOT / name).read_text(encoding="utf-8")


def snippets(name: str) -> list[str]:
    """Code of a page: what stands between backticks, on one line each, and the lines of its blocks."""
    blocks = [found[0] for found in site.FENCE.finditer(text(name))]
    inline = re.findall(r"`([^`]+)`", site.FENCE.sub("", text(name)))
    return [" ".join(code.split()) for code in inline] + [line for block in blocks for line in block.split("\n")]


def wrong_options(code: str) -> list[str]:
    """Commands in a line of code that do not exist, and options that its last command does not take."""
    found = COMMAND.findall(code)
    commands = sources.commands()
    unknown = [name for name in found if name not in commands]
    if not found or unknown:
        return unknown
    taken = {option for param in commands[found[-1]].params for option in param.opts}
    return [option for option in OPTION.findall(code) if option not in taken]


@EVERY
def test_nothing_is_left_to_fill_in(name):
    assert name == "CONTRIBUTING.md" or not site.DIRECTIVE.search(text(name).replace("{{ … }}", ""))


@EVERY
def test_files_that_a_page_names_are_there(name):
    gone = [path for path in FILE.findall(text(name)) if not (ROOT / path).exists() and "NAME" not in path]
    assert not gone, f"{name} names {', '.join(gone)}: there is no such file"


@EVERY
def test_names_of_the_code_are_names(name):
    for code in snippets(name):
        if found := DOTTED.match(code):
            sources.find({"ri": "refimpl"}.get(found[1], found[1]) + found[2])
        for line in RUN.findall(code):
            exec(line, {})
        for module in MODULE.findall(code):
            assert importlib.util.find_spec(module), f"{name} runs {module}"


@EVERY
def test_commands_and_options_are_there(name):
    wrong = {code: found for code in snippets(name) if (found := wrong_options(code))}
    assert not wrong


def test_a_command_or_an_option_that_is_gone_is_noticed():
    assert wrong_options("gradledger adpt") == ["adpt"]
    assert wrong_options(".venv/bin/gradledger cost --model x --modl y") == ["--modl"]


@EVERY
def test_links_lead_somewhere(name):
    here = (ROOT / name).parent
    for link in site.links(text(name)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = os.path.normpath(here / path) if path else ROOT / name
        place = Path(target).relative_to(ROOT).as_posix()
        if place.removeprefix("docs/") in site.pictures():
            continue
        assert Path(target).exists(), f"{name} links to {link}"
        assert not anchor or anchor in site.anchors(text(place)), f"{name} links to {link}"


def test_a_page_that_asks_for_what_is_not_there_is_told():
    for asked, why in {
        "{{ file NoSuchThing }}": "NoSuchThing is defined in no file, one was expected",
        "{{ file forward refimpl }}": "forward is defined in refimpl/.*, refimpl/.*, one was expected",
        "{{ measured nothing }}": "nothing",
        "{{ arguments adpt }}": "adpt",
        "{{ measured }}": "missing 1 required positional argument",
    }.items():
        head = rf"^docs/x.md asks for {re.escape(asked)}, which cannot be made: "
        with pytest.raises(site.Missing, match=f"{head}.*{why}"):
            site.fill(asked, "x.md")
    with pytest.raises(site.Missing, match="^docs/x.md asks for 'measurd': the directives are .*measured"):
        site.fill("{{ measurd x }}", "x.md")


def test_every_command_and_every_method_has_a_page():
    assert {p.stem for p in (ROOT / "docs/commands").glob("*.md")} == {*sources.commands(), "index"}
    assert {p.stem for p in (ROOT / "docs/methods").glob("*.md")} == {*METHODS, "index"}
    for method in METHODS:
        page = text(f"docs/methods/{method}.md")
        heads = ["What it does", "When to use it", "Settings", "What it combines with", "Cost", "Measured"]
        assert re.findall("^## (.*)", page, re.MULTILINE) == heads


def test_every_page_is_in_the_table_of_contents():
    listed = re.findall(r"^ +- ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(site.pages())


def test_every_record_is_shown():
    written = "\n".join(site.written(page) for page in site.pages())
    for path in sorted(site.RESULTS.iterdir()):
        asked = {".json": f"{{{{ made {path.stem} }}}}", ".png": f"(../results/{path.name})"}.get(path.suffix)
        told = path.name in text(TOLD_OF[path.name]) if path.name in TOLD_OF else asked in written
        assert told, f"no page shows {path.name}"


def test_a_table_follows_its_record(tmp_path, monkeypatch):
    record = json.loads((site.RESULTS / "watch-adapt.json").read_text(encoding="utf-8"))
    assert "| back-propagation | 96.44 | 90.35 |" in measured.watch_adapt()
    record["measured"]["backprop"] = {"mean": 12.34, "worst": 5.67}
    (tmp_path / "watch-adapt.json").write_text(json.dumps(record), encoding="utf-8")
    monkeypatch.setattr(measured, "RESULTS", tmp_path)
    measured.record.cache_clear()
    try:
        assert "| back-propagation | 12.34 | 5.67 |" in site.fill("{{ measured watch-adapt }}", "x.md")
    finally:
        measured.record.cache_clear()


@pytest.mark.skipif(
    importlib.util.find_spec("mkdocstrings_handlers") is None or importlib.util.find_spec("material") is None,
    reason="MkDocs is not installed: it comes with the extra [docs]",
)
def test_the_site_builds_and_asks_for_nothing_from_elsewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_SECONDS)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) == len(site.pages()) + 1  # and the page for what is not found
    elsewhere = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//[^\s\"'>]*")
    for page in pages:
        found = [link for link in elsewhere.findall(page.read_text(encoding="utf-8")) if 'rel="canonical"' not in link]
        assert not found, f"{page.name} loads {found[0]}"
    api = (tmp_path / "site/reference/refimpl.html").read_text(encoding="utf-8")
    assert "Compile a training step" in api and "Trains a program&#39;s model" in api.replace("'", "&#39;")
