"""What a compiled kernel can reach: its own code and, through globals and closures, that of every helper it can call.

A kernel on disk is stale where any of this changed, in whatever file it lies, and only then. Python functions count by
their code, constants by their values. An intrinsic counts with the text of its file as well, for Numba also knows what
such a file registers, which no name leads to.
"""

import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType

import numpy as np
from numba.core.types import Type

# Their versions stand for their code
FOREIGN = {*sys.stdlib_module_names, "numpy", "numba", "numba_cuda_mlir", "scipy", "llvmlite"}
FILLED_IN = "chip"  # an option that numba-cuda-mlir writes into a helper's when it compiles the first kernel with it
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), np.generic, np.dtype, Type)


def reach(function: Callable, options=None) -> str:
    """Digest of everything that a function compiled with these options can reach, in hexadecimal digits."""
    lines = [f"{function.__module__} {_plain(options)}"]
    seen: dict[int, object] = {}  # by identity; it keeps what is made on the way alive, so that none is used twice
    todo: list[tuple[object, frozenset[str]]] = [(function, frozenset())]
    while todo:
        value, names = todo.pop()
        if isinstance(value, PLAIN):
            lines.append(repr(value))
        elif id(value) not in seen:
            seen[id(value)] = value
            line, further = _described(value, names)
            lines.append(line)
            todo += further
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _described(value, names: frozenset[str]) -> tuple[str, list]:
    """A value in a line, and what it leads to. names: those that the code which reached it uses."""
    if isinstance(getattr(value, "py_func", None), FunctionType):  # compiled, for whatever device
        told = {name: option for name, option in value.targetoptions.items() if name != FILLED_IN}
        return _plain(told), [(value.py_func, names)]
    if isinstance(getattr(value, "_defn", None), FunctionType):  # an intrinsic
        return _text(value._defn.__module__), [(value._defn, names)]
    if isinstance(value, FunctionType):
        if _foreign(value.__module__):
            return f"{value.__module__}.{value.__qualname__}", []
        return _function(value)
    if isinstance(value, ModuleType):
        if _foreign(value.__name__):
            return value.__name__, []
        used = sorted(names & vars(value).keys())
        return f"{value.__name__}: {used}", [(vars(value)[name], names) for name in used]
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}", [(v, names) for v in value]
    if isinstance(value, (set, frozenset, dict)):
        return _plain(value), []
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {value.tobytes().hex()}", []
    kind = value if isinstance(value, type) else type(value)
    if _foreign(kind.__module__):  # their repr may hold an address
        return f"{kind.__module__}.{kind.__qualname__} {getattr(value, '__name__', '')}", []
    return f"{kind.__qualname__} {_text(kind.__module__)}", []


@cache
def _function(function: FunctionType) -> tuple[str, list]:
    """The code of a function, and the globals and the closure that it uses."""
    lines, names = [f"{function.__module__}.{function.__qualname__}"], set()  # Numba imports it by that to load
    for code in _codes(function.__code__):
        constants = [_plain(c) for c in code.co_consts if not isinstance(c, CodeType)]
        lines.append(f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} {constants}")
        names.update(code.co_names)
    known = frozenset(names)
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not yet filled
            lines.append("an empty cell")
    used = [function.__globals__[name] for name in sorted(names & function.__globals__.keys())]
    given = [function.__defaults__, tuple(sorted((function.__kwdefaults__ or {}).items()))]
    return "\n".join(lines), [(v, known) for v in (*used, *cells, *given)]


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _plain(value) -> str:
    """`repr` in an order of its own where a set or a dict has none."""
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(_plain, value)))}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(sorted(f'{_plain(k)}: {_plain(v)}' for k, v in value.items()))}}}"
    if isinstance(value, tuple):
        return f"({', '.join(map(_plain, value))})"
    return repr(value) if isinstance(value, PLAIN) else type(value).__qualname__


def _foreign(module: str | None) -> bool:
    return (module or "builtins").partition(".")[0] in FOREIGN


@cache
def _text(module: str) -> str:
    """Digest of a module's source; its name alone where there is none, as in a notebook."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError, KeyError):
        return module
    return hashlib.sha256(source.encode()).hexdigest()
