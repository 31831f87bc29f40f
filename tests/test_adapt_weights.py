"""`gradledger adapt` from weights and images of other programs, and from what it then saved."""

import json

import numpy as np
import pytest
from pretrained_files import cifar_arrays, int8_arrays, saved
from safetensors import safe_open

from gradledger import cli
from gradledger.models import described, pretrained
from refimpl import data, models
from refimpl.formats.npz import load_npz
from refimpl.storage import checkpoint

SHORT = ("--size", "16x16", "--method", "backprop", "--train-last", "1", "--batch", "4", "--backend", "reference")


@pytest.fixture
def net(tmp_path):
    return saved(tmp_path / "net.npz", *int8_arrays())


@pytest.fixture
def images(tmp_path):
    return saved(tmp_path / "images.npz", cifar_arrays())


def run(capsys, *args, status=0):
    """The object that a command prints, or its sentence where it fails."""
    with pytest.raises(SystemExit) as left:
        cli.main([*map(str, args)])
    said = capsys.readouterr()
    assert left.value.code == status, said.err
    if status:
        assert said.err.startswith("gradledger: ") and said.err.count("\n") == 1
        return said.err
    return json.loads(said.out)


def test_adapt_from_a_quantized_net_and_again_from_what_it_saved(capsys, tmp_path, net, images):
    out = tmp_path / "out"
    args = ("adapt", "--data", images, *SHORT, "--epochs", 2, "--recipe", "plain", "--json")
    record = run(capsys, *args, "--model", net, "--output", out)
    assert record["ok"] and record["data_name"] == "CIFAR-10 re-encoded as JPEG"
    assert record["samples"] == {"train": 12, "test": 10}
    for key in ("macs", "peak_bytes"):
        assert record["predicted"][key] == record["measured"][key]

    d = data.load(images, size=(16, 16))
    path = str(out / "adapted.safetensors")
    with safe_open(path, "numpy") as file:
        assert json.loads(file.metadata()["options"]) == {"stem": 8, "blocks": [[8, 3, 1, 4], [12, 5, 1, 4]]}
    again = pretrained(path, d, None, None)
    start = load_npz(net, classes=10, size=(16, 16))
    assert again.pixels == (-1, 1) and again.options == start.options
    changed = {n for n, w in start.weights.items() if not np.array_equal(again.weights[n], w)}
    assert changed == {"block2.project.w"}
    assert run(capsys, *args, "--model", path, "--output", tmp_path / "more")["accuracy_before"] == pytest.approx(
        record["accuracy_after"]
    )


def test_the_model_sees_pixels_as_it_wants_them(net, images):
    d = data.load(images, size=(16, 16))
    graph = pretrained(str(net), d, None, None)
    scaled = d.with_pixels(*graph.pixels)
    np.testing.assert_allclose(scaled.x_test[:], 2 * d.x_test[:] - 1, atol=1e-6)


def test_cost_of_a_quantized_net(capsys, net):
    record = run(capsys, "cost", "--model", net, "--json")
    assert (record["size"], record["classes"]) == ([16, 16], 5)
    record = run(capsys, "cost", "--model", net, "--json", "--size", "32x32", "--classes", 7)
    assert (record["size"], record["classes"]) == ([32, 32], 7)


def test_what_does_not_fit_is_refused(capsys, tmp_path, net, images):
    out = ("--output", tmp_path / "out", *SHORT)
    grey = saved(tmp_path / "grey.npz", {"x": np.zeros((20, 16, 16), np.uint8), "y": np.arange(20) % 2})
    said = run(capsys, "adapt", "--model", net, "--data", grey, *out, status=2)
    assert f"{net} takes maps with C=3, but grey has C=1" in said
    said = run(capsys, "adapt", "--model", images, "--data", images, *out, status=2)
    assert "images.npz holds no net that is known by the names of its arrays" in said
    said = run(capsys, "adapt", "--model", net, "--data", net, *out, status=2)
    assert "net.npz has no array x: it holds" in said
    said = run(capsys, "adapt", "--model", tmp_path / "no.npz", "--data", images, *out, status=2)
    assert "cannot read the weights" in said and "No such file" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{", "the 'options' in the metadata of .*net.safetensors are no JSON object: '{'"),
        ("[1]", r"the 'options' in the metadata of .*net.safetensors are no JSON object: '\[1\]'"),
        ('{"blocks": [[1, 2]]}', "blocks of mobilenet_folded must be rows of four positive whole numbers"),
        ('{"blocks": 3}', "blocks of mobilenet_folded must be rows of four positive whole numbers"),
        ('{"depth": 3}', "the model mobilenet_folded has no option 'depth'"),
    ],
)
def test_damaged_options_are_refused(tmp_path, options, message):
    path = tmp_path / "net.safetensors"
    checkpoint.save(path, {"w": np.zeros(1)}, {"model": "mobilenet_folded", "options": options})
    with pytest.raises(ValueError, match=message):
        described(str(path), None, None)


def test_a_saved_keras_net_keeps_its_variant(tmp_path):
    graph = models.build("mobilenet_v2", classes=3, size=(32, 32), width=0.35, variant="keras")
    arrays = {n: np.ones(p.shape, np.float32) for n, p in graph.parameters.items()}
    path = tmp_path / "net.safetensors"
    checkpoint.save(path, arrays, {"model": graph.name, "size": "(32, 32)", "options": json.dumps(graph.options)})
    found = described(str(path), None, None)
    assert (found.options, found.pixels, found.size) == (graph.options, (-1, 1), (32, 32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "tf"}, "variant of mobilenet_v2 must be one of torchvision, keras, not 'tf'"),
        ({"variant": ["keras"]}, "variant of mobilenet_v2 must be one of torchvision, keras"),
    ],
)
def test_variants(options, message):
    with pytest.raises(models.ModelError, match=message):
        models.build("mobilenet_v2", **options)
