"""What a file is, by its first bytes: a net of another program is told by its name, and never called damaged."""

import zipfile
from typing import BinaryIO

TAKEN = "read are .safetensors, .onnx, .tflite, .pth and .pt of PyTorch, .h5 and .keras of Keras, .npz of known nets"
TORCH, PICKLE = "a PyTorch file (torch.save)", "a Python pickle, such as of an older torch.save or of joblib"
KERAS_ARCHIVE, HDF5 = "a Keras model (.keras)", "an HDF5 file, such as Keras's .h5"
NPZ = "a .npz of arrays"
TEXT = "a text file"
IMAGE, SOUND, PACKED = "an image", "a recording of sound or video", "an archive"
PROTO = "a Core ML model or a TensorFlow SavedModel"
BUILT = "it was built for inference on one kind of device: give the net that it was made from"
CONVERT = {  # what a file is → what to do with it
    "an ONNX model": ("such are read under the suffix .onnx, and gradledger check tells whether they can be trained"),
    "a TensorFlow Lite model": "as a net it must bear the suffix .tflite",
    TORCH: "as a net it must bear a suffix of its own, such as .pth",
    PICKLE: "as a net of torch.save it must bear a suffix of its own, such as .pth",
    KERAS_ARCHIVE: "as a net it must bear the suffix .keras",
    HDF5: "as a net it must bear the suffix .h5",
    NPZ: "as a net it must bear the suffix .npz",
    "a NumPy array (.npy)": "an array is no net; as data, give it to --data",
    "a GGUF file": "its tensors are those of a language model",
    PACKED: "unpack it first",
    IMAGE: "an image is no net; as data, put it into a folder of its class and give that to --data",
    SOUND: "it is no net; as data, put WAV files into folders of their classes and give the folder of these to --data",
    PROTO: "export the model to ONNX, or save its weights with Keras (.h5, .keras)",
    "an ONNX Runtime model (.ort)": BUILT,
    "an ExecuTorch program (.pte)": BUILT,
    "a TensorRT engine": BUILT,
    "an RKNN model": BUILT,
    "a MATLAB file": "save its arrays as a .npz (scipy.io.loadmat, numpy.savez)",
    "a Parquet file": "a table is no net; as data, save it as .csv and give that to --data",
    "a database of SQLite": "a table is no net; as data, save it as .csv and give that to --data",
    "a PDF document": "it is no net",
    "a program or a library": "it is no net, and is never run",
    TEXT: "a text is no net; a table of samples is data: give it to --data",
}
STARTS = {
    b"\x89HDF\r\n\x1a\n": HDF5, b"\x93NUMPY": "a NumPy array (.npy)",
    b"GGUF": "a GGUF file", b"\x89PNG\r\n": IMAGE, b"\xff\xd8\xff": IMAGE, b"GIF8": IMAGE, b"II*\0": IMAGE,
    b"MM\0*": IMAGE, b"8BPS": IMAGE, b"\x1f\x8b": PACKED, b"BZh": PACKED, b"\xfd7zXZ": PACKED, b"7z\xbc\xaf": PACKED,
    b"Rar!": PACKED, b"\x28\xb5\x2f\xfd": PACKED, b"\x04\x22\x4d\x18": PACKED,
    b"ID3": SOUND, b"fLaC": SOUND, b"OggS": SOUND,
    b"MATLAB 5": "a MATLAB file", b"PAR1": "a Parquet file", b"SQLite format 3": "a database of SQLite",
    b"%PDF": "a PDF document", b"\x7fELF": "a program or a library", b"\0asm": "a program or a library",
    b"ftrt": "a TensorRT engine", b"ptrt": "a TensorRT engine", b"RKNN": "an RKNN model",
}  # fmt: skip
LATER = {  # place and bytes there
    (4, b"TFL3"): "a TensorFlow Lite model", (4, b"ORTM"): "an ONNX Runtime model (.ort)",
    (4, b"ET1"): "an ExecuTorch program (.pte)", (4, b"ftypmif1"): IMAGE, (4, b"ftyphei"): IMAGE,
    (4, b"ftypavif"): IMAGE, (4, b"ftyp"): SOUND, (8, b"WEBPVP8"): IMAGE, (8, b"WAVEfmt"): SOUND,
    (8, b"AVI LIST"): SOUND, (257, b"ustar"): PACKED,
}  # fmt: skip
MOST_BEGIN = 272  # bytes that tell what a file is
ZIPPED = {  # a member's name ends with it → what the archive is
    "data.pkl": TORCH, "constants.pkl": TORCH, "model.weights.h5": KERAS_ARCHIVE,
}  # fmt: skip
ONNX_FIELDS = (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)  # of a ModelProto after its version: field numbers 2 to 8
LONGEST_VERSION = 32  # of ONNX's format


def foreign(file: BinaryIO, but: str | None = None) -> str | None:
    """The end of a sentence about a file of another program, such as "is an ONNX model: …"; None for any other.

    file: open for reading, at its beginning, where it stands again afterwards. but: a kind that is looked for.
    """
    kind = kind_of(file)
    return None if kind in (None, but) else f"is {kind}: {CONVERT[kind]}; {TAKEN}"


def safetensors(file: BinaryIO) -> str | None:
    """As `foreign`, of a safetensors file, which is one of ours, but here was taken for another; None for any other."""
    begin = file.read(9)
    file.seek(0)
    return "is a safetensors file: as a net it must bear the suffix .safetensors" if begin[8:] == b"{" else None


def kind_of(file: BinaryIO) -> str | None:
    """What a file of another program is, by its first bytes; None for any other. file: as `foreign` has it."""
    kind = _kind(file)
    file.seek(0)
    return kind


def _kind(file: BinaryIO) -> str | None:
    begin = file.read(MOST_BEGIN)
    if begin[8:9] == b"{":  # after the 8 bytes of its header's length, which may look like anything
        return None  # a safetensors file
    for start, kind in STARTS.items():
        if begin.startswith(start):
            return kind
    for (place, there), kind in LATER.items():
        if begin[place:].startswith(there):
            return kind
    if begin.startswith(b"BM") and begin[6:10] == bytes(4):
        return IMAGE
    if begin.startswith(b"PK\x03\x04"):
        return _zipped(file)
    if len(begin) > 2 and begin[0] == 0x80 and begin[1] in range(2, 6):
        return PICKLE
    if len(begin) > 2 and begin[0] == 0x08 and 0 < begin[1] <= LONGEST_VERSION and begin[2] in ONNX_FIELDS:
        return PROTO if begin[2] == 0x12 and 0x0A in (begin[4:5] + begin[5:6]) else "an ONNX model"
    return TEXT if _is_text((begin + file.read(4096)).rpartition(b"\n")[0]) else None


def _is_text(lines: bytes) -> bool:
    """Are whole lines, at least one, text that can be printed?"""
    try:
        text = lines.decode()
    except UnicodeDecodeError:
        return False
    return bool(text) and all(c.isprintable() or c in "\t\r\n" for c in text)


def _zipped(file: BinaryIO) -> str | None:
    """Which archive it is; None where it is a truncated one."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except Exception:  # parsers of damaged archives raise almost anything
        return None
    for end, kind in ZIPPED.items():
        if any(name.rpartition("/")[2] == end for name in names):
            return kind
    return NPZ if names and all(name.endswith(".npy") for name in names) else PACKED
