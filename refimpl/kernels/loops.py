"""Make the loop of a kernel out of its body: `name(items, *args)` runs `body(t, *args)` for every t < items.

The loop is source text, for Numba carries no nested tuple into a parallel loop and caches no function that closes over
a compiled one.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np


def _unpacked(name: str, default, lines: list[str]) -> str:
    """Expression that rebuilds the attribute `name` from scalars; `lines` gets the statements that unpack it.

    Numba cannot carry a nested tuple into a parallel loop, so the loop unpacks it outside and rebuilds it inside.
    """
    if not isinstance(default, tuple):
        if "[" not in name:
            return name
        scalar = name.replace("[", "_").replace("]", "")
        lines.append(f"    {scalar} = {name}")
        return scalar
    return "(" + ", ".join(_unpacked(f"{name}[{i}]", d, lines) for i, d in enumerate(default)) + ",)"


def loop_source(body: Callable, name: str, header: Sequence[str], last: Sequence[str] = ()) -> str:
    """Source of `name(items, *args)`: the last line of `header` begins its loop over t, each turn ends with `last`.

    The arguments are those of `body`, by name.
    """
    parameters = list(inspect.signature(body).parameters.values())[1:]
    lines: list[str] = []
    call = ", ".join(_unpacked(p.name, p.default, lines) for p in parameters)
    names = ", ".join(p.name for p in parameters)
    lines += [f"    {line}" for line in header]
    turn = [f"        {line}" for line in (f"item(np.int64(t), {call})", *last)]
    return "\n".join([f"def {name}(items, {names}):", *lines, *turn, ""])


def build(body: Callable, name: str, header: Sequence[str], last: Sequence[str] = (), **names) -> Callable:
    """Define the loop as a plain function that lives, for Numba's cache, in the file of `body`.

    Numba never reuses the cache of a function that closes over a compiled one, so `item` is a global of the loop;
    the file of `body` and a name of its own make the cache entry unique.
    """
    file = cast(str, inspect.getsourcefile(body))  # a body is in a file
    scope = {"np": np, "__name__": body.__module__, "__file__": file, **names}
    exec(compile(loop_source(body, name, header, last), file, "exec"), scope)
    return scope[name]
