"""Interrupted runs: what is saved when, and that --resume goes on with that run and no other, to the same bits."""

import ctypes
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gradledger import adapt, cli, finish, run_state
from gradledger.errors import Malformed, Refused
from gradledger.run_folder import DIVERGED, PLOT, RECORD, RESUME, WEIGHTS, RunFolder
from gradledger.signals import Stop
from refimpl import models
from refimpl.recipes.head import PART
from refimpl.storage import checkpoint

ROOT = Path(__file__).parent.parent


def nothing(progress):
    """Watch no step."""


def at(step, number=signal.SIGINT, times=1):
    """A watcher that sends this process a signal after a step."""

    def watch(progress):
        if progress.part != PART and progress.step == step:
            for _ in range(times):
                signal.raise_signal(number)

    return watch


@pytest.fixture(autouse=True, scope="module")
def signals_are_heard():
    """Tests that run in the background, or under nohup, start with some signals ignored."""
    before = [(n, signal.signal(n, h)) for n, h in ((signal.SIGINT, signal.default_int_handler),
                                                    (signal.SIGHUP, signal.SIG_DFL))]  # fmt: skip
    yield
    for number, handler in before:
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def drawn():
    """What the ledger's and the plot's process gave, for a run that asks the same again."""
    return {}


@pytest.fixture(autouse=True)
def asked_once(drawn, monkeypatch):
    """Each process is started once for equal runs: these tests are about what lies around them."""
    real = finish.make

    def make(act, record):
        found = json.loads(record.read_text())
        key = act, json.dumps([found["method"], found["losses"] if act == "plot" else found["launched"]])
        if key not in drawn:
            target = real(act, record)
            drawn[key] = Path(target).read_bytes() if target else json.loads(record.read_text())
        elif act == "ledger":
            costs = {kind: found[kind] | {name: drawn[key][kind][name] for name in found[kind] if "macs" in name}
                     for kind in ("predicted", "measured")}  # fmt: skip
            checkpoint.write_json(record, found | costs | {"recipe_macs": drawn[key]["recipe_macs"]})
        if act == "ledger":
            return None
        target = record.with_suffix(".png")
        target.write_bytes(drawn[key])
        return str(target)

    monkeypatch.setattr(finish, "make", make)
    return real


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder and record of a run of one epoch that nothing disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, adapt.run(adapt.AdaptSettings(epochs=1), folder, False, nothing)


def interrupted(folder, step=3, **settings):
    """The saved state of a run of one epoch that Ctrl-C ended after some steps."""
    with pytest.raises(adapt.Interrupted, match=f"interrupted; step {step} is saved, go on with: gradledger ad"):
        adapt.run(adapt.AdaptSettings(epochs=1, **settings), folder, False, at(step))
    return folder / RESUME


def names(folder):
    return {p.name for p in folder.iterdir()}


def test_a_run_that_is_interrupted_while_its_classifier_trains_goes_on_to_the_same_bytes(finished, tmp_path):
    def watch(event):
        assert event.part == PART and event.step <= 4
        if event.step == 4:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(adapt.Interrupted, match="interrupted; step 0 is saved, go on with: gradledger adapt"):
        adapt.run(adapt.AdaptSettings(epochs=1), tmp_path, False, watch)
    assert names(tmp_path) == {RESUME}
    record = adapt.run(adapt.AdaptSettings(), tmp_path, True, nothing)
    assert (tmp_path / WEIGHTS).read_bytes() == (finished[0] / WEIGHTS).read_bytes()
    assert record["course"]["first"] == finished[1]["course"]["first"] and record["recipe_macs"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_save_and_the_rest_of_the_run_gives_the_same_bytes(finished, tmp_path, number):
    out = tmp_path / "my out"
    message = f"interrupted; step 7 is saved, go on with: gradledger adapt --resume --output '{out}'"
    before = signal.getsignal(number)
    with pytest.raises(adapt.Interrupted, match=message):
        adapt.run(adapt.AdaptSettings(epochs=1), out, False, at(7, number))
    assert names(out) == {RESUME} and signal.getsignal(number) is before
    record = adapt.run(adapt.AdaptSettings(), out, True, nothing)
    assert names(out) == {WEIGHTS, RECORD, PLOT}
    assert record["losses"] == finished[1]["losses"] and record["run"] == finished[1]["run"]
    for kind in ("predicted", "measured"):  # the cost is that of both parts
        assert record[kind]["macs"] == finished[1][kind]["macs"]
    for name in (WEIGHTS, PLOT):
        assert (out / name).read_bytes() == (finished[0] / name).read_bytes()


def test_a_signal_that_is_ignored_stays_ignored(finished, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        adapt.run(adapt.AdaptSettings(epochs=1), tmp_path, False, at(3, signal.SIGHUP))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / WEIGHTS).read_bytes() == (finished[0] / WEIGHTS).read_bytes()


def test_a_signal_reaches_a_running_process(tmp_path):
    """The first save shows that it is training; a shutdown, and Ctrl-C, leave 130 and one sentence."""
    for number, folder in ((signal.SIGTERM, tmp_path / "term"), (signal.SIGINT, tmp_path / "int")):
        command = [sys.executable, "-m", "gradledger", "adapt", "--json", "--epochs", "500", "--output", folder]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        limit = time.monotonic() + 120
        while not (folder / RESUME).exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.005)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (130, "")
        step = run_state.read(folder).step
        assert (
            err == f"gradledger: interrupted; step {step} is saved, go on with: gradledger adapt --resume --output "
            f"{folder}\n"
        )
        assert names(folder) == {RESUME}


def test_a_second_interrupt_in_the_middle_of_a_step_leaves_the_last_saved_one(finished, tmp_path, monkeypatch):
    with pytest.raises(adapt.Interrupted, match="interrupted; step 0 is saved, go on with"):
        adapt.run(adapt.AdaptSettings(epochs=1), tmp_path, False, at(3, times=2))
    assert names(tmp_path) == {RESUME}
    monkeypatch.setattr(adapt, "SAVE_AFTER", 0)
    monkeypatch.setattr(adapt, "SAVE_SHARE", 1)
    with pytest.raises(adapt.Interrupted, match="interrupted; step 2 is saved, go on with"):
        adapt.run(adapt.AdaptSettings(), tmp_path, True, at(3, times=2))
    assert adapt.run(adapt.AdaptSettings(), tmp_path, True, nothing)["losses"] == finished[1]["losses"]


def test_an_interrupt_after_the_last_step_keeps_the_training(finished, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    made = f"step {finished[1]['steps']} is saved"
    with monkeypatch.context() as patch, pytest.raises(adapt.Interrupted, match=made):
        patch.setattr(adapt, "make_record", interrupt)
        adapt.run(adapt.AdaptSettings(epochs=1), tmp_path, False, nothing)
    assert names(tmp_path) == {RESUME}
    steps = []
    assert adapt.run(adapt.AdaptSettings(), tmp_path, True, steps.append)["losses"] == finished[1]["losses"]
    assert not steps and (tmp_path / WEIGHTS).read_bytes() == (finished[0] / WEIGHTS).read_bytes()


def test_an_interrupt_before_the_training(tmp_path, monkeypatch, capsys):
    def interrupt(settings):
        raise KeyboardInterrupt

    monkeypatch.setattr(adapt, "prepare", interrupt)
    with pytest.raises(SystemExit) as left:
        cli.main(["adapt", "--output", str(tmp_path / "out")])
    assert left.value.code == 130
    assert capsys.readouterr().err == "gradledger: interrupted before anything was saved\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["prepare", "confusion"])
def test_an_interrupt_that_a_library_swallows_while_loading(tmp_path, monkeypatch, where):
    """An exception in a callback of C, as threadpoolctl has them, is printed and forgotten."""
    real = getattr(adapt, where)

    def swallowing(*args):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass
        return real(*args)

    monkeypatch.setattr(adapt, where, swallowing)
    saved = "before anything was saved" if where == "prepare" else "step 0 is saved"
    with pytest.raises(adapt.Interrupted, match=saved):
        adapt.run(adapt.AdaptSettings(epochs=1, recipe="plain"), tmp_path / "out", False, nothing)


def test_an_interrupt_in_a_callback_of_c_is_remembered_without_a_word(capfd):
    @ctypes.CFUNCTYPE(None)
    def callback():
        signal.raise_signal(signal.SIGINT)

    with Stop() as stop:
        callback()
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            stop.check()
    assert capfd.readouterr().err == ""


def test_an_interrupt_when_all_is_saved_says_so(tmp_path, monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    for name in ("emit", "files"):
        out = tmp_path / name
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as left:
            patch.setattr(f"gradledger.finish.{name}", interrupt)
            cli.main(["adapt", "--json", "--epochs", "1", "--output", str(out)])
        assert left.value.code == 130 and names(out) == {WEIGHTS, RECORD, PLOT}
        assert capsys.readouterr().err == f"gradledger: interrupted; the run is finished and saved in {out}\n"


def test_nothing_to_resume(refused, tmp_path):
    message = f"{tmp_path / 'out'} holds no interrupted run ({RESUME}) to resume: leave --resume out to start one"
    refused("--resume", message=message)  # and the folder is not made
    (tmp_path / "out").mkdir()
    refused("--resume", message=message)


def test_resume_files_that_cannot_be_used(refused, tmp_path):
    path = interrupted(tmp_path / "out", recipe="plain")
    whole = path.read_bytes()
    saved, notes = checkpoint.load(path)
    path.write_bytes(whole[: len(whole) // 2])
    refused("--resume", message=f"the weights {path} are no safetensors file or are damaged: it ends after")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused("--resume", message=f"the weights {path} are damaged: their checksum does not fit")
    path.write_bytes(whole.replace(b'\\"seed\\":0', b'\\"seed\\":1').replace(b'\\"seed\\": 0', b'\\"seed\\": 1'))
    assert path.read_bytes() != whole
    refused("--resume", message=f"the weights {path} are damaged: their checksum does not fit")
    path.write_bytes(whole.replace(b"gradledger_sha256", b"gradledger_sha257"))
    refused("--resume", message=f"the weights {path} are damaged: their metadata lack gradledger_sha256")
    wrong = (
        {}, {"settings": '{"colour": "red"}'}, {"settings": '{"epochs": "1"}'}, {"step": "some"}, {"step": "-1"},
        {"step": "4"}, {"identity": "{}"}, {"made": "["}, {"course": "["},
    )  # fmt: skip
    for change in wrong:
        checkpoint.save(path, saved, notes | change if change else {})
        refused("--resume", message=f"{path} is no run that this version can resume: leave --resume out to start anew")
    checkpoint.save(path, {n: a for n, a in saved.items() if n != "conv1.w"}, notes)
    refused("--resume", message=f"{path} cannot be resumed: the saved run has no array conv1.w")
    checkpoint.save(path, saved | {"run/losses": np.zeros(11)}, notes | {"step": 11})
    refused("--resume", message=f"{path} is at step 11, but its plan ends after 10: leave --resume out")
    other = notes | {"settings": notes["settings"].replace('"lr": 0.01', '"lr": 0.02')}
    checkpoint.save(path, saved, other)
    refused("--resume", message=f"{path} is the state of another run than its settings say")


def own(path, scale=1.0):
    rng = np.random.default_rng(0)
    x = scale * rng.normal(size=(24, 1, 100, 6)).astype(np.float32)
    np.savez(path, x=x, y=np.arange(24) % 3)
    return path


def test_a_state_belongs_to_its_data_and_its_first_weights(tmp_path, monkeypatch):
    """Relative paths mean the files that they meant when the run began; other content is not mixed in."""
    start = models.watch_weights(1)
    start = {n: a[..., :3] if n.startswith("fc") else a for n, a in start.items()}
    checkpoint.save(tmp_path / "net.safetensors", start, {"model": "watch"})
    own(tmp_path / "own.npz")
    monkeypatch.chdir(tmp_path)
    given = {"model": "net.safetensors", "data": "own.npz", "batch": 8}
    whole = adapt.run(adapt.AdaptSettings(epochs=1, **given), tmp_path / "whole", False, nothing)
    out = tmp_path / "out"
    interrupted(out, step=2, **given)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    own(tmp_path / "own.npz", 1.01)
    with pytest.raises(Malformed, match=f"the data of {tmp_path / 'own.npz'} are not those that the run in .* beg"):
        adapt.run(adapt.AdaptSettings(), out, True, nothing)
    own(tmp_path / "own.npz")
    checkpoint.save(tmp_path / "net.safetensors", start | {"fc.b": start["fc.b"] + 1}, {"model": "watch"})
    with pytest.raises(Malformed, match=f"the weights of {tmp_path / 'net.safetensors'} are not those that the run"):
        adapt.run(adapt.AdaptSettings(), out, True, nothing)
    checkpoint.save(tmp_path / "net.safetensors", start, {"model": "watch"})
    assert adapt.run(adapt.AdaptSettings(), out, True, nothing)["losses"] == whole["losses"]
    assert (out / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_options_beside_resume_are_obeyed_or_refused(refused, finished, tmp_path, capsys):
    out = tmp_path / "out"
    interrupted(out)
    for option, value, saved in (
        ("--lr", "0.1", "0.01"), ("--epochs", "2", "1"), ("--seed", "3", "0"), ("--batch", "8", "32"),
        ("--method", "backprop", "gradient-filter:patch=2"), ("--momentum", "0.5", "0.9"), ("--subject", "2", "1"),
        ("--train-last", "1", "all"), ("--size", "1x100", "(none)"), ("--memory-limit", "1GiB", "(none)"),
        ("--classes", "7", "(none)"), ("--backend", "reference", "fast"), ("--data", "fashion-mnist", "watch"),
        ("--model", "lenet5", "watch"),
    ):  # fmt: skip
        message = f"{option} {value} is not that of the saved run, {saved}: leave {option} out to go on with it, or"
        refused("--resume", option, value, message=message)
    refused("--resume", "--threads", "1000", message="--threads must be from 1 to")
    same = ["--lr", "0.01", "--epochs", "1", "--method", "gradient-filter:align=centre,patch=2", "--threads", "1"]
    with pytest.raises(SystemExit) as left:
        cli.main(["adapt", "--resume", *same, "--json", "--output", str(out)])
    said = capsys.readouterr()
    assert left.value.code == 0 and '"threads": 1' in said.out
    assert (out / WEIGHTS).read_bytes() == (finished[0] / WEIGHTS).read_bytes()


def test_a_new_run_gives_up_an_older_state_at_its_start(tmp_path, capsys):
    interrupted(tmp_path, seed=7)
    assert run_state.read(tmp_path).settings.seed == 7
    with pytest.raises(adapt.Interrupted):
        adapt.run(adapt.AdaptSettings(epochs=1), tmp_path, False, at(1, times=2))
    assert capsys.readouterr().err == f"gradledger: the interrupted run in {tmp_path} is given up for this one\n"
    state = run_state.read(tmp_path)
    assert (state.settings.seed, state.step) == (0, 0)


def test_saves_take_a_small_share_of_the_time(tmp_path, monkeypatch):
    """A clock that stands still but for steps and saves: a slow disk is asked rarely, a fast one often."""
    clock = {"now": 0.0}
    monkeypatch.setattr(adapt.time, "perf_counter", lambda: clock["now"])
    real = run_state.write

    def run(save_seconds, step_seconds):
        def write(*args):
            clock["now"] += save_seconds
            saves.append(clock["now"])
            real(*args)

        def watch(progress):
            clock["now"] += step_seconds

        saves, began = [], clock["now"]
        monkeypatch.setattr(run_state, "write", write)
        folder = tmp_path / str(save_seconds)
        adapt.run(adapt.AdaptSettings(epochs=8, recipe="plain"), folder, False, watch)
        return saves, clock["now"] - began

    for save_seconds in (0.01, 1.0, 4.0):
        saves, whole = run(save_seconds, 2.5)  # 80 steps
        inner = len(saves) - 2  # beside that at the start and that before evaluation and plot
        assert inner * save_seconds <= adapt.SAVE_SHARE * whole
        pauses = np.diff(saves)
        assert inner >= 1 and pauses.max() <= (30 if save_seconds <= 1 else 90)
        assert pauses[:-1].min() >= adapt.SAVE_AFTER


def test_a_save_that_fails_is_told_and_the_training_goes_on(finished, tmp_path, monkeypatch, capsys):
    real, calls = run_state.write, []

    def write(*args):
        calls.append(args)
        if len(calls) in (2, 3):
            raise checkpoint.CheckpointError("cannot write here: No space left on device")
        real(*args)

    monkeypatch.setattr(run_state, "write", write)
    monkeypatch.setattr(adapt, "SAVE_AFTER", 0)
    monkeypatch.setattr(adapt, "SAVE_SHARE", 1)
    record = adapt.run(adapt.AdaptSettings(epochs=1), tmp_path, False, nothing)
    said = "gradledger: cannot write here: No space left on device; step 0 stays saved\n"
    assert (
        capsys.readouterr().err == said * 2 and len(calls) == record["steps"] + 3
    )  # two before the first step, and the last
    assert record["losses"] == finished[1]["losses"] and names(tmp_path) == {WEIGHTS, RECORD, PLOT}


@pytest.mark.parametrize("failing", ["make_record", "confusion", "checkpoint.write_json"])
def test_a_record_that_fails_keeps_the_weights(finished, tmp_path, monkeypatch, failing):
    """Weights alone take the place of older results, and the state stays for another try."""
    adapt.run(adapt.AdaptSettings(epochs=1, seed=3), tmp_path, False, nothing)
    calls = []
    real = adapt.confusion

    def fail(*args):
        calls.append(args)
        if failing == "confusion" and len(calls) == 1:  # that before the training
            return real(*args)
        raise ZeroDivisionError("no counts")

    message = (
        rf"the record was not made \(ZeroDivisionError: no counts\), but the weights are in {tmp_path / WEIGHTS}; "
        f"step {finished[1]['steps']} is saved, go on with: gradledger adapt --resume"
    )
    with monkeypatch.context() as patch, pytest.raises(Malformed, match=message):
        patch.setattr(f"gradledger.adapt.{failing}", fail)
        adapt.run(adapt.AdaptSettings(epochs=1), tmp_path, False, nothing)
    assert names(tmp_path) == {WEIGHTS, RESUME}
    kept, whole = (checkpoint.load(folder / WEIGHTS) for folder in (tmp_path, finished[0]))
    assert all((kept[0][name] == whole[0][name]).all() for name in whole[0]) and kept[0].keys() == whole[0].keys()
    assert whole[1].keys() - kept[1].keys() == {"ledger", "accuracy"}  # which the record would have told
    assert adapt.run(adapt.AdaptSettings(), tmp_path, True, nothing)["weights_sha256"] == finished[1]["weights_sha256"]


def test_a_plot_that_fails_is_told_and_no_older_one_stays(finished, tmp_path, monkeypatch, capsys, asked_once):
    adapt.run(adapt.AdaptSettings(epochs=1), tmp_path, False, nothing)
    assert names(tmp_path) == {WEIGHTS, RECORD, PLOT}
    monkeypatch.setattr(finish, "make", asked_once)
    real = subprocess.run

    def fail(command, **named):
        if "gradledger.plot" in command:
            raise OSError(12, "Cannot allocate memory")
        return real(command, **named)

    monkeypatch.setattr(finish.subprocess, "run", fail)
    record = adapt.run(adapt.AdaptSettings(epochs=1), tmp_path, False, nothing)
    said = "gradledger: the plot was not drawn (Cannot allocate memory); everything else is saved\n"
    assert capsys.readouterr().err == said and record["files"]["plot"] is None
    assert names(tmp_path) == {WEIGHTS, RECORD}


def test_a_run_that_diverges_leaves_earlier_results_alone(finished, tmp_path):
    adapt.run(adapt.AdaptSettings(epochs=1), tmp_path, False, nothing)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    message = f"they are in {tmp_path / DIVERGED}; {tmp_path / WEIGHTS} is unchanged, of an earlier run"
    with pytest.raises(Refused, match=message) as refused:
        adapt.run(adapt.AdaptSettings(epochs=1, lr=1e10, recipe="plain"), tmp_path, False, nothing)
    assert refused.value.record["weights"] == str(tmp_path / DIVERGED)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert before.items() <= after.items() and after.keys() - before.keys() == {DIVERGED}
    assert all(np.isfinite(a).all() for a in checkpoint.load(tmp_path / DIVERGED)[0].values())
    adapt.run(
        adapt.AdaptSettings(epochs=1), tmp_path, False, nothing
    )  # a later run that is finished leaves only its own
    assert names(tmp_path) == {WEIGHTS, RECORD, PLOT}


def test_two_runs_do_not_mix(tmp_path):
    def other(progress):
        with pytest.raises(Malformed, match=f"another gradledger adapt is writing into {tmp_path}: wait for it"):
            adapt.run(adapt.AdaptSettings(epochs=1, seed=1), tmp_path, False, nothing)

    adapt.run(adapt.AdaptSettings(epochs=1), tmp_path, False, other)


def test_a_run_that_was_cut_off_as_it_moved_its_results_is_finished_by_resume(finished, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "_roll_forward", lambda self: None)
        adapt.run(adapt.AdaptSettings(epochs=1), tmp_path, False, nothing)
    assert WEIGHTS not in names(tmp_path)
    record = adapt.run(adapt.AdaptSettings(), tmp_path, True, nothing)
    assert record["losses"] == finished[1]["losses"] and names(tmp_path) == {WEIGHTS, RECORD, PLOT}
    assert record["files"]["plot"] == str(tmp_path / PLOT)


def test_a_damaged_profile_of_this_machine_is_told_before_the_training(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "gradledger").mkdir()
    (tmp_path / "gradledger" / "this-machine.json").write_text('{"name": ')
    refused(message="this-machine.json")


def test_a_resumed_run_that_ends_worse_keeps_the_weights_that_it_began_with(tmp_path):
    interrupted(tmp_path, lr=5.0, recipe="plain")
    record = adapt.run(adapt.AdaptSettings(), tmp_path, True, nothing)
    assert (record["ok"], record["kept"]) == (False, "first") and record["accuracy_after"] < record["accuracy_before"]
    assert json.loads((tmp_path / RECORD).read_text(encoding="utf-8"))["reason"] == record["reason"]
    kept, bundled = checkpoint.load(tmp_path / WEIGHTS)[0], models.watch_weights(1)
    assert kept.keys() == bundled.keys() and all((kept[name] == bundled[name]).all() for name in kept)
