"""`gradledger cost`: its record, its tables, its refusals; and that it runs and compiles no kernel."""

import json
import math
import subprocess
import sys

import pytest

import refimpl as ri
from costmodel.device.device import find
from gradledger.cli import main
from refimpl.storage import checkpoint
from refimpl.training.trainer import initial
from validation.experiments.papers import GRADIENT_FILTERING

FILTERED = "gradient-filter:patch=2"
FULL = f"{FILTERED},align=centre"


@pytest.fixture
def run(capsys):
    """Run the command; gives its exit status, output and errors."""

    def command(*args):
        with pytest.raises(SystemExit) as left:
            main(["cost", *(() if "--device" in args else ("--device", "reference")), *args])
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
    done = r["executed"]
    assert done["flops"] == sum(layer["executed_flops"] for layer in r["layers"]) == 2 * done["macs"]
    assert done["flops"] == sum(sum(done["sections"][s].values()) for s in sections) > 0


def test_the_record_is_that_of_the_program(record):
    r = record("--model", "resnet8", "--batch", "2", "--train-last", "3", "--classes", "7", "--method", FILTERED)
    graph = ri.models.build("resnet8", classes=7)
    step = ri.Backprop(ri.SGD(lr=0.01, momentum=0.9))
    p = ri.compile(graph, ri.Plan(3, [ri.GradientFilter(2)], step), 2)
    assert (r["peak_bytes"], r["state_bytes"], r["saved_bytes"]) == (p.peak_bytes, p.state_bytes, p.saved_bytes)
    assert r["weight_bytes"] == 4 * sum(math.prod(q.shape) for q in graph.parameters.values())
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
        "--batch",
        "1",
    )
    r = record(*args, "--convention", "paper")
    assert r["flops"] == pytest.approx(row.flops, rel=row.tolerance)
    assert row.memory is None or row.printed(r["saved_bytes"]) == row.memory
    assert r["flops"] == sum(layer["flops"] for layer in r["layers"]) == 2 * r["macs"]
    assert r["saved_bytes"] == sum(layer["saved_bytes"] for layer in r["layers"])


def test_this_machine_is_measured(record):
    here, other = record("--device", "this-machine"), record()
    assert (here["device"], other["device"]) == ("this-machine", "reference")
    assert here["seconds"]["low"] != other["seconds"]["low"] > 0
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
        ["whole", "step,", name, f"{found / 1e6:.2f}", unit]
        for key, unit in (("macs", "MMAC"), ("flops", "MFLOP"))
        for name, found in (("counted", macs[key]), ("executed", macs["executed"][key]))
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
    assert "holds no net that is known by the names of its arrays" in err


@pytest.mark.parametrize(
    "args, message",
    [
        (("--model", "resnet19"), "there is no model 'resnet19'; did you mean 'resnet18'?"),
        (("--method", "gradient-filtre"), "there is no method 'gradient-filtre'; did you mean 'gradient-filter'?"),
        (("--method", "gradient-filter:pach=2"), "no setting of gradient-filter 'pach'; did you mean 'patch'?"),
        (("--method", "gradient-filter:patch=0"), "patch must be at least 1, got 0"),
        (("--method", "error-map-pruning:keep=half"), "keep of error-map-pruning must be a number, got 'half'"),
        (("--method", "error-map-pruning:keep=2"), "keep must be a share above 0 and at most 1, got 2.0"),
        (("--method", "sparse-update:layers=0.5"), "layers of sparse-update must be a whole number, got '0.5'"),
        (("--method", "sparse-update:layers=0"), "layers of sparse-update must be at least 1, got 0"),
        (("--method", "sparse-update:ratio=0"), "ratio must be a share above 0 and at most 1, got 0.0"),
        (("--method", "sparse-update:order=nrm"), "no order of sparse-update 'nrm'; did you mean 'norm'?"),
        (("--method", "sparse-update:layers=2", "--train-last", "3"),
         "--train-last 3 and layers=2 of sparse-update disagree: give one of them"),
        (("--method", "sparse-update:layers=4"), "train_last is 4, but watch has 3 convolutions"),
        (("--method", FILTERED, "--method", "bias-only"), "gradient-filter and bias-only do not combine: bias-only"),
        (("--method", FILTERED, "--method", FILTERED), "gradient-filter is named twice: "),
        (("--method", "backprop", "--method", FILTERED), "backprop is the plain method, to be named alone"),
        (("--method", "gradient-filter:patch=2,patch=4"), "gradient-filter is given patch twice: give it once"),
        (("--method", "hard-examples", "--convention", "paper"), "dense and filtered gradients, not hard-examples"),
        (("--method", "instance-filter:entropy=nan"), "entropy must be a limit in nats from 0 up, got nan"),
        (("--fit", "trained", "--method", "sparse-update"), "--fit chooses what fits into --memory-limit: give one"),
        (("--fit", "trained", "--memory-limit", "1MiB"), "--fit chooses layers and ratio of sparse-update: name it"),
        (("--fit", "train", "--memory-limit", "1MiB"), "no value of --fit 'train'; did you mean 'trained'?"),
        (("--device", "raspbery-pi-4"), "there is no device 'raspbery-pi-4'; did you mean 'raspberry-pi-4'?"),
        (("--device", "missing.json"), "cannot read the device profile missing.json: No such file or directory"),
        (("--device", "pyproject.toml"), "no device 'pyproject.toml'; known: this-machine, this-gpu, reference"),
        (("--convention", "papers"), "there is no convention 'papers'; did you mean 'paper'?"),
        (("--train-last", "4"), "train_last is 4, but watch has 3 convolutions"),
        (("--train-last", "some"), "--train-last must be 'all' or a number of convolutions"),
        (("--batch", "0"), "--batch must be at least 1, got 0"),
        (("--threads", "0"), "--threads must be at least 1, got 0"),
        (("--classes", "-1"), "--classes must be at least 1, got -1"),
        (("--batch", "99999999999999999999"), "--batch must be from 1 to 100,000, got 99999999999999999999"),
        (("--classes", "9" * 26), "--classes must be from 1 to 1,000,000,000, got 999"),
        (("--threads", "9" * 20), "--threads must be from 1 to 1,024, got 999"),
        (("--device", "raspberry-pi-4", "--threads", "8"),
         "--threads must be from 1 to 4, the cores of raspberry-pi-4, got 8"),
        (("--size", "9" * 20 + "x1", "--model", "mobilenet_v2"), "--size must be at most 100,000 pixels a side"),
        (("--size", "1x" + "9" * 5000), "--size must be at most 100,000 pixels a side"),
        (("--size", "10000x10001"), "--size must be at most 100,000 pixels a side and 100,000,000 in all"),
        (("--size", "1x100001"), "--size must be at most 100,000 pixels a side and 100,000,000 in all"),
        (("--size", "٣٢"), "--size must be HxW in pixels"),
        (("--train-last", "²"), "--train-last must be 'all' or a number of convolutions"),
        (("--train-last", "٣"), "--train-last must be 'all' or a number of convolutions"),
        (("--train-last", "9" * 5000), "--train-last must be 'all' or a number of convolutions"),
        (("--memory-limit", "0.1"), "--memory-limit must be from 1 byte to"),
        (("--memory-limit", "0"), "--memory-limit must be from 1 byte to"),
        (("--memory-limit", "9" * 400), "--memory-limit must be from 1 byte to"),
        (("--memory-limit", "٣MiB"), "--memory-limit must be a number of bytes"),
        (("--advise", "--samples", "9" * 20), "--samples must be from 1 to 1,000,000,000, got 999"),
        (("--size", "7y"), "--size must be HxW in pixels"),
        (("--model", "resnet18", "--size", "0x0"), "--size must be HxW in pixels"),
        (("--size", "1x2"), "watch cannot take maps of 1x2"),
        (("--memory-limit", "lots"), "--memory-limit must be a number of bytes"),
        (("--backend", "gpu"), "there is no --backend 'gpu'; known: auto, fast, reference, rows, cuda"),
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


@pytest.mark.parametrize("model", ["watch", "lenet", "vgg16", "resnet18"])
def test_the_largest_values_together_are_priced(record, model):
    r = record("--model", model, "--size", "10000x10000", "--batch", "100000", "--classes", "1000000000",
               "--threads", "1024")  # fmt: skip
    assert 10**14 < r["peak_bytes"] < 2**63 and 0 < r["seconds"]["mid"] < float("inf")


def test_as_many_threads_as_a_device_has_cores(record):
    one, four = (record("--device", "raspberry-pi-4", "--threads", str(t)) for t in (1, 4))
    assert four["seconds"]["mid"] < one["seconds"]["mid"]


def test_a_memory_limit_that_does_not_hold(run, record):
    free = record()
    need = free["state_bytes"] + free["peak_bytes"]
    assert record("--memory-limit", str(need))["peak_bytes"] == free["peak_bytes"]
    status, out, err = run("--json", "--memory-limit", "64KiB")
    refused = json.loads(out)
    assert (status, refused["ok"]) == (1, False)
    assert err == f"gradledger: {refused['reason']}\n"
    assert f"the memory limit is {64 * 1024:,} bytes" in err and len(err) < 360 and err.count(". ") == 1
    assert "the largest sum of live arrays is" in refused["bounds"] and refused["memory"] == free["memory"]
    assert refused["smallest_limit_bytes"] == need
    assert refused["lower_bound_bytes"] <= need
    assert "The limit is of the arrays of a step, not of the process" in err
    assert (refused["model"], refused["method"], refused["peak_bytes"]) == ("watch", FULL, free["peak_bytes"])


def test_methods_combine(record):
    several = ("sparse-update:ratio=0.5,layers=2", "error-map-pruning", "gradient-filter")
    r = record("--model", "resnet8", "--batch", "1", *(arg for m in several for arg in ("--method", m)))
    assert r["method"] == (
        "sparse-update:ratio=0.5,order=norm,fixed_first=0.1,fixed_last=0.2,scaling=aware,layers=2 + "
        "error-map-pruning:keep=0.5,gamma_w=1.0,gamma_dy=1.0 + gradient-filter:patch=2,align=centre"
    )
    rules = (ri.SparseUpdate(0.5), ri.ErrorMapPruning(), ri.GradientFilter())
    p = ri.compile(ri.models.build("resnet8"), ri.Plan(2, rules, ri.Backprop(ri.SGD(lr=0.01))), 1)
    assert (r["train_last"], r["peak_bytes"], r["state_bytes"]) == (2, p.peak_bytes, p.state_bytes)
    assert r["layers"][-3]["rule"] == "frozen" or any(" + " in layer["rule"] for layer in r["layers"])


def test_bias_only(record):
    r, dense = record("--method", "bias-only", "--batch", "1"), record("--method", "backprop", "--batch", "1")
    p = ri.compile(ri.models.build("watch"), ri.Plan(bias_only=True, step=ri.Backprop(ri.SGD(0.01, 0.9))), 1)
    assert r["method"] == "bias-only" and r["saved_bytes"] == p.saved_bytes < dense["saved_bytes"] / 4


@pytest.mark.parametrize("weights, limit", [("trained", 420_000), ("updated", 250_000)])
def test_fit_chooses_what_fits(record, run, weights, limit):
    args = ("--model", "resnet8", "--size", "16", "--batch", "1", "--method", "sparse-update", "--fit", weights)
    r = record(*args, "--memory-limit", str(limit))
    fit, memory = r["fit"], r["memory"]
    assert fit["weights"] == weights and fit["needed"] <= r["memory_limit"] == limit
    assert (r["train_last"], f"ratio={fit['ratio']}," in r["method"]) == (fit["layers"], True)
    waiting = memory["state"]["convolutions_waiting"] if weights == "updated" else 0
    assert sum(memory["state"].values()) == r["state_bytes"] and sum(memory["arena"].values()) == r["peak_bytes"]
    assert fit["needed"] == r["state_bytes"] + r["peak_bytes"] - waiting
    again = (
        "--model",
        "resnet8",
        "--size",
        "16",
        "--batch",
        "1",
        "--method",
        f"sparse-update:ratio={fit['ratio']},layers={fit['layers']}",
    )
    assert {k: v for k, v in record(*again).items() if k in ("memory", "macs", "peak_bytes")} == {
        k: r[k] for k in ("memory", "macs", "peak_bytes")
    }
    _, out, _ = run(*args, "--memory-limit", str(limit))
    assert f"chosen: the last {fit['layers']} convolutions at ratio {fit['ratio']:g}" in out
    for name, nbytes in memory["arena"].items():
        assert not nbytes or [
            line for line in out.splitlines() if name.replace("_", " ") in line and f"{nbytes:,}" in line
        ]


def test_fit_keeps_a_ratio_that_is_given_and_takes_no_more_layers_than_that(record):
    args = ("--model", "resnet8", "--size", "16", "--memory-limit", "1GiB", "--fit", "trained", "--method")
    fit = record(*args, "sparse-update:ratio=0.25,layers=3")["fit"]
    assert (fit["layers"], fit["ratio"]) == (3, 0.25)
    assert record(*args, "sparse-update")["fit"]["ratio"] == 1.0


def test_fit_names_every_method(record):
    args = ("--model", "resnet8", "--size", "16", "--memory-limit", "1GiB", "--fit", "trained", "--method")
    found = record(*args, "sparse-update", "--method", "stochastic-depth", "--method", "random-skip")["method"]
    assert [part.split(":")[0] for part in found.split(" + ")] == ["random-skip", "sparse-update", "stochastic-depth"]


def test_samples_that_a_choice_of_instances_is_reckoned_with_are_named(record, run):
    args = ("--model", "lenet", "--batch", "64", "--method")
    assert "samples" not in record(*args, "backprop")
    r = record(*args, "instance-filter:keep=0.1")
    low, mid, high = (r[f"samples{end}"] for end in ("_low", "", "_high"))
    assert mid["filter"] == 64 and 6.4 < low["forward"] < mid["forward"] < high["forward"] < 64
    assert r["macs_low"] < r["macs"] < r["macs_high"]
    assert record(*args, "random-skip:skip=0.75")["samples"] == dict.fromkeys(("forward", "backward", "update"), 16)
    exact = record(*args, "hard-examples:keep=0.25")
    assert exact["samples"]["forward"] == exact["samples_low"]["forward"] == exact["samples_high"]["forward"] == 16
    assert exact["macs_low"] == exact["macs"] == exact["macs_high"]
    _, out, _ = run(*args, "instance-filter:keep=0.1")
    assert f"forward on {mid['forward']:.4g} ({low['forward']:.3g} to {high['forward']:.3g}) samples" in out
    assert "update on" not in out and "counted, as samples enter over a run" in out


def test_fit_refuses_what_nothing_fits_into(run):
    args = ("--model", "resnet8", "--size", "16", "--method", "sparse-update", "--fit", "updated", "--memory-limit")
    status, out, err = run("--json", *args, "1KiB")
    refused = json.loads(out)
    assert (status, refused["ok"], err) == (1, False, f"gradledger: {refused['reason']}\n")
    assert "no sparse update fits into 1,024 bytes" in err
    least = refused["smallest_limit_bytes"]
    assert run(*args, str(least))[0] == 0 and run(*args, str(least - 1))[0] == 1


NO_KERNEL = """
import sys
from gradledger.cli import main
try:
    main("cost --json --model mobilenet_v2 --size 96 --batch 8 --method gradient-filter:patch=2".split())
except SystemExit as left:
    assert left.code == 0, left.code
from refimpl.kernels.kernel import KERNELS
ran = [k.py_func.__name__ for k in KERNELS if k.signatures]
assert len(KERNELS) > 50 and not ran, ran
assert not {"torch", "matplotlib", "numba.cuda"} & set(sys.modules)
"""


def test_nothing_is_compiled_or_run():
    done = subprocess.run([sys.executable, "-c", NO_KERNEL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "mobilenet_v2"


def test_a_board_tells_whether_the_step_fits_and_what_it_draws(record, run):
    found = record("--device", "raspberry-pi-zero-2", "--model", "resnet8", "--batch", "8")
    assert found["device_measured"] is False and found["fits"]["ok"] is True
    assert found["fits"]["needs"]["ram"] == found["resident_bytes"] == sum(found["resident"].values())
    assert found["resident_bytes"] > found["peak_bytes"] + found["state_bytes"] + found["constant_bytes"]
    assert found["energy"]["board"]["mid"] == pytest.approx(
        find("raspberry-pi-zero-2").watts[1] * found["seconds"]["mid"]
    )
    out = run("--device", "raspberry-pi-zero-2")[1]
    assert "of 427.0 MiB: fits" in out and "the training process with one batch of data" in out
    status, out, _ = run("--device", "microcontroller-256k", "--model", "mobilenet_v2", "--size", "96x96")
    assert status == 0 and "of 256.0 KiB: does not fit" in out and "13.5 MiB of 1.0 MiB: does not fit" in out
    assert "a factor of 2.5 either way is assumed" in out and "stack and program code are not counted" in out


def test_a_process_that_is_not_predicted_is_a_bound_and_no_promise(record, run):
    args = ("--device", "raspberry-pi-4", "--model", "resnet20", "--method", "stochastic-depth")
    found = record(*args)
    assert found["resident"] is None and found["fits"]["at_least"] and found["fits"]["ok"] is None
    out = run(*args)[1]
    line = next(line for line in out.splitlines() if line.startswith("RAM that it needs there"))
    assert "at least" in line and "fits" not in line and "the rest of it is not predicted" in out


def test_the_optimizer_is_told_and_can_be_chosen(record, run):
    plain, usual = record("--momentum", "0"), record()
    assert (plain["momentum"], usual["momentum"], record("--method", "sparse-update")["momentum"]) == (0, 0.9, 0)
    assert plain["memory"]["state"]["optimizer"] == 0 < usual["memory"]["state"]["optimizer"]
    assert "SGD with momentum 0.9, " in run()[1] and "plain SGD, " in run("--momentum", "0")[1]
    status, out, err = run("--momentum", "2")
    assert (status, out) == (2, "") and "momentum" in err and err.count("\n") == 1
    status, out, err = run("--momentum", "0.9", "--method", "sparse-update")
    assert (status, out) == (2, "") and "momentum" in err.lower()


def test_what_is_left_of_a_limit_is_told(record, run):
    r = record("--model", "lenet5")
    needed = f"state and arena need {r['state_bytes'] + r['peak_bytes']:,} of the limit's 4,194,304 bytes"
    assert needed in run("--model", "lenet5", "--memory-limit", "4MiB")[1]


def test_a_folder_is_for_advice_alone(run):
    status, out, err = run("--output", "somewhere")
    assert (status, out) == (2, "") and "--output goes with --advise, which was not given" in err


@pytest.mark.parametrize("name", ["rp2040", "rp2350", "esp32-s3", "stm32h743", "microcontroller-256k"])
def test_a_microcontroller_says_what_runs_there(run, record, name):
    found = record("--device", name, "--batch", "1", "--train-last", "0")
    assert "Python and this library do not run there" in found["device_note"] and found["fits"]["ok"] is True
    assert set(found["fits"]["needs"]) == {"ram", "flash"} and found["resident"] is None
    out = run("--device", name, "--batch", "1")[1]
    assert f"{name}: {found['device_note']}" in out
    assert record("--device", "raspberry-pi-4", "--batch", "1")["device_note"] == ""


def test_whole_numbers_are_the_way_where_floats_have_no_unit(record):
    def seconds(name, *args):
        return record("--device", name, "--model", "lenet5", "--batch", "4", "--threads", "1", *args)["seconds"]["mid"]

    whole = ("--method", "niti")
    slower = {name: seconds(name) / seconds("rp2350") for name in ("rp2040", "stm32h743")}
    with_integers = {name: seconds(name, *whole) / seconds("rp2350", *whole) for name in slower}
    assert slower["rp2040"] > 10 > 5 > with_integers["rp2040"] > 1 > slower["stm32h743"]
