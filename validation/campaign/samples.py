"""Small whole files of every format that is read, and what is done to damage them."""

import gzip
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from costmodel.device import device
from refimpl import models
from refimpl.formats import keras_names, torch_file, torch_names
from refimpl.storage import checkpoint
from validation.instruments.hdf5_files import hdf5
from validation.instruments.int8_files import int8_arrays
from validation.instruments.tflite_files import small_lite

from . import onnx_samples

LABELS = np.arange(12, dtype=np.uint8) % 10
ODD = (None, True, -1, 0, 0.5, 1e308, float("nan"), 10**30, "", "\x1b[2J\x07", "9" * 5000, [], {}, [[]], {"a": 1})


@dataclass(frozen=True)
class Sample:
    """A whole file. kind: of `reader.READERS`; name: of the file that is damaged; others: what lies beside it.

    folder: is the folder given to the reader, and not the file? inner: damages that keep what surrounds them whole.
    given: the file that the reader gets, where it is another one.
    """

    kind: str
    name: str
    raw: bytes
    others: dict[str, bytes]
    folder: bool = False
    inner: Callable[[bytes, np.random.Generator], bytes] | None = None
    given: str = ""

    def write(self, raw: bytes, folder: Path) -> Path:
        """Lay the files into a folder, with `raw` for the damaged one; returns what is given to the reader."""
        for name, content in {**self.others, self.name: raw}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder if self.folder else folder / (self.given or self.name)


def npz(arrays: dict[str, np.ndarray], compressed: bool = False) -> bytes:
    """The bytes of a `.npz`."""
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, **arrays)
    return out.getvalue()


def streams(count: int, size=(32, 32), mode="RGB") -> tuple[np.ndarray, np.ndarray]:
    """JPEG streams of plain colours, and their offsets."""
    parts = [picture("JPEG", size, (20 * i, 100, 50) if mode == "RGB" else 20 * i, mode) for i in range(count)]
    return np.frombuffer(b"".join(parts), np.uint8), np.cumsum([0, *map(len, parts)])


def picture(form: str, size=(12, 9), color=(200, 100, 50), mode="RGB") -> bytes:
    """An image file of one colour."""
    out = io.BytesIO()
    Image.new(mode, size, color).save(out, form)
    return out.getvalue()


def own_pictures(names: str) -> dict[str, bytes]:
    """PNG files of these names in two classes, each of a colour of its own, for copies are kept together."""
    places = [f"{c}/{name}.png" for c in ("cat", "dog") for name in names]
    return {place: picture("PNG", color=(40 * i, 100, 50)) for i, place in enumerate(places)}


def cifar_arrays(**changed) -> dict[str, np.ndarray]:
    """Arrays of a CIFAR-10 JPEG file with 12 and 10 images."""
    train, test = streams(12), streams(10)
    return {
        "train_jpeg": train[0], "train_offsets": train[1], "train_labels": LABELS,
        "test_jpeg": test[0], "test_offsets": test[1], "test_labels": LABELS[:10],
    } | changed  # fmt: skip


def keras_arrays() -> dict[str, np.ndarray]:
    """A MobileNetV2 of Keras, all ones."""
    graph = models.build("mobilenet_v2", classes=3, size=(32, 32), variant="keras")
    names = keras_names.keras_names(graph)
    return {names[p]: np.ones(keras_names.keras_shape(graph, p), np.float32) for p in names}


def torch_pickle(tensors: dict[str, np.ndarray], more: bytes = b"") -> bytes:
    """The pickle of a state dict, as torch.save writes it; more: instructions that leave an entry's name and value."""
    items = b""
    for i, (name, array) in enumerate(tensors.items()):
        kind = b"ctorch\nFloatStorage\n"
        storage = b"(" + text("storage") + kind + text(str(i)) + text("cpu") + whole(array.size) + b"tQ"
        strides = [n // array.itemsize for n in array.strides]
        shape, steps = (b"(" + b"".join(map(whole, ns)) + b"t" for ns in (array.shape, strides))
        hooks = b"ccollections\nOrderedDict\n)R"
        items += (
            text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0" + shape + steps + b"\x89" + hooks
        )
        items += b"tR"
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + items + more + b"u."


def text(value: str) -> bytes:
    """The instruction of a pickle that leaves a text."""
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def whole(value: int) -> bytes:
    """The instruction of a pickle that leaves a whole number."""
    return b"J" + value.to_bytes(4, "little")


def torch_zip(pickled: bytes, tensors: dict[str, np.ndarray]) -> bytes:
    """The bytes of a `.pth` of these tensors."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("net/data.pkl", pickled)
        archive.writestr("net/byteorder", b"little")
        for i, array in enumerate(tensors.values()):
            archive.writestr(f"net/data/{i}", array.tobytes())
    return out.getvalue()


def torch_old(pickled: bytes, tensors: dict[str, np.ndarray]) -> bytes:
    """The same as older versions write it."""
    keys = [str(i) for i in range(len(tensors))]
    before = [pickle.dumps(v, 2) for v in (torch_file.MAGIC, torch_file.VERSION, {"little_endian": True})]
    behind = b"".join(a.size.to_bytes(8, "little") + a.tobytes() for a in tensors.values())
    return b"".join(before) + pickled + pickle.dumps(keys, 2) + behind


def torch_arrays() -> dict[str, np.ndarray]:
    """A small LeNet of PyTorch, all ones."""
    graph = models.build("slim_lenet", classes=3)
    plain = {name: np.ones(p.shape, np.float32) for name, p in graph.parameters.items()}
    return torch_names.to_torch(graph, plain)


def keras_paths() -> dict[str, np.ndarray]:
    """A narrow MobileNetV2 of Keras, all ones, by the paths of an .h5."""
    graph = models.build("mobilenet_v2", classes=3, size=(32, 32), variant="keras", width=0.1)
    names = keras_names.counted_names(graph)
    return {
        f"layers/{name.replace('.', '/vars/')}": np.ones(keras_names.keras_shape(graph, p), np.float32)
        for p, name in names.items()
    }


def keras_zip(raw: bytes) -> bytes:
    """The bytes of a `.keras` of an .h5."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"layers": []}}))
        archive.writestr("model.weights.h5", raw)
    return out.getvalue()


def idx(array: np.ndarray) -> bytes:
    """An IDX file of bytes."""
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def record() -> dict:
    """A record with learning curves, as `gradledger reproduce` writes them."""
    curve = [[step, 1000 * step, round(0.9 + 0.01 * step, 3)] for step in (1, 2, 3)]
    return {"name": "lenet-mnist", "seeds": [0], "protocol": {"epochs": 1, "batch": 16},
            "runs": [{"method": m, "seed": 0, "curve": curve} for m in ("SGD", "EMP")]}  # fmt: skip


def all_samples(folder: Path) -> dict[str, Sample]:
    """A whole file of each format by the format's name; `folder` is for what can only be written to files."""
    x = np.random.default_rng(0).integers(0, 256, (12, 4, 5, 3), dtype=np.uint8)
    y = np.arange(12) % 3
    rows = np.hstack([y[:, None].astype(np.uint8), np.zeros((12, 3072), np.uint8)]).tobytes()
    batch = pickle.dumps({b"data": np.zeros((12, 3072), np.uint8), b"labels": y.tolist()}, 2)
    arrays, structure = int8_arrays()
    onnx, weights = onnx_samples.apart()
    graph = models.build("lenet5", classes=3)
    net = {n: np.ones(p.shape, np.float32) for n, p in graph.parameters.items()}
    checkpoint.save(folder / "net", net, {"model": "lenet5", "size": str(graph.size), "options": "{}"})
    pictures = own_pictures("bc")
    labels = {"train-labels-idx1-ubyte": idx(y.astype(np.uint8))}
    tensors, kept = torch_arrays(), hdf5(keras_paths(), json.dumps({"class_name": "Functional", "config": {}}))
    pickled = torch_pickle(tensors)
    profile = json.loads(Path(device.__file__).with_name("devices").joinpath("reference.json").read_text())
    line = json.dumps({"digest": "44136fa355b3", "seed": 0, "accuracy": 0.5}).encode()
    return {
        "npz data": Sample("data", "own.npz", npz({"x": x, "y": y, "classes": ["a", "b", "c"]}), {}, inner=in_zip),
        "IDX": Sample("data", "train-images-idx3-ubyte", idx(x[..., 0]), labels, True),
        "IDX, gzipped": Sample(
            "data", "train-images-idx3-ubyte.gz", gzip.compress(idx(x[..., 0]), mtime=0), labels, True, in_gzip
        ),
        "CIFAR, binary": Sample("data", "data_batch_1.bin", rows, {"test_batch.bin": rows}, True),
        "CIFAR, pickled": Sample("data", "data_batch_1", batch, {"test_batch": batch}, True),
        "CIFAR as JPEG": Sample("data", "cifar.npz", npz(cifar_arrays()), {}, inner=in_zip),
        "PNG": Sample("images", "cat/a.png", picture("PNG"), pictures, True),
        "JPEG": Sample("images", "cat/a.jpg", picture("JPEG"), pictures, True),
        "safetensors": Sample("weights", "net.safetensors", (folder / "net").read_bytes(), {}, inner=in_header),
        "npz of Keras": Sample("weights", "keras.npz", npz(keras_arrays(), True), {}),
        "npz, int8": Sample(
            "weights", "int8.npz", npz(arrays | {"structure": np.array(json.dumps(structure))}), {}, inner=in_zip
        ),
        "ONNX": Sample("weights", "net.onnx", onnx_samples.model().SerializeToString(), {}, inner=onnx_samples.changed),
        "ONNX, weights apart": Sample("weights", "net.onnx", onnx, {"net.data": weights}, inner=onnx_samples.changed),
        "ONNX's weights": Sample("weights", "net.data", weights, {"net.onnx": onnx}, given="net.onnx"),
        "PyTorch": Sample("weights", "net.pth", torch_zip(pickled, tensors), {}, inner=in_pickle),
        "PyTorch, older": Sample("weights", "net.pth", torch_old(pickled, tensors), {}, inner=early),
        "Keras": Sample("weights", "net.h5", kept, {}, inner=in_structure),
        "TensorFlow Lite": Sample("weights", "net.tflite", small_lite()[0], {}),
        "TensorFlow Lite, int8": Sample("weights", "net.tflite", small_lite(True)[0], {}),
        "Keras, zipped": Sample("weights", "net.keras", keras_zip(kept), {}),
        "device profile": Sample("device", "profile.json", json.dumps(profile).encode(), {}, inner=in_json),
        "record": Sample("record", "record.json", json.dumps(record()).encode(), {}, inner=in_json),
        "runs": Sample("runs", "runs.jsonl", line + b"\n" + line, {}, True, in_json_line),
    }


def damaged(raw: bytes, rng: np.random.Generator) -> bytes:
    """A file with one to four damages: flipped bits, other bytes, and parts cut, doubled, moved or set to one byte."""
    out = bytearray(raw)
    for _ in range(rng.integers(1, 5)):
        if not out:
            break
        at = int(min(rng.integers(len(out)), rng.integers(len(out))))  # rather at the beginning, where headers are
        length = int(rng.integers(1, 1 + min(64, len(out))))
        match rng.integers(8):
            case 0 | 1:
                out[at] ^= 1 << int(rng.integers(8))
            case 2:
                out[at : at + length] = rng.bytes(len(out[at : at + length]))
            case 3:
                del out[at:]
            case 4:
                del out[at : at + length]
            case 5:
                out[at:at] = out[at : at + length]
            case 6:
                out[at : at + length] = bytes([int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))]) * len(out[at : at + length])
            case 7:
                out += rng.bytes(length)
    return bytes(out)


def in_zip(raw: bytes, rng: np.random.Generator) -> bytes:
    """Damage one array of a `.npz` and leave the archive whole."""
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = {m.filename: archive.read(m) for m in archive.infolist()}
    name = str(rng.choice(list(members)))
    if name == "structure.npy":
        text = json.loads(str(np.load(io.BytesIO(members[name]))))
        out = io.BytesIO()
        np.save(out, np.array(json.dumps(changed(text, rng))))
        members[name] = out.getvalue()
    else:
        members[name] = damaged(members[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def in_pickle(raw: bytes, rng: np.random.Generator) -> bytes:
    """Damage the pickle of a `.pth` and leave the archive whole."""
    tensors = torch_arrays()
    return torch_zip(damaged(torch_pickle(tensors), rng), tensors)


def early(raw: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes of the pickles that begin a file."""
    out = bytearray(raw)
    for at in rng.integers(0, 3000, rng.integers(1, 4)):
        out[at] = rng.integers(256)
    return bytes(out)


def in_structure(raw: bytes, rng: np.random.Generator) -> bytes:
    """Change bytes of the structures of an HDF5 file, not of its numbers."""
    out, places = bytearray(raw), [i for i in range(len(raw)) if raw[i] and raw[i : i + 4] != raw[i + 4 : i + 8]]
    for at in rng.choice(places, rng.integers(1, 4)):
        out[at] = rng.integers(256)
    return bytes(out)


def in_gzip(raw: bytes, rng: np.random.Generator) -> bytes:
    """Damage what is zipped."""
    return gzip.compress(damaged(gzip.decompress(raw), rng), mtime=0)


def in_header(raw: bytes, rng: np.random.Generator) -> bytes:
    """Change one value in the header of a safetensors file, or in its options, and leave its length right."""
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    if rng.integers(2):
        notes = header["__metadata__"]
        notes.pop("gradledger_sha256", None)
        notes.pop("gradledger_format", None)
        notes[str(rng.choice(list(notes)))] = str(rng.choice([json.dumps(o) for o in ODD]))
    else:
        header = changed(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + raw[8 + length :]


def in_json(raw: bytes, rng: np.random.Generator) -> bytes:
    """Change one value of a JSON file."""
    return json.dumps(changed(json.loads(raw), rng)).encode()


def in_json_line(raw: bytes, rng: np.random.Generator) -> bytes:
    """Change one value of the first line."""
    first, _, rest = raw.partition(b"\n")
    return in_json(first, rng) + b"\n" + rest


def changed(value, rng: np.random.Generator):
    """A JSON value in which one place holds something odd, or an object's entry has gone or changed its name."""
    places = list(_places(value))
    holder, key = places[rng.integers(len(places))]
    what = int(rng.integers(len(ODD) + 2))
    if what < len(ODD):
        holder[key] = ODD[what]
    elif what == len(ODD):
        del holder[key]
    elif isinstance(holder, dict):
        holder["\x1b]0;" + "x" * 300] = holder.pop(key)
    return value


def _places(value) -> Iterator[tuple]:
    for key in list(value) if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)) and value[key]:
            yield from _places(value[key])
