"""The main job, run as a user runs it: in processes of its own."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import refimpl as ri
from costmodel.device import room
from gradledger import adapt, finish, show
from gradledger.adapt_record import step_times
from refimpl.storage import checkpoint

ROOT = Path(__file__).parent.parent
SHORT = ("--epochs", "2")


def gradledger(*args, cwd=ROOT):
    """Run the command; returns the finished process."""
    return subprocess.run(
        [sys.executable, "-m", "gradledger", *map(str, args)], cwd=cwd, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The record of a short default run."""
    done = gradledger("adapt", "--json", *SHORT, "--output", tmp_path_factory.mktemp("first"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_predicted_equals_measured(record):
    for key in ("macs", "executed_macs", "peak_bytes"):
        assert record["predicted"][key] == record["measured"][key]
    assert record["measured"]["executed_macs"] > record["measured"]["macs"]  # vectors of seven classes, for one
    course, costs = record["course"], record["recipe_macs"]
    made = sum(end - first for first, end in course["ran"]) + course["again"]["made"]
    assert record["ok"] and record["steps"] == made and course["ran"][0][0] == course["ran"][1][0] == 0
    assert len(costs) == 4 and all(part["predicted"] == part["measured"] > 0 for part in costs.values())
    assert course["first"]["after"]["loss"] <= course["first"]["before"]["loss"]
    assert record["weights"] == "pre-trained"
    assert record["accuracy_after"] >= record["accuracy_before"] - 0.02


def test_files_are_written_and_the_plot_is_a_picture(record):
    files = {kind: Path(path) for kind, path in record["files"].items()}
    assert load_file(files["weights"])["conv1.w"].shape == (1, 7, 6, 32)
    assert json.loads(files["record"].read_text())["accuracy_after"] == record["accuracy_after"]
    assert files["plot"].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_second_process_compiles_no_kernel_and_gives_the_same_bits(record, tmp_path):
    done = gradledger("adapt", "--json", *SHORT, "--output", tmp_path)
    second = json.loads(done.stdout)
    assert second["compiled_kernels"] == 0
    assert second["losses"] == record["losses"]
    for kind in ("weights", "plot"):
        ours, theirs = (Path(r["files"][kind]).read_bytes() for r in (record, second))
        assert ours == theirs, kind
    ours, theirs = (without_times(json.loads(Path(r["files"]["record"]).read_text())) for r in (record, second))
    assert ours == theirs
    assert second["weights_sha256"] == hashlib.sha256(Path(second["files"]["weights"]).read_bytes()).hexdigest()
    assert checkpoint.load(second["files"]["weights"])[1]["run"] == second["run"]


def without_times(record):
    """A record without what may differ between two equal runs."""
    vary = {"step_seconds", "step_seconds_range", "first_step_seconds", "resident_peak_bytes"}
    for kind in ("predicted", "measured"):
        record[kind] = {k: v for k, v in record[kind].items() if k not in vary}
    return {k: v for k, v in record.items() if k not in ("seconds", "compiled_kernels", "command", "slow")}


def test_one_thread_gives_the_bits_of_all(record, tmp_path):
    done = gradledger("adapt", "--json", *SHORT, "--threads", 1, "--output", tmp_path)
    assert json.loads(done.stdout)["losses"] == record["losses"]


@pytest.mark.parametrize(
    "args, status, message",
    [
        (("--model", "wach"), 2, "there is no model 'wach'; did you mean 'watch'"),
        (("--method", "gradient-filter:patch=0"), 2, "patch must be at least 1, got 0"),
        (("--method", "gradient-fitler"), 2, "did you mean 'gradient-filter'"),
        (("--subject", "11"), 2, "subjects 1 to 10, not 11"),
        (("--subject", "3", "--data", "cifar10"), 2, "clips of sound have subjects; cifar10 takes none"),
        (("--train-last", "9"), 2, "train_last is 9, but watch has 3 convolutions"),
        (("--memory-limit", "3 bananas"), 2, "--memory-limit must be a number of bytes"),
        (("--memory-limit", "10KiB"), 1, "nothing smaller was found that fits. The limit is"),
        (("--data", "nowhere.npz"), 2, "nowhere.npz"),
        (("--batch", "0"), 2, "--batch must be at least 1, got 0"),
        (("--epochs", "many"), 2, "many"),
        (("--lr", "-1"), 2, "lr must be a positive number"),
        (("--method", "sparse-update", "--momentum", "0.5"), 2, "sparse-update needs plain SGD without momentum: the"),
        (("--resume",), 2, "holds no interrupted run"),
    ],
)
def test_bad_input_is_answered_in_one_sentence(args, status, message, tmp_path):
    done = gradledger("adapt", *args, "--output", tmp_path)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr and done.stderr.strip().count("\n") == 0
    assert not list(tmp_path.iterdir())


def test_json_of_a_refusal_says_why(tmp_path):
    done = gradledger("adapt", "--json", "--memory-limit", "10KiB", "--output", tmp_path)
    refused = json.loads(done.stdout)
    assert done.returncode == 1 and refused["ok"] is False and "memory limit" in refused["reason"]


def test_an_exploding_loss_keeps_finite_weights(tmp_path):
    done = gradledger("adapt", "--json", "--recipe", "plain", "--lr", "1e10", *SHORT, "--output", tmp_path)
    assert done.returncode == 1 and "at step" in json.loads(done.stdout)["reason"]
    assert all(np.isfinite(a).all() for a in load_file(tmp_path / "diverged.safetensors").values())


@pytest.mark.parametrize(
    "methods, momentum, last",
    [
        (("sparse-update:ratio=0.25,layers=2", "error-map-pruning:keep=0.5", "gradient-filter:patch=2"), 0.0, "2"),
        (("bias-only",), 0.9, "all"),
    ],
    ids=["all three", "bias-only"],
)
def test_methods_adapt_as_predicted(tmp_path, methods, momentum, last):
    settings = adapt.AdaptSettings(epochs=1, method=list(methods))
    record = adapt.run(settings, tmp_path, False, lambda progress: None)
    for key in ("macs", "peak_bytes"):
        assert record["predicted"][key] == record["measured"][key]
    assert all(m in record["method"] for m in ("sparse-update:ratio=0.25", "layers=2") if len(methods) > 1)
    assert (record["settings"]["momentum"], record["settings"]["train_last"]) == (momentum, last)
    assert settings.momentum is None and record["accuracy_after"] > record["accuracy_before"] - 0.05


def test_own_data_trains_from_an_npz(tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.normal(size=(60, 12, 12, 1)).astype(np.float32) + y[:, None, None, None]
    np.savez(tmp_path / "own.npz", x=x, y=y)
    graph = ri.models.build("resnet8", classes=4, size=(12, 12), channels=1)
    ri.Trainer(ri.compile(graph, None, 1)).save(tmp_path / "net.safetensors")
    args = ("--data", tmp_path / "own.npz", "--epochs", 1, "--train-last", 1, "--method", "backprop", "--output")
    scratch = gradledger("adapt", "--json", "--model", "resnet8", "--from-scratch", *args, tmp_path / "scratch")
    assert scratch.returncode == 0, scratch.stderr
    random = json.loads(scratch.stdout)
    assert (random["weights"], random["course"]["first"], random["settings"]["batch_norm"]) == ("random", None, "train")
    done = gradledger("adapt", "--json", "--model", tmp_path / "net.safetensors", *args, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "fc.w" in found["weights"] and found["course"]["first"]["after"]["loss"] < np.log(10)
    costs, course = found["recipe_macs"], found["course"]
    assert len(costs) == 4 and all(part["predicted"] == part["measured"] > 0 for part in costs.values())
    for key in ("macs", "executed_macs", "peak_bytes"):
        assert found["predicted"][key] == found["measured"][key]
    assert course["direct"] and course["ran"][0] == [0, course["direct"][-1][0]]  # the classifier is new
    assert found["steps"] == sum(end - first for first, end in course["ran"]) + course["again"]["made"]


def test_a_model_may_have_more_classes_than_the_data(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 28, 28, 1)).astype(np.float32)
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(20) % 2)
    settings = adapt.AdaptSettings(
        "lenet5", str(tmp_path / "own.npz"), method=["backprop"], epochs=1, batch=8, classes=40, from_scratch=True
    )
    record = adapt.run(settings, tmp_path / "out", False, lambda progress: None)
    assert 0 <= record["accuracy_before"] <= 1 and len(record["recall"]) == 2


def test_the_training_process_imports_only_what_it_needs(tmp_path):
    code = (
        "import sys; from pathlib import Path; from gradledger import adapt, cli;"
        f"adapt.run(adapt.AdaptSettings(epochs=1), Path({str(tmp_path)!r}), False, lambda progress: None);"
        "print({'torch', 'matplotlib', 'numba.cuda', 'sympy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_the_ledger_is_the_same_where_no_process_can_be_started(record, tmp_path, monkeypatch, capsys):
    path = tmp_path / "adapt.json"
    path.write_text(json.dumps(without_costs(record)))

    def refuse(*args, **keywords):
        raise OSError(8, "Exec format error")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert not finish.draw_up(path)
    here = json.loads(path.read_text())
    for kind in ("predicted", "measured"):
        for key in ("macs", "executed_macs"):
            assert here[kind][key] == record[kind][key] > 0
    plot = "gradledger: the plot was not drawn (Exec format error); everything else is saved\n"
    assert capsys.readouterr().err == plot


def without_costs(record):
    """A record as training leaves it."""
    none = {"macs": None, "executed_macs": None}
    times = dict.fromkeys(("step_seconds", "step_seconds_range", "calibrated"))
    return record | {"predicted": record["predicted"] | none | times, "measured": record["measured"] | none}


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "it was killed, as where memory is short"),
        ("raise MemoryError('no room')", "MemoryError: no room"),
    ],
)
def test_costs_that_cannot_be_drawn_up_lose_nothing(record, tmp_path, monkeypatch, capsys, code, problem):
    path = tmp_path / "adapt.json"
    path.write_text(json.dumps(without_costs(record)))
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda command, **k: run([sys.executable, "-c", code], **k))
    assert finish.make("ledger", path) is None
    assert capsys.readouterr().err == f"gradledger: its costs were not drawn up ({problem}); everything else is saved\n"
    found = json.loads(path.read_text())
    assert found == without_costs(record)
    show.adapted(found)
    table = capsys.readouterr().out
    assert "multiply-adds of the run, counted" in table and "time of a steady step" in table


def test_memory_after_training_stays_below_that_of_training(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "gradledger", "adapt", "--json", *SHORT, "--output", tmp_path],
        cwd=ROOT, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    most = {False: 0, True: 0}  # has training let go? → bytes of the process and its children
    while process.poll() is None:
        done = b"\0finish\0" in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        most[done] = max(most[done], sum(map(room.resident, family(process.pid))))
        time.sleep(0.01)
    assert process.returncode == 0 and (tmp_path / "adapt.png").exists()
    assert 0 < most[True] <= 1.05 * most[False]  # they share pages of libraries, which count twice here


def family(pid):
    """A process and all its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *(p for child in children for p in family(int(child)))]


def test_the_first_step_of_each_process_is_none_of_the_steady_ones():
    assert step_times([9.0, 1.0, 2.0, 8.0, 6.0], [0, 3]) == {"first_step_seconds": 9.0, "step_seconds": 2.0}
    assert step_times([9.0], [0, 0]) == {"first_step_seconds": 9.0, "step_seconds": None}
    assert step_times([], [0]) == {"first_step_seconds": None, "step_seconds": None}


def test_the_table_tells_first_and_steady_steps_and_how_sure_a_prediction_is(record, capsys):
    assert record["measured"]["first_step_seconds"] > 0 and record["measured"]["step_seconds"] > 0
    low, high = record["predicted"]["step_seconds_range"]
    assert low < record["predicted"]["step_seconds"] < high
    for calibrated, said in ((False, "this machine is not calibrated"), (True, "19 of 20 undisturbed steps")):
        record["predicted"]["calibrated"] = calibrated
        show.adapted(record)
        out = capsys.readouterr().out
        assert f"predicted time: {said}" in out and f"{show.seconds(low)}, {show.seconds(high)}" in out
    show.adapted(record | {"slow": "a step took long; try --threads 1"})
    assert "a step took long; try --threads 1" in capsys.readouterr().out
    show.adapted(record | {"steps": 1, "measured": record["measured"] | {"step_seconds": None}})
    assert "one step, none is steady" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("method", "exact"),
    [
        ("instance-filter:keep=0.2,threshold=0.3", False),
        ("hard-examples:keep=0.25", True),
        ("random-skip:skip=0.5", None),  # as the draws fall
    ],
)
def test_choices_of_instances_print_planned_and_realised_shares(method, exact, tmp_path):
    done = gradledger(
        "adapt", "--json", *SHORT, "--method", method, "--method", "error-map-pruning", "--output", tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    planned, realised = found["shares"]["planned"], found["shares"]["realised"]
    assert planned.keys() == realised.keys() and all(0 <= share <= 1 for share in realised.values())
    low, high = found["shares"]["planned_low"], found["shares"]["planned_high"]
    assert all(low[s] - 1e-9 <= planned[s] <= high[s] + 1e-9 for s in planned)
    assert found["predicted"]["macs_low"] <= found["predicted"]["macs"] <= found["predicted"]["macs_high"]
    assert found["predicted"]["macs_low"] <= found["measured"]["macs"] <= found["predicted"]["macs_high"]
    assert exact is None or (found["predicted"]["macs"] == found["measured"]["macs"]) == exact
    assert found["predicted"]["peak_bytes"] == found["measured"]["peak_bytes"]
    assert set(load_file(found["files"]["weights"])) == {f"{n}.{a}" for n, arrays in {
        **dict.fromkeys(("conv1", "conv2", "conv3"), ("w",)), "fc": ("w", "b"),
        **dict.fromkeys(("bn1", "bn2", "bn3"), ("gamma", "beta", "running_mean", "running_var")),
    }.items() for a in arrays}  # fmt: skip


def test_a_net_whose_losses_lie_below_the_first_t_is_expected_to_let_next_to_nothing_in(tmp_path):
    found = adapt.run(
        adapt.AdaptSettings(method=["instance-filter"], epochs=10, recipe="plain"), tmp_path, False, lambda p: None
    )
    assert found["predicted"]["macs"] == pytest.approx(found["measured"]["macs"], rel=0.25)
    assert found["shares"]["planned"]["forward"] < 0.01 and found["shares"]["realised"]["forward"] < 0.01


def test_a_run_with_an_instance_filter_resumes_to_the_same_bits(tmp_path):
    settings = adapt.AdaptSettings(method=["instance-filter:keep=0.2"], epochs=2)
    whole = adapt.run(settings, tmp_path / "whole", False, lambda p: None)
    stop = {"at": 7}

    def interrupt(progress):
        if progress.part != "classifier" and progress.step == stop["at"]:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(adapt.Interrupted):
        adapt.run(settings, tmp_path / "part", False, interrupt)
    rest = adapt.run(settings, tmp_path / "part", True, lambda p: None)
    assert rest["losses"] == whole["losses"]
    assert rest["shares"] == whole["shares"] and rest["measured"]["macs"] == whole["measured"]["macs"]


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "table"])
def test_a_run_that_ends_worse_says_so_and_keeps_the_weights_it_began_with(as_json, tmp_path):
    args = ("--recipe", "plain", "--lr", 5, "--epochs", 1, "--output", tmp_path, *(("--json",) if as_json else ()))
    done = gradledger("adapt", *args)
    record = json.loads((tmp_path / "adapt.json").read_text(encoding="utf-8"))
    assert done.returncode == 1 and record["accuracy_after"] < record["accuracy_before"]
    assert (record["ok"], record["kept"]) == (False, "first")
    assert record["reason"].startswith("the run ended worse than it began: accuracy 90.07% before, ")
    assert done.stderr.splitlines()[-1] == f"gradledger: {record['reason']}" and "Traceback" not in done.stderr
    if as_json:
        assert {**json.loads(done.stdout), "files": None, "next": None} == {**record, "files": None, "next": None}
    else:
        assert "accuracy" in done.stdout
    ours, bundled = load_file(tmp_path / "adapted.safetensors"), ri.models.watch_weights(1)
    assert ours.keys() == bundled.keys() and all((ours[name] == bundled[name]).all() for name in ours)
