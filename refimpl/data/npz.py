"""Data from a `.npz` file: samples, or one long recording to be cut into windows."""

from pathlib import Path

from ..storage import files
from .arrays import Beside, from_arrays, read_npz
from .dataset import DataError, Dataset, SampleOrigin
from .reading import PLAIN, ReadOptions
from .recordings import from_recording

GROUPS = ("groups", "group", "subject", "subjects", "person", "participant", "recording", "speaker")


def npz(path: Path, seed: int = 0, reading: ReadOptions = PLAIN) -> Dataset:
    """Data set of a `.npz` with `x` and `y`, and optionally `x_test` and `y_test`, and `classes` (names).

    Shapes, dtypes and the split are as in `from_arrays`. `x_train`, `y_train`, `x_val`, `y_val` and capitals are
    understood too, and an array of groups: that of `reading.group`, else the first of GROUPS. With `reading.window`
    `x` (L, C) is one long recording with a label in `y` (L,) for each of its samples.
    """
    wanted = ("x", "y", "x_train", "y_train", "x_val", "y_val", "x_test", "y_test", "classes", "rate", *GROUPS)
    capitals = [key.replace("x", "X", 1) if key[0] == "x" else key.replace("y", "Y", 1) for key in wanted[:8]]
    arrays, names = read_npz(path, (*wanted, *capitals, *filter(None, [reading.group])))
    listed = files.quoted(", ".join(names)) or "nothing"
    for key in capitals:
        if key in arrays:
            arrays.setdefault(key.lower(), arrays.pop(key))
    for key in ("x", "y"):
        if f"{key}_train" in arrays:
            arrays.setdefault(key, arrays.pop(f"{key}_train"))
        if key not in arrays:
            raise DataError(f"{path} has no array {key}: it holds {listed}, but x and y are needed")
    if reading.group and reading.group not in arrays:
        raise DataError(f"{path} has no array {files.quoted(reading.group)}, the groups: it holds {listed}")
    key = reading.group or next((g for g in GROUPS if g in arrays), None)
    groups = arrays.get(key) if reading.window is None or key is None else arrays[key]
    said = (f"groups are those of the array {key}",) if key else ()
    beside = Beside(
        arrays.get("x_val"), arrays.get("y_val"), groups, origin=SampleOrigin("arrays", said=said), reading=reading
    )
    if reading.window is not None:
        return from_recording(path.stem, arrays["x"], arrays["y"], beside, arrays.get("classes"), seed, str(path))
    given = [arrays.get(key) for key in ("x", "y", "x_test", "y_test", "classes")]
    return from_arrays(path.stem, *given, seed=seed, where=str(path), reuse=True, beside=beside)
