"""The benchmark checks what it times, and reports what it measured."""

import json
import re
import runpy
import subprocess
import sys
from types import SimpleNamespace

import numba
import pytest
import torch

import refimpl as ri
from costmodel.device import device, rates
from gradledger import cli
from refimpl.kernels import cuda
from validation import bench
from validation.bench import blocks, filtered, forward, gpu, methods, quantized, roofline, steps

TINY = filtered.Filtered(8, 9, 7, 2, batch=2)


@pytest.fixture(autouse=True)
def a_gpu(monkeypatch):
    """As if there were one: the sides of its cases are none of a GPU here."""
    monkeypatch.setattr(cuda, "check", lambda: None)


@pytest.fixture(autouse=True)
def restore_threads():
    ours, theirs = numba.get_num_threads(), torch.get_num_threads()
    yield
    numba.set_num_threads(ours)
    torch.set_num_threads(theirs)


@pytest.mark.parametrize("patch", [2, 4])
def test_every_side_filters_the_same(patch):
    case = filtered.Filtered(8, 9, 7, patch, batch=2)
    for work in (case.ours(), case.torch(False), case.torch(True)):
        work()
        assert case.distance(*work.result()) < 1e-6
    assert case.error() < 1e-6


@pytest.mark.parametrize("case", [blocks.BlockCase((2, 5, 8, 16, 1)), blocks.BlockCase((2, 5, 8, 16, 2))])
def test_a_block_is_that_of_pytorch(case):
    assert case.error() < 1e-5 and case.bytes() > 0
    case.torch(True)()


def test_a_step_is_that_of_pytorch():
    case = steps.StepCase("lenet5", (28, 28), 4)
    with bench.our_threads(1):
        assert case.error() < 1e-4
        case.ours()()
    assert case.torch(True)() == pytest.approx(case.torch(False)(), rel=1e-4)


RULES = [ri.ErrorMapPruning(0.5), ri.SparseUpdate(0.5), ri.GradientFilter(2)]


def test_a_step_in_8_bits_is_that_of_the_reference_and_its_peer_is_the_dense_step():
    case = quantized.QuantizedCase("lenet5", (28, 28), 4, ri.QuantizedTraining("ptq"))
    with bench.our_threads(1):
        assert case.error() < 1e-6
        assert case.ours()() == pytest.approx(case.backprop()(), rel=1e-3)
    assert "quantized.grad_w" in str(case.own()) and "quantized" not in str(case.program())


@pytest.mark.parametrize("bits", [None, "16w8a"])
def test_a_step_without_a_backward_pass_is_exact_and_its_peer_is_back_propagation(bits):
    case = forward.ForwardCase("lenet5", (28, 28), 4, ri.ForwardGradient(m=1, bits=bits))
    with bench.our_threads(1):
        assert case.error() < (1e-4 if bits is None else 1e-12)
        ours, dense = case.ours(), case.backprop()
        ours(), dense()
    assert ours.trainer.program.plan.step.m == 1 and dense.trainer.program.plan.step == ri.Backprop(ri.SGD(lr=1e-6))
    ratio = case.predicted()["predicted_macs_ratio"]
    assert 0.5 < ratio < 1.2 if bits is None else 0.25 < ratio < 0.6  # 16 of 32 bits


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.method)
def test_a_step_under_a_method_is_that_of_float64_and_its_peer_is_the_dense_step(rule):
    case = methods.MethodCase("lenet5", (28, 28), 4, rule, 1)
    with bench.our_threads(1):
        assert case.error() < 1e-4
        ours, dense = case.ours(), case.backprop()
        ours(), dense()
    plan = dense.trainer.program.plan
    assert plan.rules == () and plan.train_last == "all" and ours.trainer.program.plan.rules == (rule,)
    assert ours.trainer.program.plan.train_last == 1
    predicted = case.predicted()
    assert 0 < predicted["predicted_macs_ratio"] < 1 and 0 < predicted["predicted_seconds_ratio"] < 1
    low, high = predicted["predicted_seconds_ratio_range"]
    assert low < predicted["predicted_seconds_ratio"] < high and 0 < predicted["predicted_executed_ratio"] < 1
    assert predicted["predicted_calibrated"] == device.this_machine().measured


def test_a_method_is_timed_beside_back_propagation_without_a_peer(monkeypatch, capsys):
    asked = []

    def measured(side, *_):
        asked.append(side)
        return {"check": {"error": 1e-7}, "ours": {"times": [2.0]}, "backprop": {"times": [8.0]}}[side]

    monkeypatch.setattr(bench, "launch", measured)
    monkeypatch.setitem(methods.CASES, "method-tiny", methods.MethodCase("lenet5", (28, 28), 4, RULES[0]))
    (record,) = bench.run_cases(["method-tiny"], peer=None)
    assert asked == ["check", *["ours", "backprop"] * 2]
    assert (record["ours_ms"], record["peer_ms"], record["ratio"]) == (2.0, 8.0, 0.25)
    expected = methods.CASES["method-tiny"].predicted()
    assert {key: record[key] for key in expected} == expected
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "method-tiny"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    line = f"0.25 of the time of back-propagation (8.00 ms); predicted {expected['predicted_macs_ratio']:.2f} by mult"
    low, high = expected["predicted_seconds_ratio_range"]
    assert line in out and f"{expected['predicted_executed_ratio']:.2f} by those executed" in out
    assert f"({low:.2f} to {high:.2f})" in out


def test_a_wrong_result_is_not_timed(monkeypatch):
    monkeypatch.setattr(bench, "launch", lambda *_: {"error": 0.5})
    message = "ours is wrong by 5.0e-01 on tiny, more than 1e-05"
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        bench.check("tiny", TINY, 1)
    monkeypatch.setattr(bench, "launch", lambda *_: {"error": float("nan")})
    with pytest.raises(RuntimeError, match="ours is wrong by nan"):
        bench.check("tiny", TINY, 1)


def test_times_come_from_each_side_in_turns(monkeypatch):
    asked = []

    def measured(side, name, threads, repeats):
        asked.append(side)
        if side == "check":
            return {"error": 1e-7}
        later = len(asked) > 4
        times = {"ours": [2.0, 4.0], "torch-nchw": [9.0, 11.0], "torch-nhwc": [5.0, 5.0]}[side]
        return {"times": [t + later for t in times]}

    monkeypatch.setattr(bench, "launch", measured)
    monkeypatch.setattr(bench, "copy_bandwidth", lambda threads: 1e9)
    monkeypatch.setitem(filtered.CASES, "filtered-tiny", TINY)
    (record,) = bench.run_cases(["filtered-tiny"])
    assert asked == ["check", *["ours", "torch-nchw", "torch-nhwc"] * 2]
    assert (record["ours_ms"], record["peer_ms"], record["peer_nchw_ms"]) == (3.5, 5.5, 10.5)
    assert record["ratio"] == pytest.approx(3.5 / 5.5) and record["error"] == 1e-7
    moved = 4 * (2 * 8 * (2 * 9 * 7 + 5 * 4) + 2 * 9 * 8 * 8)
    assert record["floor_ms"] == pytest.approx(moved / 1e9 * 1e3)
    assert record["spread"] == pytest.approx(1.5 / 3.5)


def test_without_a_peer_only_ours_runs(monkeypatch):
    asked = []
    monkeypatch.setattr(bench, "launch", lambda side, *_: asked.append(side) or {"times": [1.0]})
    (record,) = bench.run_cases(["filtered-6-patch2"], peer=None, turns=1)
    assert asked == ["ours"] and record["ratio"] is None and record["peer_ms"] is None


def test_a_side_that_fails_is_named():
    with pytest.raises(RuntimeError, match="ours failed on no-such-case: KeyError: 'no-such-case'"):
        bench.launch("ours", "no-such-case", 1, 1)


def test_names_choose_cases():
    assert bench.families() == [
        "filtered",
        "step",
        "block",
        "start",
        "method",
        "imported",
        "integers",
        "quantized",
        "forward",
        "gpu",
    ]
    assert len(bench.choose(["filtered"])) == 14
    assert bench.choose(["filtered-3"]) == ["filtered-3-patch2", "filtered-3-patch4"]
    assert bench.choose(["filtered-3-patch4", "filtered-3"]) == ["filtered-3-patch4", "filtered-3-patch2"]
    assert bench.choose(["step-lenet5"]) == ["step-lenet5-28x28-batch64"]


@pytest.mark.parametrize(
    "args, message",
    [
        (["filtered-9"], "unknown case 'filtered-9': choose from filtered-0-patch2, filtered-1-patch2"),
        (
            ["methd"],
            "unknown case 'methd': choose from filtered, step, block, start, method, imported, integers, quantized, "
            "forward, gpu\n",
        ),
        (["filtered", "--peer", "jax"], "unknown peer 'jax': choose from torch"),
        (["filtered", "--backend", "fast"], "there is no --backend 'fast'; known: cuda"),
        (["block", "--backend", "cuda"], "unknown case 'gpu-block': choose from gpu-step-mobilenet_v2-224x224-batch32"),
        (["filtered", "--repeats", "0"], "--repeats must be at least 1, got 0"),
    ],
)
def test_refuses_what_it_does_not_know(args, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", *args])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == "" and message in printed.err and printed.err.count("\n") == 1


def test_peers_that_are_pytorchs_are_timed_where_it_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(bench, "launch", lambda side, *_: asked.append(side) or {"times": [1.0], "error": 1e-7})
    monkeypatch.setattr(gpu.GpuProduct, "predicted", lambda self: {})
    *_, name = bench.choose(["gpu-product-4096x4096x4096"])
    assert name == "gpu-product-4096x4096x4096-dw"
    for peer, sides in ((None, ["check", "ours"]), ("torch", ["check", "ours", "cublas"])):
        asked.clear()
        (record,) = bench.run_cases([name], peer, turns=1)
        assert asked == sides and (record["ratio"] is None) == (peer is None)


def failing(side, name, *_):
    """As `launch`, of sides of which some fail."""
    if side == "compiled" or (side, name.split("-")[1]) == ("ours", "product"):
        raise RuntimeError(f"{side} failed on {name}: TritonMissing: there is no [Triton] here")
    if side == "check":
        return {"error": 1e-7}
    return {"times": [2.0 if side == "ours" else 4.0]}


def test_a_side_of_pytorch_that_fails_is_told_and_the_others_go_on(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(bench, "launch", lambda side, *more: asked.append(side) or failing(side, *more))
    monkeypatch.setattr(gpu.GpuStep, "predicted", lambda self: {"captured": False, "why_not": "it [refuses]"})
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "gpu-step-lenet5", "--peer", "torch", "--turns", "2", "--json"])
    assert stopped.value.code == 0
    (found,) = json.loads(capsys.readouterr().out)["cases"]
    sentence = "compiled failed on gpu-step-lenet5-28x28-batch64: TritonMissing: there is no [Triton] here"
    assert found["failed"] == {"compiled": sentence} and "peer_compiled_ms" not in found
    assert (found["ours_ms"], found["peer_channels_last_ms"], found["ratio"]) == (2.0, 4.0, 0.5)
    assert asked == ["check", "ours", "eager", "channels_last", "compiled", "ours", "eager", "channels_last"]
    with pytest.raises(SystemExit):
        cli.main(["bench", "gpu-step-lenet5", "--peer", "torch"])
    out = capsys.readouterr().out
    assert f"\n{sentence}\n" in out and "launches are made one by one: it [refuses]\n" in out


def test_all_sides_of_pytorch_may_fail(monkeypatch, capsys):
    def alone(side, *_):
        if side.startswith("torch"):
            raise RuntimeError(f"{side} failed")
        return {"times": [1.0], "error": 1e-7}

    monkeypatch.setattr(bench, "launch", alone)
    (found,) = bench.run_cases(["filtered-6-patch2"], "torch", turns=2)
    assert found["failed"] == {side: f"{side} failed" for side in bench.PEERS["torch"]} and found["ratio"] is None
    with pytest.raises(SystemExit):
        cli.main(["bench", "filtered-6-patch2", "--peer", "torch"])
    assert "\ntorch-nchw failed\ntorch-nhwc failed\n" in capsys.readouterr().out


def test_what_was_timed_before_a_side_of_ours_fails_is_kept(monkeypatch, capsys):
    monkeypatch.setattr(bench, "launch", failing)
    monkeypatch.setattr(gpu.GpuStep, "predicted", lambda self: {})
    names = ["gpu-step-lenet5", "gpu-product-4096x4096x4096-y"]
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["bench", *names, *more])
        assert stopped.value.code == 1
        printed = capsys.readouterr()
        assert "ours failed on gpu-product-4096x4096x4096-y: TritonMissing" in printed.err
        assert "gpu-step-lenet5-28x28-batch64" in printed.out
    record = json.loads(printed.out)
    assert [found["ours_ms"] for found in record["cases"]] == [2.0] and not record["ok"] and record["machine"]


def test_a_peer_of_ours_that_fails_is_an_error(monkeypatch):
    def broken(side, *_):
        if side == "backprop":
            raise RuntimeError("backprop failed")
        return {"times": [1.0], "error": 1e-7}

    monkeypatch.setattr(bench, "launch", broken)
    monkeypatch.setitem(methods.CASES, "method-tiny", methods.MethodCase("lenet5", (28, 28), 4, RULES[0]))
    with pytest.raises(bench.Unfinished, match="^backprop failed$") as stopped:
        bench.run_cases(["method-tiny"], peer="torch")
    assert stopped.value.records == []


def test_the_last_line_of_a_side_that_fails_is_the_error(monkeypatch):
    class Talks:
        tolerance = 1.0

        def ours(self):
            raise ValueError("no compiler\n\nset LOGS to learn more")

    monkeypatch.setattr(bench, "cases", lambda: {"talks": Talks()})
    monkeypatch.setattr(sys, "argv", ["bench", "ours", "talks", "1", "1"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_module("validation.bench.__main__")
    assert stopped.value.code == "ValueError: no compiler"


def test_an_error_is_held_against_that_of_rounding_where_it_may_be_large(monkeypatch, capsys):
    case = gpu.GpuStep("lenet5", (28, 28), 4)
    assert 0 < case.rounding() < 1e-4
    monkeypatch.setattr(gpu.GpuStep, "rounding", lambda self: 0.2)
    monkeypatch.setitem(gpu.CASES, "gpu-step-tiny", case)
    for error, told in ((0.009, {"error": 0.009}), (0.5, {"error": 0.5, "rounding": 0.2})):
        monkeypatch.setattr(gpu.GpuStep, "error", lambda self, error=error: error)
        assert bench.run_side("check", "gpu-step-tiny", 1, 1) == told
        monkeypatch.setattr(bench, "launch", lambda *_, told=told: {"times": [1.0], **told})
        assert bench.check("gpu-step-tiny", case, 1)["error"] == error
    monkeypatch.setattr(gpu.GpuStep, "predicted", lambda self: {})
    with pytest.raises(SystemExit):
        cli.main(["bench", "gpu-step-tiny"])
    assert "the error is 5e-01, where rounding alone carries our kernels on the CPU 2e-01" in capsys.readouterr().out
    monkeypatch.setattr(bench, "launch", lambda *_: {"error": 0.7, "rounding": 0.2})
    with pytest.raises(RuntimeError, match="ours is wrong by 7.0e-01 on gpu-step-tiny, more than 6e-01"):
        bench.check("gpu-step-tiny", case, 1)


def test_a_launch_without_bytes_or_products_has_no_share_of_the_roofline(monkeypatch):
    class Timed:
        def __init__(self, program):
            self.program = program

        def launches(self, *_):
            for kernel, mac, far, seconds in (("none", 0, 0, 0.0), ("sum", 1e6, 0, 2.0), ("copy", 0, 4e6, 8.0)):
                yield rates.TimedLaunch(kernel, {"call": 1.0, "mac": mac, "far": far}, seconds, 0)

    monkeypatch.setattr(roofline.gpu_calibration, "TimedProgram", Timed)
    described = SimpleNamespace(lanes=2, clock_hz=5e5, bandwidth=1e6)
    monkeypatch.setattr(roofline.cuda, "described", lambda: described)
    found = roofline.kernels(None)
    assert [(k["kernel"], k["ms"], k["share"]) for k in found] == [
        ("copy", 8e3, 0.5),
        ("sum", 2e3, 0.5),
        ("none", 0, 0),
    ]


def test_without_a_gpu_its_cases_are_refused_before_anything_is_timed(monkeypatch, capsys):
    monkeypatch.undo()
    monkeypatch.setattr(cuda, "problem", lambda: "there is none")
    monkeypatch.setattr(bench, "launch", lambda *_: pytest.fail("a side was started"))
    for given in (["product", "--backend", "cuda"], ["gpu-step-watch"]):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["bench", *given])
        assert stopped.value.code == 2 and capsys.readouterr().err == "gradledger: there is none\n"


def test_the_backend_cuda_has_cases_of_its_own(monkeypatch, capsys):
    monkeypatch.setattr(bench, "run_cases", lambda names, *_: [{"names": names}])
    for given, wanted in (([], ["gpu"]), (["step", "gpu-product"], ["gpu-step", "gpu-product"]), (["gpu"], ["gpu"])):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["bench", *given, "--backend", "cuda", "--json"])
        assert stopped.value.code == 0
        assert json.loads(capsys.readouterr().out)["cases"] == [{"names": wanted}]


def test_the_command_prints_one_object(monkeypatch, capsys):
    times = {"check": {"error": 1e-7}, "ours": {"times": [1.0]}}
    monkeypatch.setattr(bench, "launch", lambda side, *_: times.get(side, {"times": [2.0]}))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["bench", "filtered-6", "--peer", "torch", "--json"])
    assert stopped.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert [c["name"] for c in found["cases"]] == ["filtered-6-patch2", "filtered-6-patch4"]
    assert all(c["ratio"] == 0.5 for c in found["cases"]) and found["machine"]["cores"]


def test_torch_is_not_imported_where_only_ours_runs():
    for work in ("filtered.Filtered(8, 9, 7, 2, 2)", "steps.StepCase('lenet5', (28, 28), 2)"):
        code = (
            f"import sys; from validation.bench import filtered, steps; {work}.ours(); sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code]).returncode == 0
