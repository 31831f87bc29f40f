"""The recorded table of what plans compute: a part here, all of it by `python -m validation.instruments.snapshot`."""

import re

import pytest

from validation.instruments import snapshot

TABLE = snapshot.load()
PLANS = ("backprop", "instance-filter+error-map-pruning", "gradient-filter+sparse-update", "adam", "mse", "batch-norm")
SAMPLE = [f"{model} {plan} {b}" for model in ("watch", "lenet5") for plan in PLANS for b in snapshot.BACKENDS]
SAMPLE += [f"resnet8 random-skip+error-map-pruning+stochastic-depth {b}" for b in snapshot.BACKENDS]


def test_it_has_every_case():
    assert TABLE["cases"].keys() == {*snapshot.names()} and len(TABLE["cases"]) == 1942
    assert {*TABLE["bits"]} == {*snapshot.bits()}


@pytest.mark.parametrize("name", SAMPLE)
def test_a_case_computes_what_is_recorded(name):
    assert not snapshot.compared(TABLE, {name: snapshot.figures(name)})


def test_differences_are_told(monkeypatch):
    name = "lenet5 backprop fast"
    case = TABLE["cases"][name]
    monkeypatch.setattr(snapshot, "avx512", lambda: TABLE["avx512"])  # else arenas are not compared
    other = case | {"peak_bytes": 1, "losses": "3f800000" + case["losses"][8:]}
    told = snapshot.compared(TABLE, {name: other})
    assert f"{name}: peak_bytes was {case['peak_bytes']}, is 1" in told
    assert any(re.match(f"{name}: losses was [0-9a-f]+, is 3f800000", line) for line in told)
    assert snapshot.compared(TABLE, {"new": case}) and not snapshot.compared(TABLE, {name: case})
    monkeypatch.setattr(snapshot, "bits", lambda: {"processor": "another one"})
    last = f"{int(case['losses'][-8:], 16) ^ 1:08x}"  # another bit at the end of the last loss
    assert not snapshot.compared(TABLE, {name: case | {"losses": case["losses"][:-8] + last}})
    assert snapshot.compared(TABLE, {name: case | {"losses": case["losses"][:-8]}})
