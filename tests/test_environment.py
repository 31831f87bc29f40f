"""Environment variables under which no kernel can run: one sentence and status 2, or a run that works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def ran(command, **settings):
    env = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")} | settings
    command = [sys.executable, "-m", "gradledger", *command]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "command, name, value, reason",
    [
        ("adapt", "NUMBA_NUM_THREADS", "0", "Number of threads specified must be > 0."),
        ("doctor", "NUMBA_NUM_THREADS", "0", "Number of threads specified must be > 0."),
        ("cost", "NUMBA_NUM_THREADS", "-3", "Number of threads specified must be > 0."),
        ("cost", "NUMBA_NUM_THREADS", "100000", "at most 1024 threads can be used"),
        ("adapt", "NUMBA_NUM_THREADS", "two", "could not be parsed."),
        ("adapt", "NUMBA_THREADING_LAYER", "fast", "The threading layer requested 'fast' is unknown to Numba."),
        ("doctor", "NUMBA_THREADING_LAYER_PRIORITY", "a b c", "THREADING_LAYER_PRIORITY invalid: "),
        ("adapt", "NUMBA_DISABLE_JIT", "1", "NUMBA_DISABLE_JIT leaves nothing that could run: unset it"),
        ("cost", "NUMBA_OPT", "much", "could not be parsed."),
    ],
)
def test_one_sentence(command, name, value, reason):
    done = ran([command], **{name: value})
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"gradledger: no kernel can run with {name}={value!r}: ")
    assert reason in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "settings",
    [{}, {"OMP_NUM_THREADS": "1"}, {"OMP_THREAD_LIMIT": "1"}, {"OMP_DYNAMIC": "true"}, {"NUMBA_NUM_THREADS": "1"},
     {"NUMBA_THREADING_LAYER": "workqueue"}, {"OPENBLAS_CORETYPE": "Haswell"}],
    ids=str,
)  # fmt: skip
def test_others_work(settings):
    done = ran(["doctor", "--json"], **settings)
    assert done.returncode == 0 and done.stderr == ""
