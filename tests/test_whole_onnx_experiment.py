"""The experiment that holds quantized ONNX models against onnxruntime: what it draws and how it judges."""

import numpy as np
import pytest

from validation.experiments import whole_onnx
from validation.experiments.runs import MISSED, REACHED


def runs(one_away=10, further=0, same=1.0):
    """Runs of both nets, and of three ways by two seeds."""
    found = [
        {"net": net, "part": "operators", "operators": 5, "numbers": 10**6, "one_away": one_away, "further": further}
        for net in whole_onnx.NETS
    ]
    found += [{"net": net, "part": "nets", "ours": {}, "itself": {}} for net in whole_onnx.NETS]
    for way in list(whole_onnx.WAYS)[:2]:
        for seed in (0, 1):
            shares = {"before": 0.1, "after": 0.5 + seed / 10, "runtime": 0.5, "same": same}
            found.append({"way": way, "seed": seed, "arena_bytes": 7, "train_seconds": 2.0, **shares})
    return found + [{"way": whole_onnx.FLOATS, "seed": 0, "error": "refused"}]


def test_goals_are_those_of_numbers_and_of_classes():
    good = whole_onnx.judge({"runs": runs()})
    way = next(iter(whole_onnx.WAYS))
    assert good["ok"] and {g["verdict"] for g in good["goals"]} == {REACHED}
    assert good["measured"][way]["after"]["mean"] == 55 and good["measured"][way]["seconds"] == 4
    assert whole_onnx.FLOATS not in good["measured"]
    for bad in ({"one_away": 200}, {"further": 1}, {"same": 0.9}):
        found = whole_onnx.judge({"runs": runs(**bad)})
        assert not found["ok"] and MISSED in {g["verdict"] for g in found["goals"]}, bad


def test_scores_are_compared_by_class_and_by_steps():
    a = np.array([[0.0, 1.0, 0.5], [2.0, 0.0, 0.0]])
    b = np.array([[0.0, 0.5, 0.75], [2.0, 0.0, 0.25]])
    assert whole_onnx.compared(a, b, 0.25) == {"same": 0.5, "steps": 2}


def test_photographs_of_a_seed_are_as_many_of_each_class(monkeypatch):
    y = np.arange(2000) % 10
    stream = np.array([b"%d" % i for i in range(2000)], object)
    of = whole_onnx.Samples(stream, y, stream, y, tuple("abcdefghij"))
    monkeypatch.setattr(whole_onnx, "photos", lambda: of)
    first, again, other = (whole_onnx.samples(seed) for seed in (0, 0, 1))
    assert first.classes == tuple("abcdeghi") and (first.x_train == again.x_train).all()
    assert np.bincount(first.y_train).tolist() == [28] * 8 and np.bincount(first.y_test).tolist() == [25] * 8
    assert (first.x_train != other.x_train).any() and len(set(first.x_train)) == 28 * 8


def test_without_the_nets_it_says_what_is_missing(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    monkeypatch.setenv("GRADLEDGER_DATA", str(tmp_path / "data"))
    with pytest.raises(whole_onnx.datasets.DataError, match="the weights must lie in a folder `weights` beside"):
        whole_onnx.run(tmp_path, lambda *_: None)
