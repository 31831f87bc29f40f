"""`gradledger validate`: its record and files, its tables, its refusals."""

import json
import re
import shlex
import sys
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
from pretrained_files import saved
from rich.console import Console

import refimpl as ri
from costmodel.formulas import cost
from gradledger import checks, finish, show_validate, validate
from gradledger.cli import main
from refimpl import data
from refimpl.compiler.ir import PHASES
from refimpl.data import ReadOptions
from refimpl.training.trainer import initial
from validation.experiments import papers, tables, timing
from validation.instruments import int8_files, resident, torch_flops

EIGHT = "forward-gradient:m=1,bits=8w8a"
SHORT = ("--batch", "8", "--batches", "2")
FULL, QUICK = validate.FULL, validate.QUICK
TINY = validate.Scale(calls=1, nets=2, layers=1, processes=(), timed=())
NO_TORCH = {"installed": False, "note": torch_flops.NOT_INSTALLED, "rows": []}
printed = cache(tables.run)


def silent(*progress):
    """Watches nothing."""


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run the command with few drawn cases; gives its exit status, output and errors."""
    for scale in ("FULL", "QUICK"):
        monkeypatch.setattr(validate, scale, TINY)
    monkeypatch.setattr(torch_flops, "ask", lambda layers: NO_TORCH)
    monkeypatch.setattr(tables, "run", lambda output, watch: printed(None, silent))

    def command(*args, files=False):
        if not files:  # each takes a process
            monkeypatch.setattr(validate, "plot", lambda *args: None)
            monkeypatch.setattr(validate, "report", lambda output, name: str(output / f"{name}.html"))
        with pytest.raises(SystemExit) as left:
            main(["validate", *SHORT, *map(str, args), "--output", str(tmp_path / "out")])
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return command


@pytest.fixture
def images(tmp_path):
    """A file of small images of three classes."""
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    x = rng.normal(size=(48, 12, 12, 1)).astype(np.float32) + y[:, None, None, None]
    np.savez(tmp_path / "own.npz", x=x, y=y)
    return tmp_path / "own.npz"


def test_the_record_and_its_files(run, tmp_path):
    status, out, err = run("--json", files=True)
    assert (status, err) == (0, "")
    r = json.loads(out)
    assert r["ok"] and r["method"] == "gradient-filter:patch=2,align=centre" and r["weights"] == "pre-trained"
    assert [e["layer"] for e in r["gradients"]["errors"]] == ["conv1", "conv2", "conv3"]
    assert r["gradients"]["checked"] == 5 and 0 < r["gradients"]["max_rel_err"] < r["gradients"]["tolerance"]
    assert r["counts"]["checked"] > 30 and r["counts"]["mismatches"] == 0
    assert r["memory"]["predicted_peak_bytes"] == r["memory"]["measured_peak_bytes"] > 0
    assert r["counts"]["drawn"] == 2 + len(r["counts"]["passes"]["passes"]) and r["memory"]["drawn"]["checked"] == 2
    assert r["gradients"]["slope"]["checked"] == 5
    assert 0 < r["gradients"]["slope"]["max_rel_err"] < r["gradients"]["slope"]["tolerance"]
    assert r["tables"]["ok"] and r["time"]["cases"] == [] and r["memory"]["process"]["note"]
    assert [c["section"] for c in r["checks"]] == ["gradients"] * 2 + ["counts"] * 5 + ["memory"] * 3 + ["tables"]
    assert {c["verdict"] for c in r["checks"]} == {"ok", "not judged"}
    assert {c["problem"] for c in r["checks"]} == {""} and all(c["value"] for c in r["checks"])
    drawn = ["absolute_value.forward 0", "net 0", "net 0", "net 0"]
    kernels, launches = r["counts"]["model"]["kernels"], r["counts"]["model"]["kernels"]["launches"]
    assert kernels["checked"] > 10 and kernels["mismatches"] == r["counts"]["nets"]["kernels"]["mismatches"] == 0
    assert all(x["executed"] >= 0 for x in launches) and {x["section"] for x in launches} == set(PHASES)
    two = [c["command"].splitlines() for c in r["checks"] if "\n" in c["command"]]
    assert two == [[r["command"], f"python -m validation.instruments.drawn {case}"] for case in drawn]
    assert r["command"] == "gradledger validate --batch 8 --batches 2"
    for e in r["gradients"]["errors"]:
        assert 0.9 < e["local"]["dw"]["cosine"] < 1 and 0 < e["local"]["dw"]["relative_error"] < 0.5
        assert 1 < e["filter"]["snr_dy_closed_form"] < e["filter"]["snr_dy"]
    saved = json.loads((tmp_path / "out" / "validate.json").read_text())
    assert saved == {k: v for k, v in r.items() if k != "files"}
    assert (tmp_path / "out" / "validate.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    page = (tmp_path / "out" / "validate.html").read_text()
    assert "9 of 11 checks passed, 2 were not judged." in page and page.count("<img") == 2 and "conv2d.grad_w" in page


def test_tables_have_a_line_for_each_gradient(run):
    status, out, err = run("--train-last", 2)
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert [line[:3] for line in lines if line[:1] == ["conv2"]][0] == ["conv2", "dw", "local"]
    assert sum(line[:2] == ["dx", "whole"] for line in lines) == 1  # conv2 is the first that trains: no dx
    assert ["conv3", "1x5", "1x25", "2x2"] in [line[:4] for line in lines]
    assert "0 mismatches" in out and "FAILED" not in out and "…" not in out
    assert re.search(r"report +\S+validate\.html\s*$", out)


def test_a_model_without_weights_is_trained_first_and_the_record_says_so(run, images):
    resnet = ("--model", "resnet8", "--data", images, "--train-last", 1)
    status, out, _ = run(*resnet, "--json")
    assert status == 0
    assert json.loads(out)["weights"] == "trained here first, for 1 epoch of back-propagation"
    status, out, _ = run(*resnet, "--epochs", 0, "--method", "backprop")
    assert status == 0
    assert "weights: random, from the seed: --epochs 1 trains them first" in out
    assert "closed form" not in out


def test_only_the_classifier_trains_where_only_it_is_missing(images):
    d = data.load(images)
    graph = ri.models.build("resnet8", classes=3, size=(12, 12), channels=1)
    weights = initial(ri.compile(graph, None, 1), seed=0)
    graph.weights = {name: a.copy() for name, a in weights.items() if not name.startswith("fc")}
    told = validate.train_missing(graph, d, validate.ValidateSettings(batch=8), silent)
    assert told == "pre-trained but for fc.w, fc.b, which are trained here first, for 1 epoch of back-propagation"
    changed = [name for name, a in graph.weights.items() if (a != weights[name]).any()]
    assert changed == ["fc.w", "fc.b"]
    assert validate.train_missing(graph, d, validate.ValidateSettings(), None) == "pre-trained"


def test_a_failed_check_is_a_no_with_the_record(run, monkeypatch, tmp_path):
    monkeypatch.setattr(validate, "TOLERANCE", 1e-12)
    monkeypatch.setattr(validate.measured, "touched_bytes", lambda *a: 7)
    monkeypatch.setattr(validate.drawn.counting, "count", lambda *args, **keywords: {})
    status, out, err = run("--json")
    r = json.loads(out)
    assert status == 1 and r["ok"] is False and err.count("\n") == 1
    assert re.search(r"is off by \d\.\de-\d\d of the float64 reference, where at most 1e-12 is rounding", err)
    assert re.search(r"(\d+) of \1 calls do other operations than their formulas say", err)
    assert re.search(r"a step touched 7 bytes of the arena, where [\d,]+ were predicted", err)
    assert json.loads((tmp_path / "out" / "validate.json").read_text())["ok"] is False


@pytest.fixture
def wrong_formula(monkeypatch):
    """The formula of a linear layer's dw has an addition too many for each input."""
    true = cost.cost("linear", "grad_w")
    monkeypatch.setitem(cost.COSTS, ("linear", "grad_w"), true + cost.D * cost.add)
    cost._function.cache_clear()
    yield
    monkeypatch.undo()
    cost._function.cache_clear()


def test_a_wrong_formula_is_a_no_that_names_it_and_its_seed(run, wrong_formula, tmp_path):
    status, out, err = run("--json", "--seed", 3, files=True)
    r = json.loads(out)
    assert status == 1 and r["counts"]["mismatches"] > r["counts"]["model"]["mismatches"] == 1
    assert r["counts"]["passes"]["passes"]["linear.grad_w"]["mismatches"] == 1
    assert re.search(r"1 of \d+ drawn calls do other operations than their formulas say: linear\.grad_w\(D=", err)
    assert "(python -m validation.instruments.drawn linear.grad_w 3000000)" in err
    page = (tmp_path / "out" / "validate.html").read_text()
    assert "FAILED" in page and "python -m validation.instruments.drawn linear.grad_w 3000000" in page


def test_a_wrong_gradient_is_a_no(run, monkeypatch):
    true = validate.approximation.full_gradient
    monkeypatch.setattr(validate.approximation, "full_gradient", lambda *args: 1.01 * true(*args))
    status, out, err = run()
    assert status == 1 and "FAILED" in out and "validate.html" in out
    assert re.search(r"a gradient is off by 9\.9e-03 of the slope of the loss, where at most 1e-04 is rounding", err)


def test_a_printed_figure_that_is_off_is_a_no(monkeypatch):
    monkeypatch.setitem(papers.FILTER_SHARES, "lenet", ("slim_lenet", 9.5, 8.8))
    found = checks.tables({"tables": validate.printed(silent)})
    assert [c.ok for c in found] == [False]
    assert found[0].problem == (
        "1 of 35 printed figures are not reproduced: training of slim_lenet in % of lenet's (arXiv 2007.03213) is "
        "7.79, printed 8.8"
    )


def times(inside, calibrated=True):
    row = {"name": "a", "predicted_seconds": 2.0, "low_seconds": 1.0, "high_seconds": 3.0, "error": 0.0}
    rows = [row | {"measured_seconds": 2.0 if i < inside else 9.0, "flops_model_error": None} for i in range(4)]
    return {"time": {**timing.summary(rows), "cases": rows, "device": "this board", "calibrated": calibrated}}


def test_times_are_confirmed_where_this_machine_is_calibrated_and_never_fail():
    assert [checks.time(times(n))[0].ok for n in (4, 2, 1)] == [True, None, None]
    assert checks.time(times(1))[0].measured.startswith("25 % inside")
    (check,) = checks.time(times(4, calibrated=False))
    assert (check.verdict, check.value) == ("not judged", "90 % inside (first: gradledger calibrate)")


def test_processes_are_measured_one_by_one(monkeypatch):
    told = []
    row = {"name": "one", "error": 0.01}
    monkeypatch.setattr(resident, "measure_base", lambda: "base")
    monkeypatch.setattr(resident, "compare", lambda base, cases: [row | {"name": name} for name in cases])
    names = list(resident.CASES)[:2]
    found = validate.processes(tuple(names), lambda *progress: told.append(progress))
    assert [case["name"] for case in found["cases"]] == names and not found["note"]
    assert [done for done, total, _ in told] == [0, 1, 2] and set(FULL.processes) <= set(resident.CASES)


def test_processes_that_cannot_be_measured_are_told(monkeypatch, tmp_path):
    def fail():
        raise RuntimeError("the kernel cache does not keep kernels")

    monkeypatch.setattr(resident, "measure_base", fail)
    found = validate.processes(("watch",), silent)
    assert found["note"] == "not measured: the kernel cache does not keep kernels" and found["cases"] == []
    monkeypatch.setattr(resident, "STATUS", tmp_path / "status")
    note = validate.processes(("watch",), silent)["note"]
    assert note == f"not measured: this system has no {tmp_path / 'status'}"
    (check,) = checks.process({"memory": {"process": validate.processes((), silent)}})
    assert (check.verdict, check.measured) == ("not judged", "not measured with --quick")
    assert check.value == "off by at most 2 %"


def test_times_come_with_their_summary(monkeypatch):
    asked = []
    rows = times(3)["time"]["cases"]
    monkeypatch.setattr(timing, "compare", lambda *args: asked.append(args) or rows)
    device = SimpleNamespace(title="this board", measured=True)
    found = validate.times(("case",), device, silent)
    assert asked == [(("case",), device, silent)] and found["cases"] == rows
    assert (found["inside_interval"], found["device"], found["calibrated"]) == (0.75, "this board", True)


def test_a_report_that_fails_is_told(monkeypatch, capsys, tmp_path):
    assert finish.report(tmp_path, "validate") is None
    assert "the report was not written (FileNotFoundError" in capsys.readouterr().err

    def fail(*args, **keywords):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(finish.subprocess, "run", fail)
    assert finish.report(tmp_path, "validate") is None
    assert "the report was not written (Cannot allocate memory); everything else is saved" in capsys.readouterr().err


def test_a_process_that_takes_more_than_predicted_is_a_no():
    case = {"name": "a", "predicted_bytes": 100 << 20, "measured_bytes": 110 << 20, "error": -1 / 11}
    found = checks.process({"memory": {"process": {"note": "", "cases": [case, case | {"error": 0.01}]}}})
    assert [c.ok for c in found] == [False, True]
    assert found[0].problem == (
        "the process of a had 110.0 MiB, where 100.0 MiB were predicted: off by -9.1 %, allowed 2 %"
    )


def test_a_count_of_pytorch_that_nothing_explains_is_a_no():
    row = {"name": "linear", "part": "dw", "groups": 1, "ours": 10, "as_torch": 10, "torch": 12, "explained": False}
    rows = [row, row | {"torch": 10, "explained": True}, row | {"torch": 20, "as_torch": 20, "explained": True}]
    (found,) = checks.torch_counter({"counts": {"torch": {"installed": True, "rows": rows}}})
    assert found.ok is False and found.problem == (
        "1 of 3 counts of PyTorch's counter differ by more than its known error, first linear dw: 12, ours 10"
    )
    assert found.measured == "1 equal, 1 off by its known error, 1 off by more"


def test_an_arena_has_one_word_for_its_unit():
    m = {"drawn": {"checked": 1, "mismatches": 0, "filled": 1, "wrong": []}}
    m |= {"predicted_peak_bytes": 1000, "measured_peak_bytes": 1000}
    record = {"memory": m, "model": "watch", "command": "gradledger validate", "seed": 2}
    own, nets = checks.memory(record)
    assert (own.value, own.measured, own.problem) == ("1,000 bytes", "1,000 bytes", "")
    assert nets.command == "gradledger validate\npython -m validation.instruments.drawn net 2000000"
    m["drawn"] |= {
        "mismatches": 1,
        "wrong": [{"what": "off", "command": "python -m validation.instruments.drawn net 2000007"}],
    }
    assert checks.memory(record)[1].command == "gradledger validate\npython -m validation.instruments.drawn net 2000007"
    m["measured_peak_bytes"] = None
    assert checks.memory(record)[0].problem.startswith("a step touched a byte outside of the arena, where 1,000 were")


@pytest.mark.parametrize(("width", "terminal"), [(80, False), (200, False), (60, True)])
def test_no_word_of_a_verdict_is_cut(monkeypatch, capsys, width, terminal):
    monkeypatch.setattr(show_validate, "console", Console(width=width, force_terminal=terminal, color_system=None))
    check = {"section": "counts", "name": "n" * 36, "value": "v " * 20, "measured": "m " * 28, "verdict": "not judged"}
    gradients = {"errors": [], "estimator": {}, "energy_ratio": None, "energy_ratio_published": {}, "note": ""}
    show_validate.validated({
        "subject": None, "model": "watch", "data": "watch", "method": "backprop", "batches": 1, "batch": 1, "seed": 0,
        "weights": "pre-trained", "command": "c", "gradients": gradients, "counts": {"drawn": 0}, "checks": [check],
        "files": {},
    })  # fmt: skip
    out = capsys.readouterr().out
    table = out[out.index("check ") : out.index("0 cases")]
    words = re.findall(r"n{2,}|\b[vm]\b", table)
    assert "…" not in out and sum(w.count("n") for w in words) == 36
    assert (words.count("v"), words.count("m")) == (20, 28) and "not judged" in table
    assert not terminal or max(map(len, table.splitlines())) <= width
    assert terminal or len(table.strip().splitlines()) == 3


def test_quick_has_the_same_keys_and_fewer_cases(run):
    assert QUICK.calls * 80 + QUICK.nets >= 400 and FULL.calls * 80 >= 2000 and FULL.nets >= 2000
    assert QUICK.timed == timing.QUICK and FULL.timed == timing.CASES
    full, quick = (json.loads(run("--json", *args)[1]) for args in ((), ("--quick",)))

    def keys(r):
        return {k: keys(v) for k, v in r.items()} if isinstance(r, dict) else None

    assert keys(full) == keys(quick)
    assert quick["quick"] and not full["quick"] and quick["command"].endswith("--quick")
    for name in ("counts", "memory"):  # the same seed draws the same
        assert full[name] == quick[name]
    # Sums over arrays that lie elsewhere in memory may end with another last bit.
    assert rounded(full["gradients"]) == rounded(quick["gradients"])


def rounded(r):
    """Floats of a record to 9 digits."""
    if isinstance(r, dict):
        return {k: rounded(v) for k, v in r.items()}
    if isinstance(r, list):
        return [rounded(v) for v in r]
    return float(f"{r:.8e}") if isinstance(r, float) else r


def test_the_command_has_what_is_not_as_by_default():
    s = validate.ValidateSettings(
        method=["backprop", "random-skip:skip=0.5"], data="my data.npz", train_last="2", quick=True
    )
    assert shlex.split(s.command) == [
        "gradledger", "validate", "--data", "my data.npz", "--method", "backprop", "--method", "random-skip:skip=0.5",
        "--train-last", "2", "--quick",
    ]  # fmt: skip


def test_data_are_read_as_adapt_reads_them(run, monkeypatch):
    seen, given = [], {"window": "2s", "rate": 50.0, "label": "what", "group": "(.+)_", "values": "keep", "axes": "NTC"}
    monkeypatch.setattr(validate.job, "read", lambda settings: seen.append(settings) or sys.exit(7))
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    run("--skip-bad", *words, "--stride", "1s", "--pixels", "0,1")
    assert seen[0].reading == ReadOptions(skip_bad=True, stride="1s", **given) and seen[0].pixels == "0,1"
    again = validate.ValidateSettings(window="2s", skip_bad=True).command
    assert sorted(shlex.split(again)) == ["--skip-bad", "--window", "2s", "gradledger", "validate"]


def test_progress_runs_once_over_all_phases():
    told = []
    phases = validate.Phases(lambda *progress: told.append(progress), {"a": 4, "b": 6})
    phases.phase("a")(1, 2, "x")
    phases.phase("b")(5, 5, "y")
    assert told == [(0, 10, "a: begins"), (2, 10, "a: x"), (4, 10, "b: begins"), (10, 10, "b: y")]


def test_pytorch_that_fails_judges_nothing(monkeypatch):
    def fail(layers):
        raise RuntimeError("no libtorch")

    monkeypatch.setattr(torch_flops, "ask", fail)
    found = validate.asked(1, silent)
    (check,) = checks.torch_counter({"counts": {"torch": found}})
    assert check.verdict == "not judged" and check.measured == "PyTorch's counter was not asked: no libtorch"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--model", "wach"), "there is no model 'wach'; did you mean 'watch'"),
        (("--method", "gradient-filter:patch=0"), "patch must be at least 1, got 0"),
        (("--batches", 100), "100 batches of 8 need 800 samples, but there are 300: take fewer or smaller batches"),
        (("--batches", 0), "--batches must be at least 1, got 0"),
        (("--batch", "x"), "must be a whole number, got 'x'"),
        (("--epochs", -1), "--epochs must be at least 0, got -1"),
        (("--seed", -1), "--seed must be from 0"),
        (("--method", "stochastic-depth"), "leaves residual blocks out of a step, but watch has none"),
        (("--method", "niti"), "node bn1 (batch_norm) of watch has no form in whole numbers that share exponents"),
        (("--method", EIGHT), "epsilon=0.001 of forward-gradient is lost in 100% of the weights, whose last digit is"),
        (("--lr", "0"), "lr must be a positive number that float32 can hold, got 0.0"),
        (("--whole",), "of a .npz, an ONNX model or one of TensorFlow Lite, but --model is watch"),
        (("--train-last", 9), "train_last is 9, but watch has 3 convolutions"),
        (("--data", "nowhere.npz"), "there is no file or folder nowhere.npz"),
    ],
)
def test_bad_input_is_answered_in_one_sentence(run, tmp_path, args, message):
    status, out, err = run(*args)
    assert (status, out) == (2, "")
    assert message in err and err.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", ["m=1,estimator=exact", "m=1,backprop_last=0"])
def test_a_step_that_estimates_gradients_is_judged_by_them(run, monkeypatch, capsys, settings):
    monkeypatch.setattr(validate, "QUICK_ESTIMATES", 6)
    command = ("--method", f"forward-gradient:{settings}", "--train-last", "1", "--quick")
    exact = "exact" in settings
    status, out, _ = run(*command, "--json", files=exact)
    record = json.loads(out)
    assert (status, record["ok"]) == (0, True)
    g = record["gradients"]
    found, checked = g["estimator"], g["kernels"]
    assert g["errors"] == [] and g["checked"] == len(checked) >= 3 and g["slope"]["checked"] == len(checked)
    assert found["steps"] == 6 and found["dimensions"] == 64 * 64 * 5 + 64 * 7 + 7
    assert (found["variance_by_theory"] == pytest.approx(found["dimensions"] + 0.85, abs=1e-3)) if exact else True
    assert (found["cosine_by_theory"] is None) != exact and 0 < found["cosine"] < 1 and found["bias"] >= 0
    assert record["counts"]["model"]["kernels"]["checked"] > 0 and not record["counts"]["mismatches"]
    show_validate.validated(record)
    table = capsys.readouterr().out
    assert "variance" in table and "by theory" in table and "relative error" not in table


@pytest.mark.parametrize(
    ("args", "told", "layers"),
    [
        (("hard-examples",), "hard-examples chooses which samples enter, it approximates no layer's gradient", 3),
        (("random-skip", "error-map-pruning"), "random-skip chooses which samples enter, it approximates no", 3),
        (("hard-examples", "forward-gradient:m=1"), "hard-examples chooses which samples enter", 0),
        (("bias-only",), "no convolution of watch trains its weights under this plan, so there is none whose", 0),
    ],
)
def test_what_changes_no_gradient_is_validated_with_the_rest(run, monkeypatch, args, told, layers):
    monkeypatch.setattr(validate, "QUICK_ESTIMATES", 6)
    status, out, err = run("--quick", "--json", *(w for method in args for w in ("--method", method)))
    assert (status, err) == (0, "")
    r = json.loads(out)
    g = r["gradients"]
    assert g["note"].startswith(told) and len(g["errors"]) == layers and g["checked"] == g["slope"]["checked"] == 5
    assert (g["estimator"] is None) == ("forward-gradient:m=1" not in args)
    assert r["memory"]["predicted_peak_bytes"] == r["memory"]["measured_peak_bytes"]
    own = r["counts"]["model"]
    sections = {x["section"] for x in own["kernels"]["launches"]}
    assert ("judge" in sections) == ("hard-examples" in args)  # counted is the step as it is
    assert own["mismatches"] == 0 and own["checked"] > 40


@pytest.fixture
def stripes(tmp_path):
    """A file of images of three kinds of stripes."""
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    x = rng.uniform(0, 0.4, (48, 16, 16, 1)).astype(np.float32)
    x[y == 0, ::4] += 0.6
    np.savez(tmp_path / "stripes.npz", x=(255 * x).astype(np.uint8), y=y)
    return tmp_path / "stripes.npz"


WHOLE_STEPS = {
    "niti": ("--model", "lenet5", "--data", "stripes", "--method", "niti:rounding=stochastic"),
    "16w8a": ("--method", "forward-gradient:m=1,bits=16w8a"),
    "8w8a": ("--method", "forward-gradient:m=1,bits=8w8a,epsilon=0.01", "--train-last", 0, "--lr", 0.02),
    "backprop": ("--model", "net", "--data", "pictures", "--whole", "--method", "sparse-update:ratio=0.5"),
}


@pytest.mark.parametrize("name", WHOLE_STEPS)
def test_a_step_of_whole_numbers_is_validated_on_the_net_that_adapt_trains(run, stripes, tmp_path, name, capsys):
    files = {"stripes": stripes, "net": tmp_path / "net.npz", "pictures": tmp_path / "pictures.npz"}
    saved(files["net"], *int8_files.int8_arrays())
    x = np.random.default_rng(0).integers(0, 256, (48, 16, 16, 3), np.uint8)
    np.savez(files["pictures"], x=x, y=np.arange(48) % 2)
    status, out, err = run("--json", "--quick", *(files.get(a, a) for a in WHOLE_STEPS[name]))
    assert (status, err) == (0, "")
    r = json.loads(out)
    g = r["gradients"]
    assert g["step"]["checked"] > 300 and g["step"]["mismatches"] == 0 and g["note"] == validate.NO_SLOPE
    assert (g["step"]["allowed"] > 0) == (name == "backprop") and (g["checked"], g["errors"]) == (0, [])
    step, slopes = (c for c in r["checks"] if c["section"] == "gradients")
    assert step["verdict"] == "ok" and "whole weights after a step" in step["name"]
    assert (slopes["verdict"], slopes["measured"]) == ("not judged", f"not asked: {validate.NO_SLOPE}")
    assert r["counts"]["model"]["checked"] >= 20 and not r["counts"]["mismatches"]
    assert r["counts"]["model"]["kernels"]["checked"] > 0 and not r["counts"]["model"]["kernels"]["mismatches"]
    assert r["memory"]["predicted_peak_bytes"] == r["memory"]["measured_peak_bytes"]
    assert r["files"]["plot"] is None
    show_validate.validated(r)
    assert validate.NO_SLOPE in capsys.readouterr().out


def test_whole_weights_that_differ_are_a_no(run, monkeypatch):
    """A step of the reference kernels moves one weight by one more."""
    true = ri.Trainer.train_step

    def step(trainer, *args):
        loss = true(trainer, *args)
        if trainer.program.backend == "reference":
            trainer.parameters["fc.w"].reshape(-1)[0] += 1
        return loss

    monkeypatch.setattr(ri.Trainer, "train_step", step)
    status, _, err = run("--quick", *WHOLE_STEPS["16w8a"])
    assert status == 1
    assert "1 of 32,519 whole weights differ after a step of the fast and of the reference kernels, where 0 may" in err
