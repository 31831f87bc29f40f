"""The campaign of damaged and malicious files, in its short form; and that it sees what is wrong."""

import pytest

from validation.campaign import files, reader, samples


def test_the_short_form_finds_nothing_wrong(tmp_path):
    seen = []
    found = files.run(True, 1, tmp_path, lambda done, of: seen.append((done, of)))
    assert found.wrong == []
    assert found.tried > 150 and seen[-1][1] == found.tried == max(done for done, _ in seen)
    assert found.figures["files with status 2"] > found.figures["files with status 0"] > 5
    assert found.figures["most bytes of memory"] > 5e7


def test_every_whole_file_is_read(tmp_path):
    (tmp_path / "made").mkdir()
    cases = [
        files.Case(name, sample.kind, str(sample.write(sample.raw, tmp_path / str(i))), False)
        for i, (name, sample) in enumerate(samples.all_samples(tmp_path / "made").items())
    ]
    answers = files.answered(cases, lambda: None)
    assert len(answers) == 23 and [(c.name, status, said) for c, (status, said, *_) in answers if status or said] == []


@pytest.mark.parametrize(
    ("status", "said", "seconds", "size", "problem"),
    [
        (2, "gradledger: no\n", 0.1, 10**8, None),
        (0, "", 0.1, 10**8, "status 0"),
        (3, "Traceback\n", 0.1, 10**8, "status 3"),
        (-11, "", 0.1, 10**8, "status -11"),
        (2, "gradledger: \x1b[2J\n", 0.1, 10**8, "no single clean sentence"),
        (2, "gradledger: no\nmore\n", 0.1, 10**8, "no single clean sentence"),
        (2, "a warning\ngradledger: no\n", 0.1, 10**8, "no single clean sentence"),
        (2, "gradledger: no\n", 5.1, 10**8, "took 5.1 s"),
        (2, "gradledger: no\n", 0.1, 10**9 + 1, "took 1,000,000,001 bytes of memory"),
    ],
)
def test_what_is_wrong_is_seen(status, said, seconds, size, problem):
    found = files.judged(files.Case("a bomb", "data", "x", True), status, said, seconds, size)
    assert found == [] if problem is None else problem in found[0]


def test_a_reader_that_crashes_waits_or_raises_is_seen(monkeypatch, capfd):
    def crash(path):
        reader.os.kill(reader.os.getpid(), reader.signal.SIGKILL)

    def wait(path):
        reader.signal.alarm(1)
        reader.signal.pause()

    def fail(path):
        raise KeyError(path)

    for work, status in ((crash, -9), (wait, -14), (fail, 3)):
        monkeypatch.setitem(reader.READERS, "data", work)
        found, said, seconds, size = reader.read("data", "x")
        assert found == status and ("Traceback" in said) == (work is fail) and seconds < 5 and size > 10**7
