"""Files made to harm: that expand to gigabytes, wait for ever, state sizes that they do not have, or run code."""

import io
import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from refimpl.storage import checkpoint
from validation.instruments.hdf5_files import hdf5
from validation.instruments.tflite_files import FlatScalar, FlatVector, Lite, flatbuffer

from .samples import (
    LABELS,
    cifar_arrays,
    idx,
    int8_arrays,
    npz,
    own_pictures,
    picture,
    text,
    torch_old,
    torch_pickle,
    torch_zip,
    whole,
)

CHUNK = 2**26  # zeros that a bomb repeats
GIB = 2**30
X = np.zeros((12, 4, 5, 3), np.uint8)
Y = np.arange(12) % 3


@cache
def zeros(count: int) -> bytes:
    """Deflated zeros: `count` times CHUNK of them, some 64 KiB each."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    one = packer.compress(bytes(CHUNK)) + packer.flush(zlib.Z_FULL_FLUSH)
    return one * count + packer.flush(zlib.Z_FINISH)


def npy_header(shape: tuple, dtype: str = "|u1") -> bytes:
    """The beginning of a `.npy` file."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue()


def zip_of(members: dict[str, tuple[bytes, int, int]]) -> bytes:
    """A zip archive of raw members: name → (stored bytes, size that is stated, method)."""
    body, directory = b"", b""
    for name, (raw, size, method) in members.items():
        checksum = 0 if method else zlib.crc32(raw)  # of zeros that are packed it would take seconds
        fields = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 0, checksum, len(raw), size, len(name), 0)
        directory += b"PK\x01\x02\x14\0" + fields + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + name.encode()
        body += b"PK\x03\x04" + fields + name.encode() + raw
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + end


def packed(header: bytes, count: int, stated: int | None = None, method: int = 8) -> tuple[bytes, int, int]:
    """A member of `header` and CHUNK·count zeros behind it, deflated, that states its size or another."""
    head = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = head.compress(header) + head.flush(zlib.Z_FULL_FLUSH) + zeros(count)
    return raw, len(header) + CHUNK * count if stated is None else stated, method


def labels() -> dict[str, tuple[bytes, int, int]]:
    """The member of twelve labels."""
    raw = npy_header((12,)) + LABELS.tobytes()
    return {"y.npy": (raw, len(raw), 0)}


def many(side: int, count: int) -> bytes:
    """The header of `count` maps that fill CHUNK each where side² is CHUNK."""
    return npy_header((count, side, side))


def gzipped(header: bytes, count: int) -> bytes:
    """A gzip file of a header and zeros."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + packed(header, count)[0] + struct.pack("<II", 0, 0)


def png(width: int, height: int) -> bytes:
    """A grey image of zeros with all its data, one bit a pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = zlib.compress(bytes((1 + (width + 7) // 8) * height), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def wide_jpeg() -> bytes:
    """A JPEG stream that states 60,000 rows and columns."""
    raw = picture("JPEG", (32, 32))
    at = raw.index(b"\xff\xc0")
    return raw[: at + 5] + struct.pack(">HH", 60_000, 60_000) + raw[at + 9 :]


DEEP = b"[" * 100_000


class Ran:
    """Pickled, it asks for a command to be run."""

    def __reduce__(self):
        return os.system, ("touch harm",)


GLOBAL = {
    "array": b"cnumpy._core.multiarray\n_reconstruct\n", "class": b"cnumpy\nndarray\n", "dtype": b"cnumpy\ndtype\n",
}  # fmt: skip
POINTERS = b"T" + struct.pack("<I", 8 * 3072) + b"A" * 8 * 3072  # that an array of objects would follow
SHAPE = b"M\x00\x0c\x85"  # (3072,)
OBJECTS = GLOBAL["class"] + b"(" + SHAPE + GLOBAL["dtype"] + b"U\x01O\x85R" + POINTERS + b"tR"
ORDER = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"  # the state of a dtype: its byte order
STATE = (
    GLOBAL["array"] + GLOBAL["class"] + b"K\x00\x85U\x01b\x87R(K\x01" + SHAPE
    + GLOBAL["dtype"] + b"U\x01O\x85R" + ORDER + b"\x89" + POINTERS + b"tb"
)  # fmt: skip


def torch_files() -> dict[str, bytes]:
    """Files of torch.save that harm, by what they do."""
    one = {"conv1.weight": np.ones((6, 1, 3, 3), np.float32)}
    plain = torch_pickle(one)
    call = b"cposix\nsystem\n" + text("touch harm") + b"\x85R"
    many = b"".join(text(f"a{i}") + b"N" for i in range(600_000))
    deep = text("a") + b"]" * 300_000 + b"a" * 299_999
    shared = text("a") + b"](K\0K\0eq\0" + b"".join(
        b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60)
    )  # fmt: skip
    circle = text("a") + b"]q\0h\0a"
    wide = plain.replace(whole(54) + b"tQ", whole(2**31 - 1) + b"tQ").replace(whole(6), whole(2**31 - 1))
    number = lambda n: b"\x8a\x08" + n.to_bytes(8, "little")  # noqa: E731
    strided = plain.replace(whole(9), number(2**62), 1)
    found = {
        f"{how}, {says}": make(raw, one)
        for how, make in (("zipped", torch_zip), ("older", torch_old))
        for says, raw in {
            "runs a command": torch_pickle(one, text("a") + call), "has 600,000 entries": torch_pickle(one, many),
            "nests 300,000 lists": torch_pickle(one, deep), "multiplies itself": torch_pickle(one, shared),
            "holds itself": torch_pickle(one, circle), "states 2³¹ channels": wide, "strides 2⁶² elements": strided,
        }.items()
    }  # fmt: skip
    member = torch_pickle(one)
    return found | {
        "of 3 GiB of zeros": zip_of({"net/data.pkl": (member, len(member), 0), "net/data/0": packed(b"", 48)}),
        "with a pickle of 3 GiB": zip_of({"net/data.pkl": packed(b"\x80\x02", 48)}),
        "that states 2⁶² elements": torch_old(member, one).replace(
            (54).to_bytes(8, "little"), (2**62).to_bytes(8, "little")
        ),
    }


def keras_files() -> dict[str, tuple[str, bytes]]:
    """Files of Keras that harm: what they do → name and bytes."""
    raw = hdf5({"g/a": np.ones(3, np.float32), "g/b": np.ones(3, np.float32)})
    entry_at = raw.index(b"SNOD") + 16
    circle = bytearray(raw)
    circle[entry_at : entry_at + 8] = raw[64:72]
    tree = bytearray(raw)
    tree[(at := raw.index(b"TREE") + 32) : at + 8] = raw.index(b"TREE").to_bytes(8, "little")
    first = b"\x01\x01\0\0\0\0\0\0" + (3).to_bytes(8, "little")
    wide = raw.replace(first, first[:8] + (2**62).to_bytes(8, "little"))
    header = raw.rindex(b"\x11\0\x10\0\0\0\0\0")
    endless = raw[:header] + b"\x10\0\x10\0\0\0\0\0" + struct.pack("<QQ", header, 24) + raw[header + 24 :]
    words = zip_of({"model.weights.h5": (raw, len(raw), 0), "config.json": (DEEP, len(DEEP), 0)})
    return {
        "whose group holds itself": ("net.h5", bytes(circle)), "whose tree holds itself": ("net.h5", bytes(tree)),
        "that states 2⁶² numbers": ("net.h5", wide), "whose header goes on in itself": ("net.h5", endless),
        "whose words are nested": ("net.keras", words),
        "of 3 GiB of zeros": ("net.keras", zip_of({"model.weights.h5": packed(raw[:8], 48)})),
    }  # fmt: skip


def lite_files() -> dict[str, bytes]:
    """Models of TensorFlow Lite that harm, by what they do."""
    plain = Lite()
    begin = plain.tensor([1, 8, 8, 1])
    raw = plain.file(begin, plain.operator("RELU", [begin], [1, 8, 8, 1]))
    shared = {0: FlatScalar("I", 0), 1: FlatVector("i", [0]), 2: FlatVector("i", [1])}
    endless = flatbuffer(
        {0: FlatScalar("I", 3), 1: [{}], 2: [{1: FlatVector("i", [0]), 2: FlatVector("i", [1]), 3: [shared]}]}, b"TFL3"
    )
    counts = [i for i in range(0, len(raw) - 4, 4) if raw[i : i + 4] == struct.pack("<I", 1)]
    found = {f"with a vector of 2³² items at {i}": raw[:i] + b"\xff\xff\xff\xff" + raw[i + 4 :] for i in counts[-4:]}
    wide, chain = Lite(), Lite()
    at = wide.tensor([1, 8, 8, 1])
    pool = {1: FlatScalar("i", 1), 2: FlatScalar("i", 1), 3: FlatScalar("i", 2**31 - 1), 4: FlatScalar("i", 2**31 - 1)}
    x = first = chain.tensor([1, 8, 8, 1])
    for _ in range(20_000):
        x = chain.operator("RELU", [x], [1, 8, 8, 1])
    return found | {
        "without tensors": endless, "of 20,000 nodes": chain.file(first, x),
        "with a window of 2³¹": wide.file(at, wide.operator("MAX_POOL_2D", [at], [1, 1, 1, 1], pool)),
    }  # fmt: skip


def entry(value: bytes) -> bytes:
    """A pickled dictionary of a label and of data that the instructions `value` leave."""
    return b"\x80\x02}(U\x06labels]K\x00aU\x04data" + value + b"u."


PICKLES = {
    "runs a command": pickle.dumps({b"data": Ran(), b"labels": Y.tolist()}, 2),
    "calls ndarray with a dtype of objects": entry(OBJECTS),
    "gives an array a dtype of objects": entry(STATE),
    "evaluates a text": entry(b"cbuiltins\neval\nU\x04exit\x85R"),
    "names a function that is wanted by a forbidden name": entry(b"cnumpy._core.multiarray\nfromfile\nU\x01x\x85R"),
    "has a tuple of 300,000 tuples as a key": b"\x80\x02}N" + b"\x85" * 300_000 + b"Ns.",
    "nests 300,000 lists": b"\x80\x02" + b"]" * 300_000 + b"a" * 299_999 + b".",
    "notes its item 2³¹": b"\x80\x02}r\xff\xff\xff\x7f.",
    "states 2⁴⁰ bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",
    "states a frame of 2⁶² bytes": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"}.",
    "multiplies itself": b"\x80\x02}U\x06labels](K\0K\0eq\0"
    + b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(60)) + b"s.",
    "takes from an empty stack": b"\x80\x02R.",
    "has a number of 10⁶ digits": b"I" + b"9" * 10**6 + b"\n.",
    "has an array that is shorter than its shape": pickle.dumps(
        {b"data": np.zeros((12, 3072), np.uint8), b"labels": Y.tolist()}, 2).replace(b"M\x00\x0c", b"M\xff\xff"),
}  # fmt: skip


def net(folder: Path, **notes) -> bytes:
    """A safetensors file of no weights with these metadata."""
    checkpoint.save(folder / "made", {"w": np.zeros(1, np.float32)}, notes)
    return (folder / "made").read_bytes()


def all_bombs(folder: Path) -> dict[str, tuple[str, Callable[[Path], str]]]:
    """Name → (kind of `reader.READERS`, function that lays it into an empty folder and returns what is read).

    folder: for what can only be written to files.
    """
    side = 2**13
    arrays, structure = int8_arrays()
    block = {"depthwise": {"in_channel": 8, "kernel_size": [3], "stride": 1}, "pointwise2": {"out_channel": 8}}
    structure["blocks"] = [block] * 20_000
    deep = arrays | {"structure": np.array(DEEP.decode())}
    blocks = json.dumps({"blocks": [[16, 3, 1, 16]] * 200_000})
    offsets = cifar_arrays(train_offsets=np.zeros(10**7, np.uint8))
    stream = np.frombuffer(wide_jpeg(), np.uint8)
    wide = cifar_arrays(train_jpeg=stream, train_offsets=np.array([0, len(stream)]), train_labels=LABELS[:1])
    objects = np.array(["a", 1, None] * 4, object)
    idx_labels = {"train-labels-idx1-ubyte": idx(Y.astype(np.uint8))}
    images = "train-images-idx3-ubyte"
    huge = bytes([0, 0, 8, 3]) + struct.pack(">III", *[2**32 - 1] * 3)
    plain, pictures = npz({"x": X, "y": Y}), own_pictures("ab")
    found = {
        "a .npz of 3 GiB of zeros": data("x.npz", zip_of({"x.npy": packed(many(side, 48), 48), **labels()})),
        "a .npz that states fewer bytes": data(
            "x.npz", zip_of({"x.npy": packed(npy_header((12, 2, 2)), 48, len(npy_header((12, 2, 2))) + 48), **labels()})
        ),
        "a .npz whose header states 10¹² maps": data(
            "x.npz", zip_of({"x.npy": (h := npy_header((10**12, 4, 4)), len(h), 0), **labels()})
        ),
        "a .npz whose header states negative sizes": data(
            "x.npz", zip_of({"x.npy": (h := npy_header((-1, -1, 4)) + b"abcd", len(h), 0), **labels()})
        ),
        "a .npz of arrays without bytes": data(
            "x.npz", zip_of({"x.npy": (h := npy_header((10**12, 4, 4), "|V0"), len(h), 0), **labels()})
        ),
        "a .npz whose header is nested": data(
            "x.npz", zip_of({"x.npy": (h := b"\x93NUMPY\1\0\x10\x27" + b"(" * 10_000, len(h), 0), **labels()})
        ),
        "a .npz by a method that numpy does not use": data(
            "x.npz", zip_of({"x.npy": packed(many(side, 1), 1, method=14), **labels()})
        ),
        "a .npz with an empty member": data("x.npz", zip_of({"x": (b"", 0, 0), "y": (b"", 0, 0)})),
        "labels that are objects": data("x.npz", npz({"x": X, "y": objects})),
        "10⁶ names of classes": data("x.npz", npz({"x": X, "y": Y, "classes": np.full(10**6, "a")})),
        "an IDX file of 3 GiB of zeros": data(
            ".", gzipped(bytes([0, 0, 8, 3]) + struct.pack(">III", 48, side, side), 48), images + ".gz", idx_labels
        ),
        "an IDX file that states 2⁹⁶ bytes": data(".", huge, images, idx_labels),
        "an IDX file with more than it states": data(
            ".", gzipped(bytes([0, 0, 8, 3]) + struct.pack(">III", 12, 2, 2), 48), images + ".gz", idx_labels
        ),
        "a PNG of 169 million pixels": pictured(png(13_000, 13_000), pictures),
        "a PNG that states 4·10⁹ pixels": pictured(png(64, 64)[:16] + struct.pack(">II", 65_000, 65_000)
                                                   + png(64, 64)[24:], pictures),
        "CIFAR as JPEG of 10⁷ images": data("x.npz", npz(offsets, True)),
        "CIFAR as JPEG of 3.6·10⁹ pixels": data("x.npz", npz(wide)),
        "a pipe for an image": pictured(None, pictures),
        "a pipe for data": ("data", pipe("x.npz")),
        "a pipe for weights": ("weights", pipe("net.safetensors")),
        "a pipe for weights of others": ("weights", pipe("net.npz")),
        "a pipe for a profile": ("device", pipe("x.json")),
        "a pipe for a record": ("record", pipe("x.json")),
        "/dev/zero for a profile": ("device", lambda _: "/dev/zero"),
        "/dev/zero for a record": ("record", lambda _: "/dev/zero"),
        "data for weights": ("weights", laid("net.npz", plain)),
        "a net of 200,000 blocks": ("weights", laid("net.safetensors", net(
            folder, model="mobilenet_folded", options=blocks))),
        "a net of 10¹⁰⁰ classes": ("weights", laid("net.safetensors", net(
            folder, model="mobilenet_folded", options=json.dumps({"stem": 10**100})))),
        "options that are nested": ("weights", laid("net.safetensors", net(
            folder, model="mobilenet_folded", options=DEEP.decode()))),
        "a model's name with an escape": ("weights", laid("net.safetensors", net(
            folder, model="\x1b[2J" + "x" * 10**6))),
        "a header of 2⁶³ bytes": ("weights", laid("net.safetensors", b"\xff" * 7 + b"\x7f" + b"{}" * 100)),
        "a header that is nested": ("weights", laid("net.safetensors", struct.pack("<Q", len(DEEP)) + DEEP)),
        "a quantized net of 20,000 blocks": ("weights", laid("net.npz", npz(
            arrays | {"structure": np.array(json.dumps(structure))}, True))),
        "a structure that is nested": ("weights", laid("net.npz", npz(deep))),
        "a profile that is nested": ("device", laid("x.json", DEEP)),
        "a profile of 64 MiB": ("device", laid("x.json", b"[" + b"[]," * (GIB // 48) + b"[]]")),
        "a record that is nested": ("record", laid("x.json", DEEP)),
        "a record whose runs are a number": ("record", laid("x.json", b'{"name": "lenet-mnist", "runs": 1}')),
        "runs that are nested": ("runs", laid("runs.jsonl", DEEP, whole=True)),
    }  # fmt: skip
    found |= {f"a file of torch.save, {says}": ("weights", laid("net.pth", raw)) for says, raw in torch_files().items()}
    found |= {f"a file of Keras {says}": ("weights", laid(*given)) for says, given in keras_files().items()}
    found |= {f"a model of TensorFlow Lite {says}": ("weights", laid("net.tflite", raw))
              for says, raw in lite_files().items()}  # fmt: skip
    found |= {f"a pickle that {says}": data(".", raw, "data_batch_1", {"test_batch": raw})
              for says, raw in PICKLES.items()}  # fmt: skip
    return found


def laid(name: str, raw: bytes, others: dict[str, bytes] | None = None, whole: bool = False) -> Callable[[Path], str]:
    """Write the files; what is read is the one that is named, or their folder where `whole`."""

    def lay(folder: Path) -> str:
        for each, content in {**(others or {}), name: raw}.items():
            (folder / each).parent.mkdir(parents=True, exist_ok=True)
            (folder / each).write_bytes(content)
        return str(folder if whole else folder / name)

    return lay


def data(read: str, raw: bytes, name: str | None = None, others: dict[str, bytes] | None = None):
    """A file of data; read: what the reader is given, `.` for the folder that holds it as `name`."""
    return "data", laid(name or read, raw, others, whole=read == ".")


def pictured(raw: bytes | None, pictures: dict[str, bytes]):
    """A folder of pictures with one that harms; a pipe for None."""

    def lay(folder: Path) -> str:
        laid("cat/a.png", raw or b"", pictures)(folder)
        if raw is None:
            (folder / "cat/a.png").unlink()
            os.mkfifo(folder / "cat/a.png")
        return str(folder)

    return "images", lay


def pipe(name: str) -> Callable[[Path], str]:
    """A pipe to which nobody writes."""

    def lay(folder: Path) -> str:
        os.mkfifo(folder / name)
        return str(folder / name)

    return lay
