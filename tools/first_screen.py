"""Run the commands of README's first screen on real data, and print what they print.

python tools/first_screen.py FOLDER

Makes photos/, new/, movements.csv and new.csv in FOLDER from `../shared/data`: of CIFAR-10 as JPEG 28 training images
and one further one of each of eight classes, and of the watch recordings those of people 1 to 5, and one of person 6.
Then every `gradledger` line before README's heading of worked cases runs there, in its order.
"""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from refimpl.data.watch_windows import AXES, EXERCISES

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
FOLDERS = ("airplane", "automobile", "bird", "cat", "deer", None, "frog", "horse", "ship", None)  # by label
PHOTOS, PEOPLE = 28, range(1, 6)


def photographs(folder: Path) -> None:
    """A folder a class, and one photograph of each that is in none of them."""
    with np.load(DATA / "cifar10_jpeg.npz") as file:
        stream, offsets, labels = (file[f"train_{name}"] for name in ("jpeg", "offsets", "labels"))
    for label, name in enumerate(FOLDERS):
        for i, k in enumerate(np.flatnonzero(labels == label)[: PHOTOS + 1]) if name else ():
            path = folder / "photos" / name / f"{i:02d}.jpg" if i < PHOTOS else folder / "new" / f"new-{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stream[offsets[k] : offsets[k + 1]].tobytes())


def movements(folder: Path) -> None:
    """One table of the recordings of five people, and a recording of another."""
    with np.load(DATA / "watch_int16.npz") as file:
        x, scale, offsets, y, subject = (file[name] for name in ("x", "scale", "offsets", "y", "subject"))
    of = [i for i in range(len(y)) if subject[i] in PEOPLE]
    another = next(i for i in range(len(y)) if subject[i] == PEOPLE.stop and EXERCISES[y[i]] == "upright row")
    for name, recordings in (("movements.csv", of), ("new.csv", [another])):
        with open(folder / name, "w", newline="", encoding="utf-8") as out:
            rows = csv.writer(out)
            rows.writerow(("person", "exercise", *AXES))
            for i in recordings:
                for row in x[offsets[i] : offsets[i + 1]] * scale:
                    rows.writerow((f"p{subject[i]}", EXERCISES[y[i]], *(f"{v:.4f}" for v in row)))


def commands() -> list[str]:
    """What README's first screen runs."""
    screen = (ROOT / "README.md").read_text(encoding="utf-8").split("## Worked cases")[0]
    return re.findall(r"^gradledger .*$", screen, re.M)


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True)
    photographs(folder)
    movements(folder)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    for line in commands():
        print(f"$ {line}", flush=True)
        subprocess.run(f"{sys.executable} -m {line}", shell=True, cwd=folder, env=env, check=False)
