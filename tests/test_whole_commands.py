"""Commands on nets that a method makes ones of whole numbers: `--method forward-gradient:bits=16w8a`."""

import json

import numpy as np
import pytest
from test_adapt import gradledger

import refimpl as ri
from costmodel import predict
from gradledger.cli import main
from gradledger.cost import whole_numbers
from refimpl import data, models
from refimpl.storage import checkpoint
from refimpl.surgery.for_step import CALIBRATED_ON, made_for, outlined_for

METHOD = "forward-gradient:m=1,bits=16w8a"


def told(capsys, *args):
    """Exit status, record and errors of a command."""
    with pytest.raises(SystemExit) as left:
        main([*args, "--json"])
    out, err = capsys.readouterr()
    return left.value.code, json.loads(out) if out else None, err


def test_cost_without_data_is_that_of_the_calibrated_net(capsys):
    status, found, _ = told(capsys, "cost", "--method", METHOD, "--train-last", "1", "--batch", "4")
    assert status == 0 and found["method"].startswith("forward-gradient:m=1,") and "bits=16w8a" in found["method"]
    g = models.watch_net(classes=7)
    g.weights = models.watch_weights(1)
    step = ri.ForwardGradient(m=1, bits="16w8a")
    q = made_for(step, g, data.watch(1).x_train)
    p = ri.compile(q, ri.Plan(1, step=step), 4)
    price = predict.estimate(p)
    assert found["integers"] == json.loads(json.dumps(whole_numbers(price, "width")))
    for key, value in (("flops", price.flops), ("peak_bytes", p.peak_bytes), ("state_bytes", p.state_bytes)):
        assert found[key] == value, key
    assert set(found["integers"]["imacs"]) == {"8x16"} and found["flops"] < 200
    assert {layer["op"] for layer in found["layers"]} >= {"quantize", "quantized_conv2d", "dequantize"}


def test_an_outline_has_no_weights_and_the_shapes_of_the_net():
    step = ri.ForwardGradient(bits="8w8a")
    g = models.build("mobilenet_v2", size=(32, 32), classes=5, width=0.35)
    q = outlined_for(step, g)
    assert not q.weights and q.parameters["fc.w"].dtype == np.int8 and q.shapes(2)[q.output] == g.shapes(2)[g.output]
    assert outlined_for(step, q) is q and outlined_for(ri.ForwardGradient(), g) is g
    assert outlined_for(ri.Backprop(), g) is g


def test_a_net_is_calibrated_on_some_samples_evenly_and_drawn_weights_are_kept():
    g = models.build("lenet5", classes=3, size=(28, 28))
    x = np.zeros((2 * CALIBRATED_ON + 1, 28, 28, 1), np.float32)
    x[-1] = 5  # the last one is looked at
    x[CALIBRATED_ON // 2] = 0.5
    step = ri.ForwardGradient(bits="16w8a")
    q, other = (made_for(step, g, x, seed) for seed in (0, 1))
    assert float(q.weights["input.scale"][0]) == pytest.approx(5 / 127)
    assert (q.weights["fc3.w"] != other.weights["fc3.w"]).any() and not g.weights
    largest = abs(q.weights["fc3.w"].astype(int)).max()
    assert 32767 / 1.5 - 1 < largest <= 32767 / 1.5 + 1  # weights can grow by half


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The record of a short run."""
    done = gradledger(
        "adapt", "--json", "--epochs", "20", "--method", METHOD, "--train-last", "0", "--output",
        tmp_path_factory.mktemp("whole"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_adapt_trains_whole_numbers(record):
    for key in ("macs", "executed_macs", "peak_bytes"):
        assert record["predicted"][key] == record["measured"][key]
    assert record["weights"] == "pre-trained" and "bits=16w8a" in record["method"]
    assert record["accuracy_after"] > record["accuracy_before"] - 0.01


def test_the_saved_model_is_of_whole_numbers_with_their_scales(record):
    weights, notes = checkpoint.load(record["files"]["weights"])
    assert (weights["fc.w"].dtype, weights["fc.b"].dtype) == (np.int16, np.int32)
    assert json.loads(notes["quantized"])["fc.w"] == {"scale": "fc.w_scale", "zero_point": None, "axis": None}
    assert notes["model"] == "watch 16w8a"
    step = ri.ForwardGradient(bits="16w8a")
    g = models.watch_net(classes=7)
    g.weights = models.watch_weights(1)
    d = data.watch(1)
    q = made_for(step, g, d.x_train)
    assert (weights["fc.w"] != q.weights["fc.w"]).any() and (weights["conv1.w"] == q.weights["conv1.w"]).all()
    q.weights = weights
    t = ri.Trainer(ri.compile(q, None, 64))
    assert np.mean(t.predict(d.x_test).argmax(1) == d.y_test) == pytest.approx(record["accuracy_after"])


def test_8_bit_weights_are_refused_with_what_would_do(capsys, tmp_path):
    status, _, err = told(
        capsys,
        "adapt",
        "--method",
        "forward-gradient:bits=8w8a",
        "--train-last",
        "0",
        "--output",
        str(tmp_path / "out"),
    )
    assert status == 2 and not (tmp_path / "out").exists()
    assert (
        "epsilon=0.001 of forward-gradient is lost in 98% of the weights, whose last digit is larger: epsilon=" in err
    )
