"""Memory of a step without a backward pass on int8 microcontroller nets: `python -m … FILE.npz …`, at batch 1.

For each file (`refimpl.formats.int8_nets`) the arena of inference, and of a step with its scratch, what it takes beside
inference, and the weights that it changes, which cannot stay in flash:

    int8     QZO-FF (arXiv 2411.04036), m = 1, on the file's own whole numbers, what trains in 16 bits
    float    back-propagation with SGD on the dequantized net

where the classifier (of ten classes), also the last block, or all layers train. The arena is placed for the reference
kernels, or with --fast for the tuned ones, which take working arrays beside it.
"""

import sys

import refimpl as ri
from refimpl.formats.npz import load_npz
from refimpl.surgery.for_step import outlined_for, weights_that_train

CLASSES = 10
TRAINED: dict[str, int | str] = {"classifier": 0, "last block": 3, "all": "all"}


def rows(path: str, backend: str) -> list[dict]:
    """Of each form and what trains: `form`, `trains` (None: inference), `arena`, `scratch`, `changes` in bytes."""
    found = []
    for form, step in (
        ("int8", ri.ForwardGradient(m=1, bits="16w8a")), ("float", ri.Backprop(ri.SGD(lr=0.01)))
    ):  # fmt: skip
        graph, infers = load_npz(path, CLASSES, whole=form == "int8"), 0
        for trains, last in (None, None), *TRAINED.items():
            plan = None if last is None else ri.Plan(last, step=step)
            own = graph if plan is None else outlined_for(step, graph, weights_that_train(plan, graph))
            p = ri.compile(own, plan, 1, backend=backend, threads=1)
            infers = infers or p.peak_bytes
            found.append(
                {"form": form, "trains": trains, "arena": p.peak_bytes, "scratch": p.peak_bytes - infers,
                 "changes": p.state_bytes, "fullest": p.lower_bound.launch.name}
            )  # fmt: skip
    return found


def main(args: list[str]) -> None:
    """Print a table for each file."""
    backend = "fast" if "--fast" in args else "reference"
    for path in args:
        if path.startswith("--"):
            continue
        print(f"{path}, {backend}")
        for row in rows(path, backend):
            what = f"{row['form']}, {row['trains'] or 'inference'}"
            print(
                f"  {what:<18} arena {row['arena']:>10,}  scratch {row['scratch']:>10,}  changes {row['changes']:>10,}"
                f"  fullest in {row['fullest'].split(' + ')[0]}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
