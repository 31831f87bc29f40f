"""Instructions of a training step on a GPU, by kernel, counted on the stand-in for the driver.

python -m validation.instruments.emulator.profile --model mobilenet_v2 --size 64 --batch 4

All layers train by SGD with momentum, with the statistics of the batch. Counted is PTX, of which the assembler of a GPU
makes fewer instructions or more; kernels of one name are told together, with their multiply-adds of floats.
"""

import argparse
import re
import sys
from collections import Counter

import numpy as np

import refimpl as ri

from .driver import ExecutedLaunch, stand_in


def kernel(mangled: str) -> str:
    """The module and the name in what the compiler calls a kernel."""
    rest, parts = mangled.removeprefix("_ZN"), []
    while match := re.match(r"(\d+)", rest):
        start = len(match[1])
        parts.append(rest[start : start + int(match[1])])
        rest = rest[start + int(match[1]) :]
    names = [part for part in parts if not part.startswith("_3c") and part != "kernel"] or [mangled]
    return ".".join(names[-2:]).replace("12_3clocals_3e", "")


def by_kernel(launched: list[ExecutedLaunch]) -> dict[str, tuple[int, int, int]]:
    """Kernel → launches, instructions and multiply-adds of floats, most instructions first."""
    launches, instructions, products = Counter[str](), Counter[str](), Counter[str]()
    for name, counts in launched:
        launches[kernel(name)] += 1
        instructions[kernel(name)] += sum(counts.values())
        products[kernel(name)] += sum(n for op, n in counts.items() if op.startswith("fma."))
    return {name: (launches[name], total, products[name]) for name, total in instructions.most_common()}


def main(arguments: list[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--size", type=int, default=64, help="rows and columns of the input")
    parser.add_argument("--batch", type=int, default=4)
    given = parser.parse_args(arguments)
    driver = stand_in(nbytes=1 << 29)
    graph = ri.models.build(given.model, size=(given.size, given.size), classes=10)
    plan = ri.Plan("all", batch_norm="train", train_bias=True, step=ri.Backprop(ri.SGD(lr=0.01, momentum=0.9)))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((given.batch, *graph.size, graph.channels), dtype=np.float32)
    trainer = ri.Trainer(ri.compile(graph, plan, given.batch, backend="cuda"), seed=0)
    trainer.train_step(x, rng.integers(0, 10, given.batch), 1)
    trainer.backend.synchronise()  # the update too
    found = by_kernel(driver.launched)
    everything = sum(total for _, total, _ in found.values())
    print(f"{'kernel':44s} {'launches':>8s} {'instructions':>14s} {'share':>7s} {'to a MAC':>9s}")
    for name, (launches, total, products) in found.items():
        each = f"{total / products:9.1f}" if products else f"{'–':>9s}"
        print(f"{name[-44:]:44s} {launches:8d} {total:14,d} {total / everything:6.1%} {each}")
    print(f"{'in all':44s} {len(driver.launched):8d} {everything:14,d}")
    passes = ri.compile(graph, plan, given.batch, backend="reference").order
    print(f"{'a launch for each pass':44s} {len(passes):8d}")


if __name__ == "__main__":
    main(sys.argv[1:])
