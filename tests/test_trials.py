"""Plans that are tried on a person's data: `gradledger cost --advise --data`."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small_model import PIXELS, images, net

import refimpl as ri
from gradledger import advise, job, trials
from gradledger.cli import main
from gradledger.settings import AdaptSettings
from gradledger.show_advice import verdict
from refimpl import data as source
from refimpl.recipes.rehearsed import Rehearsed
from refimpl.saved.model import Model


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A net that knows four classes of small maps, and data of three others, whose places tell them."""
    folder, rng = tmp_path_factory.mktemp("tried"), np.random.default_rng(0)
    y = np.arange(180) % 3
    x = rng.normal(0, 0.3, (180, 12, 12, 2)).astype(np.float32)
    for i, label in enumerate(y):
        x[i, :, 4 * label : 4 * label + 4] += 1
    np.savez(folder / "data.npz", x=x, y=y)
    graph = ri.models.build("lenet5", classes=4, size=(12, 12), channels=2)
    trainer = ri.Trainer(ri.compile(graph, ri.Plan("all"), batch=8))
    trainer.save(folder / "net.safetensors")
    return folder


@pytest.fixture
def plan(files):
    """What `adapt` would be given."""
    return AdaptSettings(
        str(files / "net.safetensors"),
        str(files / "data.npz"),
        method=["backprop"],
        train_last="all",
        batch=16,
        threads=1,
    )


def test_places_are_spread_with_both_ends():
    assert trials.spread(3) == [0, 1, 2] and trials.spread(49) == [0, 10, 19, 29, 38, 48]
    assert trials.spread(7, 2) == [0, 6]


def test_the_better_plan_is_ranked_first(plan):
    useless = replace(plan, lr=1e-9)
    seen = []
    found = trials.tried([useless, plan], 60, lambda i, n, about: seen.append((i, n, about)))
    assert seen == [(0, 2, "trying backprop, last all"), (1, 2, "trying backprop, last all")]
    assert [row["rank"] for row in found] == [2, 1]
    assert found[1]["accuracy"] >= found[0]["accuracy"] == found[0]["before"] == found[1]["before"]
    assert found[1]["loss"] < found[0]["loss"] and {row["held_out"] for row in found} == {30}


def test_a_trial_ends_with_its_seconds(plan):
    (short,), (whole,) = trials.tried([plan], 0.0), trials.tried([plan], 60)
    assert short["steps"] == 1 and whole["steps"] > 50


def test_a_new_classifier_is_shared(plan, monkeypatch):
    fitted, starts = trials.fitted, []
    monkeypatch.setattr(trials, "fitted", lambda job: starts.append(1) or fitted(job))
    found = trials.tried([replace(plan, train_last="1"), plan], 0.0)
    assert starts == [1] and found[0]["before"] == found[1]["before"] > 0.4


@pytest.mark.parametrize("few", [2000, 10])
def test_plans_share_data_that_are_read_once(tmp_path, monkeypatch, few):
    """To the bits of those that each would read, be they pixels that change or maps that move in their memory."""
    x, y = images(20)
    np.savez(tmp_path / "own.npz", x=x, y=y)
    Model(net(), PIXELS).save(tmp_path / "net.safetensors")
    one = AdaptSettings(str(tmp_path / "net.safetensors"), str(tmp_path / "own.npz"), method=["backprop"], batch=16)
    plans = [one, replace(one, train_last="1", batch=8), replace(one, method=["gradient-filter:patch=2"])]
    load, loads = source.load, []
    monkeypatch.setattr(source, "load", lambda *args, **settings: loads.append(args) or load(*args, **settings))
    monkeypatch.setattr(job, "FEW", few)
    alone = [job.prepare(plan) for plan in plans]
    at_hand = job.DataAtHand()
    assert len(job.read(one, at_hand)[1].x_train) == 48
    shared = [job.prepare(plan, at_hand) for plan in plans]
    assert len(loads) == 4 and shared[0].dataset is shared[2].dataset
    for a, b in zip(alone, shared, strict=True):
        for name, maps in a.dataset.maps.items():
            np.testing.assert_array_equal(maps, b.dataset.maps[name])
        assert a.dataset.x_train.min() < -0.9 and a.pixels and b.pixels and a.settings == b.settings
        assert (type(a.course) is Rehearsed) == (type(b.course) is Rehearsed) == (few > 60)
    for other in (replace(one, seed=1), replace(one, pixels="0,1", model="resnet8"), replace(one, recipe="plain")):
        found = job.prepare(other, at_hand)
        assert found.dataset is not shared[0].dataset
        np.testing.assert_array_equal(found.dataset.x_train, job.prepare(other).dataset.x_train)
    assert len(loads) == 4 + 3 + 3


def test_advice_on_data_puts_the_best_first(files, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(advise, "plot", lambda output, name: None)
    load, loads = source.load, []
    monkeypatch.setattr(source, "load", lambda *args, **settings: loads.append(args) or load(*args, **settings))
    net, data = files / "net.safetensors", files / "data.npz"
    args = ["cost", "--advise", "--model", str(net), "--data", str(data), "--device", "raspberry-pi-4", "--output"]
    with pytest.raises(SystemExit) as left:
        main([*args, str(tmp_path), "--trial-seconds", "2"])
    out = capsys.readouterr().out
    front = json.loads((tmp_path / "advise.json").read_text())["front"]
    tried = {i: p["trial"] for i, p in enumerate(front, start=1) if p["trial"]}
    assert len(loads) == 1
    assert left.value.code == 0 and 1 < len(tried) <= trials.MOST < len(front)
    assert {1, len(front)} <= tried.keys() and sorted(t["rank"] for t in tried.values()) == [*range(1, len(tried) + 1)]
    best = min(tried, key=lambda i: tried[i]["rank"])
    assert f"best is plan {best}: " in out
    commands = [line for line in out.splitlines() if "gradledger adapt" in line]
    assert len(commands) == len(tried) and commands[0].split() == [str(best), *front[best - 1]["command"].split()]


def test_plans_that_told_as_many_right_are_named_with_the_cheapest():
    trial = {"before": 0.5, "steps": 9, "seconds": 1.0, "held_out": 32}
    rows = [(0.75, 1, 40, 9.0), (0.75, 3, 7, 8.0), (0.6, 4, 1, 1.0), (0.75, 2, 30, 5.0)]
    front = [
        {"trial": trial | {"accuracy": a, "rank": rank}, "memory_bytes": m, "seconds_per_epoch": {"mid": s}}
        for a, rank, m, s in rows
    ]
    (told,) = verdict(front)
    assert (
        "best is plan 1: 50.0 % before, 75.0 % after 9 steps; as many right, but for the loss, told plans 2, 4" in told
    )
    assert "least memory takes plan 2, least time plan 4; trials tell" in told
    (told,) = verdict(front[:1] + front[2:3])
    assert "after 9 steps; trials tell" in told


@pytest.mark.parametrize(
    "args, message",
    [
        (("--advise", "--samples", "9", "--trial-seconds", "-1"), "--trial-seconds must be a number of seconds, 0 for"),
        (("--trial-seconds", "5"), "--trial-seconds goes with --advise"),
        (("--advise", "--samples", "9", "--trial-seconds", "5"), "--trial-seconds tries plans on data: give --data"),
    ],
)
def test_seconds_of_trials_are_checked(args, message, capsys):
    with pytest.raises(SystemExit) as left:
        main(["cost", *args])
    assert left.value.code == 2 and message in " ".join(capsys.readouterr().err.split())
