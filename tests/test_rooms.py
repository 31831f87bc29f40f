"""Which part may import which: a room imports rooms below it only, and no file imports itself in a circle."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("refimpl", "costmodel", "validation", "gradledger")  # each imports those before it
ROOMS = {  # lowest first; rooms of one line may import each other
    "refimpl": (
        ("assets", "storage"), ("kernels",), ("data",), ("arguments",), ("ops",), ("graph",), ("models", "methods"),
        ("plan",), ("compiler",), ("backends",), ("training",), ("surgery", "formats"),
        ("recipes", "saved"),
    ),
    "costmodel": (("formulas",), ("device",), ("predict", "closed_form"), ("advice",)),
    "validation": (("instruments",), ("bench",), ("experiments",), ("report", "campaign")),
}  # fmt: skip
OUTSIDE = {"refimpl": {"arguments"}, "costmodel": {"predict", "closed_form"}, "validation": set()}


def modules():
    """Every module of the packages, by name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imports(name):
    """The modules of ours that one imports anywhere in it, also inside its functions; for types alone is none."""
    path, found = MODULES[name], set()
    tree = ast.parse(path.read_text())
    typing = {
        inner for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }  # fmt: skip
    for node in ast.walk(tree):
        if node in typing:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")
                parts = parts[: len(parts) - node.level + (path.name == "__init__.py")]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            names = {f"{base}.{alias.name}" for alias in node.names}
            found |= {n for n in names if n in MODULES} | ({base} if names - MODULES.keys() else set())
    return {n for n in found if n in MODULES} - {name}


IMPORTS = {name: imports(name) for name in MODULES}


def test_no_file_imports_itself_in_a_circle():
    order, open_, done = [], set(), set()

    def visit(name, path):
        if name in done:
            return
        assert name not in open_, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        open_.add(name)
        for other in sorted(IMPORTS[name]):
            visit(other, [*path, name])
        done.add(name)
        order.append(name)

    for name in MODULES:
        visit(name, [])
    assert len(order) == len(MODULES) > 200


def test_packages_import_one_way():
    wrong = [
        f"{name} imports {other}" for name, others in IMPORTS.items() for other in others
        if PACKAGES.index(other.split(".")[0]) > PACKAGES.index(name.split(".")[0])
        and not name.startswith("validation.campaign")
    ]  # fmt: skip
    assert not wrong


@pytest.mark.parametrize("package", ROOMS)
def test_a_room_imports_rooms_below_it_only(package):
    level = {room: i for i, rooms in enumerate(ROOMS[package]) for room in rooms}
    own = {name: name.split(".")[1] for name in MODULES if name.startswith(f"{package}.")}
    assert set(own.values()) == level.keys(), "a new room is to be put into the order"
    wrong = [
        f"{name} imports {other}" for name, room in own.items() for other in IMPORTS[name]
        if other in own and level[own[other]] > level[room]
    ]  # fmt: skip
    assert not wrong


@pytest.mark.parametrize("package", ROOMS)
def test_files_lie_in_rooms(package):
    assert {p.stem for p in (ROOT / package).glob("*.py")} == OUTSIDE[package] | {"__init__"}


def test_the_circle_is_seen_and_so_is_what_reaches_up(monkeypatch):
    monkeypatch.setitem(IMPORTS, "refimpl.kernels.kernel", {"refimpl.training.trainer"})
    with pytest.raises(AssertionError, match="a circle: "):
        test_no_file_imports_itself_in_a_circle()
    with pytest.raises(AssertionError, match="refimpl.kernels.kernel imports refimpl.training.trainer"):
        test_a_room_imports_rooms_below_it_only("refimpl")
    monkeypatch.setitem(IMPORTS, "refimpl.graph", {"costmodel.predict"})
    with pytest.raises(AssertionError, match="refimpl.graph imports costmodel.predict"):
        test_packages_import_one_way()
