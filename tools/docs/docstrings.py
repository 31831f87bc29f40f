"""Show our docstrings as Markdown: `name: what it is` lines become a list, as they are read in the source."""

import re

import griffe

NAMED = re.compile(r"^([a-z_][\w, ]*): (?=\S)")


class AsMarkdown(griffe.Extension):
    """Griffe calls it for every object that it has read."""

    def on_object(self, *, obj, **kwargs) -> None:
        """A docstring of ours becomes the Markdown of the same text."""
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Lines that explain a name, with those indented under them, as items of a list; code and prose stay."""
    lines, listed = [], False
    for line in text.splitlines():
        if named := NAMED.match(line):
            if not listed and lines and lines[-1]:
                lines.append("")
            names = ", ".join(f"`{name.strip()}`" for name in named[1].split(","))
            line, listed = f"- {names}: {line[named.end() :]}", True
        elif listed and not line.strip():
            listed = False
        elif listed and not line.startswith(" "):
            line = f"  {line}"
        lines.append(line)
    return "\n".join(lines)
