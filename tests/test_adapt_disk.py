"""`adapt` on disks that are full or fail: one sentence, and no result is half of one run and half of another."""

import errno
import io
import os
import shutil
import subprocess

import pytest

from gradledger import adapt
from gradledger.run_folder import PLOT, RECORD, RESUME, WEIGHTS
from refimpl.storage import checkpoint


class Filling(io.FileIO):
    """A file on a disk that has 1000 bytes left."""

    code = errno.ENOSPC

    def write(self, data):
        super().write(data[:1000])
        raise OSError(self.code, os.strerror(self.code))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a short run."""
    folder = tmp_path_factory.mktemp("finished")
    adapt.run(adapt.AdaptSettings(epochs=1), folder, False, lambda progress: None)
    return folder


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("name", [RESUME, WEIGHTS, RECORD])
def test_a_disk_that_fails_in_the_middle_of_a_file(refused, finished, tmp_path, monkeypatch, code, name):
    """Of the state: nothing changes. Of the weights: old results and the new state. Of the record: new weights."""
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    monkeypatch.setattr(Filling, "code", code)
    failing = lambda path, mode: Filling(path, "w") if name in str(path) else io.open(path, mode)  # noqa: E731, UP020
    monkeypatch.setattr(checkpoint, "open", failing, raising=False)
    message = f"{name}: {os.strerror(code)}; nothing was written, make room or choose another folder"
    changes = {
        RESUME: {},
        WEIGHTS: {"added": [RESUME]},
        RECORD: {"added": [RESUME], "written": [WEIGHTS], "removed": [RECORD, PLOT]},
    }[name]
    refused("--epochs", 1, "--seed", 1, message=message, **changes)
    if changes:
        monkeypatch.undo()
        assert adapt.run(adapt.AdaptSettings(), out, True, lambda progress: None)["settings"]["seed"] == 1
        assert {p.name for p in out.iterdir()} == {WEIGHTS, RECORD, PLOT}


def test_a_disk_that_is_really_full(refused, tmp_path):
    """A file system of 64 KiB, where mounting is allowed; the weights take more."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as e:
        pytest.skip(f"there is no mount command: {e}")
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    try:
        (disk / WEIGHTS).write_bytes(b"old")
        message = f"the disk of {disk} has 61,440 bytes left, but this run may write "
        refused("--epochs", 1, output=disk, message=message)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
