"""The campaign against the kernel cache, in its short form, and that it sees what it is to find."""

import pytest

from validation.campaign import Outcome, cache


def test_short(tmp_path):
    found = cache.run(True, 0, tmp_path, lambda done, of: None)
    assert not found.wrong and found.tried > 5
    assert found.figures["processes that filled an empty cache together"] == 2


class Ended:
    """A run that has ended."""

    def __init__(self, out="", err="", returncode=0):
        self.out, self.err, self.returncode = out, err, returncode

    def communicate(self):
        return self.out, self.err


@pytest.mark.parametrize(
    "run, wrong",
    [
        (Ended(returncode=-11), "reference, case: status -11: no word"),
        (Ended(err="Traceback\nEOFError\n", returncode=1), "reference, case: status 1: EOFError"),
        (Ended('[["0x1p+0"], 1]'), "reference, case: other losses"),
        (Ended('[["0x1p+1"], 2]'), "reference, case: 2 kernels compiled, not 1"),
        (Ended('[["0x1p+1"], 1]', "warning\n"), "reference, case: said 'warning'"),
    ],
)
def test_what_is_wrong_is_told(run, wrong, tmp_path):
    found = Outcome()
    cache.Cache(tmp_path, "reference", found, ["0x1p+1"], 1).ended("case", run, 1)
    assert found.wrong == [wrong]


def test_what_is_left_is_told(tmp_path, monkeypatch):
    found = Outcome()
    one = cache.Cache(tmp_path, "fast", found, ["0x1p+1"], 1)
    monkeypatch.setattr(one, "start", lambda: Ended('[["0x1p+1"], 0]'))
    (tmp_path / "numba-1").mkdir()
    for name in ("a.kernel", ".a.kernel.7.tmp"):
        (tmp_path / "numba-1" / name).touch()
    one.healed("case")
    assert found.wrong == ["fast, case: .a.kernel.7.tmp is left", "fast, case: a.kernel is left"]


def test_what_a_run_needs_is_what_two_that_shared_the_work_left(tmp_path, monkeypatch):
    found = Outcome()
    both = cache.Cache(tmp_path / "cache", "fast", found)

    def start():
        folder = tmp_path / "cache" / "numba-1"
        folder.mkdir(parents=True, exist_ok=True)
        for name in "abc":
            (folder / f"{name}.kernel").touch()
        return Ended('[["0x1p+1"], 2]')  # of the three, it found one that the other had compiled

    monkeypatch.setattr(both, "start", start)
    monkeypatch.setattr(both, "healed", lambda case: None)
    cache.at_once(both, 2)
    assert (both.kernels, both.wanted, found.wrong) == (3, ["0x1p+1"], [])
