"""What decides the RAM of int8 microcontroller nets: `python -m validation.experiments.microcontroller FILE.npz …`.

For each file (`refimpl.formats.int8_nets`), at batch 1 and one thread:

    inference   the arena in whole numbers and in float32, and what lives in its fullest launch
    training    the compiled step in whole numbers of sparse update on the last convolutions, with every term

A memory limit covers the arena and all weights that steps change. Where channels are chosen anew from step to step,
those are all weights of the trained convolutions, a byte each, and the classifier, a linear layer of floats; frozen
weights, scales and orders of channels stay in flash. Terms are those of `costmodel.advice.budget`.
"""

import sys

import refimpl as ri
from costmodel.advice import budget
from refimpl.formats.npz import load_npz

BUDGET = 256 * 1024
RATIO = 0.02  # of the channels, as arXiv 2503.17959
LAST = (0, 1, 2, 3, 6, 9, 12, 24, 42)  # convolutions that train
CLASSES = 10
BACKENDS = ("fast", "rows")


def inference(path: str) -> list[dict]:
    """Arena of each form and backend: `form`, `backend`, `peak_bytes`, `fullest` launch and what lives in it."""
    rows = []
    for form in ("int8", "float32"):
        graph = load_npz(path, whole=form == "int8")
        for backend in ("reference", "fast", "rows")[: 3 if form == "int8" else 2]:
            p = ri.compile(graph, None, 1, backend=backend, threads=1)
            bound = p.lower_bound
            alive = {b.name: b.nbytes for b in p.alive_at(bound.launch)}
            rows.append(
                {"form": form, "backend": backend, "peak_bytes": p.peak_bytes, "fullest": bound.launch.name,
                 "alive": alive, "constant_bytes": p.constant_bytes}
            )  # fmt: skip
    return rows


def training(path: str, last: int, backend: str) -> dict:
    """A step that trains the last convolutions: what it needs, whether that fits, and its terms (`budget.terms`).

    backward: the most bytes alive at a launch of the backward section, and its name.
    """
    rules = (ri.SparseUpdate(RATIO),) if last else ()
    graph, plan = load_npz(path, CLASSES, whole=True), ri.Plan(last, rules, ri.Backprop(ri.SGD(lr=0.01)))
    p = ri.compile(graph, plan, 1, threads=1, backend=backend)
    needed = budget.needed(p)
    alive = {launch.name: sum(b.nbytes for b in p.alive_at(launch)) for launch in p.launches["backward"]}
    fullest = max(alive, key=alive.__getitem__)
    found = {"last": last, "backend": backend, "needed": needed, "fits": needed <= BUDGET, "arena": p.peak_bytes}
    found |= {"state": p.state_bytes, "backward": {"bytes": alive[fullest], "fullest": fullest}}
    return found | {"waiting": needed - budget.needed(p, "updated"), "terms": budget.terms(p)}


def main(paths: list[str]) -> None:
    """Print both tables of each file."""
    for path in paths:
        print(path)
        for row in inference(path):
            print(
                f"  inference, {row['form']}, {row['backend']}: arena {row['peak_bytes']:,}, fullest in "
                f"{row['fullest'].split(' + ')[0]}:"
            )
            print("    " + ", ".join(f"{name} {n:,}" for name, n in row["alive"].items()))
        for last in LAST:
            for backend in BACKENDS:
                row = training(path, last, backend)
                verdict = "fits into" if row["fits"] else "exceeds"
                print(
                    f"  training, last {last}, {backend}: {row['needed']:,} {verdict} {BUDGET:,}: arena "
                    f"{row['arena']:,}, of which backward {row['backward']['bytes']:,}, and weights that change "
                    f"{row['state']:,} ({row['waiting']:,} of them not in this step)"
                )
                at = row["terms"]["peak_at"].split(" + ")[0]
                print(f"    fullest in {at}, backward in {row['backward']['fullest']}")
                for part in ("state", "arena", "arena_most"):
                    named = ((name.replace("_", " "), n) for name, n in row["terms"][part].items() if n)
                    print(f"    {part.replace('_', ', ')}: " + ", ".join(f"{name} {n:,}" for name, n in named))


if __name__ == "__main__":
    main(sys.argv[1:])
