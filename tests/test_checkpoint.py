import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from refimpl.storage import checkpoint
from refimpl.storage.checkpoint import CheckpointError

RNG = np.random.default_rng(0)
ARRAYS = {
    "conv1.w": RNG.standard_normal((3, 3, 2, 4)).astype(np.float32),
    "conv1.b": np.zeros(0, np.float32),
    "step": np.array(7, np.int64),
    "bn.running_var": RNG.random(4),
    "mask": RNG.integers(0, 256, 5, dtype=np.uint8),
}


def saved(path, **metadata):
    checkpoint.save(path, ARRAYS, {"model": "watch", "classes": 7} | metadata)
    return path


def same(found, expected):
    assert set(found) == set(expected)
    for name in expected:
        assert found[name].dtype == expected[name].dtype and found[name].shape == expected[name].shape
        assert np.array_equal(found[name], expected[name])


def test_arrays_and_metadata_come_back(tmp_path):
    path = saved(tmp_path / "net.safetensors")
    arrays, metadata = checkpoint.load(path)
    same(arrays, ARRAYS)
    notes = {"model": "watch", "classes": "7", "gradledger_format": "2"}
    assert metadata == notes | {"gradledger_sha256": checkpoint.digest(ARRAYS, notes)}
    same(safetensors.numpy.load_file(path), ARRAYS)
    assert os.listdir(tmp_path) == ["net.safetensors"]


def test_transposed_arrays_and_slices_are_saved_as_they_look(tmp_path):
    whole = np.arange(24.0).reshape(2, 3, 4)
    arrays = {"turned": whole.T, "slice": whole[:, 1:, ::2], "reversed": whole[::-1]}
    checkpoint.save(tmp_path / "a", arrays)
    same(checkpoint.load(tmp_path / "a")[0], arrays)


def test_what_was_loaded_can_be_saved_again(tmp_path):
    path = saved(tmp_path / "net")
    before = path.read_bytes()
    checkpoint.save(path, *checkpoint.load(path))
    assert path.read_bytes() == before


def test_a_file_of_another_program_is_read(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "a")
    arrays, metadata = checkpoint.load(tmp_path / "a")
    same(arrays, ARRAYS)
    assert metadata == {}


BYTES = """
import hashlib, sys
import numpy as np
from refimpl.storage import checkpoint
arrays = {f"layer{i}.{n}": np.arange(6, dtype=t).reshape(2, 3) for i in range(9) for n, t in (("w", "f4"), ("b", "f8"))}
if sys.argv[2] == "turned":
    arrays = dict(reversed(arrays.items()))
checkpoint.save(sys.argv[1], arrays, {f"note{i}": i for i in range(9)})
print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())
"""


def test_the_same_content_gives_the_same_bytes_in_every_process(tmp_path):
    """The serializer of the safetensors package writes metadata in the order of a hash table that is seeded anew."""
    found = {
        subprocess.run(
            [sys.executable, "-c", BYTES, tmp_path / str(i), order], capture_output=True, text=True, check=True,
            cwd=Path(checkpoint.__file__).parents[1],
        ).stdout for i, order in enumerate(("as is", "as is", "turned"))
    }  # fmt: skip
    assert len(found) == 1


@pytest.mark.parametrize("kind", sorted(checkpoint.DTYPES, key=str))
def test_every_dtype_is_read_back_by_the_safetensors_package_and_is_aligned(tmp_path, kind):
    arrays = {
        "none": np.zeros((0, 3), kind), "flat": np.ones(3, kind), "big": np.ones(5, kind.newbyteorder(">")),
        "odd": np.ones((), np.uint8), "one": np.ones((), kind),
    }  # fmt: skip
    checkpoint.save(tmp_path / "a", arrays, {"ä": "→", "n": "7"})
    expected = arrays | {"big": np.ones(5, kind)}
    same(safetensors.numpy.load_file(tmp_path / "a"), expected)
    same(checkpoint.load(tmp_path / "a")[0], expected)
    raw = (tmp_path / "a").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert header["__metadata__"]["ä"] == "→" and length % 8 == 0
    for entry in (entry for name, entry in header.items() if name != "__metadata__"):
        assert entry["data_offsets"][0] % (1 if entry["dtype"] == "U8" else kind.itemsize) == 0


def test_dtypes_that_the_format_does_not_know(tmp_path):
    with pytest.raises(
        CheckpointError, match="words holds <U3, which a safetensors file cannot: convert it to numbers"
    ):
        checkpoint.save(tmp_path / "a", {"words": np.array(["one", "two"])})
    assert not list(tmp_path.iterdir())


def test_files_of_format_1_are_read_and_checked(tmp_path):
    notes = {"model": "watch", "gradledger_format": "1", "gradledger_sha256": checkpoint.digest(ARRAYS)}
    safetensors.numpy.save_file(ARRAYS, tmp_path / "net", notes)
    same(checkpoint.load(tmp_path / "net")[0], ARRAYS)
    safetensors.numpy.save_file(ARRAYS | {"step": np.array(8)}, tmp_path / "net", notes)
    with pytest.raises(CheckpointError, match="their checksum does not fit"):
        checkpoint.load(tmp_path / "net")


def test_the_digest_depends_on_every_part():
    digest = checkpoint.digest(ARRAYS)
    assert digest == checkpoint.digest(dict(reversed(ARRAYS.items())))
    assert len({digest, *(checkpoint.digest(ARRAYS, notes) for notes in ({}, {"a": "b"}, {"b": "a"}))}) == 4
    for change in ({"more": np.zeros(1)}, {"mask": ARRAYS["mask"][::-1]}, {"mask": ARRAYS["mask"].view(np.int8)},
                   {"mask": ARRAYS["mask"][None]}):  # fmt: skip
        assert checkpoint.digest(ARRAYS | change) != digest


def test_every_truncation_is_refused(tmp_path):
    path = saved(tmp_path / "net")
    whole = path.read_bytes()
    for n in [0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:n])
        with pytest.raises(CheckpointError, match=f"net are no .* damaged: it ends after {n} bytes, too early") as e:
            checkpoint.load(path)
        assert "\n" not in str(e.value)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = saved(tmp_path / "net")
    raw = bytearray(path.read_bytes())
    raw[raw.index(ARRAYS["conv1.w"].tobytes()) + 20] ^= 4
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match="net are damaged: their checksum does not fit; copy them again"):
        checkpoint.load(path)


def test_every_flipped_bit_of_the_header_is_noticed(tmp_path):
    """Metadata are under the checksum, and so are the keys that ask for it."""
    path = tmp_path / "net"
    checkpoint.save(path, {"conv1.w": ARRAYS["conv1.w"], "mask": ARRAYS["mask"]}, {"lr": 0.01})
    whole = path.read_bytes()
    for bit in range(8 * (8 + int.from_bytes(whole[:8], "little"))):
        raw = bytearray(whole)
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        with pytest.raises(CheckpointError, match="net"):
            checkpoint.load(path)


def test_a_file_of_ours_states_its_checksum(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "net", {"model": "watch"})
    checkpoint.load(tmp_path / "net")
    with pytest.raises(CheckpointError, match="net are damaged: their metadata lack gradledger_format; copy them ag"):
        checkpoint.load(tmp_path / "net", ours=True)
    safetensors.numpy.save_file(ARRAYS, tmp_path / "net", {"gradledger_format": "2", "gradledger_sha257": "ab"})
    with pytest.raises(CheckpointError, match="net are damaged: their metadata lack gradledger_sha256; copy them ag"):
        checkpoint.load(tmp_path / "net")


@pytest.mark.parametrize("raw", [b"x" * 100, b"PK\x03\x04" + bytes(60), (20).to_bytes(8, "little") + b"{" * 20])
def test_what_is_no_safetensors_file_is_refused(tmp_path, raw):
    (tmp_path / "net").write_bytes(raw)
    with pytest.raises(CheckpointError, match="the weights .*net are no safetensors file or are damaged: "):
        checkpoint.load(tmp_path / "net")


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read the weights .*none: No such file or directory"):
        checkpoint.load(tmp_path / "none")
    with pytest.raises(CheckpointError, match="cannot read the weights .*: Is a directory"):
        checkpoint.load(tmp_path)


def test_another_format_is_refused_and_metadata_of_other_programs_is_not_ours(tmp_path):
    safetensors.numpy.save_file(ARRAYS, tmp_path / "net", metadata={"gradledger_format": "3"})
    with pytest.raises(
        CheckpointError, match="net has format 3, but this version of gradledger reads format 2: update it"
    ):
        checkpoint.load(tmp_path / "net")
    safetensors.numpy.save_file(ARRAYS, tmp_path / "net", metadata={"format": "pt", "sha256": "theirs"})
    assert checkpoint.load(tmp_path / "net")[1] == {"format": "pt", "sha256": "theirs"}


def test_arrays_that_do_not_fit_the_model_are_refused_by_the_first():
    shapes = {name: a.shape for name, a in ARRAYS.items()}
    checkpoint.check_arrays(ARRAYS, shapes, "net")
    missing = {k: v for k, v in ARRAYS.items() if k not in ("step", "mask")}
    with pytest.raises(CheckpointError, match=r"net lacks step \(\) \(2 of 5 arrays are missing\)"):
        checkpoint.check_arrays(missing, shapes, "net")
    with pytest.raises(CheckpointError, match=r"net has extra \(1, 2\), which the model does not know"):
        checkpoint.check_arrays(ARRAYS | {"extra": np.zeros((1, 2))}, shapes, "net")
    with pytest.raises(CheckpointError, match=r"mask of net has shape \(5,\), but the model needs \(6,\)"):
        checkpoint.check_arrays(ARRAYS, shapes | {"mask": (6,)}, "net")


FAILURES = {"fsync": errno.ENOSPC, "replace": errno.EROFS}


@pytest.mark.parametrize("call", FAILURES)
@pytest.mark.parametrize("old", [True, False])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, monkeypatch, call, old):
    path = tmp_path / "net"
    if old:
        saved(path)
    before = path.read_bytes() if old else None

    def fail(*_):
        raise OSError(FAILURES[call], os.strerror(FAILURES[call]))

    monkeypatch.setattr(checkpoint.os, call, fail)
    kept = "the old file is unchanged" if old else "nothing was written"
    message = f"cannot write .*net: {os.strerror(FAILURES[call])}; {kept}, make room or choose another folder"
    with pytest.raises(CheckpointError, match=message):
        checkpoint.save(path, {"other": np.ones(3)})
    monkeypatch.undo()
    assert os.listdir(tmp_path) == (["net"] if old else [])
    assert not old or path.read_bytes() == before


def test_a_disk_that_fills_up_in_the_middle_of_a_write(tmp_path):
    """A real failing write, by a limit on the size of files, in a process of its own."""
    resource = pytest.importorskip("resource", reason="file size limits exist on Unix only")
    path = saved(tmp_path / "net")
    before = path.read_bytes()
    code = (
        "import resource, sys, numpy as np\n"
        "from refimpl.storage import checkpoint\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n"
        "    checkpoint.save(sys.argv[1], {'w': np.ones(100_000)})\n"
        "except checkpoint.CheckpointError as e:\n"
        "    print(e)\n"
    )
    assert resource.RLIMIT_FSIZE is not None
    run = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True,
        cwd=Path(checkpoint.__file__).parents[1],
    )  # fmt: skip
    assert run.stdout.startswith(f"cannot write {path}: File too large; the old file is unchanged")
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["net"]


def test_leftovers_of_writers_that_were_killed_are_removed_and_those_of_living_ones_stay(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    names = {pid: f".net.{pid}.tmp" for pid in (gone.pid, os.getppid())}
    for name in (*names.values(), f".other.{gone.pid}.tmp", ".net.x.tmp"):
        (tmp_path / name).write_bytes(b"half")
    saved(tmp_path / "net")
    assert set(os.listdir(tmp_path)) == {"net", names[os.getppid()], f".other.{gone.pid}.tmp", ".net.x.tmp"}


def test_an_interrupt_leaves_no_temporary_file(tmp_path):
    def chunks():
        yield b"half"
        raise KeyboardInterrupt

    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        checkpoint.write_atomic(tmp_path / "a", chunks())
    assert os.listdir(tmp_path) == ["a"] and (tmp_path / "a").read_text() == "old"


def test_the_file_is_on_the_disk_before_it_gets_its_name_and_the_name_after(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace

    def note_fsync(handle):
        calls.append("sync folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "sync file")
        fsync(handle)

    def note_replace(a, b):
        calls.append("rename")
        assert Path(a).parent == Path(b).parent and Path(a).read_bytes() == b"12"
        replace(a, b)

    monkeypatch.setattr(checkpoint.os, "fsync", note_fsync)
    monkeypatch.setattr(checkpoint.os, "replace", note_replace)
    checkpoint.write_atomic(tmp_path / "a", [b"1", b"2"])
    assert calls == ["sync file", "rename", "sync folder"]


def test_folders_that_cannot_be_written(tmp_path):
    with pytest.raises(CheckpointError, match="cannot write .*b: there is no folder .*none"):
        checkpoint.save(tmp_path / "none" / "b", ARRAYS)
    with pytest.raises(CheckpointError, match="cannot write .*: it is a folder; name a file"):
        checkpoint.save(tmp_path, ARRAYS)


def test_a_folder_without_write_permission(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind the superuser")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match="cannot write .*net: Permission denied; nothing was written"):
            checkpoint.save(tmp_path / "net", ARRAYS)
    finally:
        tmp_path.chmod(0o700)


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "net")
    saved(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "net").is_file()


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "record.json"
    checkpoint.write_json(path, {"steps": 3, "classes": ["ä"]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"steps": 3, "classes": ["ä"]}
    for bad in ({"loss": math.nan}, {"a": object()}):
        with pytest.raises(CheckpointError, match="cannot write .*record.json: JSON cannot hold this record: "):
            checkpoint.write_json(path, bad)
    assert json.loads(path.read_text())["steps"] == 3
