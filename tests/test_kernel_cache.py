"""The kernel cache: damaged entries are compiled anew, others' folders are refused, a full disk stops nothing."""

import errno
import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba import prange

from refimpl.kernels import kernel, kernel_cache
from refimpl.kernels.kernel_cache import KernelCache

ROOT = Path(__file__).parent.parent


def triple(x):
    for i in prange(x.size):
        x[i] *= 3


@pytest.fixture(scope="module")
def compiled():
    """A kernel that this process compiled: argument types, code, and for what processor."""
    found = kernel.njit(parallel=True)(triple)
    found(np.ones(3, np.float32))
    ((signature, code),) = found.overloads.items()
    return signature, code, found.targetctx


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setattr(kernel_cache, "CACHE_DIR", tmp_path)
    monkeypatch.setattr(KernelCache, "failed", False)
    return tmp_path


@pytest.fixture
def entry(folder, compiled):
    """The file of the only kernel in the cache."""
    KernelCache(triple).save_overload(*compiled[:2])
    (path,) = folder.iterdir()
    return path


def load(compiled):
    signature, _, context = compiled
    return KernelCache(triple).load_overload(signature, context)


def flipped(at):
    def damage(path):
        raw = bytearray(path.read_bytes())
        raw[int(at * (len(raw) - 1))] ^= 1
        path.write_bytes(raw)

    return damage


def cut(share):
    return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def a_folder(path):
    path.unlink()
    path.mkdir()
    (path / "more").touch()


def a_link_to_itself(path):  # to open it is an OSError for every user, as an unreadable file is for most
    path.unlink()
    path.symlink_to(path)


DAMAGES = {
    "empty": cut(0), "one byte": lambda path: path.write_bytes(b"g"), "half a header": cut(0.001), "half": cut(0.5),
    "one byte less": cut(0.99999), "one byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "flipped format": flipped(0), "flipped digest": flipped(0.0015), "flipped code": flipped(0.5),
    "flipped end": flipped(1), "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "another format": lambda path: path.write_bytes(path.read_bytes().replace(b"kernel 2", b"kernel 9", 1)),
    "folder": a_folder, "unreadable": a_link_to_itself,
}  # fmt: skip


def test_an_entry_is_loaded_and_nothing_else_is_left(folder, entry, compiled):
    assert entry.name.startswith("test_kernel_cache.triple-") and entry.suffix == ".kernel"
    assert load(compiled).entry_point is not None
    assert list(folder.iterdir()) == [entry]
    assert kernel_cache.entries() == ([entry], [])


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_counts_as_none_and_is_replaced(damage, folder, entry, compiled):
    damage(entry)
    assert load(compiled) is None
    assert kernel_cache.entries() == ([], [entry])
    KernelCache(triple).save_overload(*compiled[:2])
    assert load(compiled) is not None and list(folder.iterdir()) == [entry]


class Hostile:
    def __reduce__(self):
        return exec, ("raise AssertionError('a pickle ran')",)


@pytest.mark.parametrize("first", [b"", kernel_cache.FORMAT + b"0" * 64 + b"\n"], ids=["bare", "false digest"])
def test_nothing_is_unpickled_before_its_digest_fits(first, entry, compiled):
    entry.write_bytes(first + pickle.dumps(Hostile()))
    assert load(compiled) is None
    entry.write_bytes(kernel_cache.header(pickle.dumps(Hostile())) + pickle.dumps(Hostile()))
    with pytest.raises(AssertionError, match="a pickle ran"):  # or the lines above would prove nothing
        load(compiled)


def test_an_entry_of_other_sources_is_not_used(folder, entry, compiled, monkeypatch):
    monkeypatch.setattr(kernel_cache, "reach", lambda function, options: "changed")
    assert load(compiled) is None
    KernelCache(triple).save_overload(*compiled[:2])
    assert load(compiled) is not None and len(list(folder.iterdir())) == 2
    monkeypatch.undo()


def test_an_entry_that_only_bears_the_name_is_not_used(entry, compiled):
    content = pickle.dumps(("another stamp", None, None))
    entry.write_bytes(kernel_cache.header(content) + content)
    assert load(compiled) is None


def test_options_of_the_compiler_count(folder, entry, compiled):
    signature, _, context = compiled
    assert KernelCache(triple, {"fastmath": True}).load_overload(signature, context) is None


def test_entries_that_nobody_uses_are_deleted_when_one_is_written(folder, entry, compiled, monkeypatch):
    old = folder / f"old{kernel_cache.SUFFIX}"
    old.touch()
    os.utime(old, (0, 0))
    os.utime(entry, (0, 0))
    assert load(compiled) is not None  # which marks it as used
    monkeypatch.setattr(KernelCache, "tidied", False)
    KernelCache(triple, {"fastmath": True}).save_overload(*compiled[:2])
    assert old not in folder.iterdir() and entry in folder.iterdir()


PACKAGE = {
    "pack/__init__.py": "",
    "pack/low/__init__.py": "",
    "pack/low/sizes.py": "LIMIT = 3\nOTHER = 1\n",
    "pack/low/helpers.py": (
        "from refimpl.kernels.kernel import helper, inline\n"
        "from . import sizes\n"
        "@helper\ndef scaled(x):\n    return x * 2\n"
        "@inline\ndef shifted(x):\n    return x + sizes.LIMIT\n"
        "@helper\ndef unused(x):\n    return x\n"
    ),
    "pack/high/__init__.py": "",
    "pack/high/kernels.py": (
        "from refimpl.kernels.passes import declare\n"
        "from ..low.helpers import scaled, shifted\n"
        "@declare({'x': 'N', 'y': 'N'}, items='N', writes='y')\n"
        "def forward(t, y, x):\n    y[t] = shifted(scaled(x[t]))\n"
    ),
}
RUN = """
import sys
import numpy as np
from refimpl.kernels.kernel import cache_misses
from pack.high import kernels
print(kernels.forward(np.ones(2, np.float32))[0], cache_misses())
"""
CHANGES = {  # what is changed: file, old and new text, result, kernels compiled
    "a helper of another folder": ("low/helpers.py", "x * 2", "x * 4", 7, 1),
    "a compiled helper": ("low/helpers.py", "x + sizes.LIMIT", "x - sizes.LIMIT", -1, 1),
    "a constant of a third file": ("low/sizes.py", "LIMIT = 3", "LIMIT = 5", 7, 1),
    "the kernel": ("high/kernels.py", "scaled(x[t])", "scaled(x[t]) + 1", 6, 1),
    "what it does not reach": ("low/helpers.py", "return x\n", "return x + 1\n", 5, 0),
    "another constant": ("low/sizes.py", "OTHER = 1", "OTHER = 2", 5, 0),
    "words": ("low/helpers.py", "from . import sizes\n", "from . import sizes\n\n# sizes of what is scaled\n\n", 5, 0),
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package of another folder, run once: its kernel is in the cache."""
    root = tmp_path_factory.mktemp("package")
    for name, source in PACKAGE.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    assert ran(root) == "5.0 1"
    return root


def ran(root):
    env = os.environ | {"GRADLEDGER_CACHE": str(root / "cache"), "PYTHONPATH": f"{root}:{ROOT}"}
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run([sys.executable, "-c", RUN], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_kernel_is_compiled_anew_where_something_that_it_reaches_changed(change, package):
    name, old, new, result, compiled = change
    path = package / "pack" / name
    before = path.read_text()
    try:
        path.write_text(before.replace(old, new))
        assert path.read_text() != before
        assert ran(package) == f"{float(result)} {compiled}"
    finally:
        path.write_text(before)
    assert ran(package) == "5.0 0"  # the earlier one is still there


def test_a_helper_that_moved_is_found_where_it_is_now(package):
    helpers, moved = package / "pack/low/helpers.py", package / "pack/low/elsewhere.py"
    kernels = package / "pack/high/kernels.py"
    before = kernels.read_text()
    helpers.rename(moved)
    kernels.write_text(before.replace("low.helpers", "low.elsewhere"))
    assert ran(package) == "5.0 1"
    moved.write_text(moved.read_text().replace("x * 2", "x * 3"))
    assert ran(package) == "6.0 1"
    moved.rename(helpers)
    helpers.write_text(PACKAGE["pack/low/helpers.py"])
    kernels.write_text(before)


def test_an_intrinsic_counts_with_the_text_of_its_file(monkeypatch):
    from refimpl.backends.cpu import relu
    from refimpl.kernels import kernel_reach

    function = relu.forward.py_func
    before = kernel_reach.reach(function)
    monkeypatch.setattr(kernel_reach, "_text", lambda module: "changed")
    assert kernel_reach.reach(function) != before


def test_a_kernel_can_be_forgotten(folder, entry, compiled):
    KernelCache(triple).flush()
    assert not list(folder.iterdir()) and load(compiled) is None


def test_a_full_disk_is_told_once_and_stops_nothing(folder, compiled, monkeypatch, capsys):
    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for _ in range(2):
        KernelCache(triple).save_overload(*compiled[:2])
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith(
        f"gradledger: compiled kernels are not kept: cannot write {folder}"
    )
    assert "No space left on device" in told and told.endswith("until then kernels compile anew in each process\n")
    assert not list(folder.iterdir()) and load(compiled) is None


def test_a_damaged_entry_is_compiled_anew_where_a_kernel_is_called(folder):
    for damage, misses in ((None, 1), (None, 0), (cut(0.5), 1), (None, 0)):
        for path in folder.glob("*") if damage else ():
            damage(path)
        found = kernel.fast(triple)
        kernel.KERNELS.remove(found)
        x = np.ones(3, np.float32)
        found(x)
        assert x.tolist() == [3, 3, 3] and sum(found.stats.cache_misses.values()) == misses


def opened(root, monkeypatch):
    monkeypatch.setenv("GRADLEDGER_CACHE", str(root))
    return kernel_cache.open_folder()


def test_new_folders_are_the_users_own(tmp_path, monkeypatch, capsys):
    before = os.umask(0)
    try:
        found = opened(tmp_path / "deep" / "cache", monkeypatch)
    finally:
        os.umask(before)
    assert found.parent == tmp_path / "deep" / "cache"
    assert {stat.S_IMODE(p.stat().st_mode) for p in (found, found.parent, found.parent.parent)} == {0o700}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o720])
@pytest.mark.parametrize("which", ["kernels", "root", "above"])
def test_a_folder_that_others_can_write_is_refused(mode, which, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kernel_cache, "own_group", lambda gid: False)
    kernels = opened(tmp_path / "above" / "cache", monkeypatch)
    bad = {"kernels": kernels, "root": kernels.parent, "above": kernels.parent.parent}[which]
    bad.chmod(mode)
    assert opened(tmp_path / "above" / "cache", monkeypatch) is None
    wanted = f"who can place a file there runs code as you: others can write {bad}: chmod go-w {bad}, or set GRADLEDGER"
    assert wanted in capsys.readouterr().err
    bad.chmod(0o755)
    assert opened(tmp_path / "above" / "cache", monkeypatch) == kernels


def test_a_link_is_followed_to_where_others_can_write(tmp_path, monkeypatch, capsys):
    (tmp_path / "open" / "cache").mkdir(parents=True)
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "open" / "cache")
    assert opened(tmp_path / "link", monkeypatch) is None
    assert f"others can write {tmp_path / 'open'}" in capsys.readouterr().err


def test_a_sticky_folder_may_lie_above_but_not_hold_kernels(tmp_path, monkeypatch, capsys):
    kernels = opened(tmp_path / "sticky" / "cache", monkeypatch)
    (tmp_path / "sticky").chmod(0o1777)
    assert opened(tmp_path / "sticky" / "cache", monkeypatch) == kernels
    kernels.chmod(0o1777)
    assert opened(tmp_path / "sticky" / "cache", monkeypatch) is None
    assert f"others can write {kernels}" in capsys.readouterr().err


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch, capsys):
    if os.getuid():
        pytest.skip("only root can give a folder away")
    kernels = opened(tmp_path / "cache", monkeypatch)
    os.chown(kernels.parent, 12345, 12345)
    assert opened(tmp_path / "cache", monkeypatch) is None
    assert f"{kernels.parent} belongs to user 12345: make it yours" in capsys.readouterr().err


def test_a_group_of_ones_own_is_nobody_else(monkeypatch):
    user = type("User", (), {"pw_gid": 7, "pw_name": "ann"})
    group = type("Group", (), {"gr_name": "ann", "gr_mem": []})
    monkeypatch.setattr(kernel_cache.pwd, "getpwuid", lambda uid: user)
    monkeypatch.setattr(kernel_cache.grp, "getgrgid", lambda gid: group)
    assert kernel_cache.own_group(7) and not kernel_cache.own_group(8)
    group.gr_mem = ["ann", "bob"]
    assert not kernel_cache.own_group(7)
    group.gr_mem, group.gr_name = [], "users"
    assert not kernel_cache.own_group(7)


def test_no_folder_can_be_made(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    assert opened(tmp_path / "file" / "cache", monkeypatch) is None
    told = capsys.readouterr().err
    assert told.startswith(f"gradledger: there is no folder for compiled kernels ({tmp_path / 'file'}")
    assert "Not a directory" in told and "set GRADLEDGER_CACHE to one that can be written" in told


def test_a_user_without_a_home(monkeypatch, capsys):
    def none():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("GRADLEDGER_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(kernel_cache.Path, "home", none)
    assert kernel_cache.open_folder() is None
    assert "no folder for compiled kernels (Could not determine home directory.)" in capsys.readouterr().err


def test_what_nobody_uses_any_more_is_deleted(tmp_path, monkeypatch):
    folder = opened(tmp_path, monkeypatch)
    old, young = tmp_path / "numba-0.1-old", tmp_path / "numba-0.1-young"
    left, fresh = folder / ".a.kernel.17.tmp", folder / ".b.kernel.17.tmp"
    for path in (old, young):
        path.mkdir()
    for path in (left, fresh):
        path.touch()
    os.utime(old, (0, 0))
    os.utime(left, (0, 0))
    assert opened(tmp_path, monkeypatch) == folder
    assert sorted(tmp_path.iterdir()) == sorted([folder, young]) and list(folder.iterdir()) == [fresh]


SCRIPT = """
import numpy as np
from refimpl.kernels.kernel import cache_misses
from refimpl.ops import relu
for dtype in (np.float32, np.float64):
    relu.forward(np.ones((2, 3), dtype))
print(cache_misses())
"""


def test_processes_fill_one_empty_cache_at_once(tmp_path):
    start = lambda: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=os.environ | {"GRADLEDGER_CACHE": str(tmp_path)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    for ran in [start() for _ in range(2)]:
        out, err = ran.communicate(timeout=300)
        assert ran.returncode == 0 and int(out) == 2, err
    out, err = start().communicate(timeout=300)
    assert int(out) == 0 and not err
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.iterdir())) == 2
