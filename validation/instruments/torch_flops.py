"""Our counts beside PyTorch's own counter: `python -m validation.instruments.torch_flops` prints them as JSON.

A process of its own, for PyTorch must not be where anything is timed. `torch.utils.flop_counter` counts padded taps
too, so it is compared with our nominal counts: convolutions and linear layers, one by one and in whole nets, on
PyTorch's `meta` device, which computes nothing. It is right for one group. Of a convolution with G groups torch 2.13.0
counts the weight gradient as if there were one, G times too much; `as_torch` is our count with that done to it, and a
row is explained where PyTorch's number is one of the two. A change that divides by the groups was proposed to PyTorch
in May 2026 (pytorch/pytorch#183405) and is not in 2.13.0: `of_groups` says what the version at hand does.
"""

import importlib.util
import json
import subprocess
import sys
from functools import cache

import refimpl as ri
from costmodel import closed_form
from costmodel.formulas import cost
from refimpl.compiler.ir import Call

from . import drawn_passes

NOT_INSTALLED = "PyTorch is not installed: its counter was not asked"
STATED = "2.13.0"  # the torch that the statement about groups in PAGE is of
PAGE = "docs/measurements/torch-flops.md"
OPERATORS = ("conv2d", "linear")  # what PyTorch's counter counts of our nets
PARTS = {"forward": "y", "grad_x": "dx", "grad_w": "dw"}
NETS = {"lenet5": {}, "resnet18": {}, "mobilenet_v2": {}}


@cache
def _nominal(operator: str, name: str):
    return cost.evaluator(closed_form.flops(closed_form.nominal(cost.cost(operator, name))))


def nominal(operator: str, name: str, sizes: dict[str, int]) -> int:
    """Multiplications and additions of a pass, padded taps counted too."""
    names, function = _nominal(operator, name)
    return int(function(*(sizes[n] for n in names)))


def ask(cases: int = 12) -> dict:
    """What the other process finds: `installed`, `version`, `groups` (`of_groups`) and the rows of `rows`.

    A `note` and no rows where PyTorch is missing.

    RuntimeError where it fails.
    """
    if importlib.util.find_spec("torch") is None:
        return {"installed": False, "note": NOT_INSTALLED, "rows": []}
    command = [sys.executable, "-m", "validation.instruments.torch_flops", str(cases)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(command[1:])} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        )
    return {"installed": True, **json.loads(done.stdout)}


def rows(cases: int) -> list[dict]:
    """Comparisons (`row`) of drawn layers and of whole nets."""
    compared = []
    for seed in range(cases):
        compared += convolution(seed)
    for seed in range(max(1, cases // 4)):
        compared += linear(seed)
    for name in NETS:
        compared += net(name)
    return compared


def of_groups(compared: list[dict], version: str) -> tuple[bool, str]:
    """Does this torch count the dw of grouped convolutions as `PAGE` says of torch `STATED`? Why or why not."""
    grouped = [r for r in compared if (r["groups"] or 1) > 1 and r["part"] == "dw"]
    if all(r["torch"] == r["as_torch"] for r in grouped):
        return True, f"torch {version} counts the weight gradient of a convolution with G groups G times"
    does = "counts the weight gradients of grouped convolutions right"
    if any(r["torch"] != r["ours"] for r in grouped):
        does = "counts the weight gradients of grouped convolutions in a third way"
    return False, f"torch {version} {does}: what {PAGE} says of torch {STATED} no longer holds, mend it"


def row(name: str, part: str, groups: int | None, ours: int, as_torch: int, theirs: int) -> dict:
    """One comparison; groups: None for a whole net. ratio: torch / ours."""
    return {
        "name": name, "part": part, "groups": groups, "ours": ours, "as_torch": as_torch, "torch": theirs,
        "ratio": theirs / ours, "explained": theirs in (ours, as_torch),
    }  # fmt: skip


def counted(work) -> int:
    """What PyTorch's counter says of a call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def convolution(seed: int) -> list[dict]:
    """Output and both gradients of a drawn convolution."""
    import torch

    z, given = drawn_passes.convolution(drawn_passes.picker("torch", seed), large=seed % 2 == 1)
    size = [z[d] + sum(given["pad"][i]) for i, d in enumerate("HW")]  # padded before: PyTorch pads both sides alike
    x = torch.empty(z["N"], z["C"], *size, device="meta", requires_grad=True)
    w = torch.empty(z["K"], z["C"] // z["G"], z["R"], z["S"], device="meta", requires_grad=True)
    y = []

    def forward():
        y.append(torch.conv2d(x, w, None, given["stride"], 0, given["dilation"], z["G"]))

    name = f"{z['R']}x{z['S']}, {z['C']} to {z['K']} channels, {z['G']} group{'s' * (z['G'] > 1)}"
    return _layer(f"convolution {name}", "conv2d", z, z["G"], forward, y, x, w)


def linear(seed: int) -> list[dict]:
    """Output and both gradients of a drawn linear layer."""
    import torch

    pick = drawn_passes.picker("torch linear", seed)
    z = {"N": pick(1, 64), "D": pick(1, 600), "K": pick(1, 600)}
    x = torch.empty(z["N"], z["D"], device="meta", requires_grad=True)
    w = torch.empty(z["K"], z["D"], device="meta", requires_grad=True)
    y = []
    return _layer(
        f"linear {z['D']} to {z['K']}", "linear", z, 1, lambda: y.append(torch.nn.functional.linear(x, w)), y, x, w
    )


def _layer(name: str, operator: str, sizes: dict, groups: int, forward, y: list, x, w) -> list[dict]:
    import torch

    work = {"forward": forward}
    for part, leaf in (("grad_x", x), ("grad_w", w)):
        work[part] = lambda leaf=leaf: torch.autograd.grad(y[0], [leaf], torch.empty_like(y[0]), retain_graph=True)
    compared = []
    for part, call in work.items():
        ours = nominal(operator, part, sizes)
        compared.append(row(name, PARTS[part], groups, ours, ours * (groups if part == "grad_w" else 1), counted(call)))
    return compared


def net(name: str) -> list[dict]:
    """Forward and backward pass of a whole net that trains in full, its convolutions and linear layers."""
    import torch

    from . import torch_nets

    graph = ri.models.build(name, **NETS[name])
    module = torch_nets.build(graph).to("meta").eval()
    y = []
    work = {
        "forward": lambda: y.append(module(torch.empty(1, graph.channels, *graph.size, device="meta"))),
        "backward": lambda: y[0].sum().backward(),
    }
    program = ri.compile(graph, ri.Plan("all"), 1, backend="reference", threads=1)
    compared = []
    for section, call in work.items():
        calls = [c for c in program.step.calls[section] if c.passed.operator in OPERATORS and c.passed.name in PARTS]
        ours = [nominal(c.passed.operator, c.passed.name, c.sizes) for c in calls]
        as_torch = [k * _ignored(c) for k, c in zip(ours, calls, strict=True)]
        compared.append(
            row(f"{name}, {graph.size[0]}x{graph.size[1]}", section, None, sum(ours), sum(as_torch), counted(call))
        )
    return compared


def _ignored(call: Call) -> int:
    """The groups that PyTorch's counter does not see in a call."""
    return call.sizes.get("G", 1) if call.passed.name == "grad_w" else 1


def main(cases: str = "12") -> None:
    """Print version, what it does with groups, and rows."""
    import torch

    compared = rows(int(cases))
    groups = of_groups(compared, torch.__version__)[1]
    print(json.dumps({"version": torch.__version__, "groups": groups, "rows": compared}))


if __name__ == "__main__":
    main(*sys.argv[1:2])
