"""Files that belong together, such as photographs of one person: by a part of their names, which an option tells."""

import re
from collections.abc import Mapping
from pathlib import Path

from ..storage.files import quoted
from .dataset import DataError, plural
from .folders import Listing

TOLD = 3  # groups that a sentence names


def pattern(text: str) -> re.Pattern:
    """The regular expression of --group; DataError where it is none, or has not exactly one group in parentheses."""
    try:
        found = re.compile(text)
    except re.error as e:
        raise DataError(f"--group {quoted(text)!r} is no regular expression: {quoted(str(e))}") from None
    if found.groups != 1:
        raise DataError(
            "--group of files must be a regular expression with one part in parentheses, the group, such as '(.+)_' "
            f"for ann_01.jpg or '(.+)/' for ann/01.jpg, got {quoted(text)!r}"
        )
    return found


def is_pattern(text: str) -> bool:
    """Is what --group tells meant as a regular expression, and not as the name of a column?"""
    return "(" in text


def of_files(found: Listing, text: str | None, bad: set[Path], judged: bool = False) -> dict[Path, str]:
    """The group of each file: what the pattern finds first in its name, below its class folder. Empty without one.

    A file in whose name it is not found becomes a problem, and one of `bad`; where the files are for a net that is
    trained already (`judged`), it is a group of its own.
    """
    if text is None:
        return {}
    wanted, group_of = pattern(text), {}
    for path, name in found.names().items():
        match = wanted.search(name)
        if match and match[1]:
            group_of[path] = match[1]
        elif judged:
            group_of[path] = str(path)
        elif path not in bad:
            bad.add(path)
            found.problems.add(path, f"has no group: --group {quoted(text)!r} finds none in {quoted(name)!r}")
    return group_of


def joined(group_of: Mapping[Path, str], copies: Mapping[Path, Path]) -> dict[Path, str]:
    """The groups of files, where two are one that hold copies of a file. copies: as of `Listing.copies`."""
    made = dict(group_of)
    for copy, first in copies.items():
        if copy in made and made[copy] != made[first]:
            other, one = made[copy], made[first]
            made = {path: one if group == other else group for path, group in made.items()}
    return made


def of_part(found: Listing, group_of: Mapping[Path, str], part: str = "train") -> list[str] | None:
    """The groups of the files of a part; None where files have none."""
    return [group_of[path] for path, _ in found.parts[part]] if group_of else None


def told(found: Listing, group_of: Mapping[Path, str], text: str | None) -> list[str]:
    """How many groups there are, and which of them are in several parts, where the folders make these.

    Without a pattern, how to give one where files lie in folders below their class folders.
    """
    if text is None:
        inner = {name.rpartition("/")[0] for name in found.names().values()} - {""}
        if len(inner) < 2 or len(found.parts) > 1:
            return []
        return [f"{len(inner)} folders below the class folders: --group '(.+)/' keeps each of them on one side"]
    inside = {part: {group_of[path] for path, _ in of} for part, of in found.parts.items()}
    count = plural(len(set().union(*inside.values())), "group")
    if len(inside) == 1:
        return [f"{count} by --group {quoted(text)!r}: none of them trains and judges"]
    said = [f"{count} by --group {quoted(text)!r}, split by the folders"]
    others = [part for part in inside if part != "train"]
    if both := sorted(inside["train"] & set().union(*(inside[part] for part in others))):
        names = quoted(", ".join(both[:TOLD])) + (", …" if len(both) > TOLD else "")
        where = " and ".join(f"{found.folders[part]}/" for part in others)
        said.append(f"{plural(len(both), 'group')} of {found.folders['train']}/ also in {where}: {names}")
    return said
