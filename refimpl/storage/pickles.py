"""Arrays of a pickle, read without running it.

A pickle is a program that may call anything, and even one that may only make arrays can make one of pointers. So ours
is a machine that knows the few instructions of pickled arrays, lists, texts and numbers, and calls nothing: where the
file names a function it notes the name and the arguments. Arrays are then made from what was noted, of plain numbers
only and of exactly the bytes that their shape and dtype ask for (`formats.torch_file` makes those of PyTorch). The text
of an instruction is read by `pickletools`.
"""

import math
import pickletools
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from .files import quoted

REBUILD, NDARRAY, DTYPE = "numpy._core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"
ENCODE = "_codecs encode"  # by which Python 3 writes bytes for Python 2
NAMES = (REBUILD, NDARRAY, DTYPE, ENCODE)
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")
TEXTS = ("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8")
NUMBERS = ("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "BINFLOAT")
OLD_TEXTS = ("BINSTRING", "SHORT_BINSTRING", "STRING")  # of Python 2: bytes
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
SKIPPED = ("PROTO", "FRAME")
ORDERED = "collections OrderedDict"
PERSISTENT = "persistent"  # the name of a call that asks for what lies outside the pickle
MOST_STEPS = 10**6  # instructions of a pickle: a checkpoint of a thousand arrays and Adam's has some 150,000
MOST_KEY = 2**31  # of a whole number as a key: larger ones can be made to collide with each other


@dataclass(eq=False)
class Name:
    """A function or class that the pickle names."""

    text: str


@dataclass(eq=False)
class PickledCall:
    """A call that the pickle asks for, and the state that it gives to the result; neither is carried out."""

    name: str
    arguments: tuple
    state: Any = field(default=())


class RefusedName(ValueError):
    """A pickle names what it would run. name: `os.system`; first: does it begin so, as one of a single object does?"""

    def __init__(self, name: str, first: bool):
        super().__init__(f"it holds {quoted(name)}, and only arrays are allowed")
        self.name, self.first = name, first


def arrays_of(raw: bytes) -> dict[str, np.ndarray]:
    """Arrays by name of a pickled dictionary of arrays and of lists of whole numbers; other entries are left out.

    Raises ValueError, or what a damaged pickle brings about.
    """
    entries = load(raw)
    if not isinstance(entries, dict):
        raise ValueError("it holds no dictionary")
    made = {}
    for key, value in entries.items():
        if isinstance(value, PickledCall):
            made[_text(key)] = array(value)
        elif isinstance(value, list) and all(type(v) is int for v in value):
            made[_text(key)] = np.array(value, np.int64)
    return made


def load(raw: bytes | BinaryIO, names: Collection[str] = NAMES, outside: list[PickledCall] | None = None):
    """What a pickle holds, each call in it a `PickledCall`; ValueError for what arrays do not need.

    raw: the pickle, or a file that stands at its beginning, and at its end afterwards. names: of functions and classes
    that it may name, RefusedName for another. outside: a list to which each call is added that asks for what lies
    outside the pickle. An ordered dictionary is a plain one, and attributes that it is given are left out.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    value: Any

    def since_mark() -> list:
        begin = marks.pop()
        items = stack[begin:]
        del stack[begin:]
        return items

    for step, (code, value, _) in enumerate(pickletools.genops(raw)):
        op = code.name
        if step == MOST_STEPS:
            raise ValueError(f"it has more than {MOST_STEPS:,} instructions")
        if op in NUMBERS or op in TEXTS:
            stack.append(value)
        elif op in OLD_TEXTS:
            stack.append(value.encode("latin-1"))
        elif op in CONSTANTS:
            stack.append(CONSTANTS[op])
        elif op in EMPTY:
            stack.append(EMPTY[op]())
        elif op == "MARK":
            marks.append(len(stack))
        elif op in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(op[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif op == "TUPLE":
            stack.append(tuple(since_mark()))
        elif op == "LIST":
            stack.append(since_mark())
        elif op in ("APPEND", "APPENDS"):
            items = [stack.pop()] if op == "APPEND" else since_mark()
            _of(stack[-1], list).extend(items)
        elif op in ("SETITEM", "SETITEMS", "DICT"):
            items = [stack.pop(-2), stack.pop()] if op == "SETITEM" else since_mark()
            if op == "DICT":
                stack.append({})
            keys = [_key(key) for key in items[::2]]
            _of(stack[-1], dict).update(zip(keys, items[1::2], strict=True))
        elif op in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if op == "MEMOIZE" else value] = stack[-1]
        elif op in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[value])
        elif op in ("GLOBAL", "STACK_GLOBAL"):
            text = value if op == "GLOBAL" else f"{_of(stack.pop(-2), str)} {_of(stack.pop(), str)}"
            text = text.replace("numpy.core.", "numpy._core.")  # its old name
            if text not in names:
                raise RefusedName(text.replace(" ", "."), not any(isinstance(v, dict | list) for v in stack))
            stack.append(Name(text))
        elif op in ("REDUCE", "NEWOBJ"):
            name, arguments = _of(stack.pop(-2), Name).text, _of(stack.pop(), tuple)
            if name == ENCODE and arguments[1:] == ("latin1",):
                stack.append(_of(arguments[0], str).encode("latin-1"))
            else:
                stack.append({} if name == ORDERED and not arguments else PickledCall(name, arguments))
        elif op == "BINPERSID":
            stack.append(PickledCall(PERSISTENT, _of(stack.pop(), tuple)))
            if outside is not None:
                outside.append(stack[-1])
        elif op == "BUILD" and isinstance(stack[-2], dict):
            stack.pop()
        elif op == "BUILD":
            state = stack.pop()
            _of(stack[-1], PickledCall).state = state
        elif op == "STOP":
            return stack.pop()
        elif op not in SKIPPED:
            raise ValueError(f"it holds the instruction {op}, which arrays do not need")
    raise ValueError("it ends too early")


def _key(value) -> str | bytes | int:
    """A value as the key of a dictionary: a text, or a number by which an optimizer knows its arrays."""
    if type(value) is int and 0 <= value < MOST_KEY:
        return value
    return _of(value, (str, bytes))


def _of(value, kind):
    """`value`, which must be of a kind."""
    if not isinstance(value, kind):
        raise ValueError(f"it has a {type(value).__name__} where arrays have something else")
    return value


def array(call: PickledCall) -> np.ndarray:
    """The array that a call would rebuild; ValueError unless it is one of plain numbers with all its bytes."""
    if call.name != REBUILD or not call.arguments or getattr(call.arguments[0], "text", None) != NDARRAY:
        raise ValueError("it holds something else than arrays and lists of whole numbers")
    _, shape, dtype, fortran, data = _of(call.state, tuple)
    if not (isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)):
        raise ValueError("it holds an array whose shape is none")
    kind, data = _dtype(_of(dtype, PickledCall)), _of(data, bytes)
    if math.prod(shape) * kind.itemsize != len(data):
        raise ValueError(f"it holds an array of {quoted(shape)} with {len(data)} bytes")
    return np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")


def _dtype(call: PickledCall) -> np.dtype:
    """The dtype that a call would make: numbers of a byte order."""
    text, order = (_text(part[0]) if part else "" for part in (call.arguments, _of(call.state, tuple)[1:]))
    if call.name != DTYPE or text not in DTYPES or order not in ("<", ">", "|"):
        raise ValueError(f"it holds an array of {quoted(order + text)!r}, and plain numbers are needed")
    return np.dtype(order + text)


def _text(value) -> str:
    """A text; Python 2 has it as bytes."""
    return value.decode("latin-1") if isinstance(value, bytes) else _of(value, str)


__all__ = ["ORDERED", "PERSISTENT", "Name", "PickledCall", "RefusedName", "arrays_of", "load"]
