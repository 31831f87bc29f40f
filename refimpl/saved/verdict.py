"""How well a net tells classes apart: each class, all of them together, and which ones it takes for each other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PAIRS = 10  # most pairs of classes that are listed
FILES = 5  # most samples of a pair that are named


@dataclass(frozen=True, eq=False)
class Verdict:
    """The result of an evaluation.

    classes: names, in the order of the table. confusion: (K, K) int64, samples by their class and by what was told.
    wrong: (true, told) → the numbers of such samples, the most frequent pair first.
    """

    classes: tuple[str, ...]
    confusion: np.ndarray
    wrong: dict[tuple[int, int], np.ndarray]

    @property
    def samples(self) -> int:
        """How many samples were told."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """The share that was told right."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def per_class(self) -> dict[str, dict[str, float | int | None]]:
        """Of each class: precision and recall, None where there is nothing to divide by, and its samples."""
        right, has, told = np.diagonal(self.confusion), self.confusion.sum(1), self.confusion.sum(0)
        return {
            name: {"precision": _share(right[i], told[i]), "recall": _share(right[i], has[i]), "samples": int(has[i])}
            for i, name in enumerate(self.classes)
        }

    def confused(self, names: Sequence[str] = (), pairs: int = PAIRS) -> list[dict]:
        """The pairs of classes that are taken for each other most: true, told, count, and some of the samples' names.

        names: of the samples, such as their files.
        """
        return [
            {
                "true": self.classes[true], "told": self.classes[told], "count": len(found),
                "share": float(len(found) / self.confusion[true].sum()),
                "samples": [names[i] if len(names) else int(i) for i in found[:FILES]],
            }
            for (true, told), found in list(self.wrong.items())[:pairs]
        ]  # fmt: skip

    def __str__(self) -> str:
        rows = [f"accuracy {100 * self.accuracy:.1f} % of {self.samples:,} samples"]
        for name, of in self.per_class.items():
            shown = ", ".join(f"{k} {_percent(of[k])}" for k in ("precision", "recall"))
            rows.append(f"  {name}: {shown}, {of['samples']:,} samples")
        return "\n".join(rows)


def judged(classes: tuple[str, ...], true: np.ndarray, told: np.ndarray) -> Verdict:
    """The verdict on samples of class numbers `true` (N,) that were told to be `told` (N,)."""
    count = len(classes)
    table = np.zeros((count, count), np.int64)
    np.add.at(table, (true, told), 1)
    pairs = sorted(
        ((i, j) for i, j in np.argwhere(table).tolist() if i != j), key=lambda pair: (-table[pair], pair)
    )  # fmt: skip
    return Verdict(classes, table, {pair: np.flatnonzero((true == pair[0]) & (told == pair[1])) for pair in pairs})


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _share(part, whole) -> float | None:
    return float(part / whole) if whole else None
