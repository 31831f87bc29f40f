"""How files of the user are opened, bounded and worded, whatever the reader."""

import errno
import io
import os
import time

import numpy as np
import pytest

from gradledger import compare, errors, show
from refimpl.data import DataError, Dataset
from refimpl.storage import files
from refimpl.storage.checkpoint import CheckpointError
from refimpl.storage.files import InputError
from validation.campaign import bombs, reader


class Wrong(InputError):
    pass


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü ×", "plain ü ×"),
        ("\x1b[31m\x07\r\n", "\\x1b[31m\\x07\\r\\n"),
        ("a\u202eb\u200b\udcff", "a\\u202eb\\u200b\\udcff"),
        ("x" * 61, "x" * 30 + "…" + "x" * 20),
        (17, "17"),
    ],
)
def test_foreign_texts_are_printable_and_short(text, shown):
    assert files.quoted(text) == shown


def test_every_error_of_input_is_one_clean_line():
    for kind in (errors.Malformed, CheckpointError, DataError, Wrong):
        assert str(kind("a\nb\x1b[2J")) == "a\\nb\\x1b[2J" and issubclass(kind, errors.MALFORMED)
    assert "\x1b" not in str(errors.unknown("device", "\x1b[2J", ["a"]))


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (ValueError("no\nmore"), "the file x cannot be read: no$"),
        (KeyError("runs"), "the file x cannot be read: it lacks 'runs'$"),
        (AttributeError(), "the file x cannot be read: AttributeError$"),
        (RecursionError("deep"), "the file x cannot be read: it is nested too deeply$"),
        (MemoryError(), "the file x cannot be read: there is not enough memory for what it says it holds$"),
        (SystemError("\x1b[2J" * 100), r"the file x cannot be read: \\x1b\[2J.*….*J$"),
        (OSError(errno.EACCES, "Permission denied"), "cannot read the file x: Permission denied$"),
        (Wrong("as it is"), "^as it is$"),
        (InputError("as it is"), "^as it is$"),
    ],
)
def test_whatever_a_parser_raises_is_one_sentence(raised, message):
    with pytest.raises(InputError, match=message), files.reading("the file x", Wrong):
        raise raised


def test_an_interrupt_is_not_swallowed():
    with pytest.raises(KeyboardInterrupt), files.reading("the file x", Wrong):
        raise KeyboardInterrupt


def test_only_regular_files_are_opened_and_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    started = time.perf_counter()
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(Wrong, match="cannot read it: it is no regular file but a pipe or a device"):
            files.read_bytes(path, "it", Wrong)
    with pytest.raises(Wrong, match="cannot read it: Is a directory"):
        files.read_bytes(tmp_path, "it", Wrong)
    with pytest.raises(Wrong, match="cannot read it: No such file or directory"):
        files.read_bytes(tmp_path / "none", "it", Wrong)
    assert time.perf_counter() - started < 5
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert files.read_bytes(tmp_path / "link", "it", Wrong) == b"abc"
    with pytest.raises(Wrong, match="it has 3 bytes, and at most 2 are read of such a file"):
        files.read_bytes(tmp_path / "file", "it", Wrong, 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
def test_a_file_of_somebody_else_says_so(tmp_path):
    path = tmp_path / "own.npz"
    path.write_bytes(b"abc")
    path.chmod(0)
    os.seteuid(65534)
    try:
        with (
            pytest.raises(DataError, match="cannot read .*own.npz: Permission denied"),
            files.archive(path, str(path), DataError),
        ):
            pass
    finally:
        os.seteuid(0)


def test_what_a_file_may_expand_to(monkeypatch):
    monkeypatch.delenv(files.LIMIT, raising=False)
    monkeypatch.setattr(files, "free_memory", lambda: 2**34)
    for size, most in ((0, 2**26), (2**20, 100 * 2**20), (2**30, 2**32), (2**33, 2**33), (2**34, 0.75 * 2**34)):
        assert files.most_bytes(size) == most
    monkeypatch.setenv(files.LIMIT, "12")
    assert files.most_bytes(2**30) == 12
    monkeypatch.undo()
    assert 2**20 < files.free_memory() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize("dtype", [object, "V4", [("a", "f4"), ("b", "O")], ("f4", (2,))])
def test_arrays_of_anything_but_numbers_and_texts_are_refused(tmp_path, dtype):
    out = io.BytesIO()
    np.savez(out, x=np.zeros(3, dtype) if dtype != ("f4", (2,)) else np.zeros(3, [("a", "f4", (2,))]))
    (tmp_path / "x.npz").write_bytes(out.getvalue())
    message = "x of it (holds Python objects, which are never loaded|holds .*, but it must be an array of plain)"
    with pytest.raises(Wrong, match=message), files.archive(tmp_path / "x.npz", "it", Wrong) as found:
        found.read(["x"])


def test_names_of_a_data_set_are_written_out():
    x = np.zeros((2, 1, 1, 1), np.float32)
    found = Dataset("a\x1b[2J", x, np.arange(2), x, np.arange(2), ("b\x07", "c"))
    assert (found.name, found.classes) == ("a\\x1b[2J", ("b\\x07", "c"))


@pytest.fixture(scope="module")
def all_bombs(tmp_path_factory):
    return bombs.all_bombs(tmp_path_factory.mktemp("made"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a pipe for weights", "cannot read the weights .*: it is no regular file but a pipe or a device"),
        ("a pipe for weights of others", "cannot read the weights .*: it is no regular file"),
        ("a pipe for a profile", "cannot read the device profile .*: it is no regular file"),
        ("a pipe for a record", "cannot read .*x.json: it is no regular file"),
        ("/dev/zero for a profile", "cannot read the device profile /dev/zero: it is no regular file"),
        ("a net of 200,000 blocks", "blocks of mobilenet_folded must be at most 500 rows"),
        ("a net of 10¹⁰⁰ classes", "stem of mobilenet_folded must be at most 1,000,000,000, not 1000"),
        ("options that are nested", r"are no JSON object: '\[\[\[.*….*': it is nested too deeply"),
        ("a model's name with an escape", r"holds weights of '\\\\x1b\[2Jx*…x*', which the command line cannot build"),
        ("a header of 2⁶³ bytes", "its header would have 9,223,.* bytes, and at most 16,777,216 are read"),
        ("a header that is nested", "are no safetensors file or are damaged: it is nested too deeply"),
        ("a structure that is nested", "the structure of .* is no JSON object .*: it is nested too deeply"),
        ("a profile that is nested", "the device profile .* cannot be read: it is nested too deeply"),
        ("a profile of 64 MiB", "the device profile .* has 67,.* bytes, and at most 16,777,216 are read"),
        ("a record that is nested", "x.json cannot be read: it is nested too deeply"),
        ("a record whose runs are a number", "the runs of .* are not those that gradledger reproduce writes: 'int'"),
        ("runs that are nested", "line 1 of .*runs.jsonl is no run of runs; .*: it is nested too deeply"),
    ],
)
def test_what_is_made_to_harm_is_refused(tmp_path, all_bombs, name, message):
    kind, lay = all_bombs[name]
    path = lay(tmp_path)
    started = time.process_time()
    with pytest.raises(InputError, match=message) as caught:
        reader.READERS[kind](path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600 and time.process_time() - started < 5


@pytest.mark.parametrize(
    "point", [[1, 2], [1, "2", 0.5], [0, 1, 0.5], [1, 1, 2], [1, float("nan"), 0.5], [1, 1e40, 0.5], [2, 9, 0.5]]
)
def test_points_of_a_curve_are_checked(point):
    compare.check({"g": {"SGD": [[[1, 10, 0.5]]]}})
    with pytest.raises(ValueError, match="SGD has the point|not enough values"):
        compare.check({"g": {"SGD": [[[0.5, 10, 0.5], point]]}})


@pytest.mark.parametrize("curves", [{}, {"g": {}}, {"g": {"SGD": [[]]}}])
def test_a_record_without_points_is_refused(curves):
    with pytest.raises(ValueError, match="there are none|SGD has an empty curve"):
        compare.check(curves)


def test_a_foreign_name_is_no_markup_of_the_table(capsys):
    row = {"method": "[/x]", "runs": 1, "reached": 0, "macs": None, "seconds": None}
    show.equal_accuracy(
        {"groups": {"[/g]": {"accuracy": 0.5, "methods": [row]}}, "device": "[/d]", "device_measured": False}
    )
    out = capsys.readouterr().out
    assert "[/g]: until 50.00 % is reached" in out and "[/x]" in out and "time on [/d]" in out
    costs = dict.fromkeys(("step_seconds", "step_seconds_range", "first_step_seconds", "calibrated"))
    costs |= dict.fromkeys(("macs", "executed_macs", "peak_bytes"), 1)
    record = {
        "model": "m", "data_name": "[/n]", "method": "backprop", "steps": 1, "weights": "random", "by_default": [],
        "accuracy_before": 0.5, "accuracy_after": 0.5, "recall": {"[/c]": {"before": 0.5, "after": None}},
        "predicted": costs, "measured": costs, "seconds": 1.0, "files": {},
        "next": ["gradledger predict [/w]"],
    }  # fmt: skip
    show.adapted(record)
    out = capsys.readouterr().out
    assert "m on [/n]: backprop" in out and "recall [/c]" in out and "\n  gradledger predict [/w]\n" in out
