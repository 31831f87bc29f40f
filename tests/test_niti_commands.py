"""Commands on nets that `--method niti` makes ones of whole numbers that share exponents."""

import json

import numpy as np
import pytest
from test_adapt import gradledger
from test_whole_commands import told

import refimpl as ri
from costmodel import predict
from gradledger.cost import whole_numbers
from refimpl.storage import checkpoint
from refimpl.surgery.for_step import outlined_for

METHOD = "niti:rounding=stochastic"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with images of three kinds of stripes, as one file of arrays."""
    path, rng = tmp_path_factory.mktemp("niti"), np.random.default_rng(0)
    y = np.arange(240) % 3
    x = rng.uniform(0, 0.4, (240, 16, 16, 1)).astype(np.float32)
    x[y == 0, ::4] += 0.6
    x[y == 1, :, ::4] += 0.6
    np.savez(path / "stripes.npz", x=(255 * x).astype(np.uint8), y=y)
    return path


@pytest.fixture(scope="module")
def records(folder):
    """The records of two short runs, of whole numbers and of floats."""
    found = []
    for method in (METHOD, "backprop"):
        done = gradledger(
            "adapt", "--json", "--model", "lenet5", "--data", folder / "stripes.npz", "--epochs", "6", "--from-scratch",
            "--method", method, "--output", folder / method.partition(":")[0],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    return found


def test_adapt_trains_whole_numbers_and_does_what_was_predicted(records):
    record, of_floats = records
    for key in ("macs", "executed_macs", "peak_bytes"):
        assert record["predicted"][key] == record["measured"][key]
    assert record["method"] == METHOD and record["accuracy_after"] > 0.9 > record["accuracy_before"]
    assert record["measured"]["macs"] < 0.01 * of_floats["measured"]["macs"]
    assert record["measured"]["peak_bytes"] < of_floats["measured"]["peak_bytes"]
    weights, notes = checkpoint.load(record["files"]["weights"])
    assert {name: a.dtype for name, a in weights.items() if name.startswith("fc3")} == {
        "fc3.w": np.int8, "fc3.b": np.int16, "fc3.w_exponent": np.int32
    }  # fmt: skip
    assert json.loads(notes["quantized"])["fc3.w"]["scale"] == "fc3.w_exponent"


def test_cost_without_data_is_that_of_the_outline(capsys):
    status, found, _ = told(capsys, "cost", "--model", "lenet5", "--method", METHOD, "--batch", "4")
    step = ri.Niti("stochastic")
    p = ri.compile(outlined_for(step, ri.models.lenet5()), ri.Plan(step=step), 4)
    price = predict.estimate(p)
    assert status == 0 and found["integers"] == json.loads(json.dumps(whole_numbers(price, "width")))
    for key, value in (("flops", price.flops), ("peak_bytes", p.peak_bytes), ("state_bytes", p.state_bytes)):
        assert found[key] == value, key
    of_products = ("accumulate", "grad_x", "grad_w")
    products = sum(units["imul"] for call, units in price.calls.items() if call.passed.name in of_products)
    assert found["integers"]["imacs"] == {"8x8": products} and products > 4_000_000


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "resnet20"], r"batch_norm) of resnet20 has no form in whole numbers that share exponents"),
        (["--model", "lenet5", "--batch", "200"], "N·P·Q, the pixels of a mini-batch, must be at most 133144"),
        (["--model", "lenet5", "--momentum", "0.9"], "niti needs plain SGD without momentum and weight decay"),
    ],
)
def test_what_it_cannot_do_is_said_in_a_sentence(args, message, capsys):
    status, _, err = told(capsys, "cost", "--method", METHOD, *args)
    assert status == 2 and message in err and len(err.strip().splitlines()) == 1, err


def test_the_experiment_prints_a_row_for_each_way_and_runs_nothing_twice(monkeypatch, capsys, tmp_path):
    from refimpl import data
    from validation.experiments import niti_mnist

    rng, y = np.random.default_rng(0), np.arange(120) % 10
    x = rng.normal(size=(120, 28, 28, 1)).astype(np.float32)
    d = data.Dataset("noise", x, y, x[:30], y[:30], tuple(map(str, range(10))))
    for name, value in (("mnist", lambda: d), ("HELD_OUT", 20), ("TRIED", 64), ("BATCH", 32)):
        monkeypatch.setattr(niti_mnist, name, value)
    short = {name: (way, rates[:1]) for name, (way, rates) in niti_mnist.WAYS.items() if "nearest" in name}
    monkeypatch.setattr(niti_mnist, "WAYS", short)
    monkeypatch.setattr("sys.argv", ["niti_mnist", "--epochs", "1", "--seeds", "10", "11", "--output", str(tmp_path)])
    assert niti_mnist.main() == 0
    table = capsys.readouterr().out
    head, _, row = table.splitlines()
    assert head.startswith("| way | learning rate |") and row.startswith("| NITI, nearest | 0.0625 | ")
    monkeypatch.setattr(niti_mnist, "train", lambda *args: pytest.fail("a finished run was run again"))
    assert niti_mnist.main() == 0 and capsys.readouterr().out == table
