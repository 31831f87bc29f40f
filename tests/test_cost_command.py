"""`gradledger cost`: its record, its tables, its refusals; and that it runs and compiles no kernel."""

import json
import subprocess
import sys

import pytest

import refimpl as ri
from gradledger.cli import main
from refimpl import checkpoint
from refimpl.train import initial
from validation.papers import GRADIENT_FILTERING

FILTERED = "gradient-filter:patch=2"


@pytest.fixture
def run(capsys):
    """Run the command; gives its exit status, output and errors."""

    def command(*args):
        with pytest.raises(SystemExit) as left:
            main(["cost", "--device", "nominal", *args])
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return command


@pytest.fixture
def record(run):
    """Run the command with --json; gives its one object."""

    def command(*args):
        status, out, err = run("--json", *args)
        assert (status, err) == (0, "")
        return json.loads(out)

    return command


def test_the_record_has_the_keys_of_the_contract(record):
    r = record("--method", FILTERED, "--batch", "4")
    assert {"model", "method", "batch", "forward", "backward", "flops", "macs", "saved_bytes", "peak_bytes",
            "weight_bytes", "seconds", "layers"} <= set(r)  # fmt: skip
    assert set(r["forward"]) == set(r["backward"]) == {"mul", "add"}
    assert list(r["seconds"]) == ["low", "mid", "high"]
    assert 0 < r["seconds"]["low"] < r["seconds"]["mid"] < r["seconds"]["high"]
    assert (r["ok"], r["model"], r["batch"], r["method"]) == (True, "watch", 4, f"{FILTERED},align=centre")


@pytest.mark.parametrize("method", ["backprop", FILTERED])
@pytest.mark.parametrize("model, size", [("watch", "1x40"), ("lenet5", None), ("mobilenet_v2", "32x32")])
@pytest.mark.parametrize("last", ["2", "all"])
def test_totals_are_sums_over_layers(record, model, size, method, last):
    r = record(
        "--model", model, "--method", method, "--batch", "3", "--train-last", last, *(["--size", size] if size else [])
    )
    sections = ("forward", "backward", "update")
    assert r["flops"] == sum(sum(r[s].values()) for s in sections) == 2 * r["macs"]
    for s in sections:
        for unit in ("mul", "add"):
            assert r[s][unit] == sum(layer[s][unit] for layer in r["layers"])
    for key in ("flops", "saved_bytes", "weight_bytes"):
        assert r[key] == sum(layer[key] for layer in r["layers"])


def test_the_record_is_that_of_the_program(record):
    r = record("--model", "resnet8", "--batch", "2", "--train-last", "3", "--classes", "7", "--method", FILTERED)
    graph = ri.models.build("resnet8", classes=7)
    step = ri.Backprop(ri.SGD(lr=0.01, momentum=0.9))
    p = ri.compile(graph, ri.Plan(3, [ri.GradientFilter(2)], step), 2)
    assert (r["peak_bytes"], r["state_bytes"], r["saved_bytes"]) == (p.peak_bytes, p.state_bytes, p.saved_bytes)
    assert r["weight_bytes"] == 4 * sum(ri.program.np.prod(q.shape) for q in graph.parameters.values())
    layers = {layer["name"]: layer for layer in r["layers"]}
    assert layers["conv1"]["rule"] == "frozen"
    assert (
        layers["layer3.0.conv1"] | {"rule": f"{FILTERED},align=centre", "shape": [2, 8, 8, 64]}
        == layers["layer3.0.conv1"]
    )
    assert (layers["fc"]["rule"], layers["relu1"]["rule"]) == ("dense", "")
    assert layers["fc"]["forward"] == {"mul": 2 * 64 * 7, "add": 2 * 64 * 7}


@pytest.mark.parametrize(
    "row", [GRADIENT_FILTERING[i] for i in (0, 4, 10)], ids=lambda r: f"last{r.train_last}-patch{r.patch}"
)
def test_convention_paper(record, row):
    method = f"gradient-filter:patch={row.patch}" if row.patch else "backprop"
    args = (
        "--model",
        row.model,
        "--classes",
        str(row.classes),
        "--train-last",
        str(row.train_last),
        "--method",
        method,
    )
    r = record(*args, "--convention", "paper")
    assert r["flops"] == pytest.approx(row.flops, rel=row.tolerance)
    assert row.memory is None or row.printed(r["saved_bytes"]) == row.memory
    assert r["flops"] == sum(layer["flops"] for layer in r["layers"]) == 2 * r["macs"]
    assert r["saved_bytes"] == sum(layer["saved_bytes"] for layer in r["layers"])


def test_this_machine_is_measured(record):
    here, nominal = record("--device", "this-machine"), record()
    assert (here["device"], nominal["device"]) == ("this-machine", "nominal")
    assert here["seconds"]["low"] != nominal["seconds"]["low"] > 0
    assert 0 < here["seconds"]["low"] < here["seconds"]["high"] < 60


def test_conventions_change_the_unit_only(record, run):
    macs, flops = record("--convention", "macs"), record("--convention", "flops")
    assert {k for k in macs if macs[k] != flops[k]} == {"convention"}
    _, in_macs, _ = run("--convention", "macs")
    _, in_flops, _ = run("--convention", "flops")
    total = [
        line.split() for text in (in_macs, in_flops) for line in text.splitlines() if line.startswith("whole step")
    ]
    assert total == [
        ["whole", "step", f"{macs['macs'] / 1e6:.2f}", "MMAC"],
        ["whole", "step", f"{macs['flops'] / 1e6:.2f}", "MFLOP"],
    ]


def test_the_table_has_a_line_for_each_layer(run, record):
    for convention in ("macs", "paper"):
        args = ("--model", "mobilenet_v2", "--size", "64", "--convention", convention, "--method", FILTERED)
        status, out, err = run(*args)
        assert (status, err) == (0, "")
        lines = out.splitlines()
        for layer in record(*args)["layers"]:
            assert [line for line in lines if line.split()[:2] == [layer["name"], layer["op"]]], layer["name"]
        assert "…" not in out
        assert any(line.startswith("peak arena") for line in lines)


def test_a_file_of_ours_tells_model_classes_and_size(record, tmp_path):
    p = ri.compile(ri.models.build("watch", classes=4, size=(1, 36), channels=3), ri.Plan(), 1, backend="reference")
    checkpoint.save(tmp_path / "mine.safetensors", initial(p, 0), {"model": "watch", "size": str(p.size)})
    r = record("--model", str(tmp_path / "mine.safetensors"))
    assert (r["classes"], r["size"]) == (4, [1, 36])
    conv = r["layers"][0]
    assert conv["weight_bytes"] == 4 * 7 * 3 * 32
    assert record("--model", str(tmp_path / "mine.safetensors"), "--classes", "9", "--size", "1x50")["size"] == [1, 50]


def test_a_file_that_says_nothing_is_refused(run, tmp_path):
    checkpoint.save(tmp_path / "other.safetensors", {}, {})
    status, out, err = run("--model", str(tmp_path / "other.safetensors"))
    assert (status, out) == (2, "")
    assert "does not say which model it holds" in err


@pytest.mark.parametrize(
    "args, message",
    [
        (("--model", "resnet19"), "there is no model 'resnet19'; did you mean 'resnet18'?"),
        (("--method", "gradient-filtre"), "there is no method 'gradient-filtre'; did you mean 'gradient-filter'?"),
        (("--method", "gradient-filter:pach=2"), "no setting of gradient-filter 'pach'; did you mean 'patch'?"),
        (("--method", "gradient-filter:patch=0"), "patch must be at least 1, got 0"),
        (("--device", "nominl"), "there is no device 'nominl'; did you mean 'nominal'?"),
        (("--convention", "papers"), "there is no convention 'papers'; did you mean 'paper'?"),
        (("--train-last", "4"), "train_last is 4, but watch has 3 convolutions"),
        (("--train-last", "some"), "--train-last must be 'all' or a number of convolutions"),
        (("--batch", "0"), "--batch must be at least 1, got 0"),
        (("--threads", "0"), "--threads must be at least 1, got 0"),
        (("--classes", "-1"), "--classes must be at least 1, got -1"),
        (("--size", "7y"), "--size must be HxW in pixels"),
        (("--model", "resnet18", "--size", "0x0"), "--size must be HxW in pixels"),
        (("--size", "1x2"), "watch cannot take maps of 1x2"),
        (("--memory-limit", "lots"), "--memory-limit must be a number of bytes"),
        (("--backend", "gpu"), "backend must be one of fast, reference, got 'gpu'"),
        (("--model", "nowhere.safetensors"), "cannot read the weights nowhere.safetensors"),
        (("--batches", "2"), "--batch"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else "",
)  # fmt: skip
def test_bad_values_are_one_sentence(run, args, message):
    status, out, err = run("--json", *args)
    assert (status, out) == (2, "")
    assert err.startswith("gradledger: ") and err.count("\n") == 1
    assert message in err


def test_a_memory_limit_that_does_not_hold(run, record):
    free = record()
    need = free["state_bytes"] + free["peak_bytes"]
    assert record("--memory-limit", str(need))["peak_bytes"] == free["peak_bytes"]
    status, out, err = run("--json", "--memory-limit", "64KiB")
    refused = json.loads(out)
    assert (status, refused["ok"]) == (1, False)
    assert err == f"gradledger: {refused['reason']}\n"
    assert f"the memory limit is {64 * 1024:,} bytes" in err and "the largest sum of live arrays is" in err
    assert refused["smallest_limit_bytes"] == need
    assert refused["lower_bound_bytes"] <= need
    assert (refused["model"], refused["method"], refused["peak_bytes"]) == ("watch", "backprop", free["peak_bytes"])


NO_KERNEL = """
import sys
from gradledger.cli import main
try:
    main("cost --json --model mobilenet_v2 --size 96 --batch 8 --method gradient-filter:patch=2".split())
except SystemExit as left:
    assert left.code == 0, left.code
from refimpl.kernel import KERNELS
ran = [k.py_func.__name__ for k in KERNELS if k.signatures]
assert len(KERNELS) > 50 and not ran, ran
assert not {"torch", "matplotlib", "numba.cuda"} & set(sys.modules)
"""


def test_nothing_is_compiled_or_run():
    done = subprocess.run([sys.executable, "-c", NO_KERNEL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "mobilenet_v2"
