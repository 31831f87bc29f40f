"""What decides the RAM of int8 microcontroller nets: `python -m validation.experiments.microcontroller FILE.npz …`.

For each file (`refimpl.formats.int8_nets`), at batch 1 and one thread:

    inference   the arena in whole numbers and in float32, and what lives in its fullest launch
    training    a step of sparse update on the last convolutions, had it whole numbers of 8 bits

Training in whole numbers with quantization-aware scaling (arXiv 2206.15472) is not built here. Its terms are those of
the compiled float32 step, each array with the bytes that its elements would take: one for maps and for what is saved of
them, one or four for gradients of maps, four for gradients of weights, as many as now for masks (a bit), indices and
scalars. Scaling itself adds nothing: it multiplies a gradient by the scales of the weights, which are constants.
Workspace of kernels is left out. Sums of what lives at once are bounds: no placement can do better. Beside them stand
the weights that the steps change, which cannot stay in flash: a byte each.
"""

import sys
from collections.abc import Callable

import refimpl as ri
from refimpl.compiler.ir import Buffer
from refimpl.formats.npz import load_npz

BUDGET = 256 * 1024
RATIO = 0.02  # of the channels, as arXiv 2503.17959
LAST = (3, 6, 12, 24, 42)  # convolutions that train
CLASSES = 10


def inference(path: str) -> list[dict]:
    """Arena of each form and backend: `form`, `backend`, `peak_bytes`, `fullest` launch and what lives in it."""
    rows = []
    for form in ("int8", "float32"):
        graph = load_npz(path, whole=form == "int8")
        for backend in ("reference", "fast"):
            p = ri.compile(graph, None, 1, backend=backend, threads=1)
            bound = p.lower_bound
            alive = {b.name: b.nbytes for b in p.alive_at(bound.launch)}
            rows.append(
                {"form": form, "backend": backend, "peak_bytes": p.peak_bytes, "fullest": bound.launch.name,
                 "alive": alive, "constant_bytes": p.constant_bytes}
            )  # fmt: skip
    return rows


def training(path: str, last: int, gradient_bytes: int) -> dict:
    """Bytes of a step that trains the last convolutions: each term at the fullest moment of forward and of backward.

    gradient_bytes: of an element of a map's gradient.
    """
    plan = ri.Plan(last, (ri.SparseUpdate(RATIO),), ri.Backprop(ri.SGD(lr=0.01)))
    p = ri.compile(load_npz(path, CLASSES), plan, 1, threads=1)
    kept = {root(b) for b in p.saved}
    workspace = {root(b) for launch in p.order for b in launch.scratch}
    made = {root(b): launch.covers[0].section for launch in reversed(p.order) for b in launch.writes}

    def kind(b: Buffer) -> str:
        if b in kept:
            return "saved"
        if made.get(b) == "backward":
            return "gradients of maps" if b.batched else "gradients of weights"
        return "maps"

    def nbytes(b: Buffer) -> int:
        if b.dtype.kind != "f" or kind(b) == "gradients of weights":
            return b.nbytes
        return b.nbytes // b.dtype.itemsize * (gradient_bytes if kind(b) == "gradients of maps" else 1)

    found: dict = {"last": last, "gradient_bytes": gradient_bytes, "weights": p.state_bytes // p.dtype.itemsize}
    for section in ("forward", "backward"):
        moments = [launch for launch in p.order if launch.covers[0].section == section]
        fullest = max(moments, key=lambda launch: total(p.alive_at(launch), workspace, nbytes))
        terms: dict[str, int] = {}
        for b in p.alive_at(fullest):
            if b not in workspace:
                terms[kind(b)] = terms.get(kind(b), 0) + nbytes(b)
        found[section] = {"fullest": fullest.name, "bytes": sum(terms.values()), "terms": terms}
    return found


def root(b: Buffer) -> Buffer:
    """The buffer of which another is a part or a view."""
    return b if b.base is None else root(b.base)


def total(alive: list[Buffer], workspace: set[Buffer], nbytes: Callable[[Buffer], int]) -> int:
    """Bytes of what lives at once, without workspace."""
    return sum(nbytes(b) for b in alive if b not in workspace)


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
            for gradient_bytes in (1, 4):
                row = training(path, last, gradient_bytes)
                most = row["weights"] + max(row[section]["bytes"] for section in ("forward", "backward"))
                fits = "fits into" if most <= BUDGET else "exceeds"
                print(
                    f"  last {last}, gradients of {gradient_bytes} bytes: {most:,} {fits} {BUDGET:,}, of which weights "
                    f"that change {row['weights']:,}"
                )
                for section in ("forward", "backward"):
                    one = row[section]
                    terms = ", ".join(f"{name} {n:,}" for name, n in one["terms"].items())
                    print(f"    {section} {one['bytes']:,} in {one['fullest'].split(' + ')[0]}: {terms}")


if __name__ == "__main__":
    main(sys.argv[1:])
