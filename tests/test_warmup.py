"""`gradledger warmup` compiles what a run will need."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import typer

from gradledger import cli, warmup
from gradledger.errors import Refused
from gradledger.settings import READ
from refimpl.kernels import cuda, kernel


@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_warmup_leaves_nothing_to_compile(backend, capsys):
    for _ in range(2):
        with pytest.raises(SystemExit) as done:
            cli.main(["warmup", "--json", "--backend", backend])
        assert done.value.code == 0
        record = json.loads(capsys.readouterr().out)
        assert record["ok"] and record["kernels"] > 5
    assert record["compiled"] == 0 and kernel.CACHE_DIR and record["cache"] == str(kernel.CACHE_DIR)


def test_warmup_says_where_kernels_are_not_kept(monkeypatch, capsys):
    monkeypatch.setattr(kernel.KernelCache, "failed", True)
    with pytest.raises(SystemExit):
        cli.main(["warmup"])
    assert capsys.readouterr().out.strip().endswith("(memory only: no folder is writable)")


def test_warmup_prepares_a_run_whose_data_are_read_by_options(tmp_path, capsys, monkeypatch):
    """After it the same run compiles nothing, in another process."""
    rng = np.random.default_rng(0)
    rows = [f"{a:.3f},{b:.3f},{'walk' if i < 200 else 'sit'}" for i, (a, b) in enumerate(rng.normal(size=(400, 2)))]
    (tmp_path / "own.csv").write_text("\n".join(["ax,ay,doing", *rows]))
    given = ["--model", "watch", "--data", str(tmp_path / "own.csv"), "--window", "2s", "--stride", "1s", "--rate",
             "10", "--label", "doing", "--from-scratch", "--backend", "reference", "--train-last", "0"]  # fmt: skip
    monkeypatch.setenv("GRADLEDGER_CACHE", str(tmp_path / "cache"))
    start = [sys.executable, "-m", "gradledger"]
    done = subprocess.run([*start, "warmup", *given, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["compiled"] > 5
    more = ["--epochs", "1", "--output", str(tmp_path / "run"), "--json"]
    run = subprocess.run([*start, "adapt", *given, *more], capture_output=True, text=True)
    assert json.loads(run.stdout)["compiled_kernels"] == 0, run.stderr


def test_warmup_takes_every_option_by_which_adapt_reads_data():
    options = {name: {param.name for param in command.params} for name, command in
               typer.main.get_command(cli.app).commands.items()}  # fmt: skip
    assert {"subject", *READ} <= options["warmup"] < options["adapt"] | {"as_json"}


def test_warmup_says_that_a_simulated_gpu_compiles_nothing(monkeypatch):
    monkeypatch.setattr(cuda, "simulated", lambda: True)
    job = SimpleNamespace(program=SimpleNamespace(backend="cuda"))
    with pytest.raises(Refused, match="run as Python in the simulator of CUDA: there is nothing to compile"):
        warmup.run(job, lambda *_: None)
