"""Fill in the pages: what `docs/*.md` name in `{{ directive argument }}` is made from the sources each time.

Nothing made here is committed: a page holds what somebody wrote and, between braces, what the code or a record tells.
So a table cannot be older than its record, and a merge never meets a generated line. A directive that does not exist,
or names something that is not there, is an error (`Missing`), in `make docs` as in the tests.
"""

import re
from pathlib import Path

from . import example, measured, sources

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RESULTS = ROOT / "validation" / "results"
DIRECTIVE = re.compile(r"\{\{ *(\w+)((?: +[^\s}]+)*) *\}\}")
FENCE = re.compile(r"^(```|~~~).*?^\1 *$", re.MULTILINE | re.DOTALL)
DIRECTIVES = sources.DIRECTIVES | measured.DIRECTIVES | example.DIRECTIVES


class Missing(ValueError):
    """A page asks for something that is not there."""


def pages() -> list[str]:
    """Paths of the written pages below `docs/`, such as `methods/gradient-filter.md`."""
    return sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def written(page: str) -> str:
    """A page as it was written."""
    return (DOCS / page).read_text(encoding="utf-8")


def filled(page: str) -> str:
    """A page with its directives filled in. Missing names the page and the directive that cannot be."""
    return fill(written(page), page)


def fill(text: str, page: str) -> str:
    """The text of a page with its directives filled in; see `filled`."""

    def one(found: re.Match) -> str:
        name, arguments = found[1], found[2].split()
        if name not in DIRECTIVES:
            raise Missing(f"docs/{page} asks for {name!r}: the directives are {', '.join(sorted(DIRECTIVES))}")
        try:
            return DIRECTIVES[name](*arguments)
        except (AttributeError, ImportError, KeyError, OSError, TypeError) as e:
            why = e.args[0] if len(e.args) == 1 else e  # a KeyError puts quotes around its words
            raise Missing(f"docs/{page} asks for {found[0]}, which cannot be made: {why}") from e

    return DIRECTIVE.sub(one, text)


def pictures() -> dict[str, Path]:
    """Pictures of the records, by their place in the site."""
    return {f"results/{path.name}": path for path in sorted(RESULTS.glob("*.png"))}


def anchors(text: str) -> set[str]:
    """What a page's headings can be linked by, as Python-Markdown makes it of them."""
    found = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in found}


def links(text: str) -> list[str]:
    """Targets of a page's links and pictures, code left out."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", FENCE.sub("", text)))
