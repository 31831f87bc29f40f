"""How kernels are told: what each gives in plain English, what the forward did, one letter with one meaning."""

import ast
import re
from pathlib import Path

import pytest

import refimpl

ROOT = Path(refimpl.__file__).parent
GRADIENTS = {"dx", "dw", "db", "dgamma", "dbeta", "dx_patch", "dw_patch"}


def functions(*folders: str) -> dict[str, tuple[ast.FunctionDef, str]]:
    """Every function in the files of some rooms, and its source, by file and name."""
    found = {}
    for path in (p for folder in folders for p in sorted((ROOT / folder).glob("*.py"))):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                found[f"{path.stem}.{node.name}"] = node, ast.get_source_segment(text, node)
    return found


def declared(node: ast.FunctionDef) -> ast.Call | None:
    """The `declare(…)` above a function."""
    return next((d for d in node.decorator_list if isinstance(d, ast.Call) and ast.unparse(d.func) == "declare"), None)


KERNELS = {name: f for name, f in functions("ops", "methods").items() if declared(f[0])}
LONG = {  # what a kernel executes is stated with the kernel's own arguments
    name: f
    for name, f in functions("backends/cpu").items()
    if len(f[0].args.args) > 12 and not name.endswith("_executes")
}


def test_there_are_kernels_to_read():
    assert len(KERNELS) > 50 and len(LONG) > 20


@pytest.mark.parametrize("name", KERNELS)
def test_a_reference_kernel_says_what_it_gives_and_keeps_its_item(name):
    node, text = KERNELS[name]
    said = ast.get_docstring(node)
    assert not re.match(r"[A-Z]\w* \(", said), f"{name}: {said}: say what it is, then (its shape)"
    stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    assert node.args.args[0].arg == "t" and "t" not in stored, f"{name}: t is the item"
    writes = ast.literal_eval(next(k.value for k in declared(node).keywords if k.arg == "writes")).split()
    if GRADIENTS & set(writes):
        assert "    # forward: " in text, f"{name}: a line on what the forward did is missing"


@pytest.mark.parametrize("name", LONG)
def test_arguments_of_long_kernels_are_explained(name):
    node, _ = LONG[name]
    said = ast.get_docstring(node)
    assert "\n\n" in said or re.search(r"(see|as in|as) `\w", said, re.IGNORECASE), (
        f"{name}: {said}: explain its arguments"
    )
