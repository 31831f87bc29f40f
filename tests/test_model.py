"""A model as people use it: predict, evaluate, fit, save; classes by name, samples as their source has them."""

import numpy as np
import pytest
from small_model import NAMES, PIXELS, SIDE, images, net

import costmodel
import refimpl as ri
from refimpl import data
from refimpl.data import new_samples
from refimpl.data.dataset import DataError, Dataset
from refimpl.data.preprocessing import Preprocessing
from refimpl.saved.model import Model
from refimpl.saved.verdict import judged
from refimpl.storage.checkpoint import CheckpointError


@pytest.fixture(scope="module")
def fitted():
    x, y = images(10)
    model = Model(net(), PIXELS, seed=3)
    return model.fit(x, np.array(NAMES)[y], epochs=12, lr=0.05, batch=10, recipe="plain"), x, y


def test_fit_returns_the_model_and_predicts_names(fitted):
    model, x, y = fitted
    assert model.predict(x).tolist() == [NAMES[i] for i in y] and model.score(x, y) == 1.0
    found = model.predict_proba(x)
    assert found.shape == (30, 3) and found.dtype == np.float64
    np.testing.assert_allclose(found.sum(1), 1)
    assert len(model.history["loss"]) == 12 and model.history["loss"][-1] < 0.5 * model.history["loss"][0]


def test_each_fit_trains_more_to_the_bits_of_one_that_trains_all():
    x, y = images(5)
    one, two = (Model(net(), PIXELS, seed=1) for _ in range(2))
    one.fit(x, y, epochs=3, batch=6, recipe="plain")
    for count in (1, 2):
        before = two.steps
        assert two.fit(x, y, epochs=count, batch=6, recipe="plain") is two
        assert two.steps == before + 3 * count
    np.testing.assert_array_equal(one.predict_proba(x), two.predict_proba(x))
    assert one.history == two.history and one.steps == two.steps == 9


def test_a_schedule_ends_with_each_fit():
    x, y = images(5)
    model = Model(net(), PIXELS, seed=1)
    cosine = ri.Plan(step=ri.Backprop(ri.SGD(0.1, schedule=ri.Schedule("cosine"))))
    for _ in range(2):
        before = model.predict_proba(x)
        model.fit(x, y, epochs=2, batch=6, plan=cosine, recipe="plain")
        assert float(model.trainer.runner.host("lr", 1)[0]) == pytest.approx(cosine.step.optimizer.rate(5, 6))
        assert (model.predict_proba(x) != before).any()
    assert len(model.history["loss"]) == 4 and model.steps == model.trainer.step == 12


def test_other_settings_go_on_from_the_weights_that_are_there():
    x, y = images(5)
    model = Model(net(), PIXELS, seed=1).fit(x, y, epochs=2, batch=6, recipe="plain")
    before = model.predict_proba(x)
    model.fit(x[:9], y[:9], epochs=0, batch=4)
    np.testing.assert_array_equal(model.predict_proba(x), before)
    model.fit(x[:9], y[:9], epochs=1, batch=4, validation=(x, y), recipe="plain")
    assert model.steps == 2 * 3 + 3 and len(model.history["loss"]) == 3 and len(model.history["val_accuracy"]) == 1
    assert (model.predict_proba(x) != before).any()


def test_a_file_of_a_model_is_the_model(fitted, tmp_path):
    model, x, _ = fitted
    model.save(tmp_path / "a.safetensors")
    again = ri.load(tmp_path / "a.safetensors")
    assert (again.classes, again.preprocessing) == (NAMES, PIXELS)
    np.testing.assert_array_equal(again.predict_proba(x), model.predict_proba(x))
    assert again.saved.recipe["epochs"] == 12 and again.saved.ledger == {"samples": 360, "steps": 36}
    again.fit(x, model.predict(x), epochs=1, batch=10, recipe="plain").save(tmp_path / "b.safetensors")
    third = ri.load(tmp_path / "b.safetensors").saved
    assert third.adapted_from == {"model": "a.safetensors", "sha256": again.saved.sha256}
    again.saved = None


def test_a_new_name_becomes_a_class_and_the_known_rows_stay(fitted, tmp_path):
    fitted[0].save(tmp_path / "a.safetensors")
    model = ri.load(tmp_path / "a.safetensors")
    kept = model.graph.weights["fc.w"].copy()
    x, y = images(6, 4, seed=5)
    names = np.array([*NAMES, "dark"])[y]
    model.fit(x, names, epochs=0)
    assert model.classes == (*NAMES, "dark") and model.told == "new: dark"
    np.testing.assert_array_equal(model.graph.weights["fc.w"][:, :3], kept)
    known = y < 3
    assert (model.predict(x[known]) == names[known]).mean() > 0.9
    assert model.fit(x, names, epochs=20, batch=8).score(x, names) > 0.9
    model.fit(x, np.array(list("pqrs"))[y], epochs=0)
    assert model.classes == tuple("pqrs") and "all are new" in model.told and "fc.w" not in model.graph.weights


@pytest.mark.parametrize(
    "labels, settings, error",
    [(["eel"], {}, DataError), (["eel", "owl"] * 6, {"plan": ri.Plan(99)}, ValueError)],
)
def test_a_fit_that_is_refused_leaves_the_classes_as_they_were(fitted, labels, settings, error):
    model, x, _ = fitted
    known, told = model.classes, model.predict_proba(x[:3])
    with pytest.raises(error):
        model.fit(x[:12], labels, batch=4, **settings)
    assert model.classes == known
    np.testing.assert_array_equal(model.predict_proba(x[:3]), told)


def test_pixels_go_through_the_preprocessing_and_other_numbers_do_not(fitted):
    model, x, _ = fitted
    as_maps = 2 * (x / np.float32(255)) - 1
    np.testing.assert_allclose(model.predict_proba(as_maps.astype(np.float32)), model.predict_proba(x), rtol=1e-4)
    large = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    np.testing.assert_allclose(model.predict_proba(large), model.predict_proba(x), atol=0.05)
    np.testing.assert_array_equal(model.predict_proba(x[0]), model.predict_proba(x[:1]))


def test_a_data_set_is_used_by_its_own_names(fitted):
    model, x, y = fitted
    turned = ("cat", "ant", "bee")
    numbers = np.array([turned.index(NAMES[i]) for i in y])
    maps = x.astype(np.float32) / 255
    d = Dataset("own", maps, numbers, maps.copy(), numbers, turned, pixels=True)
    assert model.evaluate(d).accuracy == 1.0
    np.testing.assert_allclose(model.predict_proba(d), model.predict_proba(x), rtol=1e-4)
    np.testing.assert_array_equal(maps, d.x_test)  # which stay as they are
    again = Model(net(), PIXELS).fit(d, epochs=10, lr=0.05, batch=10, recipe="plain")
    assert again.score(d) > 0.9 and again.score(x, y) > 0.9


def test_a_path_with_classes_is_a_data_set(fitted, tmp_path):
    model, x, y = fitted
    np.savez(tmp_path / "own.npz", x=x, y=np.array(NAMES)[y])
    assert model.evaluate(tmp_path / "own.npz").samples == 6 and model.score(str(tmp_path / "own.npz")) == 1.0
    again = Model(net(), PIXELS).fit(tmp_path / "own.npz", epochs=12, lr=0.05, batch=10, recipe="plain")
    assert again.samples == 12 * 24 and again.score(x, y) > 0.9


def test_arrays_in_other_axes_and_single_samples(fitted):
    model, x, _ = fitted
    large = np.repeat(np.repeat(x, 2, axis=1), 2, axis=2)
    for one in (x[0], x[0].transpose(2, 0, 1), large[0]):  # rows of an image are no samples
        np.testing.assert_allclose(model.predict_proba(one), model.predict_proba(x[:1]), atol=0.05)
    np.testing.assert_array_equal(model.predict_proba(x.transpose(0, 3, 1, 2)), model.predict_proba(x))
    made = Preprocessing("window", mean=(1.0, 2.0), std=(1.0, 1.0), channels=2, size=(1, 9))
    windows = np.arange(54, dtype=np.int16).reshape(3, 9, 2)
    (expected,) = (maps for _, maps in new_samples.new_batches(windows[:, None], made, 4))
    for given in (windows, windows.transpose(0, 2, 1)):
        ((_, maps),) = new_samples.new_batches(given, made, 4)
        np.testing.assert_array_equal(maps, expected)
    for given in (windows[2], windows[2].T):
        ((_, maps),) = new_samples.new_batches(given, made, 4)
        np.testing.assert_array_equal(maps, expected[2:])


def test_a_model_is_saved_under_its_own_suffix(fitted, tmp_path):
    with pytest.raises(CheckpointError, match=r"saved as a \.safetensors, but .*a\.onnx ends with \.onnx"):
        fitted[0].save(tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize(
    "y, message",
    [
        (["ant", "eel", "bee"], "y has the class 'eel', which the net does not know: it knows ant, bee, cat"),
        ([0, 1, 3], r"numbers from 0 to 2, but it holds \[0, 1, 3\]"),
        ([0, 1], r"y must be \(3,\), one class for each sample, but its shape is \(2,\)"),
        ([0.0, 1.0, 2.0], "must hold names of classes or numbers"),
        (None, "y is missing"),
    ],
)
def test_classes_that_cannot_be_used(fitted, y, message):
    with pytest.raises(DataError, match=message):
        fitted[0].evaluate(fitted[1][:3], y)


@pytest.mark.parametrize(
    "x, message",
    [
        (np.zeros((2, 5, 5, 3), np.float32), "the samples have maps of 5x5, but the net takes 8x8"),
        (np.full((1, SIDE, SIDE, 3), np.nan), r"the array has nan at index \(0, 0, 0, 0\)"),
        (np.array([["a"]]), "the array holds <U1, but samples must be integers"),
        (np.zeros((0, SIDE, SIDE, 3), np.uint8), r"the array is empty: its shape is \(0, 8, 8, 3\)"),
        ("nothing.npz", "there is no file or folder nothing.npz"),
    ],
)
def test_samples_that_cannot_be_used(fitted, x, message):
    with pytest.raises(ValueError, match=message):
        fitted[0].predict(x)


def test_windows_that_cannot_be_used():
    made = Preprocessing(axes="NTC", mean=(1.0, 2.0), std=(1.0, 1.0), channels=2, size=(1, 9))
    with pytest.raises(DataError, match=r"the array has nan at index \(1, 0, 0\)"):
        next(new_samples.new_batches(np.full((2, 9, 2), [[[0.0]], [[np.nan]]]), made, 4))
    with pytest.raises(ValueError, match=r"must be \(N, T, C\), but their shape is \(50, 2\)"):
        next(new_samples.new_batches(np.zeros((50, 2)), made, 4))


@pytest.mark.parametrize("x", [None, 3, [np.zeros((SIDE, SIDE, 3))]])
def test_samples_of_another_type(fitted, x):
    with pytest.raises(TypeError, match="must be a NumPy array, a path or a data set, got (NoneType|int|list): np"):
        fitted[0].predict(x)


def test_folders_and_files_of_samples(fitted, tmp_path):
    image = pytest.importorskip("PIL.Image")
    model, x, y = fitted
    for i in range(6):
        folder = tmp_path / "photos" / NAMES[y[i]]
        folder.mkdir(parents=True, exist_ok=True)
        image.fromarray(x[i]).save(folder / f"{i}.png")
    (tmp_path / "photos" / "notes.txt").write_text("mine")
    found = [(name, maps) for names, maps in new_samples.new_batches(tmp_path / "photos", PIXELS, 4) for name in names]
    assert [name for name, _ in found] == ["ant/0.png", "ant/3.png", "bee/1.png", "bee/4.png", "cat/2.png", "cat/5.png"]
    assert model.predict(tmp_path / "photos").tolist() == ["ant", "ant", "bee", "bee", "cat", "cat"]
    assert model.predict(tmp_path / "photos" / "cat" / "2.png").tolist() == ["cat"]
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    for path in (tmp_path / "x.npy", tmp_path / "x.npz"):
        np.testing.assert_array_equal(model.predict_proba(path), model.predict_proba(x))
    raw = Model(net(), Preprocessing(size=(SIDE, SIDE), channels=3))
    with pytest.raises(DataError, match="the net was trained on maps of 8x8x3 numbers, not on pixels"):
        raw.predict(tmp_path / "photos")


def test_recordings_are_standardised_as_they_were_in_training():
    d = data.load("watch", 1)
    made = d.origin.preprocessing
    graph = ri.models.watch_net()
    graph.weights, graph.classes = ri.models.watch_weights(1), d.classes
    model = Model(graph, made)
    assert model.evaluate(d).accuracy > 0.85
    raw = d.x_test * np.array(made.std) + np.array(made.mean)
    assert model.score(raw, np.array(d.classes)[d.y_test]) == pytest.approx(model.evaluate(d).accuracy, abs=0.01)


def test_a_verdict_counts():
    true, told = np.array([0, 0, 0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 1, 0, 2])
    found = judged(("a", "b", "c", "d"), true, told)
    assert found.accuracy == 3 / 7 and found.samples == 7
    assert found.per_class["a"] == {"precision": 1 / 2, "recall": 1 / 4, "samples": 4}
    assert found.per_class["d"] == {"precision": None, "recall": None, "samples": 0}
    pairs = found.confused([f"{i}.png" for i in range(7)])
    assert pairs[0] == {"true": "a", "told": "b", "count": 2, "share": 0.5, "samples": ["1.png", "2.png"]}
    assert [(p["true"], p["told"]) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "a")]


def test_what_a_model_and_a_graph_print(fitted, capsys):
    fitted[0].summary()
    told = capsys.readouterr().out
    assert "small: input 8x8x3; 251 parameters" in told and "classes: ant, bee, cat" in told
    assert "conv   conv2d           8x8x8" in str(net()) and str(net()).count("\n") == 5
    assert str(ri.Graph("empty")) == "empty: no input yet; 0 parameters\nlayer  operator  output  parameters"
    assert repr(fitted[0]) == "<Model small: 3 classes, 251 parameters>"


def test_small_things():
    with pytest.raises(ValueError, match="this program of small only infers: compile it with a Plan"):
        ri.Trainer(ri.compile(net(), None, 4)).fit(np.zeros((4, SIDE, SIDE, 3), np.float32), np.zeros(4, int), 1)
    for make in (lambda: ri.SGD(lr="a"), lambda: ri.Adam(lr="a"), lambda: ri.SGD(lr=None)):
        with pytest.raises(ValueError, match="lr must be a number, got "):
            make()
    with pytest.raises(ValueError, match="momentum must be a number, got 'a'"):
        ri.SGD(lr=0.1, momentum="a")
    for use in (ri.Trainer, costmodel.estimate):
        with pytest.raises(
            ValueError, match=r"program must be a Program, such as .*compile\(graph, plan, batch\) makes"
        ):
            use(net())
    with pytest.raises(ValueError, match="batch must be a whole number from 1 up, got '8'"):
        Model(net()).fit(*images(1), batch="8")
    g = ri.Graph("g", (9, 9), 1)
    assert g.shape(g.max_pool("pool", g.conv2d("conv", "input", 2, 3, pad="valid"), 2, pad="valid")) == (1, 3, 3, 2)
    with pytest.raises(ri.ShapeError, match="pad must be a number like 0, got 'full'"):
        g.conv2d("other", "input", 2, 3, pad="full")
