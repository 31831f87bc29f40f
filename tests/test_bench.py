"""The benchmark checks what it times, and reports what it measured."""

import re
import sys

import numba
import numpy as np
import pytest
import torch

from validation import bench

TINY = bench.Filtered(8, 9, 7, 2, batch=2)


@pytest.fixture(autouse=True)
def restore_threads():
    ours, theirs = numba.get_num_threads(), torch.get_num_threads()
    yield
    numba.set_num_threads(ours)
    torch.set_num_threads(theirs)


@pytest.mark.parametrize("patch", [2, 4])
def test_every_side_computes_the_same(patch):
    case = bench.Filtered(8, 9, 7, patch, batch=2)
    for work in (bench.Ours(case), bench.Torch(case, False), bench.Torch(case, True)):
        work()
        assert case.error(*work.result()) < 1e-6


def test_a_wrong_result_is_not_timed(monkeypatch):
    monkeypatch.setitem(bench.CASES, "filtered-tiny", TINY)
    monkeypatch.setattr(bench.Ours, "result", lambda self: (self.dx * np.float32(1.01), self.dw))
    message = "ours is wrong by 1.0e-02 on filtered-tiny, more than 1e-05"
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        bench.run_side("ours", ["filtered-tiny"], numba.get_num_threads(), 1, check=True)


def test_times_come_from_each_side_in_turns(monkeypatch):
    asked = []

    def measured(side, names, threads, repeats, check):
        asked.append((side, check))
        later = len(asked) > 3
        times = {"ours": [2.0, 4.0], "torch-nchw": [9.0, 11.0], "torch-nhwc": [5.0, 5.0]}[side]
        return {n: [t + later for t in times] for n in names} | {"bandwidth": 1e9 + later}

    monkeypatch.setattr(bench, "launch", measured)
    monkeypatch.setitem(bench.CASES, "filtered-tiny", TINY)
    (record,) = bench.run_cases(["filtered-tiny"])
    sides = ["ours", "torch-nchw", "torch-nhwc"]
    assert asked == [(s, True) for s in sides] + [(s, False) for s in sides]
    assert (record["ours_ms"], record["peer_ms"], record["peer_nhwc_ms"]) == (3.5, 10.5, 5.5)
    assert record["ratio"] == pytest.approx(3.5 / 10.5) and record["ratio_nhwc"] == pytest.approx(3.5 / 5.5)
    moved = 4 * (2 * 8 * (2 * 9 * 7 + 5 * 4) + 2 * 9 * 8 * 8)
    assert record["floor_ms"] == pytest.approx(moved / (1e9 + 1) * 1e3)
    assert record["spread"] == pytest.approx(1.5 / 3.5)


def test_a_side_that_fails_is_named():
    with pytest.raises(RuntimeError, match="KeyError: 'no-such-case'"):
        bench.launch("ours", ["no-such-case"], 1, 1, check=False)


def test_names_choose_cases(monkeypatch):
    monkeypatch.setattr(bench, "launch", lambda side, names, *_, check: {n: [1.0] for n in names} | {"bandwidth": 1.0})
    names = lambda *wanted: [r["name"] for r in bench.run_cases(list(wanted))]  # noqa: E731
    assert names("filtered") == list(bench.CASES) and len(bench.CASES) == 14
    assert names("filtered-3") == ["filtered-3-patch2", "filtered-3-patch4"]
    assert names("filtered-3-patch4", "filtered-3") == ["filtered-3-patch4", "filtered-3-patch2"]


def test_refuses_what_it_does_not_know(capsys):
    with pytest.raises(ValueError, match="^unknown case 'filtered-9': choose from filtered, filtered-0-patch2"):
        bench.run_cases(["filtered-9"])
    with pytest.raises(ValueError, match="^unknown peer 'jax': choose from torch$"):
        bench.run_cases(["filtered"], peer="jax")
    assert bench.main(["filtered-9", "--json"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("unknown case 'filtered-9'")


def test_torch_is_not_imported_where_only_ours_runs():
    import subprocess

    code = "import sys, validation.bench as b; b.Ours(b.Filtered(8, 9, 7, 2, 2))(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
