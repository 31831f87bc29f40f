"""The public interface has types: complete annotations, a typed program that uses it, markers that are shipped."""

import importlib
import inspect
import subprocess
import sys
from functools import cached_property
from pathlib import Path

import pytest

import costmodel
import refimpl

ROOT = Path(__file__).parent.parent
NAMES = [*(f"refimpl.{n}" for n in refimpl.__all__), *(f"costmodel.{n}" for n in costmodel.__all__)]
MODULES = [
    "refimpl.data", "refimpl.data.dataset", "refimpl.graph", "refimpl.storage.checkpoint", "refimpl.surgery.prune",
    "refimpl.surgery.cut", "refimpl.models.lenet", "refimpl.models.resnet", "refimpl.models.vgg",
    "refimpl.models.watch",
    "refimpl.models.mobilenet_v2", "refimpl.models.mobilenet_folded", "refimpl.models.efficientnet_lite",
    "costmodel.predict", "costmodel.closed_form",
    "costmodel.device.device", "costmodel.device.rates", "costmodel.advice", "costmodel.advice.advice",
    "costmodel.advice.budget", "costmodel.advice.convergence", "costmodel.advice.energy", "costmodel.advice.questions",
]  # fmt: skip
# what the library asks of a choice of instances, what `compile` alone makes, and what SymPy or a trace calls
INSIDE = ("for_net", "step", "Program.__init__", "nearest.eval", "closed_form.named")


def functions(found, name: str):
    """(name, function) of what is public in a module or a class, or of a function itself."""
    if inspect.ismodule(found):
        for key, value in vars(found).items():
            if not key.startswith("_") and getattr(value, "__module__", None) == found.__name__:
                yield from functions(value, f"{name}.{key}")
    elif inspect.isclass(found) and not issubclass(found, BaseException):
        for key, value in vars(found).items():
            value = getattr(value, "fget", getattr(value, "__func__", value))
            value = value.func if isinstance(value, cached_property) else value
            generated = key == "__init__" and hasattr(found, "__dataclass_fields__")
            if inspect.isfunction(value) and (key[0] != "_" or key == "__init__") and not generated:
                yield f"{name}.{key}", value
    elif inspect.isfunction(found):
        yield name, found


def missing(function) -> list[str]:
    """Parameters, and `return`, without a type."""
    signature = inspect.signature(function)
    given = [p.name for p in signature.parameters.values() if p.annotation is p.empty and p.name not in ("self", "cls")]
    said = function.__name__ == "__init__" or signature.return_annotation is not signature.empty
    return given if said else [*given, "return"]


def test_every_public_function_says_all_its_types():
    gaps = {}
    for name in NAMES:
        package, _, key = name.partition(".")
        gaps |= {n: m for n, f in functions(getattr(importlib.import_module(package), key), name) if (m := missing(f))}
    for name in MODULES:
        gaps |= {n: m for n, f in functions(importlib.import_module(name), name) if (m := missing(f))}
    gaps = {n: m for n, m in gaps.items() if not n.endswith(INSIDE)}
    assert not gaps


def test_a_gap_is_noticed():
    def half(x: int, y, *rest):
        return x

    assert missing(half) == ["y", "rest", "return"]


def test_the_markers_are_shipped():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of TOML")
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for package in ("refimpl", "costmodel", "validation", "gradledger"):
        assert (ROOT / package / "py.typed").is_file() and "py.typed" in data[package]


def mypy(tmp_path, *words: str) -> subprocess.CompletedProcess:
    pytest.importorskip("mypy", reason="mypy is not installed: it comes with the extra [test]")
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_the_packages_check(tmp_path):
    done = mypy(tmp_path)
    assert done.returncode == 0, done.stdout[-3000:]


def test_a_typed_program_checks_under_strict_settings(tmp_path):
    strict = ("--strict", "--follow-imports=silent")
    done = mypy(tmp_path, *strict, "tests/typed_use.py")
    assert done.returncode == 0, done.stdout[-3000:]
    wrong = tmp_path / "wrong.py"
    wrong.write_text('import refimpl as ri\n\nri.Graph("g", (8, 8), 3).conv2d("conv", "input", "eight", 3)\n')
    done = mypy(tmp_path, *strict, str(wrong))
    assert done.returncode == 1 and '"conv2d" of "Building" has incompatible type "str"; expected "int"' in done.stdout
