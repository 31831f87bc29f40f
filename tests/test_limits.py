"""Limits of memory end a command with one sentence: addresses (`ulimit -v`), and what Python itself runs out of."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from costmodel.device import device, room
from gradledger import adapt, cli, limits

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is of Linux")
@pytest.mark.parametrize("mib", [200, 300])
def test_too_few_addresses_are_a_sentence(mib, tmp_path):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (mib << 20, mib << 20))

    done = subprocess.run(
        [sys.executable, "-m", "gradledger", "adapt", "--json", "--output", str(tmp_path / "out")],
        cwd=ROOT, capture_output=True, text=True, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stdout == "", done.stderr
    assert done.stderr.startswith("gradledger: the memory that this process may use does not suffice (")
    assert f"; ulimit -v allows {mib} MiB): a smaller --batch" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_an_array_that_does_not_fit_is_a_sentence(as_json, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(adapt, "prepare", lambda settings: np.zeros(1 << 60, np.uint8))
    with pytest.raises(SystemExit) as left:
        cli.main(["adapt", "--output", str(tmp_path / "out"), *["--json"] * as_json])
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "") and err.count("\n") == 1
    assert "memory" in err and "Unable to allocate 1.00 EiB for an array" in err and "--batch" in err


def test_what_is_no_want_of_memory_stays_what_it_is():
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise ValueError  # noqa: B904 (as a handler that fails in its turn)
    except ValueError as e:
        assert limits.short_of_memory(e)
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise ValueError("a sentence of its own") from None
    except ValueError as e:
        assert not limits.short_of_memory(e)
    assert not limits.short_of_memory(ImportError("no module")) and not limits.short_of_memory(OSError(2, "no file"))


def test_a_library_without_room_is_want_of_memory_under_a_limit(monkeypatch):
    monkeypatch.setattr(limits, "addresses", lambda: 1 << 28)
    assert limits.short_of_memory(ImportError("failed to map segment"))
    assert not limits.short_of_memory(OSError(2, "no file"))


def test_the_room_that_is_left_is_the_least_of_all_limits(tmp_path, monkeypatch):
    group = tmp_path / "memory" / "a" / "b"
    group.mkdir(parents=True)
    for folder, limit, used in ((group, 100, 30), (group.parent, 90, 40)):
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
    monkeypatch.setattr(room, "GROUPS", tmp_path)
    monkeypatch.setattr(room, "memberships", lambda: ["4:memory:/a/b", "0::/"])
    assert room.room() == 50
    monkeypatch.setattr(room, "memberships", lambda: ["0::/u"])
    (tmp_path / "u").mkdir()
    (tmp_path / "u" / "memory.max").write_text("max\n")
    (tmp_path / "u" / "memory.current").write_text("7\n")
    assert room.room() > 1 << 20
    (tmp_path / "u" / "memory.max").write_text("5\n")
    assert room.room() == 0


def test_the_quick_measurement_takes_no_more_than_it_may(monkeypatch):
    sizes = []
    ones = np.ones
    monkeypatch.setattr(device.np, "ones", lambda n, dtype: sizes.append(n) or ones(n, dtype))
    device.measure(room.resident() + (8 << 20))
    assert 1 << 20 <= sizes[-1] <= 4 << 20
    monkeypatch.setattr(device, "room", lambda: 16 << 20)
    device.measure()
    assert sizes[-1] == 2 << 20
