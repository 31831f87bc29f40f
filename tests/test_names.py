"""No operator is asked for by its name outside its own files: who adds one writes those files alone."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from refimpl.graph import Graph
from refimpl.ops import operators

ROOT = Path(__file__).parent.parent
PACKAGES = ("refimpl", "costmodel", "validation", "gradledger")
MOST = 3  # files that may name an operator
# What is made of named operators, and so names them.
MADE_OF = {
    "refimpl/models/": "nets",
    "refimpl/ops/niti_": "operators that narrow their sums alike, and place a maximum as that of floats",
    "refimpl/formats/": "maps of the names and layouts that other libraries have",
    "refimpl/surgery/quantize.py": "the forms of operators in whole numbers",
    "refimpl/surgery/share_exponents.py": "the forms of operators in whole numbers that share exponents",
    "refimpl/surgery/widen.py": "the form of a classifier of floats in whole numbers",
    "refimpl/compiler/grouping.py": "which operators belong together, for every backend",
    "refimpl/compiler/whole_products.py": "which products of whole numbers a convolution makes, for every backend",
    "refimpl/backends/row_groups.py": "which operators on rows belong together, for every backend",
    "refimpl/backends/cpu/": "the operators that a tuned kernel does",
    "refimpl/backends/cuda/": "the operators that a tuned kernel does",
    "costmodel/device/calibration.py": "nets, to time kernels on",
    "costmodel/formulas/paper": "what the papers count, layer by layer, in their own way",
    "costmodel/formulas/ops/niti_": "what is common to operators that narrow their sums alike",
    "validation/bench/": "nets and operators, to time",
    "validation/experiments/": "nets and layers of the papers",
    "validation/instruments/cuda_code.py": "operators that may compute in float64",
    "validation/instruments/drawn_nets.py": "nets, drawn",
}
# Every other file that names an operator, and why.
REASONS = {
    "refimpl/graph/building.py": "a method for each operator, by which nets are built",
    "refimpl/compiler/derive.py": "a block left out is an identity",
    "refimpl/compiler/backward.py": "gradients are added up and looked at",
    "refimpl/compiler/update.py": "clipping is asked for, and what whole numbers are updated by",
    "refimpl/plan/plan.py": "the loss by default, and room for whole weights to grow",
    "refimpl/methods/layer.py": "the gradients that the rules of a layer put together",
    "refimpl/methods/forward_gradient.py": "perturbed weights are looked for, to see whether epsilon moves them",
    "refimpl/methods/forward_gradient_calls.py": "weights are perturbed, and their norms asked for",
    "refimpl/methods/forward_gradient_whole.py": "whole weights are perturbed and updated",
    "refimpl/methods/niti.py": "the loss and the update in whole numbers, and what a Plan cannot have beside them",
    "refimpl/methods/sparse_update_whole.py": "limits of the sums of its gradient",
    "refimpl/methods/optim.py": "an optimizer's own pass",
    "refimpl/methods/instance_filter.py": "the setting `batch_norm` of a Plan, called as the operator",
    "refimpl/ops/batch_norm.py": "what stands for it where statistics are fixed",
    "refimpl/ops/dropout.py": "what stands for it at inference",
    "refimpl/surgery/prune.py": "block pruning is done by it",
    "gradledger/doctor.py": "a kernel to try",
    "gradledger/recipe.py": "the optimizers of --optimizer, called as their operators",
    "validation/instruments/snapshot.py": "names of its cases",
    "validation/instruments/torch_flops.py": "what PyTorch's counter counts",
}
ARITHMETIC = (
    r"costmodel/(device/gpu|formulas/cost|predict).py|gradledger/cost.py|refimpl/compiler/executed.py|refimpl/kernels/traced.py"
    r"|validation/instruments/(counted_numbers|executing|measured|emulator/machine).py"
)
# Words that are names of operators by chance.
OTHER_WORDS = {
    # units of cost, and what Python calls its operators; what adds to a sum
    "add": rf"{ARITHMETIC}|validation/instruments/approximation.py",
    "mul": ARITHMETIC,
    "sub": ARITHMETIC,
    "batch_norm": r"gradledger/(command|cost|job|recipe).py",  # settings of a step, which these options are called by
    # the factor that gradients are clipped by, an option and a recording; what NumPy's arrays call it
    "clip": r"(refimpl|costmodel/formulas)/(ops|methods)/(adam|clip_norm|sgd|quantized_sgd|sparse_update\w*).py"
    r"|refimpl/(compiler/update|data/new_samples|data/sounds|kernels/quantized).py"
    r"|gradledger/(command|job|recipe).py|validation/instruments/approximation.py",
    "clip_norm": r"gradledger/recipe.py",
    "identity": r"gradledger/run_state.py",  # of a run
    "tanh": r"validation/instruments/(counted_numbers|emulator/machine).py",  # a unit of cost, an instruction
    "matmul": r"validation/instruments/executing.py",  # NumPy's
    "quantize": r"refimpl/surgery/(__init__|for_step).py",  # a net
}


def arguments(name: str) -> tuple[int, int]:
    """Least and most arguments of the method of Graph that adds an operator."""
    own = list(inspect.signature(getattr(Graph, name)).parameters.values())[1:]
    some = any(p.kind is p.VAR_POSITIONAL for p in own)
    return sum(p.default is p.empty for p in own), 99 if some else len(own)


ARGUMENTS = {name: arguments(name) for name in operators() if hasattr(Graph, name)}


def names_in(text: str) -> set[str]:
    """The operators that a file's code names.

    A string that is an operator's name, or begins with it and a dot; an import of its module or of a module of the
    same name; a call of, or a reference to, the method of a graph that adds it. Prose is none.
    """
    tree = ast.parse(text)
    prose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    modules = {a.asname or a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    called = {id(n.func): len(n.args) + len(n.keywords) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    everything, found = set(operators()), set()
    for n in ast.walk(tree):
        if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in prose:
            if match := re.fullmatch(r"(\w+)(\.\w+)?", n.value):
                found.add(match[1])
        elif isinstance(n, ast.ImportFrom):
            room = (n.module or "").rpartition(".")[2]
            found |= {room} | ({a.name for a in n.names} if room in ("ops", "cpu", "") else set())
        elif isinstance(n, ast.Attribute) and n.attr in ARGUMENTS and isinstance(n.value, ast.Name):
            least, most = ARGUMENTS[n.attr]
            given = called.get(id(n), least)  # a reference is as good as a call
            if n.value.id not in modules | {"self", "plan"} and least <= given <= most:
                found.add(n.attr)
    return found & everything


def own(name: str, path: str) -> bool:
    """Is a file of the operator's own, by its name or by what is made of operators?"""
    return Path(path).stem == name or path.startswith(tuple(MADE_OF))


@pytest.fixture(scope="module")
def named() -> dict[str, list[str]]:
    """Operator → the files that name it, its own ones left out."""
    found = {name: [] for name in operators()}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            file = path.relative_to(ROOT).as_posix()
            for name in names_in(path.read_text(encoding="utf-8")):
                if not own(name, file) and not re.fullmatch(OTHER_WORDS.get(name, ""), file):
                    found[name].append(file)
    return found


def test_few_files_name_an_operator_and_each_says_why(named):
    for name, files in named.items():
        print(f"{name:22s} {len(files)}  {', '.join(files)}")
    many = {name: files for name, files in named.items() if len(files) > MOST}
    assert not many
    assert {file for files in named.values() for file in files} == REASONS.keys()


def test_what_is_excepted_is_there():
    files = [path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    for start in MADE_OF:
        assert any(names_in((ROOT / f).read_text(encoding="utf-8")) for f in files if f.startswith(start)), start
    for name, pattern in OTHER_WORDS.items():
        assert any(name in names_in((ROOT / f).read_text(encoding="utf-8")) for f in files if re.fullmatch(pattern, f))


@pytest.mark.parametrize(
    "code, names",
    [
        ('if node.op == "conv2d": pass', {"conv2d"}),
        ('SAME = {"relu", "max_pool"}', {"relu", "max_pool"}),
        ('costs["linear.grad_w"]', {"linear"}),
        ("from refimpl.ops import conv2d, relu", {"conv2d", "relu"}),
        ("from ..ops.dropout import words", {"dropout"}),
        ('x = g.add("sum", a, g.relu("r", x))', {"add", "relu"}),
        ("kind = g.relu6 if small else g.relu", {"relu6", "relu"}),
        ('"""conv2d"""\nseen.add(x)\nimport torch\ntorch.conv2d(x, w)\nplan.batch_norm', set()),
        ("from .cost import add, mul", set()),
        ('raise ValueError("a conv2d without relu")', set()),
    ],
)
def test_a_name_is_seen_and_prose_is_none(code, names):
    assert names_in(code) == names
