"""Waiting threads spin for a bounded time unless the user chose otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gradledger import doctor
from refimpl.kernels import spin

ROOT = Path(__file__).parent.parent
NAMES = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_WAIT_POLICY")


@pytest.fixture
def nothing(monkeypatch):
    """An environment in which nobody chose anything."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(spin, "OURS", {})
    monkeypatch.setattr(os, "environ", dict(os.environ))  # what `bound` sets goes with it
    return os.environ


def test_a_bounded_spin_is_set(nothing):
    spin.bound()
    assert (
        {n: nothing[n] for n in NAMES if n in nothing} == spin.OURS == {"GOMP_SPINCOUNT": "5000", "KMP_BLOCKTIME": "1"}
    )
    assert not spin.long() and spin.chosen() == "GOMP_SPINCOUNT=5000"


@pytest.mark.parametrize(
    "name, value, ours",
    [("GOMP_SPINCOUNT", "7", {"KMP_BLOCKTIME": "1"}), ("KMP_BLOCKTIME", "9", {"GOMP_SPINCOUNT": "5000"}),
     ("OMP_WAIT_POLICY", "passive", {})],
)  # fmt: skip
def test_what_the_user_chose_stays(name, value, ours, nothing):
    nothing[name] = value
    spin.bound()
    assert nothing[name] == value and spin.OURS == ours


@pytest.mark.parametrize(
    "name, value, long",
    [("GOMP_SPINCOUNT", "20000", False), ("GOMP_SPINCOUNT", "0", False), ("GOMP_SPINCOUNT", "INFINITY", True),
     ("GOMP_SPINCOUNT", "30000000000", True), ("OMP_WAIT_POLICY", "active", True),
     ("OMP_WAIT_POLICY", "Passive", False)],
)  # fmt: skip
def test_a_long_spin_is_told(name, value, long, nothing, monkeypatch):
    import numba

    nothing[name] = value
    assert spin.long() == long
    monkeypatch.setattr(numba, "threading_layer", lambda: "omp")
    found = doctor.waiting()
    assert (found.state, found.found) == ("warning" if long else "ok", f"{name}={value}")
    assert found.advice.endswith(f"unset {name}")


def test_without_a_choice_the_runtime_spins_long(nothing):
    assert spin.long() and spin.chosen() == "the runtime's default"


@pytest.mark.parametrize("layer", ["tbb", "workqueue"])
def test_other_layers_have_nothing_to_set(layer, monkeypatch):
    import numba

    monkeypatch.setattr(numba, "threading_layer", lambda: layer)
    assert doctor.waiting() == doctor.Finding("waiting threads", "ok", f"sleep soon: {layer} has nothing to set")
    found = doctor.threading_layer()
    assert found.state == ("ok" if layer == "tbb" else "warning") and found.found.startswith(f"{layer}, ")
    assert "workqueue takes 1.5 to 17 times as long: install libgomp1" in found.advice


SCRIPT = """
import refimpl
from pathlib import Path
loaded = lambda: "libgomp" in Path("/proc/self/maps").read_text()
before = loaded()
import numba
numba.set_num_threads(1)
print(before, loaded(), numba.threading_layer())
"""


def test_libgomp_reads_it_as_it_is_loaded():
    """OMP_DISPLAY_ENV lets the runtime say what it goes by."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs Linux")
    env = {n: v for n, v in os.environ.items() if n not in NAMES} | {"OMP_DISPLAY_ENV": "VERBOSE"}
    ran = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    before, after, layer = ran.stdout.split()
    if layer != "omp" or after != "True":
        pytest.skip(f"the threading layer is {layer}, not GNU's OpenMP")
    assert before == "False" and "GOMP_SPINCOUNT = '5000'" in ran.stderr
