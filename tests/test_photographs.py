"""The experiment of forward gradients on photographs, on a small int8 net and drawn images."""

import json

import numpy as np
import pytest
from pretrained_files import int8_arrays

from refimpl.data.dataset import Dataset
from refimpl.data.resized import Resized
from refimpl.formats.int8_nets import from_int8
from refimpl.formats.int8_whole import whole_from_int8
from refimpl.training.guard import NonFiniteError
from validation.experiments import forward_gradients as experiment

NAME = "forward-gradient-mcunet"


@pytest.fixture
def few(monkeypatch):
    """Forty images to draw from, sixteen of which train, and a net that tells three classes of them."""
    rng = np.random.default_rng(0)
    y = np.arange(40) % 3
    parts = [rng.integers(0, 60, (40, 8, 8, 3)) + 60 * y[:, None, None, None] for _ in range(2)]
    x_train, x_test = (Resized(part.astype(np.uint8), (16, 16), crop=2, flip=True) for part in parts)
    monkeypatch.setattr(experiment, "photographs", lambda: Dataset("few", x_train, y, x_test, y, tuple("abc"), True))
    monkeypatch.setattr(experiment, "IMAGES", 16)
    arrays, structure = int8_arrays()
    arrays["structure"] = np.array(json.dumps(structure))

    def net(subject, output, whole):
        return (whole_from_int8 if whole else from_int8)(arrays, 3, (16, 16))

    task = experiment.Task(NAME, (1,), experiment.photographs_of, net, True, experiment.photographs_to_choose_by)
    monkeypatch.setitem(experiment.TASKS, NAME, task)
    return x_train.images, x_test.images


def held(images, among):
    """Which of some images each of others is."""
    return {int(np.flatnonzero((among == one).all((1, 2, 3)))[0]) for one in images}


def test_rates_are_chosen_by_training_images_that_do_not_train(few):
    train, test = few
    drawn = experiment.photographs_of(1, 10)
    assert len(held(drawn.x_train.images, train)) == len(held(drawn.x_test.images, test)) == 16
    assert (drawn.x_train.crop, drawn.x_train.flip) == (0, False)
    assert held(drawn.x_train.images, train) != held(experiment.photographs_of(1, 11).x_train.images, train)
    chosen = experiment.photographs_to_choose_by(1, 9)
    trains, tells = held(chosen.x_train.images, train), held(chosen.x_test.images, train)
    assert len(trains) == len(tells) == 16 and not trains & tells


def test_a_short_run_and_its_record(few, tmp_path, monkeypatch):
    heads = []
    cut = experiment.cut
    monkeypatch.setattr(experiment, "cut", lambda graph, place: heads.append(place) or cut(graph, place))
    modes = {"classifier": experiment.SIGNS, "last layer": ("backprop", "16w8a, m = 1")}
    short = experiment.Protocol(
        (10, 11), 120, 40, 8, trials=1, points=2, modes=modes, shares={"last layer": 0.5}, rates=(0.003, 0.01)
    )
    found = experiment.run(NAME, tmp_path, lambda *a: None, short)
    rows = found["measured"]["classifier"]
    assert set(heads) == {"mean", "block1.project"}  # whose shortcut leads around what trains
    assert rows["8w8a, m = 3"]["lr"] in (0.003, 0.01) and rows["16w8a, m = 1"]["passes_a_step"] == 2
    assert rows["16w8a, m = 1"]["state_bytes"] < rows["sign, m = 1"]["state_bytes"] < rows["backprop"]["state_bytes"]
    steps = {mode: rows["16w8a, m = 1"]["curve"][-1][0] for mode, rows in found["measured"].items()}
    assert steps == {"classifier": 60, "last layer": 30}
    assert found["settings_chosen_on"]["lr"].startswith("16 training images beside the 16 that train")
    assert [goal["least"] for goal in found["goals"]] == [-5.0, -5.0, -5.0]
    monkeypatch.setattr(experiment, "adapt", lambda *a: pytest.fail("a finished run was run again"))
    assert experiment.run(NAME, tmp_path, lambda *a: None, short)["measured"] == found["measured"]


def test_a_rate_at_which_the_loss_becomes_infinite_is_not_chosen(few, tmp_path, monkeypatch):
    adapt, rates = experiment.adapt, []

    def diverges(graph, d, mode, step, *args):
        rates.append(step.optimizer.lr)
        if len(rates) == 1:
            raise NonFiniteError("the loss is nan")
        return adapt(graph, d, mode, step, *args)

    monkeypatch.setattr(experiment, "adapt", diverges)
    protocol = experiment.Protocol(
        seeds=(10,), passes=8, steps=4, batch=8, points=1, trials=1, modes={"classifier": ("backprop",)}
    )
    record = experiment.run(NAME, tmp_path, lambda *_: None, protocol)
    tried = experiment.WAYS["backprop"].rates
    assert rates[: len(tried)] == list(tried) and record["measured"]["classifier"]["backprop"]["lr"] != tried[0]
