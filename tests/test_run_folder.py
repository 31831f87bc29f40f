"""A run's folder: its results are the old ones or the new ones, whatever call is the last one before a crash."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gradledger import output, run_folder
from gradledger.errors import Malformed
from gradledger.run_folder import DIVERGED, PLOT, RECORD, RESUME, WEIGHTS, RunFolder, settled
from refimpl.storage.checkpoint import CheckpointError

ROOT = Path(__file__).parent.parent
CALLS = ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")
OLD = {WEIGHTS: b"old weights", RECORD: b"old record", PLOT: b"old plot", RESUME: b"state", DIVERGED: b"diverged"}
NEW = {WEIGHTS: b"new weights", RECORD: b"new record"}


class Crash(BaseException):
    """The end of the process."""


def old(folder):
    folder.mkdir()
    for name, content in OLD.items():
        (folder / name).write_bytes(content)
    return folder


def put(folder):
    """Commit the new results, which have no plot."""
    with RunFolder(folder) as entered:
        staged = entered.stage()
        for name, content in NEW.items():
            (staged / name).write_bytes(content)
        entered.commit(gone=(PLOT, RESUME, DIVERGED))


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def crashing(monkeypatch, at, after):
    """Let the call number `at` be the last one, cut off before or after its effect; returns the calls so far."""
    made = []

    def count(name, real):
        def call(*args, **named):
            made.append(name)
            if len(made) > at:
                raise Crash  # a process that is gone does nothing more
            if len(made) == at and not after:
                raise Crash
            real(*args, **named)
            if len(made) == at:
                raise Crash

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, count(name, getattr(os, name)))
    return made


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_any_call_leaves_old_or_new(tmp_path, monkeypatch, after):
    found = []
    for at in range(1, 100):
        folder = old(tmp_path / str(at))
        with monkeypatch.context() as patch:
            made = crashing(patch, at, after)
            try:
                put(folder)
            except Crash:
                pass
            else:
                break
        read = {name: settled(folder / name).read_bytes() for name in NEW}  # by a command that changes nothing
        with RunFolder(folder) as entered:
            now = files(folder)
            assert read == {name: now[name] for name in NEW}
            assert now in (OLD, NEW), (at, made)
            assert not entered.rolled_forward or now == NEW
            found.append(now == NEW)
    assert len(found) == len(made) > 10 and {*made} == set(CALLS)
    assert found == sorted(found) and {*found} == {False, True}  # one instant divides old from new


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_while_a_crash_is_repaired(tmp_path, monkeypatch, after):
    for at in range(1, 100):
        folder = old(tmp_path / str(at))
        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, "_roll_forward", lambda self: None)
            put(folder)
        with monkeypatch.context() as patch:
            crashing(patch, at, after)
            try:
                with RunFolder(folder):
                    break
            except Crash:
                pass
        with RunFolder(folder):
            assert files(folder) == NEW
    assert at > 5


def test_one_writer_at_a_time_and_a_killed_one_is_none(tmp_path):
    folder = old(tmp_path / "out")
    code = (
        "import sys, time; from pathlib import Path; from gradledger.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])): print('in', flush=True); time.sleep(600)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert writer.stdout.readline() == b"in\n"
        message = f"another gradledger adapt is writing into {folder}: wait for it, or choose another folder with --out"
        with pytest.raises(Malformed, match=message):
            put(folder)
        assert files(folder) == OLD
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    put(folder)
    assert files(folder) == NEW


def test_leftovers_of_a_killed_run_are_removed(tmp_path):
    folder = old(tmp_path / "out")
    (folder / output.PROBE).write_bytes(b"")
    for name in OLD:
        (folder / f".{name}.{os.getppid()}.tmp").write_bytes(b"half")
    (folder / f"{run_folder.NEW}.{os.getppid()}").mkdir()
    (folder / f"{run_folder.NEW}.{os.getppid()}" / WEIGHTS).write_bytes(b"half")
    with RunFolder(folder):
        assert files(folder) == OLD


def test_a_folder_on_a_disk_without_room(tmp_path):
    with RunFolder(tmp_path / "out") as folder:
        with pytest.raises(Malformed, match="left, but this run may write 1,000,000,000,000,000,000: make room"):
            folder.make(10**18)
        folder.make(1)
        with pytest.raises(Malformed, match="another gradledger adapt is writing into"):
            RunFolder(tmp_path / "out").make(1)


def test_what_cannot_be_staged_changes_nothing(tmp_path, monkeypatch):
    folder = old(tmp_path / "out")

    def full(*_):
        raise OSError(28, "No space left on device")

    for call in ("mkdir", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            with pytest.raises(CheckpointError, match="out: No space left on device; what it holds is unchanged"):
                put(folder)
        assert files(folder) == OLD
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(CheckpointError, match="cannot be moved out of it .*; the next gradledger adapt into .* do"):
            put(folder)
    with RunFolder(folder):
        assert files(folder) == NEW
