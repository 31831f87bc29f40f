"""`gradledger cost --advise`: its record, commands that run as they are printed, its refusals."""

import json
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest

from gradledger import advise, options
from gradledger.cli import main
from refimpl import data

DEVICE = ("--device", "raspberry-pi-4")
KEYS = {
    "method", "as_given", "train_last", "batch", "precision", "momentum", "memory_bytes", "state_bytes", "peak_bytes",
    "constant_bytes", "seconds_per_epoch", "steps", "step_seconds", "gradient_error", "cosine", "relative_error",
    "fits", "trial", "command",
}  # fmt: skip


@pytest.fixture
def run(capsys, tmp_path, monkeypatch):
    """Run a command line; gives its exit status, output and errors. No picture is drawn, but where a test asks."""
    monkeypatch.setattr(advise, "plot", lambda output, name: None)

    def command(*args):
        with pytest.raises(SystemExit) as left:
            main([*map(str, args), *(("--output", str(tmp_path / "out")) if "--advise" in args else ())])
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return command


@pytest.fixture
def record(run):
    """Search with --json; gives the one object."""

    def command(*args, status=0):
        found, out, err = run("cost", "--advise", "--json", *DEVICE, *args)
        assert found == status and bool(err) == bool(status)
        return json.loads(out)

    return command


def test_the_record_and_its_front(record, tmp_path):
    args = ("--model", "resnet8", "--size", "16", "--samples", 500, "--memory-limit", "1MiB", "--seconds-per-epoch", 8)
    r = record(*args)
    assert (r["ok"], r["name"], r["model"], r["samples"], r["memory_limit"]) == (True, "advise", "resnet8", 500, 2**20)
    assert (r["seconds_per_epoch"], r["device"], r["device_measured"]) == (8, "raspberry-pi-4", False)
    assert set(r["error_measured_on"]) == {"net", "data", "weights"}
    searched = r["searched"]
    assert searched["train_last"] == [0, 9] and searched["precisions"] == ["float32"]
    assert searched["compiled"] == len(r["front"]) + len(r["others"]) <= searched["candidates"]
    figures = [(p["memory_bytes"], p["seconds_per_epoch"]["mid"], p["gradient_error"]) for p in r["front"]]
    assert figures and all(set(p) == KEYS for p in (*r["front"], *r["others"]))
    for p, (memory, seconds, error) in zip(r["front"], figures, strict=True):
        assert memory == p["state_bytes"] + p["peak_bytes"] <= 2**20 and seconds <= 8 and 0 <= error <= 1
        assert p["seconds_per_epoch"]["low"] < seconds < p["seconds_per_epoch"]["high"]
        assert p["steps"] == -(-500 // p["batch"])
        assert not [
            f for f in figures if f != (memory, seconds, error) and np.all(np.array(f) <= (memory, seconds, error))
        ]
    assert [f[2] for f in figures] == sorted(f[2] for f in figures)
    saved = json.loads((tmp_path / "out" / "advise.json").read_text())
    assert saved == {k: v for k, v in r.items() if k != "files"}


def test_commands_run_as_they_are_printed(record, run):
    args = ("--model", "resnet8", "--size", "16x20", "--classes", 7, "--samples", 64, "--memory-limit", "1MiB")
    r = record(*args)
    kinds = {}
    for p in r["front"]:
        kinds.setdefault(p["method"].split(":")[0], p)
    assert len(kinds) > 1
    for p in kinds.values():
        words = shlex.split(p["command"])
        assert words[:2] == ["gradledger", "cost"]
        status, out, err = run(*words[1:], "--json")
        assert (status, err) == (0, "")
        priced = json.loads(out)
        for key in ("method", "train_last", "batch", "state_bytes", "peak_bytes", "constant_bytes"):
            assert priced[key] == p[key]
        assert priced["seconds"] == pytest.approx(p["step_seconds"], rel=1e-12)
        assert (priced["size"], priced["classes"]) == ([16, 20], 7) == (r["size"], r["classes"])


def test_with_data_the_commands_adapt(record, run, tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.normal(size=(60, 12, 12, 2)).astype(np.float32) + y[:, None, None, None]  # easily learnt
    np.savez(tmp_path / "own data.npz", x=x, y=y)
    r = record("--model", "lenet5", "--data", tmp_path / "own data.npz", "--threads", 1, "--trial-seconds", 0)
    assert r["samples"] < 60 and r["classes"] == 3 and r["size"] == [12, 12]
    p = r["front"][-1]
    words = shlex.split(p["command"])
    assert words[:2] == ["gradledger", "adapt"] and str(tmp_path / "own data.npz") in words
    status, out, err = run(*words[1:], "--recipe", "plain", "--epochs", 1, "--json", "--output", tmp_path / "adapted")
    assert (status, err) == (0, "")
    adapted = json.loads(out)
    assert adapted["predicted"]["peak_bytes"] == adapted["measured"]["peak_bytes"] == p["peak_bytes"]
    assert (adapted["method"], adapted["steps"]) == (p["method"], p["steps"])


def test_data_are_read_as_adapt_reads_them(record, run, tmp_path, monkeypatch):
    rng, path = np.random.default_rng(0), tmp_path / "walk.csv"
    rows = [f"{'ab'[i // 160 % 2]},{x:.3f},{y:.3f}" for i, (x, y) in enumerate(rng.normal(size=(640, 2)))]
    path.write_text("\n".join(["what,left,right", *rows]))
    given, plans = ("--window", "20", "--stride", "5", "--label", "what", "--skip-bad"), []
    monkeypatch.setattr(advise.trials, "tried", lambda found, *_: plans.extend(found) or [{}] * len(found))
    r = record("--model", "watch", "--data", path, "--threads", 1, *given)
    read = data.load(path, reading=data.ReadOptions(window="20", stride="5", label="what"))
    assert r["size"] == [1, 20] and r["classes"] == 2 and r["samples"] == len(read.x_train) > 40
    assert plans and {(p.window, p.stride, p.label, p.skip_bad) for p in plans} == {("20", "5", "what", True)}
    words = shlex.split(r["front"][-1]["command"])
    assert [words[words.index(option) + 1] for option in given[:6:2]] == ["20", "5", "what"] and "--skip-bad" in words
    status, out, _ = run(*words[1:], "--recipe", "plain", "--epochs", 1, "--json", "--output", tmp_path / "adapted")
    assert json.loads(out)["samples"]["train"] == r["samples"] and json.loads(out)["steps"] == r["front"][-1]["steps"]
    status, _, err = run("cost", "--advise", "--data", "watch", "--window", "20")
    assert (status, err) == (2, "gradledger: --window means nothing for embedded data: leave it out\n")


@pytest.mark.parametrize("limits, binding", [
    (("--memory-limit", "8KiB"), ["memory"]),
    (("--seconds-per-epoch", "0.0001"), ["time"]),
    (("--memory-limit", "8KiB", "--seconds-per-epoch", "0.0001"), ["memory", "time"]),
], ids=str)  # fmt: skip
def test_a_refusal_says_what_binds_and_what_would_do(record, run, limits, binding):
    args = ("--model", "lenet5", "--samples", 100)
    r = record(*args, *limits, status=1)
    assert (r["ok"], r["front"], r["binding"]) == (False, [], binding) and r["others"]
    assert all(f"{word} binds" in r["reason"] for word in binding)
    assert "time" not in binding or re.search(r"epoch .*takes [\d.e-]+ s \([\d.e-]+ to [\d.e-]+\)", r["reason"])
    status, out, err = run("cost", "--advise", *DEVICE, *args, *limits)
    assert (status, out, err) == (1, "", f"gradledger: {r['reason']}\n")
    best, smallest = r["best"], r["smallest_limit"]
    if len(binding) == 2:
        assert smallest == {"memory_bytes": None, "seconds_per_epoch": None}
        offered = r["reason"].rsplit("the smallest limit that works is ", 1)[1].replace("with ", "").split()
        again = record(*args, *offered)
    elif binding == ["memory"]:
        assert smallest["memory_bytes"] == best["memory_bytes"] > 8192 and f"{best['memory_bytes']:,}" in r["reason"]
        assert smallest["seconds_per_epoch"] is None
        again = record(*args, "--memory-limit", smallest["memory_bytes"])
        record(*args, "--memory-limit", smallest["memory_bytes"] - 1, status=1)
    else:
        assert smallest["seconds_per_epoch"] == best["seconds_per_epoch"] > 1e-4 and smallest["memory_bytes"] is None
        offered = r["reason"].rsplit("--seconds-per-epoch ", 1)[1].split()[0]
        assert best["seconds_per_epoch"] <= float(offered) < 1.01 * best["seconds_per_epoch"]
        again = record(*args, "--seconds-per-epoch", offered)
    assert again["ok"] and again["front"]


def test_both_limits_together(record):
    args = ("--model", "lenet5", "--samples", 100)
    least = min(record(*args)["front"], key=lambda p: p["memory_bytes"])
    memory, seconds = least["memory_bytes"], 0.99 * least["seconds_per_epoch"]["mid"]
    r = record(*args, "--memory-limit", memory, "--seconds-per-epoch", seconds, status=1)
    assert r["binding"] == ["memory", "time"] and "memory and time bind together" in r["reason"]
    smallest = r["smallest_limit"]
    assert smallest["memory_bytes"] > memory and smallest["seconds_per_epoch"] > seconds
    assert record(*args, "--memory-limit", smallest["memory_bytes"], "--seconds-per-epoch", seconds)["ok"]
    offered = r["reason"].rsplit("--seconds-per-epoch ", 1)[1].split()[0]
    assert record(*args, "--memory-limit", memory, "--seconds-per-epoch", offered)["ok"]


def test_the_table_has_a_line_and_a_command_for_each_plan(run, record):
    args = ("--model", "lenet5", "--samples", 100, "--memory-limit", "1MiB")
    front = record(*args)["front"]
    status, out, err = run("cost", "--advise", *DEVICE, *args)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    for number, p in enumerate(front, start=1):
        assert [
            line
            for line in lines
            if line.split()[:2] == [str(number), p["as_given"]] and f"{p['memory_bytes']:,}" in line
        ]
        assert f"{number:3d}  {p['command']}" in lines
    assert "expected" in out and "measured on" in out


@pytest.mark.parametrize("limit", [(), ("--memory-limit", "1GiB")], ids=str)
def test_plans_fit_the_device_whatever_the_limit_and_cost_says_the_same(record, run, monkeypatch, limit):
    needs = sorted(p["fits"]["needs"]["ram"] for p in record("--model", "lenet5", "--samples", 100)["front"])
    ram = needs[len(needs) // 2]
    board = replace(options.device("raspberry-pi-4"), ram_bytes=ram)
    monkeypatch.setattr(options, "device", lambda name: board)
    r = record("--model", "lenet5", "--samples", 100, *limit)
    assert r["device_memory"] == {"ram": ram, "flash": None} and r["seconds_per_epoch"] is None
    assert r["front"] and all(p["fits"]["ok"] for p in r["front"])
    assert any(p["fits"]["ok"] is False for p in r["others"])
    assert needs[-1] > ram >= max(p["fits"]["needs"]["ram"] for p in r["front"])
    for p in r["front"][::4]:
        words = shlex.split(p["command"])
        assert ("--memory-limit" in words) == bool(limit)
        assert json.loads(run(*words[1:], "--json")[1])["fits"] == p["fits"]


def test_a_device_too_small_for_every_plan(record):
    r = record("--model", "lenet5", "--samples", 100, "--device", "microcontroller-256k", status=1)
    assert r["binding"] == ["device"] and not r["front"] and r["smallest_limit"] == {}
    needs = r["best"]["needs"]["ram"]
    assert needs == min(p["fits"]["needs"]["ram"] for p in r["others"]) > 256 * 1024
    assert r["reason"].startswith("nothing fits, the device binds: microcontroller-256k has 262,144 bytes of RAM, and ")
    assert f"needs {needs:,};" in r["reason"]


def test_one_limit_alone_is_not_told_as_two(record):
    alone = record("--model", "lenet5", "--samples", 100, "--memory-limit", "8KiB", status=1)["reason"]
    both = record("--model", "lenet5", "--samples", 100, "--memory-limit", "8KiB", "--seconds-per-epoch", 50, status=1)[
        "reason"
    ]
    assert "the other limit" not in alone and both.endswith(" and the other limit as it is")


def test_the_picture(capsys, tmp_path):
    with pytest.raises(SystemExit) as left:
        main(["cost", "--advise", "--model", "lenet5", "--samples", "50", *DEVICE, "--output", str(tmp_path)])
    assert left.value.code == 0 and "advise.png" in capsys.readouterr().out
    assert (tmp_path / "advise.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "args, message",
    [
        ((), "an epoch has a number of samples: give it, as --samples 10000"),
        (("--seconds-per-epoch", "60"), "an epoch has a number of samples: give it, as --samples 10000"),
        (("--samples", "0"), "--samples must be at least 1, got 0"),
        (("--samples", "many"), "must be a whole number, got 'many'"),
        (("--samples", "10", "--data", "watch"), "--samples and --data both tell how many samples an epoch has"),
        (("--samples", "10", "--seconds-per-epoch", "-3"), "must be a number of seconds above 0, got -3"),
        (("--samples", "10", "--seconds-per-epoch", "nan"), "must be a number of seconds above 0, got nan"),
        (("--samples", "10", "--seconds-per-epoch", "inf"), "must be a number of seconds above 0, got inf"),
        (("--samples", "10", "--seconds-per-epoch", "soon"), "must be a number, got 'soon'"),
        (("--samples", "10", "--memory-limit", "5XB"), "--memory-limit must be a number of bytes or one with KiB"),
        (("--samples", "10", "--device", "raspbery-pi-4"), "did you mean 'raspberry-pi-4'?"),
        (("--samples", "10", "--model", "resnet19"), "did you mean 'resnet18'?"),
        (("--samples", "10", "--backend", "gpu"), "there is no --backend 'gpu'; known: auto, fast, reference, rows"),
        (("--samples", "10", "--threads", "0"), "--threads must be at least 1, got 0"),
        (("--samples", "10", *DEVICE, "--threads", "9"), "--threads must be from 1 to 4, the cores of raspberry-pi-4,"),
        (("--samples", "9" * 30), "--samples must be from 1 to 1,000,000,000, got 999"),
        (("--samples", "10", "--size", "1x2"), "watch cannot take maps of 1x2"),
        (("--samples", "10", "--data", "nowhere.npz"), "--samples and --data both"),
        (("--data", "nowhere.npz"), "nowhere.npz"),
        (("--samples", "10", "--batch", "4"), "--advise chooses method, layers and batch: leave --batch out"),
        (("--samples", "10", "--method", "bias-only"), "leave --method out"),
        (("--samples", "10", "--train-last", "2"), "leave --train-last out"),
        (("--samples", "10", "--convention", "flops"), "leave --convention out"),
        (("--samples", "10", "--fit", "trained"), "leave --fit out"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else "",
)  # fmt: skip
def test_bad_values_are_one_sentence(run, args, message):
    status, out, err = run("cost", "--advise", "--json", *args)
    assert (status, out) == (2, "")
    assert err.startswith("gradledger: ") and err.count("\n") == 1
    assert message in err


def test_its_options_need_it(run):
    option = "--seconds-per-epoch"
    status, out, err = run("cost", option, "5")
    assert (status, out) == (2, "") and f"{option} goes with --advise, which was not given" in err
