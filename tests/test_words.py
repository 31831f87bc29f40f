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


# What compiles and trains: letters, names and tuples that a reader need not guess.
READ = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in [
        *(p for room in ("compiler", "training") for p in sorted((ROOT / room).glob("*.py"))),
        *sorted((ROOT / "graph").glob("*.py")),
        ROOT / "ops/__init__.py",
    ]
}
VAGUE = {"found", "nothing", "one", "both", "thing", "stuff", "tmp", "res", "ret"}
# Letter → its one meaning, and what an annotation of it must name.
LETTERS = {
    "a": ("a pass's name of an array, or in a graph the first summand", r"str"),
    "b": ("a buffer, or in a graph the second summand", r"Buffer|str"),
    "c": ("a call, or in a graph the channels C", r"Call"),
    "d": ("an axis in the entry of a shape, such as C/G", r"str"),
    "e": ("an exception", r""),
    "i": ("a number from 0", r"int"),
    "j": ("another one, or a number after i", r"int"),
    "k": ("a number within i's", r"int"),
    "n": ("how many samples or entries", r"int|float"),
    "p": ("a pass, or in a graph a parameter or its name", r"Pass|Bound"),
    "q": ("scale and zero point of what is quantized", r"Scaled|Quantized.*"),
    "r": ("rows R of a kernel", r"int"),
    "s": ("columns S of a kernel", r"int"),
    "t": ("a tensor's name", r"str"),
    "v": ("the value of an attribute", r""),
    "w": ("weights, or their name", r"Buffer|str"),
    "x": ("what is read: an input, a tensor's name in a graph, samples", r"str|Buffer|Inputs|np.ndarray.*"),
    "y": ("what is written: an output, labels", r"str|Buffer|np.ndarray.*"),
}


def bodies(tree: ast.Module) -> set[ast.AST]:
    """What is inside a kernel's body, whose letters are those of its shapes: t is the item."""
    kernels = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.args.args[:1])
    return {inner for n in kernels if n.args.args[0].arg == "t" for inner in ast.walk(n)}


def bound(tree: ast.Module):
    """Every name that a file binds: the name, and the annotation of an argument where it has one."""
    left_out = bodies(tree)
    for n in ast.walk(tree):
        if n in left_out:
            continue
        if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
            yield n.id, None
        elif isinstance(n, ast.arg):
            yield n.arg, n.annotation and ast.unparse(n.annotation)
        elif isinstance(n, ast.ExceptHandler) and n.name:
            yield n.name, None


@pytest.mark.parametrize("file", READ)
def test_names_say_what_they_hold(file):
    names = {name for name, _ in bound(READ[file])}
    assert not names & VAGUE


@pytest.mark.parametrize("file", READ)
def test_a_letter_has_one_meaning(file):
    for name, annotation in bound(READ[file]):
        if len(name) > 1 or name == "_":
            continue
        meaning, kind = LETTERS.get(name, ("none", ""))
        assert name in LETTERS, f"{name} means nothing: give it a name, or say in LETTERS what it means"
        given = (annotation or kind).strip('"').removesuffix(" | None")
        assert annotation is None or re.fullmatch(kind, given), f"{name} is {meaning}, and no {annotation}"


def test_no_letter_has_a_meaning_and_no_use():
    used = {name for tree in READ.values() for name, _ in bound(tree)}
    assert not LETTERS.keys() - used


@pytest.mark.parametrize("file", READ)
def test_a_tuple_of_three_different_things_has_names(file):
    for n in ast.walk(READ[file]):
        if isinstance(n, ast.Subscript) and ast.unparse(n.value) == "tuple" and isinstance(n.slice, ast.Tuple):
            assert len(n.slice.elts) < 3, f"{ast.unparse(n)}: make it a NamedTuple"


@pytest.mark.parametrize("file", READ)
def test_everything_public_says_what_it_is(file):
    tree = READ[file]
    assert ast.get_docstring(tree)
    scopes = [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef))]
    for n in (n for scope in scopes for n in scope.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))):
        setter = any(ast.unparse(d).endswith(".setter") for d in getattr(n, "decorator_list", ()))
        assert n.name.startswith("_") or setter or ast.get_docstring(n), f"{n.name} has no docstring"


# Class names that more than one file defines, and why that misleads nobody.
SAME_NAME = {
    "Case": "validation: what a bench or an experiment is made of, each in its own file, imported nowhere else",
    "Ours": "validation/bench: our side of a comparison, beside `Torch` in the same file",
    "Torch": "validation/bench: PyTorch's side of a comparison, beside `Ours` in the same file",
    "Protocol": "validation/experiments: the settings of one experiment, in its own file",
    "Row": "validation: a row of the one table that its file makes",
    "Watch": "validation: the net of that name in PyTorch; in covered_tests what looks at a test from outside",
    "_Array": "validation/instruments: an array that counts, and one that executes, each for its own file",
}


def test_a_class_name_is_that_of_one_class():
    files: dict[str, list[str]] = {}
    for package in ("refimpl", "costmodel", "validation", "gradledger"):
        for path in sorted((ROOT.parent / package).rglob("*.py")):
            for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(n, ast.ClassDef):
                    files.setdefault(n.name, []).append(path.relative_to(ROOT.parent).as_posix())
    several = {name: where for name, where in files.items() if len(where) > 1}
    assert several.keys() == SAME_NAME.keys(), {n: f for n, f in several.items() if n not in SAME_NAME}
    assert not [f for name in SAME_NAME for f in files[name] if not f.startswith("validation/")]
