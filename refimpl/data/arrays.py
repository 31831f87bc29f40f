"""Data from arrays: checked, converted, split."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..storage import files
from .dataset import (
    BLOCK,
    MAX_CLASSES,
    TEST_SHARE,
    DataError,
    Dataset,
    SampleOrigin,
    check_classes,
    check_finite,
    plural,
    split,
    split_maps,
    to_float,
)
from .folders import ALL_JUDGE
from .labels import Labels, read_labels
from .mapped import Mapped
from .preprocessing import Preprocessing, moments, standardise, to_maps
from .reading import PLAIN, ReadOptions
from .scale import KEEP, PIXELS, axes_of, divisor_of, ends_of, may_measure, measured
from .splits import judging, numbered

VALUES_AT_ONCE = 1 << 18  # in a block of samples whose sums are taken
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Beside:
    """What an array comes with: validation samples, what belongs together, where it is from, how to read it.

    groups: of each sample, its name or its number in `group_names`; spans: of windows (`Dataset`); names: part → what
    each of its samples is called; split: how a test set that is given was chosen, in words. measures: are the values
    measurements, which are always standardised? mapped: do arrays stay on the disk?
    """

    x_val: np.ndarray | None = None
    y_val: np.ndarray | None = None
    groups: np.ndarray | None = None
    group_names: tuple[str, ...] = ()
    spans: np.ndarray | None = None
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    split: str = ""
    origin: SampleOrigin = SampleOrigin("arrays")
    reading: ReadOptions = PLAIN
    measures: bool = False
    mapped: bool = False


def from_arrays(
    name: str, x, y, x_test=None, y_test=None, classes=None, seed: int = 0, where: str = "", reuse: bool = False,
    beside: Beside | None = None,
) -> Dataset:  # fmt: skip
    """Data set of arrays: checked, as NHWC float32, split where there is no test set.

    x, x_test: (N, H, W, C), (N, H, W), (N, T, C), (N, C, T) or (N, C, H, W): `scale.axes_of` tells them apart; what
    are pixels is scaled to 0 to 1, counts are standardised, other values are kept (`scale`). y, y_test: (N,) labels or
    one-hot (N, K), numbered by `labels`. Without a test set a fifth of each class, drawn by `seed`, becomes one, or
    whole groups, or the end of each recording. classes: names; where: how messages call the source; reuse: a
    float32 `x` may be reordered and scaled in place, which saves a copy; beside: what else is known. Raises DataError.
    """
    of, beside = f" of {where}" if where else "", beside or Beside()
    given = {"train": x, "val": beside.x_val, "test": x_test}
    labels = {"train": y, "val": beside.y_val, "test": y_test}
    _check_pairs(given, labels, where)
    maps, axes, why = _maps({part: np.asarray(x) for part, x in given.items() if x is not None}, of, beside)
    read = _labels({part: labels[part] for part in maps}, maps, classes, of)
    if beside.reading.made is None:  # what is only judged may be of one class
        check_classes(read.parts[0], f"y{of}", read.classes)
    for part, values in maps.items():
        check_finite(values, f"{_key('x', part)}{of}")
    y_of = dict(zip(maps, read.parts, strict=True))
    taken, how, groups, spans = _divided(maps, y_of, beside, seed, f"y{of}", read.classes)
    made, pixels, ends, reason = _preprocessing(maps, taken["train"], beside, axes)
    if beside.mapped:
        x_of = {part: Mapped(_of(given, part), index, made, ends) for part, index in taken.items()}
    else:
        x_of = _converted(maps, taken, made, reuse)
    names = {part: tuple(_of(beside.names, part)[i] for i in index) for part, index in taken.items() if beside.names}
    origin = replace(
        beside.origin, split=how, labels=read.given, values=ends, preprocessing=made, files=names,
        said=tuple(filter(None, (*beside.origin.said, why, *read.said, reason))),
    )  # fmt: skip
    fields = {f"x_{part}": x for part, x in x_of.items()}
    fields |= {f"y_{part}": _of(y_of, part)[index] for part, index in taken.items()}
    return Dataset(
        name, classes=read.classes, pixels=pixels, groups=groups, spans=spans, origin=origin, **fields
    )  # fmt: skip


def _of(parts: dict, part: str):
    """A part's own array, or that of all samples."""
    return parts["train"] if parts.get(part) is None else parts[part]


def _key(kind: str, part: str) -> str:
    return kind if part == "train" else f"{kind}_{part}"


def _check_pairs(given: dict, labels: dict, where: str) -> None:
    for part in PARTS[1:]:
        if (given[part] is None) != (labels[part] is None):
            keys = (_key("x", part), _key("y", part))
            absent, present = keys if given[part] is None else keys[::-1]
            raise DataError(f"{where or 'the data'} has {present} but no {absent}; give both or neither")


def _maps(given: dict[str, np.ndarray], of: str, beside: Beside) -> tuple[dict[str, np.ndarray], str, str]:
    """Every part as a view (N, H, W, C), the axes that it has, and why they are thought to be these."""
    x = given["train"]
    for part, values in given.items():
        what = f"{_key('x', part)}{of}"
        if values.dtype.kind not in "uif":
            raise DataError(f"{what} holds {values.dtype}, but maps must be integers (uint8 for images) or floats")
        if 0 in values.shape:
            raise DataError(f"{what} is empty: its shape is {values.shape}")
    axes, why = beside.reading.checked_axes(), ""
    if axes is None:
        axes, why = axes_of(x.shape, x.dtype, f"x{of}")
    found = {}
    for part, values in given.items():
        what = f"{_key('x', part)}{of}"
        if values.ndim != len(axes):
            raise DataError(f"{what} must be ({', '.join(axes)}), but its shape is {values.shape}")
        found[part] = to_maps(values, axes)
        if found[part].shape[1:] != found["train"].shape[1:]:
            sizes = found[part].shape[1:], found["train"].shape[1:]
            raise DataError(f"{what} has maps of {sizes[0]}, but x has maps of {sizes[1]} (H, W, C)")
        if values.dtype != x.dtype:
            raise DataError(f"{what} holds {values.dtype}, but x holds {x.dtype}; they would be scaled differently")
    return found, axes, why


def _labels(given: dict, maps: dict[str, np.ndarray], classes, of: str) -> Labels:
    parts = [(y, len(maps[part]), f"{_key('y', part)}{of}", _key("x", part)) for part, y in given.items()]
    return read_labels(parts, classes, f"classes{of}")


def _divided(maps, y_of, beside: Beside, seed: int, what: str, classes):
    """Indices of each part into its array, how they were chosen, and groups and spans of those that train."""
    everything = {part: np.arange(len(x)) for part, x in maps.items()}
    groups, names = _groups(beside.groups, len(maps["train"]), beside.reading.group or "groups")
    if beside.group_names:
        names = tuple(beside.group_names[int(number)] for number in names)
    if "test" in maps:
        parts = beside.split or ("x_val validates, x_test judges" if "val" in maps else "x_test judges")
        return everything, parts, groups, beside.spans
    y = y_of["train"]
    if beside.reading.made is not None and (alone := _alone(y, groups, beside.spans, seed, what)):
        none = np.zeros(0, np.int64)
        return everything | {"train": none, "test": everything["train"]}, alone, None, None
    if groups is None and beside.spans is None:
        train, test = split(y, seed, what, classes)
        how = f"{100 * TEST_SHARE:g} % of each class judges, drawn by the seed"
    else:
        train, test, how = judging(y, groups, beside.spans, seed, what, names)
    left = [None if a is None else a[train] for a in (groups, beside.spans)]
    return everything | {"train": train, "test": test}, how, *left


def _alone(y, groups, spans, seed: int, what: str) -> str:
    """Why all samples judge a net that is trained already; empty where some of them can be parted from the others."""
    try:
        if groups is None and spans is None:
            split(y, seed, what)
        else:
            judging(y, groups, spans, seed, what)
    except DataError:
        return ALL_JUDGE
    return ""


def _groups(groups, samples: int, what: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Groups as numbers (N,) int64 and their names."""
    if groups is None:
        return None, ()
    groups = np.asarray(groups)
    if groups.ndim == 2 and groups.shape[1] == 1:
        groups = groups[:, 0]
    if groups.shape != (samples,) or groups.dtype.kind not in "uifUSb":
        raise DataError(
            f"{what} must name the group of each of the {samples} samples, but it is {groups.dtype} {groups.shape}"
        )
    return numbered(groups)


def _preprocessing(maps, train, beside: Beside, axes: str):
    """What is done to values: by which numbers, whether they are pixels, their ends before it, and why."""
    x, values = maps["train"], beside.reading.checked_values()
    ends = [ends_of(part) for part in maps.values()]
    ends = min(low for low, _ in ends), max(high for _, high in ends)
    made, known = replace(beside.origin.preprocessing, axes=axes), beside.reading.made
    if known is not None and known.mean:
        if len(known.mean) != x.shape[3]:
            raise DataError(f"the samples have C={x.shape[3]} channels, but the net was made for C={len(known.mean)}")
        made = replace(made, divisor=known.divisor, mean=known.mean, std=known.std)
        return made, False, ends, "values are standardised as those that the net was trained on"
    divisor, why = (None, "") if beside.measures else divisor_of(x, ends)
    if values == PIXELS and divisor is None:
        raise DataError(
            f"--values pixels: values from {ends[0]:g} to {ends[1]:g} of {x.dtype} are no pixels from 0 to 1 or to 255"
        )
    if values is None and divisor is not None or values == PIXELS:
        return replace(made, divisor=divisor), True, ends, why
    if x.dtype == np.uint8:
        made = replace(made, divisor=255.0)
    asked = "--values says so" if values else "measurements are standardised" if beside.measures else ""
    if values == KEEP or known is not None or not asked and not may_measure(x):
        return made, False, ends, "values are kept: --values says so" if values else ""
    mean, std = (tuple(v / made.divisor for v in found) for found in moments(Blocks(x, train)))
    why = asked or measured(x, mean, std)
    return (replace(made, mean=mean, std=std) if why else made), False, ends, why


@dataclass(frozen=True)
class Blocks:
    """Maps of some samples of an array, block by block, as often as one likes."""

    x: np.ndarray
    index: np.ndarray

    def __iter__(self):
        size = max(1, min(BLOCK, VALUES_AT_ONCE // math.prod(self.x.shape[1:])))
        for start in range(0, len(self.index), size):
            yield self.x[self.index[start : start + size]]


def _converted(maps: dict, taken: dict, made: Preprocessing, reuse: bool) -> dict[str, np.ndarray]:
    """Float32 maps of each part, divided and standardised as `Preprocessing.begun` does."""
    if "test" in maps:
        found = {part: to_float(x) for part, x in maps.items()}
    else:
        x_train, x_test = split_maps(maps["train"], taken["train"], taken["test"], reuse)
        found = {"train": x_train, "test": x_test} | {p: to_float(x) for p, x in maps.items() if p != "train"}
    whole = maps["train"].dtype == np.uint8  # which `to_float` divides
    if made.mean or made.divisor != 1 and not whole:
        for part, x in found.items():
            if not reuse and part in maps and np.shares_memory(x, maps[part]):
                x = found[part] = x.copy()
            if not whole:
                x /= np.float32(made.divisor)
            standardise(x, made.mean, made.std)
    return found


def class_names(classes, count: int, what: str) -> tuple[str, ...]:
    """Names of `count` classes: those given, else their numbers; DataError where too few are given."""
    if classes is None:
        return tuple(map(str, range(count)))
    classes = np.asarray(classes).reshape(-1)
    if len(classes) > MAX_CLASSES:
        raise DataError(f"{what} has {len(classes):,} names, and at most {MAX_CLASSES:,} classes are known")
    names = tuple(map(str, classes.tolist()))
    if len(names) < count:
        raise DataError(f"{what} has {plural(len(names), 'name')}, but the labels go up to {count - 1}")
    return names


def read_npz(path: Path, keys: Iterable[str]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Those arrays of a `.npz` that are among `keys`, and the names of all; DataError where it cannot be read."""
    with files.archive(path, str(path), DataError) as archive:
        return archive.read([key for key in keys if key in archive.members]), list(archive.members)
