"""The energy that gradient filtering saves, estimated in two ways beside what its paper measured: `python -m
validation.experiments.energy`.

The abstract of arXiv 2301.00330 reports 90 % of the energy saved, at more than 20 times the speed, against MKLDNN and
cuDNN on a Jetson Nano. [ours] Which layers that is of the abstract does not say; here it is the backward pass of each
convolution of its Table 10 (3×3, batch 8) on the profile of that board, whose kernels were not measured.

The counted estimate, operations and bytes alone, leaves out whatever a processor draws while it waits or decodes, and
reading the map stays: it saves least. The board's power times seconds saves as much as time does. A meter should find
something between.
"""

import costmodel
import refimpl as ri
from costmodel.advice import energy
from refimpl.compiler.ir import Call

from ..bench.filtered import TABLE_10

DEVICE, BATCH, THREADS, PATCHES = "jetson-nano", 8, 4, (2, 4)
MEASURED = 0.9  # of the energy saved, arXiv 2301.00330, abstract


def backward(channels: int, rows: int, columns: int, patch: int | None) -> dict:
    """Joules of one convolution's backward pass (`energy.joules`), exact where patch is None."""
    g = ri.Graph("one", (rows, columns), 3)
    x = g.conv2d("conv", g.conv2d("before", "input", channels, 1), channels, 3, pad=1)
    g.linear("fc", g.global_avg_pool("mean", x), 10)
    rules = [] if patch is None else [ri.GradientFilter(patch)]
    program = ri.compile(g, ri.Plan("all", rules), BATCH, threads=THREADS)

    def own(call: Call) -> bool:
        return call.node == "conv" and call.section == "backward"

    return energy.joules(costmodel.estimate(program, device=DEVICE), own)


def savings() -> list[dict]:
    """For each case and patch: shares of the energy saved, counted (low and high DRAM energy) and at the board."""
    rows = []
    for size in TABLE_10:
        exact = backward(*size, None)
        for patch in PATCHES:
            found = backward(*size, patch)
            pairs = {
                **{k: (found["counted"]["total"][k], exact["counted"]["total"][k]) for k in ("low", "high")},
                "board": (found["board"]["mid"], exact["board"]["mid"]),
            }
            rows.append({"size": size, "patch": patch, **{k: 1 - a / b for k, (a, b) in pairs.items()}})
    return rows


def main() -> None:
    """Print the table."""
    print(f"energy saved in the backward pass on {DEVICE}, in percent; the paper measured {100 * MEASURED:.0f}")
    print("channels, map   patch  counted, DRAM high  counted, DRAM low  board")
    for row in savings():
        c, h, w = row["size"]
        counted = f"{100 * row['high']:18.1f} {100 * row['low']:18.1f}"
        print(f"{c:4d}, {f'{h}x{w}':9s} {row['patch']:5d}  {counted} {100 * row['board']:6.1f}")


if __name__ == "__main__":
    main()
