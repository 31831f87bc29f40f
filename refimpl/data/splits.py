"""Which samples train, which tell when to stop, which judge.

Three ways, each a function of the labels, of what belongs together and of the seed, and none parts copies:

- independent samples: a share of each class, drawn;
- groups (people, recordings): whole groups, drawn, so that nobody is on both sides;
- windows of a recording: the end of each stretch of one class; what overlaps it is dropped, for windows that share
  samples would be known by heart.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..kernels import random
from ..storage.files import quoted
from .dataset import TEST_SHARE, DataError, Dataset, by_class, plural, split_maps
from .on_demand import OnDemand, still, taken

VALIDATION_SHARE = 0.1
TOLD = 6  # groups that judge, which are named
VALIDATION, TEST_GROUPS, GROUPS = 1 << 21, 1 << 22, 1 << 23  # steps of the stream SPLIT, which `split` begins at 0


def validation_split(
    dataset: Dataset, share: float = VALIDATION_SHARE, seed: int = 0, reuse: bool = False
) -> Dataset:  # fmt: skip
    """The data set with `share` of its training samples as validation samples; as it is where it has some.

    By group where there are groups that can leave, by time where samples are windows, else drawn from each class; a
    sample of every class stays in training. reuse: float32 training maps may move within their memory, which saves a
    copy; the maps of this data set are lost then. Raises DataError where no sample can leave.
    """
    if dataset.x_val is not None:
        return dataset
    if not 0 < share < 1:
        raise DataError(f"the share of validation samples must lie between 0 and 1, not {share}")
    together = dataset.groups, dataset.spans
    train, held, how = chosen(dataset.y_train, *together, share, seed, VALIDATION, dataset.name, dataset.alike)
    x = dataset.x_train
    if isinstance(x, OnDemand) or x.dtype != np.float32:
        x_train, x_val = taken(x, train), still(taken(x, held))
    else:
        x_train, x_val = split_maps(x, train, held, reuse)
    beside = {name: getattr(dataset, name) for name in ("groups", "spans", "alike")}
    left = {name: None if a is None else a[train] for name, a in beside.items()}
    split = f"{dataset.origin.split}; validation: {how}".removeprefix("; ")
    return replace(
        dataset, x_train=x_train, y_train=dataset.y_train[train], x_val=x_val, y_val=dataset.y_train[held],
        origin=replace(dataset.origin, split=split), **left,
    )  # fmt: skip


def chosen(
    y: np.ndarray, groups: np.ndarray | None, spans: np.ndarray | None, share: float, seed: int, step: int, what: str,
    alike: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, str]:  # fmt: skip
    """Indices (ascending) of the samples that train and of the `share` that is held out, and how, in words.

    step: number of the first draw. what: how messages call the samples. alike: of copies (`Dataset`), which lie in one
    group where there are groups. DataError where none can be held out.
    """
    if groups is not None and len(np.unique(groups)) > 1:
        held = by_group(y, groups, share, seed, step)
        if held is not None:
            count = len(np.unique(groups[held]))
            return np.flatnonzero(~held), np.flatnonzero(held), f"{plural(count, 'whole group')}, drawn"
    if spans is not None:
        train, held = by_time(y, spans, share)
        if held.any() and not lost(y, train):
            dropped = plural(len(y) - int(train.sum()) - int(held.sum()), "window")
            words = f"the end of each stretch of one class, {dropped} that overlap it dropped"
            return np.flatnonzero(train), np.flatnonzero(held), words
    if groups is not None or spans is not None:
        raise DataError(
            f"{what} has too few groups or recordings to hold some out: every class needs two of them, or a longer one"
        )
    held = by_class(y, share, seed, step, alike)
    if not held.any():
        beside = "" if alike is None else " beside copies"
        raise DataError(f"{what} has 1 sample of each class{beside}: none can be held out")
    return np.flatnonzero(~held), np.flatnonzero(held), f"{100 * share:g} % of each class, drawn"


def judging(
    y: np.ndarray, groups: np.ndarray | None, spans: np.ndarray | None, seed: int, what: str,
    names: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray, str]:  # fmt: skip
    """Indices (ascending) of the samples that train and of a fifth that judges, by group or time, and how, in words.

    groups: numbers (N,) of `names`. DataError where none can judge.
    """
    train, test, words = chosen(y, groups, spans, TEST_SHARE, seed, TEST_GROUPS, what)
    how = f"judging: {words}"
    if len(names) and words.startswith(plural(len(np.unique(groups[test])), "whole group")):
        held = [names[i] for i in np.unique(groups[test])]
        how += f": {quoted(', '.join(held[:TOLD]), 120)}{', …' if len(held) > TOLD else ''}"
    return train, test, how


def numbered(groups: Sequence[str] | np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers (N,) int64 of groups, and their names."""
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    return numbers.reshape(-1).astype(np.int64), tuple(map(str, names.tolist()))


def by_group(y: np.ndarray, groups: np.ndarray, share: float, seed: int, step: int) -> np.ndarray | None:
    """(N,) bool: whole groups, in a drawn order those that bring every class nearer to its share.

    The smallest group that may leave, where none does; None where each one holds all samples of some class.
    """
    names, numbers = np.unique(groups, return_inverse=True)
    table = np.zeros((len(names), int(y.max()) + 1), np.int64)
    np.add.at(table, (numbers, y), 1)
    total = table.sum(axis=0)
    goal, kept, has = share * total, total.copy(), np.zeros(len(names), bool)
    for g in random.permutation(seed, random.SPLIT, step + GROUPS, len(names)):
        held = total - kept
        nearer = np.abs(goal - held - table[g]).sum() < np.abs(goal - held).sum()
        if nearer and ((kept > table[g]) | (total == 0)).all():
            has[g], kept = True, kept - table[g]
    if not has.any():
        may = [g for g in range(len(names)) if ((total > table[g]) | (total == 0)).all()]
        if not may:
            return None
        has[min(may, key=lambda g: table[g].sum())] = True
    return has[numbers]


def by_time(y: np.ndarray, spans: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Two masks (N,) bool: windows that train, and the last `share` of each stretch of windows of one class.

    spans: (N, 3), recording, first sample and end of each window. Windows that overlap one that is held out do neither.
    """
    train, held = np.ones(len(y), bool), np.zeros(len(y), bool)
    order = np.lexsort((spans[:, 1], spans[:, 0]))
    recording, first, end = spans[order].T
    breaks = np.flatnonzero((np.diff(recording) != 0) | (np.diff(y[order]) != 0)) + 1
    for stretch in np.split(order, breaks):
        count = round(share * len(stretch))
        held[stretch[len(stretch) - count :]] = True
    for number in np.unique(recording):
        inside = order[recording == number]
        taken_up = [spans[i, 1:] for i in inside if held[i]]
        if taken_up:
            begins, ends = np.array(taken_up).T
            ends = np.maximum.accumulate(ends)
            # the last held window that begins before this one ends is the only one that can reach into it
            before = np.searchsorted(begins, spans[inside, 2]) - 1
            train[inside] = (before < 0) | (ends[np.maximum(before, 0)] <= spans[inside, 1])
    return train & ~held, held


def lost(y: np.ndarray, train: np.ndarray) -> set[int]:
    """Classes that have no training sample left."""
    return set(np.unique(y).tolist()) - set(np.unique(y[train]).tolist())
