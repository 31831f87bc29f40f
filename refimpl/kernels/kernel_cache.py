"""What Numba compiled, kept on disk for the next process: a file for each kernel and its argument types.

An entry begins with a line that names the format and the SHA-256 of what follows, which is checked before anything is
unpickled: an entry that a power cut, a full disk or a bad sector damaged is compiled anew and replaced. Entries are
written beside their place, flushed and renamed, so processes may fill one folder at once. A pickle runs code: a folder
that others can write is not used. Who can write as the user is not kept out: that one needs no cache to run code.

An entry belongs to all the code that its kernel can reach (`kernel_reach`), wherever that lies: a kernel of which
something changed has another entry, and installations that agree share theirs.
"""

import contextlib
import grp
import hashlib
import os
import pickle
import pwd
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numba
import numpy as np
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IPythonCacheLocator, UserProvidedCacheLocator
from numba.core.serialize import dumps

from ..storage import checkpoint
from .kernel_reach import reach

UNUSED = 7 * 24 * 3600  # seconds after which entries, and the folders of other versions, are deleted
USED = 24 * 3600  # seconds after which an entry that is used again is marked so
LEFT = 3600  # seconds after which a file that a killed process left half-written is deleted
FORMAT = b"gradledger-kernel 2 "
HEADER = len(FORMAT) + 64 + 1  # bytes of an entry's first line
SUFFIX = ".kernel"


def version_key() -> str:
    """Digest of what decides compiled code beside the sources and the processor."""
    what = f"{numba.__version__} {np.__version__} {sys.version} {FORMAT!r}"
    return hashlib.sha256(what.encode()).hexdigest()[:16]


def tell(why: str) -> None:
    """Say why kernels are not kept, and what that costs."""
    print(f"gradledger: {why}; until then kernels compile anew in each process", file=sys.stderr)


def root() -> Path:
    """The user's cache folder for compiled kernels: `GRADLEDGER_CACHE`, else `XDG_CACHE_HOME`, else `~/.cache`."""
    if chosen := os.environ.get("GRADLEDGER_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradledger"


def open_folder() -> Path | None:
    """The folder of these versions, made where it is missing; None and a sentence where there is none or others write.

    Old folders of other versions are deleted.
    """
    try:
        folder = (root() / f"numba-{numba.__version__}-{version_key()}").resolve()
        for missing in reversed([p for p in (folder, *folder.parents) if not p.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        mend = next(filter(None, (intruders(p, p == folder) for p in (folder, *folder.parents))), None)
    except (OSError, RuntimeError) as e:  # RuntimeError: no home, or links in a circle
        reason = f"{e.filename}: {e.strerror}" if isinstance(e, OSError) else e
        tell(f"there is no folder for compiled kernels ({reason}): set GRADLEDGER_CACHE to one that can be written")
        return None
    if mend:
        tell(f"the kernel cache {folder} is not used, since who can place a file there runs code as you: {mend}, or "
             "set GRADLEDGER_CACHE to a folder of your own")  # fmt: skip
        return None
    tidy(folder)
    return folder


def tidy(folder: Path) -> None:
    """Mark a version's folder as used, and delete what nobody has used for long."""
    old = [p for p in folder.parent.glob("numba-*") if p != folder and age(p) > UNUSED]  # another one may be running
    for path in old:
        shutil.rmtree(path, ignore_errors=True)
    try:
        os.utime(folder)
        for path in folder.glob(f".*{SUFFIX}.*.tmp"):
            if age(path) > LEFT:
                path.unlink()
    except OSError:  # of another process at the same time, or a folder that can only be read
        return


def age(path: Path) -> float:
    """Seconds since a path was changed; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def intruders(path: Path, holds_kernels: bool) -> str | None:
    """What to mend where somebody else can change what a folder holds, in words; None where nobody can.

    In a folder above the kernels with the sticky bit, such as /tmp, others may add files but not touch ours.
    """
    status = path.stat()
    trusted = {os.getuid(), 0, os.stat("/").st_uid}  # whoever owns / owns the machine, under any number
    if status.st_uid not in trusted:
        return f"{path} belongs to user {status.st_uid}: make it yours"
    if status.st_mode & stat.S_ISVTX and not holds_kernels:
        return None
    if status.st_mode & stat.S_IWOTH or status.st_mode & stat.S_IWGRP and not own_group(status.st_gid):
        return f"others can write {path}: chmod go-w {path}"
    return None


def own_group(gid: int) -> bool:
    """Is the user the only member of a group? Many systems give each user such a one."""
    try:
        user, group = pwd.getpwuid(os.getuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == user.pw_gid and group.gr_name == user.pw_name and set(group.gr_mem) <= {user.pw_name}


CACHE_DIR = open_folder()


def read(path: Path) -> memoryview | None:
    """What an entry holds, as it was written; None where it is missing, damaged, unreadable or of another format."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    content = memoryview(raw)[HEADER:]
    return content if raw[:HEADER] == header(content) else None


def header(content: bytes | memoryview) -> bytes:
    """The first line of an entry."""
    return FORMAT + hashlib.sha256(content).hexdigest().encode() + b"\n"


def entries() -> tuple[list[Path], list[Path]]:
    """The files of this version's cache: the sound ones and the damaged ones."""
    sound, damaged = [], []
    for path in sorted(CACHE_DIR.glob(f"*{SUFFIX}")):
        (damaged if read(path) is None else sound).append(path)
    return sound, damaged


class Source(UserProvidedCacheLocator):
    """The file of a kernel, for its hash and line; Numba's own folders are not used, nor made."""

    @classmethod
    def from_function(cls, py_func, py_file):
        """None where there is no such file, as in a notebook."""
        return cls(py_func, py_file) if os.path.exists(py_file) else None


class Parts(CompileResultCacheImpl):
    """How Numba takes a kernel apart and puts it together.

    A kernel that comes from the disk forgets its LLVM code. Numba keeps that for compiled callers to inline, and no
    compiled code calls a kernel: some 0.5 MiB each.
    """

    _locator_classes = [Source, IPythonCacheLocator]

    def rebuild(self, target_context, payload):
        """The kernel that was taken apart."""
        overload = super().rebuild(target_context, payload)
        overload.library._shared_module = None  # private to Numba; where it has another name nothing is lost
        return overload


class KernelCache(FunctionCache):
    """In the place of Numba's disk cache, whose files tell nothing of damage and are stale where a helper changed."""

    _impl_class = Parts
    failed = False  # did the disk refuse a kernel? Said once
    tidied = False  # were entries deleted that nobody uses? Once a process, beside a compilation

    def __init__(self, py_func: Callable, options=None):
        """options: what the function is compiled with."""
        super().__init__(py_func)
        self._options = options

    @cached_property
    def stamp(self) -> str:
        """Digest of all that the kernel is compiled from, found when it is first called: by then all is defined."""
        return reach(self._py_func, self._options)

    @property
    def name(self) -> str:
        """What the kernel's entries begin with."""
        return re.sub(r"[^\w.]", "", f"{self._py_func.__module__}.{self._py_func.__qualname__}")

    def _index_key(self, sig, codegen) -> tuple:
        """Argument types and processor; code and closure are in the stamp, where Numba compares pickles of them."""
        return sig, codegen.magic_tuple()

    def path(self, key: tuple) -> Path:
        """The entry of argument types and processor."""
        return CACHE_DIR / f"{self.name}-{hashlib.sha256(f'{self.stamp} {key}'.encode()).hexdigest()[:20]}{SUFFIX}"

    def load_overload(self, signature, target_context):
        """The compiled kernel, or None where the disk holds none that is sound and of these sources."""
        target_context.refresh()
        key = self._index_key(signature, target_context.codegen())
        path = self.path(key)
        content = read(path)
        if content is None:
            return None
        stamp, saved, data = pickle.loads(content)
        if (stamp, saved) != (self.stamp, key):
            return None
        if age(path) > USED:
            with contextlib.suppress(OSError):  # a folder that can only be read
                os.utime(path)
        return self._impl.rebuild(target_context, data)

    def save_overload(self, signature, data):
        """Keep a compiled kernel; where the disk refuses, say so once and go on."""
        if not self._impl.check_cachable(data):
            return
        key = self._index_key(signature, data.codegen)
        content = dumps((self.stamp, key, self._impl.reduce(data)))
        path = self.path(key)
        try:
            if path.is_dir():  # which no rename replaces
                shutil.rmtree(path)
            checkpoint.write_atomic(path, [header(content), content])
        except (OSError, checkpoint.CheckpointError) as e:
            if not KernelCache.failed:
                KernelCache.failed = True
                tell(f"compiled kernels are not kept: {e}; GRADLEDGER_CACHE names another folder")
        if not KernelCache.tidied:
            KernelCache.tidied = True
            forget_unused(CACHE_DIR)

    def flush(self):
        """Forget every entry of this kernel."""
        for path in CACHE_DIR.glob(f"{self.name}-*{SUFFIX}"):
            path.unlink(missing_ok=True)


def forget_unused(folder: Path) -> None:
    """Delete the entries that nobody has used for long: their kernels have changed since."""
    for path in folder.glob(f"*{SUFFIX}"):
        if age(path) > UNUSED:
            with contextlib.suppress(OSError):  # gone, or not ours to delete
                path.unlink()
