"""Small HDF5 files as Keras's library writes them, without it: for tests, and to be damaged."""

import struct
from collections.abc import Mapping

import numpy as np

NOWHERE = b"\xff" * 8


def hdf5(arrays: Mapping[str, np.ndarray], words: str = "") -> bytes:
    """The bytes of a file of arrays by path; words: the attribute `model_config` of its root, left out where empty."""
    out = bytearray(96)

    def put(raw: bytes) -> int:
        out.extend(bytes(-len(out) % 8))
        out.extend(raw)
        return len(out) - len(raw)

    tree: dict = {}
    for path, array in arrays.items():
        *groups, name = path.split("/")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[name] = array
    half = 1 + _most(tree) // 2  # of the names that a table has room for
    attributes = [(12, _attribute("model_config", words))] if words else []
    root = _group(tree, put, half, attributes)
    out[:96] = (
        b"\x89HDF\r\n\x1a\n" + bytes([0, 0, 0, 0, 0, 8, 8, 0]) + struct.pack("<HHI", half, 16, 0) + bytes(8) + NOWHERE
        + struct.pack("<Q", len(out)) + NOWHERE + struct.pack("<QQ", 0, root) + bytes(24)
    )  # fmt: skip
    return bytes(out)


def _most(tree: Mapping) -> int:
    """How many names the largest group has."""
    return max(len(tree), *(_most(inner) for inner in tree.values() if isinstance(inner, Mapping)), 0)


def _group(tree: Mapping, put, half: int, more=()) -> int:
    """Write a group and all that is in it; where it is."""
    names, offsets = bytearray(8), {}
    for name in sorted(tree):
        offsets[name] = len(names)
        names += name.encode() + bytes(8 - len(name.encode()) % 8)
    table = b"SNOD" + struct.pack("<BBH", 1, 0, len(tree))
    for name in sorted(tree):
        there = _group(tree[name], put, half) if isinstance(tree[name], Mapping) else _array(tree[name], put)
        table += struct.pack("<QQ", offsets[name], there) + bytes(24)
    table += bytes(8 + 2 * half * 40 - len(table))
    heap = put(b"HEAP" + struct.pack("<IQQQ", 0, len(names), 1, put(bytes(names))))
    last = offsets[max(tree)] if tree else 0
    node = b"TREE" + struct.pack("<BBH", 0, 0, 1) + 2 * NOWHERE + struct.pack("<QQQ", 0, put(table), last)
    return _object([(17, struct.pack("<QQ", put(node + bytes(16 * 32)), heap)), *more], put)


def _array(array: np.ndarray, put) -> int:
    """Write an array; where its header is."""
    raw = np.ascontiguousarray(array).tobytes()
    layout = struct.pack("<BBQQ", 3, 1, put(raw), len(raw))
    return _object([(1, _space(array.shape)), (3, _kind(array.dtype)), (8, layout)], put)


def _object(messages: list[tuple[int, bytes]], put) -> int:
    """Write the header of an object."""
    body = b""
    for kind, raw in messages:
        raw += bytes(-len(raw) % 8)
        body += struct.pack("<HHI", kind, len(raw), 0) + raw
    return put(struct.pack("<BBHII", 1, 0, len(messages), 1, len(body)) + bytes(4) + body)


def _space(shape: tuple[int, ...]) -> bytes:
    return struct.pack("<BBB5x", 1, len(shape), 0) + b"".join(struct.pack("<Q", n) for n in shape)


def _kind(dtype: np.dtype) -> bytes:
    """The message of a dtype of IEEE's floats or of whole numbers."""
    bits = 8 * dtype.itemsize
    if dtype.kind == "f":
        exponent, mantissa = {2: (5, 10), 4: (8, 23), 8: (11, 52)}[dtype.itemsize]
        flags = bytes([0x20, bits - 1, 0])
        numbers = struct.pack("<HHBBBBI", 0, bits, mantissa, exponent, 0, mantissa, 2 ** (exponent - 1) - 1)
        return bytes([0x11]) + flags + struct.pack("<I", dtype.itemsize) + numbers
    return bytes([0x10, 8 if dtype.kind == "i" else 0, 0, 0]) + struct.pack("<IHH", dtype.itemsize, 0, bits)


def _attribute(name: str, text: str) -> bytes:
    """An attribute that is a text of fixed length."""
    raw, kind, space = name.encode() + b"\0", bytes([0x13, 0, 0, 0]) + struct.pack("<I", len(text)), _space(())
    sizes = struct.pack("<BxHHH", 1, len(raw), len(kind), len(space))
    return sizes + b"".join(part + bytes(-len(part) % 8) for part in (raw, kind, space)) + text.encode()


__all__ = ["hdf5"]
