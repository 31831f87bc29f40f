"""The folder of a run: one writer at a time, and one instant at which new results take the place of the old.

Several files cannot be renamed at once. So the new ones are written into a hidden folder; its renaming to
`.adapt.commit` is the one instant. From then on the new results hold: each file is moved to its name, and where a crash
comes in between, the next start moves those that are left. Before it, the old ones are untouched.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from refimpl.storage import checkpoint
from refimpl.storage.checkpoint import CheckpointError

from .errors import Malformed
from .output import PROBE, make_folder

WEIGHTS, RECORD, PLOT = "adapted.safetensors", "adapt.json", "adapt.png"
EXPORTED = "adapted.onnx"  # of a net that came as an ONNX model
RESUME = "adapt.resume.safetensors"  # the state that --resume goes on from
DIVERGED = "diverged.safetensors"  # the last good weights of a run whose loss became infinite
FILES = (DIVERGED, RESUME, PLOT, EXPORTED, WEIGHTS, RECORD)
NEW, COMMITTED = ".adapt.new", ".adapt.commit"  # the first with the process id: a killed run's plot may yet be drawn


ROOM = 1 << 19  # bytes that record and plot may take, beside 64 a step


def most_bytes(state: int, weights: int, kept: int, instead: int, steps: int) -> int:
    """The most bytes that a run has on the disk at once, but for earlier results: two states, and the results.

    state: of all that a later run needs; kept: how often its weights are kept beside it, to go back to; instead: of a
    classifier that takes the place of another.
    """
    return 2 * ((1 + kept) * state + instead) + weights + ROOM + 64 * steps


def settled(path: Path) -> Path:
    """Where a run's file is now: a crash right after a commit leaves the new one in the folder that was committed.

    A run's folder stands for its weights.
    """
    if path.is_dir() and any(settled(path / name).is_file() for name in (WEIGHTS, RECORD)):
        path = path / WEIGHTS
    new = path.parent / COMMITTED / path.name
    return new if path.name in FILES and new.is_file() and new.stat().st_size else path


class RunFolder:
    """A run's folder, locked while this is entered; a lock ends with its process, however that ends."""

    def __init__(self, path: Path):
        self.path, self.staged = path, path / f"{NEW}.{os.getpid()}"
        self.rolled_forward = False  # did entering finish what a crash had cut short?
        self.finished = False  # are a run's results in their places?
        self._lock: int | None = None

    def __enter__(self) -> "RunFolder":
        """Lock the folder, where it exists, and repair it. Malformed where another run writes into it."""
        if self._lock is None and self.path.is_dir():
            self._enter()
        return self

    def __exit__(self, *_) -> None:
        if self._lock is not None:
            try:
                shutil.rmtree(self.staged, ignore_errors=True)
            finally:
                self._release()

    def hand_over(self) -> int:
        """Let the lock outlive this program; its number is what `taken_over` needs in the next one of this process."""
        os.set_inheritable(self._lock, True)
        return self._lock

    @classmethod
    def taken_over(cls, path: Path, lock: int) -> "RunFolder":
        """The folder of `hand_over`, still locked, with what was staged there."""
        folder = cls(path)
        folder._lock = lock
        return folder

    def make(self, needed: int) -> None:
        """Make the folder where it is missing; Malformed where it cannot be written or lacks `needed` bytes of room."""
        make_folder(self.path)
        if self._lock is None:
            self._enter()
        room = shutil.disk_usage(self.path).free
        if room < needed:
            raise Malformed(
                f"the disk of {self.path} has {room:,} bytes left, but this run may write {needed:,}: make room or "
                "choose another folder with --output"
            )

    def _enter(self) -> None:
        try:
            self._lock = os.open(self.path, os.O_RDONLY)
            with contextlib.suppress(OSError):  # a file system without locks
                self._take()
            if (self.path / COMMITTED).is_dir():
                self._roll_forward()
                self.rolled_forward = True
            for name in FILES:
                for left, _ in checkpoint.leftovers(self.path / name):
                    left.unlink()
            (self.path / PROBE).unlink(missing_ok=True)
            for left in self.path.glob(f"{NEW}.*"):
                shutil.rmtree(left)
        except BaseException as e:
            self._release()
            if not isinstance(e, OSError):
                raise
            raise Malformed(
                f"the folder {self.path} cannot be used ({e.strerror}): choose another one with --output"
            ) from None

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Malformed(
                f"another gradledger adapt is writing into {self.path}: wait for it, or choose another folder with "
                "--output"
            ) from None

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def stage(self) -> Path:
        """A new, empty folder for what the next `commit` brings."""
        shutil.rmtree(self.staged, ignore_errors=True)
        try:
            self.staged.mkdir()
        except OSError as e:
            raise CheckpointError(f"cannot write into {self.path}: {e.strerror}; what it holds is unchanged") from None
        return self.staged

    def commit(self, gone: Iterable[str] = ()) -> None:
        """Put the staged files in the place of the old ones, and remove those named `gone`: all of it or nothing.

        CheckpointError where that fails.
        """
        try:
            for name in gone:
                (self.staged / name).touch()  # an empty file says that there is to be none
            checkpoint.sync_folder(self.staged)
            os.rename(self.staged, self.path / COMMITTED)
        except OSError as e:
            raise CheckpointError(f"cannot write into {self.path}: {e.strerror}; what it holds is unchanged") from None
        try:
            self._roll_forward()
        except OSError as e:
            raise CheckpointError(
                f"the new results in {self.path / COMMITTED} cannot be moved out of it ({e.strerror}); the next "
                f"gradledger adapt into {self.path} does it"
            ) from None

    def _roll_forward(self) -> None:
        """Move what is committed to its names. Each move may be the last one: all can be begun again."""
        committed = self.path / COMMITTED
        checkpoint.sync_folder(self.path)
        for name in FILES:
            new, place = committed / name, self.path / name
            if new.exists():
                if new.stat().st_size:
                    os.replace(new, place)
                else:
                    place.unlink(missing_ok=True)
                    new.unlink()
        checkpoint.sync_folder(self.path)
        shutil.rmtree(committed)
