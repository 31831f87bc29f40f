"""Folders of class folders, as people have them: nested, split or not, with files among them that are no samples.

What lies there is looked at once and sorted: samples; foreign files, which are told and otherwise left alone; and
problems, which are all told in one sentence, or left out where that was asked for.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .dataset import DataError, plural, split
from .splits import judging, numbered

ROLES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
USES = {"train": "trains", "val": "validates", "test": "judges"}
SYSTEM = ("thumbs.db", "desktop.ini", "__macosx", "@eadir", "icon\r")  # what systems leave in folders
SKIP = "; --skip-bad leaves such out"
ALL_JUDGE = "all samples judge: none can be parted from the others"
TOLD = 3  # problems that a sentence names; the report has all


class Foreign(Exception):
    """A file is no sample; the message says what it is instead."""


@dataclass
class Problems:
    """What is wrong with files of a source, each with its reason; told together."""

    where: str
    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, what, why: str) -> None:
        """One more; what: file, folder or line."""
        self.found.append((str(what), why))

    def tell(self, skip_bad: bool, of: int, noun: str) -> tuple[tuple[str, str], ...]:
        """All of them, where they may be left out; else DataError, of a sentence that counts and names the first.

        of: how many there are of what is looked at, in words `noun`.
        """
        if self.found and not skip_bad:
            told = [f"{what.removeprefix(f'{self.where}{os.sep}')} {why}" for what, why in self.found]
            if len(told) == 1:
                what, why = self.found[0]
                raise DataError(f"{what if self.where in what else f'{what} of {self.where}'} {why}{SKIP}")
            first = "; ".join(told[:TOLD])
            more = len(self.found) - TOLD
            others = f"; and {more} more" if more > 0 else ""
            count = f"{plural(len(self.found), 'problem')} with the {of:,} {noun} of {self.where}: "
            raise DataError(f"{count}{first}{others}{SKIP}")
        return tuple(self.found)


@dataclass
class Listing:
    """The files of a folder: parts (train, val, test) → files and their class numbers; and what else lies there.

    classes: names of the class folders, empty where there are none; folders: part → the folder that holds it, empty
    where there is one part; noun: what a file is; least: classes that are needed.
    """

    root: Path
    classes: list[str]
    noun: str
    folders: dict[str, str]
    parts: dict[str, list[tuple[Path, int]]]
    problems: Problems
    ignored: list[tuple[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    least: int = 2

    @property
    def files(self) -> list[Path]:
        """Every file, part after part."""
        return [path for part in self.parts.values() for path, _ in part]

    def names(self) -> dict[Path, str]:
        """Of every file its path below its class folder, or below that of its part."""
        found = {}
        for part, files in self.parts.items():
            for path, label in files:
                folder = self.root / self.folders.get(part, "")
                below = path.relative_to(folder / self.classes[label] if self.classes else folder)
                found[path] = below.as_posix()
        return found

    def copies(self, bad: set[Path]) -> dict[Path, Path]:
        """Of every file but `bad` that holds the same bytes as an earlier one, the first such file."""
        sizes: dict[int, list[Path]] = {}
        for path in (path for path in self.files if path not in bad):
            sizes.setdefault(path.stat().st_size, []).append(path)
        alike: dict[bytes, list[Path]] = {}
        for path in (path for paths in sizes.values() if len(paths) > 1 for path in paths):
            alike.setdefault(hashlib.sha256(path.read_bytes()).digest(), []).append(path)
        return {copy: paths[0] for paths in alike.values() for copy in paths[1:]}

    def told(self, copies: Mapping[Path, Path]) -> list[str]:
        """A sentence on copies; none where there are none."""
        pairs = [(first, copy) for copy, first in copies.items()]
        told = [" = ".join(path.relative_to(self.root).as_posix() for path in pair) for pair in pairs[:TOLD]]
        more = ", …" if len(pairs) > TOLD else ""
        said = f"{self.noun}s that are copies of others: {len(pairs)} ({', '.join(told)}{more})"
        apart = "where one trains and the other judges, accuracy says too much"
        return [f"{said}; {apart if len(self.parts) > 1 else 'none trains where another judges'}"] if pairs else []

    def usable(self, bad: set[Path], alone: bool = False, copies: Mapping[Path, Path] | None = None) -> "Listing":
        """Without the files in `bad`, and without the classes that are too few then, which become problems.

        A class needs a file in every part; where there is one part, two, of which one will judge, unless a file may be
        `alone`, for it is cut into several samples, or the class is, of which nothing can train. Copies are one file.
        """
        first = copies or {}
        parts = {
            name: [(path, label) for path, label in files if path not in bad] for name, files in self.parts.items()
        }
        if not self.classes:
            return replace(self, parts=parts)
        least = 2 if len(parts) == 1 and not alone and len(self.classes) > 1 else 1
        thin = set()
        for label, name in enumerate(self.classes):
            for part, files in parts.items():
                own = [path for path, other in files if other == label]
                if len({first.get(path, path) for path in own}) < least and not (part == "val" and len(parts) == 3):
                    folder = self.root / self.folders.get(part, "") / name
                    holds = f"{len(own)} copies of 1 {self.noun}" if len(own) > 1 else _count(len(own), self.noun)
                    need = "; at least 2 are needed, one to train and one to test on" if own else ""
                    self.problems.add(f"the class folder {folder}", f"holds {holds}{need}")
                    thin.add(label)
        kept = [label for label in range(len(self.classes)) if label not in thin]
        number = {label: i for i, label in enumerate(kept)}
        parts = {n: [(path, number[label]) for path, label in f if label in number] for n, f in parts.items()}
        return replace(self, classes=[self.classes[i] for i in kept], parts=parts)

    def check_classes(self, root: Path, noun: str) -> None:
        """DataError where too few classes are left; noun: what their files are."""
        if (count := len(self.classes)) < self.least:
            needed = f"{self.least} {'is' if self.least == 1 else 'are'} needed"
            raise DataError(f"{root} has {plural(count, 'class')} with {noun} that can be used; {needed}")


def _count(n: int, noun: str) -> str:
    return f"no {noun}" if n == 0 else plural(n, noun)


def listing(root: Path, look: Callable[[Path], None], noun: str, judged: bool = False) -> Listing:
    """The class folders of `root` and their files; DataError where there are none.

    look: raises Foreign for a file that is no sample, DataError for one that cannot be used; noun: what a sample is;
    judged: is it for a net that is trained already, of which one class can be judged alone?
    """
    problems, said = Problems(str(root)), []
    base, roles = _base(root)
    if base != root:
        said.append(f"the class folders are in {base}")
    train = base / roles["train"] if roles else base
    classes = [p.name for p in _folders(train)]
    if not classes:
        loose = sum(1 for p in sorted(train.iterdir()) if p.is_file() and _is_sample(p, look))
        has = f"holds {plural(loose, noun)} but no class folders" if loose else "holds no class folders"
        raise DataError(f"{train} {has}; it needs one folder of {noun}s for each class")
    if len(classes) < 2 and not judged:
        raise DataError(f"{train} holds {plural(1, 'class folder')} only ({classes[0]}); at least two are needed")
    found = Listing(base, classes, noun, roles, {}, problems, said=said, least=1 if judged else 2)
    used = set(roles.values())
    found.ignored += [(str(p), f"is no {noun} of a class") for p in _loose([base, *(base / r for r in sorted(used))])]
    if roles:
        names = " and ".join(sorted(used))
        found.ignored += [(str(p), f"lies beside {names}") for p in _folders(base) if p.name not in used]
    for part, folder in (roles or {"train": ""}).items():
        found.parts[part] = _part(base / folder, train, found, look)
    return found


def without_classes(root: Path, look: Callable[[Path], None], noun: str, asked: bool = False) -> Listing | None:
    """The files of `root`, or of its folders for training and test, at any depth; None where these are class folders.

    asked: they are none, for something else tells the classes. look, noun: as of `listing`.
    """
    base, roles = _base(root)
    folder = base / roles["train"] if roles else base
    inside = [any(_is_sample(q, look) for q in _below(p, Problems(""))) for p in _folders(folder)]
    among = any(_is_sample(p, look) for p in folder.iterdir() if not p.is_dir())
    if not asked and (sum(inside) > 1 or len(inside) > 1 and any(inside) and not among):
        return None
    found = Listing(base, [], noun, roles, {}, Problems(str(root)))
    for part, name in (roles or {"train": ""}).items():
        found.parts[part] = [(path, 0) for path in _samples(base / name, base / name, found, look)]
    return found


def _base(root: Path) -> tuple[Path, dict[str, str]]:
    """The folder that holds class folders, or folders of them for training and test, and these by their role."""
    while True:
        names = [p.name for p in _folders(root)]
        roles = {}
        for role, known in ROLES.items():
            matching = [name for name in names if name.lower() in known]
            if len(matching) > 1:
                raise DataError(f"{root} has the folders {' and '.join(matching)} for one purpose; keep one of them")
            if matching:
                roles[role] = matching[0]
        if "train" in roles and len(roles) > 1:
            return root, roles
        if len(names) != 1 or not _folders(root / names[0]):
            return root, {}
        root = root / names[0]


def _part(folder: Path, train: Path, found: Listing, look: Callable[[Path], None]) -> list[tuple[Path, int]]:
    """The samples of the class folders of `folder`; what else is there enters `found`."""
    files = []
    for label, name in enumerate(found.classes):
        files += [(path, label) for path in _samples(folder / name, folder, found, look)]
    for p in _folders(folder):
        if p.name not in found.classes:
            found.problems.add(folder, f"has the class {p.name}, which {train} does not have")
    return files


def _samples(folder: Path, root: Path, found: Listing, look: Callable[[Path], None]) -> list[Path]:
    """The files below `folder` that may be used; others enter `found`, by what is hidden below `root` too."""
    files = []
    for path in _below(folder, found.problems):
        try:
            if hidden(path.relative_to(root)):
                raise Foreign("is hidden, or a file of the system")
            look(path)
            files.append(path)
        except Foreign as e:
            found.ignored.append((str(path), str(e)))
        except DataError as e:
            found.problems.add(path, str(e))
    return files


def files_below(root: Path) -> list[Path]:
    """Every file below a folder, in order, but what is hidden."""
    return [p for p in _below(root, Problems(str(root))) if not hidden(p.relative_to(root))]


def hidden(path: Path) -> bool:
    """Is a path, or a folder on its way, hidden, or what a system leaves behind?"""
    return any(part.startswith(".") or part.lower() in SYSTEM for part in path.parts)


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not hidden(Path(p.name)))


def _loose(folders: Sequence[Path]) -> list[Path]:
    return [p for folder in folders for p in sorted(folder.iterdir()) if not p.is_dir()]


def _is_sample(path: Path, look: Callable[[Path], None]) -> bool:
    try:
        look(path)
    except (Foreign, DataError):
        return False
    return not hidden(Path(path.name))


def _below(folder: Path, problems: Problems) -> list[Path]:
    """Every file below a folder, in order; a folder in it that cannot be read is a problem."""
    if not folder.is_dir():
        return []

    def unreadable(e: OSError) -> None:
        problems.add(e.filename, f"cannot be read: {e.strerror}")

    return sorted(Path(at) / name for at, _, names in os.walk(folder, onerror=unreadable) for name in names)


@dataclass(frozen=True)
class Division:
    """Samples by part, always with `train` and `test`; how they were divided, in words; groups and spans (of windows)
    of those that train, and what of them is alike, None where there are none.
    """

    parts: dict[str, list]
    how: str
    groups: np.ndarray | None = None
    spans: np.ndarray | None = None
    alike: np.ndarray | None = None


def by_folders(found: Listing) -> str:
    """How the folders of a listing divide its files, in words."""
    words = [f"{found.folders[part]}/ {use}" for part, use in USES.items() if part in found.parts]
    if "test" not in found.parts:
        words = [f"{found.folders['train']}/ trains", f"{found.folders['val']}/ judges"]
    return ", ".join(words)


def divided(
    found: Listing, root: Path, seed: int, parts: dict[str, list] | None = None,
    groups: Sequence[str] | None = None, spans: np.ndarray | None = None, judged: bool = False,
    alike: np.ndarray | None = None,
) -> Division:  # fmt: skip
    """The samples divided by their folders, or else by the seed.

    parts: samples of each part with their class numbers, default the files; groups: of those of `train` the name of
    the group (N,), of which none is split; spans: of those that are windows (`splits.by_time`); judged: is it for a net
    that is trained already, by all of them where they cannot be parted? alike: of those of `train` (`Dataset`).
    """
    parts = found.parts if parts is None else parts
    numbers, names = (None, ()) if groups is None else numbered(groups)
    if "test" in parts:
        return Division(parts, by_folders(found), numbers, spans, alike)
    if "val" in parts:
        return Division({"train": parts["train"], "test": parts["val"]}, by_folders(found), numbers, spans, alike)
    y, what = np.array([label for _, label in parts["train"]]), f"the folder {root}"
    try:
        if groups is None:
            train, test = split(y, seed, what, tuple(found.classes), alike)
            how = "a fifth of each class judges, drawn by the seed"
        else:
            train, test, how = judging(y, numbers, spans, seed, what, names)
    except DataError:
        if not judged:
            raise
        train, test, how = np.zeros(0, np.int64), np.arange(len(y)), ALL_JUDGE
    chosen = {part: [parts["train"][i] for i in index] for part, index in (("train", train), ("test", test))}
    left = [None if a is None else a[train] for a in (numbers, spans, alike)]
    return Division(chosen, how, *left)
