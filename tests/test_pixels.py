"""Black and white of one number or of one a channel: in every reader, in files, and as `--pixels` of the commands."""

import json
from dataclasses import replace

import numpy as np
import pytest

from gradledger import adapt, cli, door
from gradledger.errors import Malformed
from gradledger.job import prepare
from gradledger.settings import AdaptSettings, beside_resume
from refimpl import data
from refimpl.data import Dataset, Preprocessing, Resized, augmented
from refimpl.data.images import read_image
from refimpl.data.mapped import Mapped
from refimpl.data.pixels import DEVIATION, IMAGENET, MEAN, level_of, placed, span_of, suit, words
from refimpl.data.preprocessing import PreprocessingError
from refimpl.graph import Graph
from refimpl.models import written
from refimpl.storage.checkpoint import CheckpointError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 12, 10, 3), dtype=np.uint8)
CLASSES = ("dark", "light")


def by_hand(images):
    """As PyTorch's transforms do it: from 0 to 1, less ImageNet's mean, over its deviation."""
    return (images / np.float32(255) - np.float32(MEAN)) / np.float32(DEVIATION)


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6)


def test_levels():
    assert level_of([1, 2.5]) == (1.0, 2.5) and level_of(3) == 3.0
    for wrong in ([], [1, float("nan")], float("inf"), "x", None, [[1]]):
        with pytest.raises((ValueError, TypeError)):
            level_of(wrong)
    assert suit(-1.0, 1.0, 3) and suit(*IMAGENET, 3) and suit(*IMAGENET) and suit(0.0, IMAGENET[1], 3)
    assert not suit(*IMAGENET, 1) and not suit((0.0, 0.0), IMAGENET[1])
    assert span_of(*IMAGENET) == (-0.485 / 0.229, (1 - 0.406) / 0.225)
    assert words(-1.0, 1.0) == "-1 to 1"
    assert words(*IMAGENET) == "(-2.1179, -2.03571, -1.80444) to (2.24891, 2.42857, 2.64)"


def test_one_number_for_all_channels_is_that_number_in_each():
    x = RNG.random((4, 5, 6, 3), np.float32)
    one, each = (placed(x.copy(), *ends) for ends in ((-0.7, 1.3), ((-0.7,) * 3, (1.3,) * 3)))
    assert np.array_equal(one, each) and np.array_equal(one, x * np.float32(1.3 + 0.7) + np.float32(-0.7))


@pytest.mark.parametrize("size", [None, (7, 11)])
def test_every_reader_normalises_each_channel(size):
    plain = Resized(IMAGES, size)
    wanted = (plain[:] - np.float32(MEAN)) / np.float32(DEVIATION)
    found = plain.with_pixels(*IMAGENET)
    close(found[:], wanted)
    least, most = found.ends()
    assert least <= found[:].min() and found[:].max() <= most and (least, most) == pytest.approx(span_of(*IMAGENET))
    y = np.arange(6) % 2
    d = Dataset("own", plain[:], y, plain.take(y), y, CLASSES, pixels=True).with_pixels(*IMAGENET)
    close(d.x_train, wanted)
    assert d.origin.preprocessing.to_json()["black"] == list(IMAGENET[0])
    made = Preprocessing("image", divisor=255.0, channels=3, size=size, black=IMAGENET[0], white=IMAGENET[1])
    close(made(IMAGES), wanted)
    if size is None:
        mapped = Mapped(IMAGES, np.arange(6), Preprocessing(divisor=255.0), (0, 255)).with_pixels(*IMAGENET)
        close(mapped[1:4], wanted[1:4])
        assert mapped.ends() == pytest.approx(span_of(*IMAGENET))


def test_grey_images_are_repeated_before_each_channel_has_its_own():
    grey = IMAGES[..., :1]
    for size in ((12, 10), (7, 11)):
        made = Preprocessing("image", divisor=255.0, channels=3, size=size, black=IMAGENET[0], white=IMAGENET[1])
        assert np.array_equal(made(grey), made(np.repeat(grey, 3, axis=3)))


def test_recoloured_pixels_stay_between_black_and_white_of_their_channel():
    y = np.arange(6) % 2
    d = Dataset("own", Resized(IMAGES), y, Resized(IMAGES), y, CLASSES, pixels=True)
    drawn = [augmented(d, "colour=0.9,jitter=0.2").with_pixels(*ends).x_train for ends in ((0.0, 1.0), IMAGENET)]
    unit, each = (x.draw(np.arange(6), 1, 2) for x in drawn)
    np.testing.assert_allclose(each, placed(unit, *IMAGENET), atol=2e-5)  # the same photograph, in another range
    for c in range(3):
        assert each[..., c].min() == np.float32(IMAGENET[0][c]) and each[..., c].max() == np.float32(IMAGENET[1][c])


def test_a_file_holds_them_and_another_number_of_channels_is_refused():
    made = Preprocessing("image", divisor=255.0, channels=3, size=(12, 10), black=IMAGENET[0], white=IMAGENET[1])
    again = Preprocessing.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    for wrong in ({"black": [0, 0]}, {"white": []}, {"white": ["1", "1", "1"]}, {"black": [0, 0, float("inf")]}):
        with pytest.raises(PreprocessingError, match="holds values that no data set has$"):
            Preprocessing.from_json(made.to_json() | wrong)
    with pytest.raises(PreprocessingError, match=r"^the samples have C=2 channels, but the net takes pixels of \(-2.1"):
        replace(made, channels=None)(IMAGES[..., :2])
    graph = Graph("own", (12, 10), 3)
    graph.linear("fc", graph.global_avg_pool("mean", "input"), 2)
    graph.pixels = IMAGENET
    text = written.written(graph)
    assert written.read(text, "a.safetensors").pixels == IMAGENET
    said = json.loads(text) | {"pixels": [[0, 0], [1, 1]]}
    with pytest.raises(CheckpointError, match="^the graph in a.safetensors is damaged"):
        written.read(json.dumps(said), "a.safetensors")


@pytest.fixture
def told(capsys):
    """Run a command; its exit status, what it printed as JSON, and its sentence."""

    def run(*args):
        with pytest.raises(SystemExit) as left:
            cli.main([*map(str, args), "--json"])
        found = capsys.readouterr()
        return left.value.code, json.loads(found.out) if found.out else None, found.err

    return run


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of photographs in two classes, and one of a third folder, of the size that the net takes."""
    image = pytest.importorskip("PIL.Image")
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    for name, most in zip(CLASSES, (120, 256), strict=True):
        (root / name).mkdir()
        for i in range(20):
            pixels = rng.integers(most // 2, most, (14, 16, 3), dtype=np.uint8)
            image.fromarray(pixels).save(root / name / f"{i}.png")
    image.fromarray(IMAGES[0]).save(root.parent / "one.png")
    return root


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, photographs):
    """The folder of a run on an ONNX model that takes what PyTorch's nets take."""
    pytest.importorskip("onnx")
    from onnx_models import net

    folder = tmp_path_factory.mktemp("run")
    given = ("--pixels", "imagenet", "--epochs", 2, "--batch", 8, "--recipe", "plain", "--output", folder / "out")
    with pytest.raises(SystemExit) as left:
        cli.main(["adapt", "--model", str(net(folder / "mine.onnx")), "--data", str(photographs), *map(str, given)])
    assert left.value.code == 0
    return folder


def test_what_was_adapted_normalises_as_pytorch_does(told, adapted, photographs):
    from onnx_models import by_runtime

    out, photo = adapted / "out", photographs.parent / "one.png"
    scores = by_runtime(out / "adapted.onnx", np.ascontiguousarray(by_hand(IMAGES[:1]).transpose(0, 3, 1, 2)))[0]
    shares = np.exp(scores) / np.exp(scores).sum()
    for kind in ("safetensors", "onnx"):
        found = told("predict", out / f"adapted.{kind}", "--data", photo)[1]["predictions"][0]
        assert {p["class"]: p["probability"] for p in found["top"]} == pytest.approx(
            dict(zip(CLASSES, shares.tolist(), strict=True)), abs=1e-5
        )
    record = json.loads((out / "adapt.json").read_text())
    assert record["settings"]["pixels"] == "imagenet" and not record["data_report"]["decided"]
    assert record["data_report"]["preprocessing"]["black"] == list(IMAGENET[0])
    assert told("info", out / "adapted.onnx")[1]["preprocessing"]["white"] == list(IMAGENET[1])


def test_what_the_file_says_is_the_default_and_no_other_is_taken(told, adapted, photographs):
    for kind in ("onnx", "safetensors"):
        file = adapted / "out" / f"adapted.{kind}"
        jobs = [prepare(AdaptSettings(str(file), str(photographs), pixels=p)) for p in (None, "imagenet")]
        close(jobs[0].dataset.x_test[:], by_hand(np.stack([photo(jobs[0], i) for i in range(8)])))
        assert np.array_equal(*(job.dataset.x_test[:] for job in jobs))
        assert not any(job.dataset.origin.said for job in jobs)
        model = ("--model", file)
        for command in (("adapt", *model, "--data", photographs), ("cost", *model), ("predict", file, "--data", "x")):
            status, _, sentence = told(*command, "--pixels", "-1,1")
            assert status == 2 and sentence == (
                f"gradledger: --pixels -1,1 is not what {file} takes, which is {words(*IMAGENET)}: leave --pixels out\n"
            )


def photo(job, i):
    """The bytes of a photograph that judges, as the net's size has them."""
    return read_image(job.dataset.origin.files["test"][i], job.dataset.size, 3, 8)


def test_a_model_that_is_adapted_again_says_everything_once(adapted):
    import onnx

    from refimpl.formats.onnx.exporting import exported

    model = door.load(adapted / "out" / "adapted.onnx")
    notes = {part: model.saved.notes[part] for part in ("preprocessing", "classes")}
    again = onnx.ModelProto.FromString(
        exported(adapted / "out" / "adapted.onnx", model.graph.stored, model.graph.weights, notes)
    )
    onnx.checker.check_model(again)
    assert {p.key for p in again.metadata_props} == {"gradledger.preprocessing", "gradledger.classes"}


def test_where_nobody_says_it_the_report_tells_what_is_assumed(told, adapted, photographs):
    model = adapted / "mine.onnx"
    job = prepare(AdaptSettings(str(model), str(photographs)))
    assert job.dataset.origin.preprocessing.black == 0
    assert data.describe(job.dataset)["decided"] == [
        "mine.onnx does not say what it takes for pixels: 0 to 1 is assumed, --pixels imagenet, as most nets of "
        "photographs take it, or --pixels LOW,HIGH says otherwise"
    ]
    one = photographs.parent / "one.png"
    for pixels, ends in (("imagenet", IMAGENET), ("-1,1", (-1.0, 1.0)), ("0,255", (0.0, 255.0))):
        found = told("predict", model, "--data", one, "--pixels", pixels)[1]["predictions"][0]
        loaded = door.load(model, pixels=pixels)
        assert (loaded.preprocessing.black, loaded.preprocessing.white) == ends
        shares = loaded.predict_proba(IMAGES[:1])[0]
        assert found["probability"] == pytest.approx(shares.max(), abs=1e-6)


def test_a_run_goes_on_with_its_pixels(adapted, photographs, tmp_path):
    settings = AdaptSettings(
        str(adapted / "mine.onnx"), str(photographs), pixels="imagenet", epochs=2, batch=8, recipe="plain"
    )
    stop = iter(range(3))

    def watch(event):
        if next(stop, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(adapt.Interrupted):
        adapt.run(settings, tmp_path / "out", False, watch)
    adapt.run(AdaptSettings(), tmp_path / "out", True, lambda event: None)
    whole = adapted / "out" / "adapted.safetensors"
    assert (tmp_path / "out" / "adapted.safetensors").read_bytes() == whole.read_bytes()
    same = beside_resume(settings, replace(settings, pixels="imagenet"), ["pixels"])
    assert same.pixels == "imagenet"
    with pytest.raises(Malformed, match="--pixels -1,1 is not that of the saved run, imagenet"):
        beside_resume(settings, replace(settings, pixels="-1,1"), ["pixels"])


def test_the_price_is_that_of_the_same_step(told, adapted, photographs):
    asked = ("cost", "--model", adapted / "mine.onnx", "--device", "reference")
    for given in ((), ("--data", photographs)):
        plain, each = (told(*asked, *given, *pixels)[1] for pixels in ((), ("--pixels", "imagenet")))
        assert plain == each


@pytest.mark.parametrize("text", ["imagenet2", "ImageNet", "1", "", "a,b", "1,0", "0,0", "inf", "0,inf", "nan,1",
                                  "0,1,2", "-1e300,1"])  # fmt: skip
def test_what_is_no_range_is_answered_in_a_sentence(told, adapted, photographs, text):
    model = adapted / "mine.onnx"
    for command in (("cost", "--model", model), ("predict", model, "--data", photographs)):
        status, _, sentence = told(*command, "--pixels", text)
        assert status == 2 and sentence.endswith(f"such as 0,1 or -1,1 or 0,255, got {text!r}\n")


@pytest.mark.parametrize("model, pixels, message", [
    ("watch", "imagenet", "--pixels is of nets of pixels, of 1 or 3 channels, but watch takes C=6"),
    ("lenet5", "imagenet", "--pixels imagenet is of 3 channels, but lenet5 takes C=1"),
    ("resnet8", "-1,1", "--pixels -1,1 is not what resnet8 takes, which is 0 to 1: leave --pixels out"),
])  # fmt: skip
def test_a_net_by_name_says_what_it_takes(told, model, pixels, message):
    status, _, sentence = told("cost", "--model", model, "--pixels", pixels)
    assert (status, sentence) == (2, f"gradledger: {message}\n")


def test_values_that_are_no_pixels_lie_in_the_range_that_was_said(told, adapted, tmp_path):
    x = RNG.normal(0, 1, (40, 12, 10, 3)).astype(np.float32).clip(-2, 2)
    for factor, status in ((1, 0), (20, 2)):
        np.savez(tmp_path / "own.npz", x=factor * x, y=np.arange(40) % 2, classes=np.array(CLASSES))
        given = ("--data", tmp_path / "own.npz", "--values", "keep", "--pixels", "imagenet")
        code, _, sentence = told("cost", "--model", adapted / "mine.onnx", *given)
        assert code == status
    assert sentence.endswith("or as they enter the net, from -2.118 to 2.64\n")
