"""Files of other programs are told by their first bytes, in one sentence that says what to do; never "damaged"."""

import gzip
import io
import tarfile
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import torch

import refimpl as ri
from gradledger.models import described
from refimpl.formats.npz import load_npz
from refimpl.saved.described import described as saved
from refimpl.storage import checkpoint
from refimpl.storage.checkpoint import CheckpointError
from validation.instruments.hdf5_files import hdf5


def zipped(*names):
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as file:
        for name in names:
            file.writestr(name, b"x")
    return held.getvalue()


def torched(**settings):
    held = io.BytesIO()
    torch.save({"w": torch.zeros(3)}, held, **settings)
    return held.getvalue()


def tarred():
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as file:
        file.addfile(tarfile.TarInfo("net"), io.BytesIO())
    return held.getvalue()


def arrays():
    held = io.BytesIO()
    np.savez(held, x=np.zeros(3))
    return held.getvalue()


FOREIGN = {
    "onnx": (
        b"\x08\x07\x12\x07pytorch\x1a\x052.1.0" + bytes(40),
        "is an ONNX model: such are read under the suffix .onnx",
    ),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(40), "is a TensorFlow Lite model: "),
    "npz": (arrays(), "is a .npz of arrays: as a net it must bear the suffix .npz"),
    "npy": (b"\x93NUMPY\x01\x00" + bytes(40), "is a NumPy array"),
    "zip": (zipped("readme.txt"), "is an archive: unpack it first"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(40), "is an image: an image is no net"),
    "bmp": (b"BM\x46\x00\x00\x00" + bytes(60), "is an image: an image is no net"),
    "webp": (b"RIFF\x40\0\0\0WEBPVP8 " + bytes(60), "is an image"),
    "heic": (b"\0\0\0\x18ftypheic" + bytes(60), "is an image"),
    "wav": (b"RIFF\x40\0\0\0WAVEfmt " + bytes(60), "is a recording of sound or video: it is no net; as data, put WAV"),
    "mp4": (b"\0\0\0\x18ftypmp42" + bytes(60), "is a recording of sound or video"),
    "gzip": (gzip.compress(b"weights"), "is an archive: unpack it first"),
    "tar": (tarred(), "is an archive: unpack it first"),
    "core ml": (b"\x08\x04\x12\x20\x0a\x1e" + bytes(60), "is a Core ML model or a TensorFlow SavedModel: "),
    "saved model": (b"\x08\x01\x12\x95\x01\x0a\x20" + bytes(60), "is a Core ML model or a TensorFlow SavedModel: "),
    "ort": (b"\x20\0\0\0ORTM" + bytes(60), r"is an ONNX Runtime model \(.ort\): it was built for inference"),
    "tensorrt": (b"ftrt" + bytes(60), "is a TensorRT engine: it was built for inference on one kind of device"),
    "program": (b"\x7fELF\x02\x01\x01" + bytes(60), "is a program or a library: it is no net, and is never run"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(60), "is a PDF document: it is no net"),
    "parquet": (b"PAR1" + bytes(60), "is a Parquet file: a table is no net; as data, save it as .csv"),
    "text": ("a,b\n1,2 µ\n".encode(), "is a text file: a text is no net; a table of samples is data"),
}


READ = {  # under any suffix but .npz
    "torch": (torched(), r"is a PyTorch file \(torch.save\): as a net it must bear a suffix of its own, such as .pth"),
    "old torch": (torched(_use_new_zipfile_serialization=False), "is a Python pickle, such as of an older torch.save"),
    "keras": (
        zipped("metadata.json", "config.json", "model.weights.h5"),
        r"is a Keras model \(.keras\): as a net it must bear the suffix .keras",
    ),
    "h5": (hdf5({"w": np.zeros(3)}), "is an HDF5 file, such as Keras's .h5: as a net it must bear the suffix .h5"),
}


@pytest.mark.parametrize("kind", READ)
def test_weights_that_are_read_are_not_under_the_suffix_of_others(tmp_path, kind):
    content, message = READ[kind]
    (tmp_path / "net.npz").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_npz(tmp_path / "net.npz")


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("read", [described, saved, load_npz])
def test_a_file_of_another_program_is_told_by_its_first_bytes(tmp_path, kind, read):
    content, message = FOREIGN[kind]
    path = tmp_path / ("net.npz" if read is load_npz else "net.bin")
    path.write_bytes(content)
    if read is load_npz and kind == "npz":
        message = "holds no net that is known"
    with pytest.raises(CheckpointError, match=message) as told:
        read(*((str(path), None, None) if read is described else (str(path),)))
    assert "damaged" not in str(told.value) and "\n" not in str(told.value) and str(path) in str(told.value)


def test_safetensors_of_another_program(tmp_path):
    safetensors.numpy.save_file({"layer1.weight": np.zeros(3, np.float32)}, tmp_path / "a", {"format": "pt"})
    with pytest.raises(
        CheckpointError, match="holds no net that is known by the names of its arrays, whose first are layer1.weight: "
    ):
        saved(tmp_path / "a")


@pytest.mark.parametrize("length", [0x280, 0x3580, 0x7080])
def test_a_header_whose_length_looks_like_another_file_is_ours(tmp_path, length):
    """The first bytes of a safetensors file are the length of its header: 0x280 begins as a pickle does."""
    arrays = {"w": np.zeros(2, np.float32)}
    bare = int.from_bytes(next(checkpoint.serialized(arrays, {"model": "watch", "note": ""}))[:8], "little")
    notes = {"model": "watch", "note": "x" * (length - bare)}
    (tmp_path / "a").write_bytes(b"".join(checkpoint.serialized(arrays, notes)))
    assert (tmp_path / "a").read_bytes()[:2] == length.to_bytes(2, "little")
    assert saved(tmp_path / "a").notes == notes


def test_a_truncated_file_of_ours_is_damaged(tmp_path):
    checkpoint.save(tmp_path / "a", ri.models.watch_weights(1), {"model": "watch"})
    whole = (tmp_path / "a").read_bytes()
    for size in (0, 5, 100, len(whole) - 1):
        (tmp_path / "a").write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="no safetensors file or are damaged"):
            saved(tmp_path / "a")
