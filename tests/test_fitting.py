"""`Model.fit` by the recipe: held-out samples watch, it never ends worse than it began, and says what came of it."""

import warnings

import numpy as np
import pytest
from small_model import NAMES, PIXELS, images, net

import refimpl as ri
from refimpl import data
from refimpl.data.dataset import DataError, Dataset
from refimpl.recipes.course import Glance
from refimpl.saved import fitting
from refimpl.saved.model import Model

X, Y = images(20)
X_VAL, Y_VAL = images(10, seed=9)


def test_each_fit_goes_on_and_none_is_worse_than_the_one_before():
    model, losses = Model(net(), PIXELS, seed=1), []
    for _ in range(4):
        assert model.fit(X, Y, epochs=1, batch=8) is model
        found = model.outcome
        assert found.kept and found.held == 12 and found.after.loss < found.before.loss
        assert found.after.measure >= found.before.measure
        losses += [found.before.loss, found.after.loss]
    np.testing.assert_allclose(losses[1:-1:2], losses[2::2], rtol=1e-5)  # each begins where the last one ended
    assert model.epochs == 4 and len(model.history["loss"]) == len(model.history["val_accuracy"]) == 4
    assert "on the 12 samples held out, at a learning rate of" in str(found)
    assert model.steps >= 4 * 6 and model.recipe["lr"] == found.rate  # 48 samples train, in steps of 8


def test_the_rate_that_was_found_is_where_the_next_fit_begins():
    model = Model(net(), PIXELS, seed=1).fit(X, Y, epochs=2, batch=8)
    found, steps = model.outcome, model.steps
    assert found.rate == 16 * 0.005 and steps == 3 * 10 + 12  # probes of three rates, the highest was the best
    model.fit(X, Y, epochs=2, batch=8)
    assert model.steps - steps == 10 + 12 and model.outcome.rate == found.rate
    model.fit(X, Y, epochs=2, batch=8, lr=0.003)
    assert model.outcome.rate == 0.003


def test_a_fit_that_finds_nothing_better_leaves_the_weights_and_says_so():
    """Of a net that knows the samples held out, whose others have wrong labels."""
    model = Model(net(), PIXELS, seed=3).fit(X, Y, epochs=20, lr=0.05, batch=10, recipe="plain")
    before, told = (
        model.predict_proba(X),
        "nothing that was tried tells the 30 samples held out better .*recipe='plain'",
    )
    for count in (1, 2):
        with pytest.warns(UserWarning, match=f"^fit: {told}"):
            model.fit(X, (Y + 1) % 3, epochs=1, validation=(X_VAL, Y_VAL))
        assert not model.outcome.kept and model.outcome.after == model.outcome.before and model.epochs == 20 + count
        np.testing.assert_array_equal(model.predict_proba(X), before)
    model.fit(X, (Y + 1) % 3, epochs=20, lr=0.05, batch=10, recipe="plain")  # which asks nobody
    assert model.score(X_VAL, Y_VAL) < 0.1


def test_a_lower_loss_that_tells_fewer_right_is_no_gain(monkeypatch):
    looks = iter([Glance(0, 1.0, 0.9)] + [Glance(i, 1 - 0.1 * i, 0.8) for i in range(1, 9)])
    monkeypatch.setattr("refimpl.recipes.watched.looked", lambda trainer, x, y: next(looks))
    model = Model(net(), PIXELS, seed=3)
    before = model.predict_proba(X)
    with pytest.warns(UserWarning, match="accuracy 90.0 %, loss 1"):
        model.fit(X, Y, epochs=1, lr=0.05, validation=(X_VAL, Y_VAL))
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_held_out_samples_never_train(monkeypatch):
    """They are those of adapt, whole groups where the data have some, or those that are given."""
    seen = []

    class Seen(fitting.Watched):
        def __init__(self, trainer, x, y, x_val, y_val, *rest):
            seen.append((x.copy(), x_val.copy()))
            super().__init__(trainer, x, y, x_val, y_val, *rest)

    monkeypatch.setattr(fitting, "Watched", Seen)
    maps = X.astype(np.float32) / 255
    d = Dataset("own", maps, Y, maps[:0], Y[:0], NAMES, pixels=True, groups=np.arange(60) // 12)
    for _ in range(2):
        Model(net(), PIXELS).fit(d, batch=10)
    split = data.validation_split(d, 0.2, seed=0)
    for x, x_val in seen:
        np.testing.assert_allclose(x_val, 2 * split.x_val - 1, atol=1e-6)
        np.testing.assert_allclose(x, 2 * split.x_train - 1, atol=1e-6)
    assert len(seen) == 2 and len(split.x_val) == 12
    Model(net(), PIXELS).fit(split, batch=10)
    np.testing.assert_array_equal(seen[2][1], seen[0][1])
    Model(net(), PIXELS).fit(X, Y, batch=10, validation=(X_VAL, Y_VAL))
    assert [len(part) for part in seen[3]] == [60, 30]


def test_a_new_classifier_trains_first(tmp_path):
    Model(net(), PIXELS, seed=3).fit(X, Y, epochs=12, lr=0.05, batch=10, recipe="plain").save(
        tmp_path / "a.safetensors"
    )
    model = ri.load(tmp_path / "a.safetensors").fit(X, np.array(["red", "green", "blue"])[Y], epochs=1)
    assert model.outcome.before.measure < 0.7 < model.outcome.after.measure == 1.0
    assert model.score(X_VAL, np.array(["red", "green", "blue"])[Y_VAL]) == 1.0


@pytest.mark.parametrize(
    ("y", "settings", "error", "message"),
    [
        ([0, 1, 2], {}, DataError, "has 1 sample of each class: none can be held out; recipe='plain' makes the steps"),
        ([0, 1, 2], {"recipe": "best"}, ValueError, "recipe must be 'auto' or 'plain', got 'best'"),
    ],
)
def test_what_cannot_be_fitted_is_said(y, settings, error, message):
    with pytest.raises(error, match=message):
        Model(net(), PIXELS).fit(X[:3], y, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Model(net(), PIXELS).fit(X[:3], [0, 1, 2], recipe="plain").outcome is None
