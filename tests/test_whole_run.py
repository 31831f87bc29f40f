"""`gradledger cost` with data: the whole run, its defaults those of `adapt`, its steps those that a run makes."""

import dataclasses
import inspect
import json
import math

import numpy as np
import pytest
from PIL import Image
from test_watched import X_VAL, Y_VAL, X, Y, headed, trainer

import refimpl as ri
from costmodel import predict
from costmodel.device import device as devices
from gradledger import adapt, cli, cost, recipe, whole_run
from gradledger.cli import main
from gradledger.cost import CostSettings
from gradledger.settings import AdaptSettings
from refimpl.recipes.course import GIVEN, SAFE, SEARCH, Glance, Pace
from refimpl.recipes.watched import Watched

REFERENCE = ("--device", "reference")


@pytest.fixture
def told(capsys):
    """Run `cost` with --json; gives its status, its record and its errors."""

    def command(*args):
        with pytest.raises(SystemExit) as left:
            main(["cost", "--json", *args])
        out, err = capsys.readouterr()
        return left.value.code, json.loads(out) if out else None, err

    return command


def run_of(told, *args):
    status, record, err = told(*args)
    assert (status, err) == (0, "")
    return record["run"]


def test_a_bare_price_is_that_of_a_bare_adaptation(told):
    priced, job = told(*REFERENCE, "--threads", "2", "--data", "watch")[1], adapt.prepare(AdaptSettings(threads=2))
    expected = predict.estimate(job.program, device=devices.REFERENCE)
    assert (priced["peak_bytes"], priced["state_bytes"]) == (job.program.peak_bytes, job.program.state_bytes)
    assert (priced["macs"], priced["method"], priced["batch"]) == (expected.macs, job.method, job.program.batch)
    assert priced["run"]["disk_bytes"] == pytest.approx(adapt.needed(job), rel=1e-3)
    train = job.dataset.x_train
    assert priced["run"]["samples"]["test"] == len(job.dataset.x_test) and priced["batch"] == min(32, len(train))


@pytest.mark.parametrize("command", ["adapt", "cost", "warmup", "validate"])
def test_the_defaults_of_options_are_those_of_the_settings(command):
    defaults = AdaptSettings()
    own = {("cost", "data"), ("validate", "epochs")}
    for name, parameter in inspect.signature(getattr(cli, command)).parameters.items():
        field = name.removesuffix("_")
        if hasattr(defaults, field) and (command, field) not in own:
            assert parameter.default == getattr(defaults, field), f"--{field} of {command}"


def test_every_option_of_a_run_can_be_priced():
    options = {name.removesuffix("_") for name in inspect.signature(cli.adapt).parameters}
    priced = {name.removesuffix("_") for name in inspect.signature(cli.cost).parameters}
    assert options - priced == {"resume"}


@pytest.mark.parametrize("option, change", [
    (("--batch-norm", "train"), lambda free, r: r["macs"] > free["macs"] and r["batch_norm"] == "train"),
    (("--optimizer", "adam"), lambda free, r: r["state_bytes"] > free["state_bytes"] and r["momentum"] is None),
    (("--clip", "0"), lambda free, r: "clip" not in [layer["name"] for layer in r["layers"]]),
    (("--class-weights", "balanced"), lambda free, r: r["constant_bytes"] > free["constant_bytes"]),
])  # fmt: skip
def test_what_decides_a_step_decides_its_price(told, option, change):
    free, r = told(*REFERENCE)[1], told(*REFERENCE, *option)[1]
    assert change(free, r)


@pytest.mark.parametrize("epochs", [1, 4, 20])
@pytest.mark.parametrize("factors", [SEARCH, SAFE, GIVEN])
def test_a_run_makes_the_steps_and_looks_that_its_pace_tells(epochs, factors):
    run = Watched(trainer(0.002), X, Y, X_VAL, Y_VAL, epochs, factors)
    list(run.run())
    pace, probes = run.pace, len(run.course.probed)
    assert pace.usual <= probes <= pace.most
    assert run.course.made == probes * pace.probe + pace.total <= run.most
    assert len(run.course.looks) == 1 + pace.looks(pace.total)
    assert sum(map(len, run.course.probed)) == probes * pace.looks(pace.probe)
    worse = Watched(trainer(0.002), X, Y, X_VAL, Y_VAL, epochs, factors)
    losses = iter(range(100, 200))
    worse.look = lambda: Glance(worse.trainer.step, next(losses) / 100, 0.0)  # a little worse each time
    list(worse.run())
    assert worse.course.best == 0 and len(worse.course.probed) == pace.vain
    assert worse.course.made == pace.least <= worse.most


@pytest.mark.parametrize("whole", [False, True])
def test_a_run_that_tries_all_layers_at_once_first_is_priced(whole):
    counts = whole_run.SampleCounts(100 if whole else 70, 70, 30, 0, 0, None, "samples")
    planned = whole_run.course_of(CostSettings(epochs=8), counts, 16, True)
    won, lost = (headed(trainer(0.01), whole, wins) for wins in (True, False))
    list(won.run())
    list(lost.run())
    assert planned.sizes == won.sizes() and len(planned.sizes) + len(planned.more) == won.most == lost.most
    seen = won.watched.course if whole else won.course
    assert planned.looks == len(seen.looks) + len(seen.direct) + whole
    assert planned.least <= len(lost.sizes()) <= lost.most
    seen = lost.watched.course if whole else lost.course
    made = len(seen.looks) + len(seen.direct) + sum(map(len, seen.probed))
    assert made <= planned.looks + planned.more_looks


def test_the_fewest_steps_of_a_pace():
    assert Pace.of(70, 16, 20).least == 4 * 25 + 8 * 5
    assert Pace.of(7, 16, 1, GIVEN).least == 1


def test_the_parts_of_a_run_add_up(told):
    run = run_of(told, *REFERENCE, "--model", "resnet8", "--data", "fashion-mnist", "--epochs", "2")
    assert run["samples"] == {"train": 1800, "validation": 200, "test": 1000}
    assert set(run["parts"]) == {
        "steps", "looks at samples held out", "test before and after", "maps of the layers before the classifier",
        "steps of the classifier alone", "looks at the classifier alone", "start, report and picture",
        whole_run.FURTHER,
    }  # fmt: skip
    for end in ("low", "mid", "high"):
        assert run["seconds"][end] == pytest.approx(sum(part["seconds"][end] for part in run["parts"].values()))
    pace = Pace.of(1800, 32, 2)  # and a classifier that is new
    assert (run["steps"], run["steps_most"]) == (pace.total, 2 * pace.total + 6 * pace.probe)
    assert run["steps_least"] == pace.directly and run["looks"] == 1 + pace.looks(pace.total)
    more = run["parts"][whole_run.FURTHER]
    assert more["launched"] == 6 * pace.probe + pace.total and more["seconds"]["low"] == more["seconds"]["mid"] == 0
    assert run["parts"]["test before and after"]["launched"] == 2 * math.ceil(1000 / 32)
    assert run["parts"]["steps of the classifier alone"]["launched"] == 3 * 35 * math.ceil(1800 / 32)
    assert run["resident_bytes"] == sum(run["resident"].values()) == run["fits"]["needs"]["ram"]
    assert 0 < run["joules"]["counted"]["low"] <= run["joules"]["counted"]["high"] and run["joules"]["board"] is None


def test_few_samples_are_rehearsed_and_a_plain_run_is_its_epochs(told):
    few = ("--samples", "219", "--epochs", "20", "--model", "lenet5", *REFERENCE)
    run = run_of(told, *few)
    assert run["samples"] == {"train": 219, "validation": 40, "test": 0}  # a fifth of each class, rounded
    pace = Pace.of(179, 32, 20)
    assert (run["steps"], run["looks"]) == (pace.total + 20 * 7, 1 + pace.looks(pace.total) + 1)
    assert run["steps_least"] == pace.directly + 4 * pace.probe
    assert run["steps_most"] == run["steps"] + 6 * pace.probe
    given = run_of(told, *few, "--lr", "0.01")
    assert given["steps"] == run["steps"] and given["steps_most"] == given["steps"] + 4 * pace.probe
    alone = run_of(told, *few, "--train-last", "0")  # no classifier first
    assert (alone["steps"], alone["looks"]) == (3 * pace.probe + 20 * 7, 1 + 3 * pace.looks(pace.probe) + 1)
    assert alone["steps_least"] == 4 * pace.probe and alone["steps_most"] == 6 * pace.probe + 20 * 7
    plain = run_of(told, *few, "--recipe", "plain")
    assert (plain["steps"], plain["looks"], plain["steps_least"]) == (140, 0, 140)
    assert "steps of the classifier alone" not in plain["parts"]
    assert plain["disk_bytes"] < run["disk_bytes"] and plain["resident_bytes"] < run["resident_bytes"]


def test_a_step_is_no_larger_than_the_data(told):
    _, record, _ = told("--samples", "20", "--model", "lenet5", *REFERENCE)
    assert record["batch"] == 20 - record["run"]["samples"]["validation"] == 10


def test_energy_is_told_where_the_power_of_the_board_is_known(capsys):
    args = ["cost", "--model", "watch", "--from-scratch", "--samples", "200", "--batch", "1", "--device"]
    for device, known in (("Pi Pico", False), ("Pi Zero 2", True), ("nRF52840", True)):
        with pytest.raises(SystemExit):
            main([*args, device])
        out = capsys.readouterr().out
        assert ("energy, estimated  -, the board's power is not in its profile\n" in out) is not known
        step, run = (
            next(line for line in out.splitlines() if line.startswith(start)).removeprefix(start).split()
            for start in ("its energy there, estimated", "energy, estimated")
        )
        assert ("J" in step[-1] and "J" in run[-1]) is known and (step == ["-"]) is not known
        note = next(line for line in out.splitlines() if line.startswith("energy: "))
        assert ("a small part of what a board draws" in note) is not known and "at least" not in note


def test_a_folder_of_photos_on_a_board(told, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(15):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), np.uint8)).save(tmp_path / name / f"{i}.jpg")
    args = ("--model", "resnet8", "--data", str(tmp_path), "--size", "32", "--device", "Pi Zero 2", "--epochs", "30")
    status, record, err = told(*args)
    run = record["run"]
    assert (status, err, record["classes"], run["ok"]) == (0, "", 2, True)
    assert run["joules"]["board"]["mid"] == pytest.approx(devices.find("Pi Zero 2").watts[1] * run["seconds"]["mid"])
    assert run["verdict"].startswith("30 epochs of your 30 photos on a Raspberry Pi Zero 2 W: ")
    assert run["verdict"].endswith(" of 427 MiB: yes")
    with pytest.raises(SystemExit):
        main(["cost", *args])
    out = capsys.readouterr().out
    assert out.rstrip().endswith(run["verdict"]) and "steps of the classifier alone" in out
    assert f"after {run['steps_least']} steps at the earliest" in out


def test_what_does_not_fit_is_no_and_what_is_not_predicted_perhaps(told):
    _, no, _ = told(
        "--samples", "50", "--classes", "3", "--model", "mobilenet_v2", "--size", "96", "--device", "nrf52840"
    )
    assert no["run"]["ok"] is False and no["run"]["verdict"].endswith(": no") and no["run"]["disk_bytes"] is None
    assert no["run"]["verdict"].startswith("20 epochs of 50 samples on an nRF52840: ")
    args = (
        "--samples",
        "50",
        "--classes",
        "3",
        "--model",
        "resnet20",
        "--method",
        "stochastic-depth",
        "--device",
        "rpi4",
    )
    _, unknown, _ = told(*args)
    assert unknown["run"]["ok"] is None and ", at least " in unknown["run"]["verdict"]
    assert unknown["run"]["verdict"].endswith(": perhaps")


@pytest.mark.parametrize("args, message", [
    (("--epochs", "3"), "--epochs are those of a run: give its data, as --data FOLDER, or --samples 1000"),
    (("--samples", "3"), "--samples 3 has 1 sample of each class: none can be held out; --recipe plain trains on all"),
    (("--samples", "0"), "--samples must be at least 1, got 0"),
    (("--samples", "5", "--data", "watch"), "--samples and --data both tell how many samples train"),
    (("--data", "nowhere"), "nowhere"),
    (("--samples", "90", "--epochs", "0"), "--epochs must be at least 1, got 0"),
    (("--optimizer", "adma"), "there is no --optimizer 'adma'; did you mean 'adam'?"),
    (("--clip", "-1"), "--clip must be the most that the norm of the gradient may be"),
])  # fmt: skip
def test_bad_values_are_one_sentence(told, args, message):
    status, record, err = told(*REFERENCE, *args)
    assert (status, record) == (2, None) and message in err and err.count("\n") == 1


@pytest.mark.parametrize("low, high, expected", [
    (180, 420, "3 to 7 min"), (12.3, 55, "12 to 55 s"), (43, 270, "43 s to 4.5 min"), (0.5, 3, "0.5 to 3 s"),
    (3000, 9000, "50 min to 2.5 h"), (90_000, 200_000, "1 to 2.3 days"),
])  # fmt: skip
def test_times_as_people_tell_them(low, high, expected):
    assert whole_run.span(low, high) == expected


@pytest.mark.parametrize("needed, has, expected", [
    (231 << 20, 427 << 20, "231 of 427 MiB"), (180_000, 264 << 10, "176 of 264 KiB"), (50 << 20, 256 << 10,
    "51,200 of 256 KiB"), (5 << 20, None, "5 MiB"),
])  # fmt: skip
def test_bytes_of_those_that_there_are(needed, has, expected):
    assert whole_run.told(needed, has) == expected


def test_nothing_is_run(monkeypatch):
    def fail(*_):
        raise AssertionError("a launch was made")

    monkeypatch.setattr(ri.training.runner.Runner, "run", fail)
    priced = cost.run(cost.CostSettings(data="watch", device="reference"))
    assert priced["run"]["steps"] and priced["method"].startswith(recipe.METHOD)


def test_start_and_end_take_longer_where_calls_do_and_are_never_faster():
    board, reference = devices.find("Pi Zero 2"), devices.find(devices.REFERENCE)
    clocks = devices._reference()["clock_hz"] / 1e9  # its cores run at 1 GHz
    assert whole_run.slower(board) == pytest.approx(clocks * devices.IN_ORDER) and whole_run.slower(reference) == 1
    rates = {1: reference.rates[1].scaled(dict.fromkeys(("compute", "cache", "memory", "call"), 0.25), 1.5)}
    assert whole_run.slower(dataclasses.replace(reference, rates=rates)) == 1
