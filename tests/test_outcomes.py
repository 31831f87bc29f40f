"""The experiment of outcomes: what it writes for the command, what it makes of runs, and a short one to the end."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from gradledger import plot, show
from refimpl import data
from validation.experiments import datasets, outcome_pairs, outcomes
from validation.experiments.command_line import Samples, commanded
from validation.experiments.outcome_pairs import Pair, decoded, drawn, of_classes, of_dataset
from validation.experiments.runs import held_out

CLASSES = ("ant", "bee", "cow")


def samples(train=30, test=12, seed=0):
    """Bright squares whose corner tells the class."""
    rng = np.random.default_rng(seed)
    parts = []
    for count in (train, test):
        y = np.arange(count) % 3
        x = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        for i, label in enumerate(y):
            x[i, :9, 9 * label : 9 * label + 9] += 150
        parts += [x, y]
    return Samples(*parts, CLASSES)


def streams(s):
    """The same as JPEG streams."""
    import io

    from PIL import Image

    found = []
    for x in (s.x_train, s.x_test):
        part = np.empty(len(x), object)
        for i, image in enumerate(x):
            coded = io.BytesIO()
            Image.fromarray(np.repeat(image[:, :, None], 3, axis=2)).resize((32, 32)).save(coded, "JPEG")
            part[i] = coded.getvalue()
        found.append(part)
    return replace(s, x_train=found[0], x_test=found[1])


def test_arrays_reach_the_command_as_they_are(tmp_path):
    s = samples()
    d = data.load(str(s.write(tmp_path / "data")))
    assert d.classes == CLASSES and d.pixels
    again = of_dataset(d)
    for part in ("train", "test"):
        assert np.array_equal(getattr(again, f"x_{part}")[..., 0], getattr(s, f"x_{part}"))
        assert np.array_equal(getattr(again, f"y_{part}"), getattr(s, f"y_{part}"))


def test_photographs_reach_the_command_in_their_parts(tmp_path):
    s = streams(samples(9, 6))
    d = data.load(str(s.write(tmp_path / "data")), size=(32, 32))
    assert d.classes == CLASSES and (len(d.x_train), len(d.x_test)) == (9, 6)
    maps = decoded(s)
    assert maps.x_train.shape == (9, 32, 32, 3)
    order = np.argsort(s.y_train, kind="stable")  # of folders of classes
    assert np.array_equal(np.rint(255 * d.x_train).astype(np.uint8), maps.x_train[order])


def test_samples_are_drawn_by_the_seed_from_their_own_part():
    s = samples(300, 90)
    one, again, other = (drawn(s, seed, 20, 10) for seed in (1, 1, 2))
    assert np.array_equal(one.x_train, again.x_train) and not np.array_equal(one.x_train, other.x_train)
    rows = {x.tobytes() for x in s.x_train}
    assert len(one.x_train) == 20 and all(x.tobytes() in rows for x in one.x_train)
    assert not any(x.tobytes() in rows for x in one.x_test)


def test_some_classes_are_numbered_anew():
    s = of_classes(samples(), (0, 2))
    assert s.classes == ("ant", "cow") and set(s.y_train.tolist()) == {0, 1} and len(s.y_train) == 20
    assert s.x_train[s.y_train == 1][:, 4, 22].min() >= 150  # the corner of the cows


def test_a_trial_sees_no_sample_that_evaluates():
    s = samples(300, 90)
    trial = held_out(s, 75)
    rows = {x.tobytes() for x in s.x_test}
    assert (len(trial.x_train), len(trial.x_test)) == (225, 75)
    assert not any(x.tobytes() in rows for x in np.concatenate([trial.x_train, trial.x_test]))


def test_a_refusal_of_the_command_is_kept(tmp_path):
    with commanded(samples(), tmp_path, ["--model", "no_such_net"]) as (record, weights):
        assert weights is None and "no_such_net" in record["error"] and record["status"] == 2
    assert not list(tmp_path.iterdir())


def test_a_run_that_takes_too_long_is_stopped(tmp_path):
    with commanded(samples(), tmp_path, [], longest=0.05) as (record, weights):
        assert weights is None and record["error"] == "not done after 0.05 s"


PROTOCOL = outcomes.Protocol(("some",), ("backprop", "bias-only"), (10, 11))


def runs(after):
    """Runs of a pair: way → accuracy of each seed, or a sentence."""
    found = []
    for way, values in after.items():
        for seed, value in zip(PROTOCOL.seeds, values, strict=True):
            one = {"pair": "some", "way": way, "seed": seed, "settings": {}}
            more = {"before": 0.5, "after": value, "ended_worse": False, "steps": 1, "train_seconds": 60.0, "macs": 10,
                    "arena_bytes": 1, "resident_bytes": 2}  # fmt: skip
            found.append(one | ({"error": value} if isinstance(value, str) else more))
    return found


@pytest.fixture
def pair(monkeypatch):
    """A pair of a small net that knows nothing, and squares."""
    some = Pair("LeNet-5; squares", lambda folder, seed: folder / "nets" / "lenet.safetensors", samples)
    monkeypatch.setitem(outcome_pairs.PAIRS, "some", some)
    return some


def judged(after):
    protocol = {"pairs": ["some"], "methods": list(PROTOCOL.methods), "seeds": list(PROTOCOL.seeds)}
    return outcomes.judge({"protocol": protocol, "runs": runs(after)})


def test_every_goal_is_judged_and_can_be_missed(pair):
    good = {"head alone": (0.7, 0.7), "by hand": (0.77, 0.77), "backprop": (0.8, 0.78), "bias-only": (0.69, 0.77)}
    found = judged(good)
    assert found["ok"] and [g["value"] for g in found["goals"]] == pytest.approx([23.0, 3.0, -1.0])
    for i, change in enumerate(
        ({"bias-only": (0.49, 0.5), "head alone": (0.4, 0.4)}, {"bias-only": (0.68, 0.69)}, {"by hand": (0.9, 0.9)})
    ):
        goals = judged(good | change)["goals"]
        assert goals[i]["verdict"] == "not reached", i


def test_a_method_that_refuses_is_listed_and_judged_by_nothing(pair, tmp_path, capsys):
    found = judged({"head alone": (0.7, 0.7), "by hand": (0.8, 0.8), "backprop": (0.8, 0.8), "bias-only": ("no", "no")})
    assert found["measured"]["some, bias-only"] == {"refused": "no"} and found["ok"]
    record = {"name": outcomes.NAME, **found, "file": "outcomes.json"}
    show.reproduced(record)
    out = capsys.readouterr().out
    assert "some, head alone" in out and "70.00 ± 0.00" in out and "points above the search by hand" in out
    (tmp_path / "outcomes.json").write_text(json.dumps(record))
    plot.draw(record, tmp_path / "outcomes.png")
    assert (tmp_path / "outcomes.png").stat().st_size > 10_000


def test_a_short_experiment_goes_on_from_what_it_kept(pair, tmp_path, monkeypatch):
    net = partial(outcome_pairs.trained, "lenet", "lenet5", samples, 1)
    monkeypatch.setitem(outcome_pairs.PAIRS, "some", replace(pair, net=net))
    monkeypatch.setattr(outcomes, "SEARCH", outcomes.SEARCH[2:4])
    protocol = outcomes.Protocol(("some",), ("backprop",), (10,), epochs=2)
    seen = []
    record = outcomes.run(outcomes.NAME, tmp_path, lambda i, n, about: seen.append(about), protocol)
    ways = {way: record["measured"][f"some, {way}"] for way in ("head alone", "by hand", "backprop")}
    assert seen == [f"some, {way}, seed 10" for way in ("head alone", "by hand", "backprop")]
    assert all(0 <= row["after"]["mean"] <= 100 and row["macs"] > 0 for row in ways.values())
    assert ways["by hand"]["settings"].startswith("train_last=") and ways["backprop"]["settings"] == ""
    assert ways["head alone"]["arena_bytes"] < ways["backprop"]["arena_bytes"]

    def never(*_):
        raise AssertionError("a run is made again")

    monkeypatch.setattr(outcomes, "one", never)
    assert outcomes.run(outcomes.NAME, tmp_path, lambda *_: None, protocol) == record
    assert outcomes.judge(record) == {key: value for key, value in record.items() if key != "name"}


@pytest.mark.skipif(not datasets.BESIDE.exists(), reason="no ../shared/data here")
@pytest.mark.parametrize("name", outcome_pairs.PAIRS)
def test_each_pair_has_samples_of_every_class(name):
    """What a seed draws; the nets of ours take minutes to train."""
    pair = outcome_pairs.PAIRS[name]
    s, other = pair.samples(10), pair.samples(11)
    assert set(s.y_train.tolist()) == set(range(len(s.classes))) == set(s.y_test.tolist())
    assert len(s.x_train) == len(s.y_train) <= 300 and len(s.x_test) == len(s.y_test) >= 200
    assert not np.array_equal(s.x_train, other.x_train)
