import os
import subprocess
import sys
from pathlib import Path

import pytest

from refimpl.graph import passes_of
from refimpl.methods import error_map_pruning, sparse_update

HERE = Path(__file__).parent


def run(mode, **environment):
    """cuda_script in a process of its own: whether CUDA is simulated is settled when numba is imported."""
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    command = [sys.executable, str(HERE / "cuda_script.py"), mode]
    env = os.environ | {"PYTHONPATH": path} | environment
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)


def test_every_pass_under_the_simulator():
    made = run("simulate", NUMBA_ENABLE_CUDASIM="1")
    assert made.returncode == 0, made.stderr[-3000:]
    assert made.stdout.endswith("done\n")
    names = ["relu.forward", "gradient_filter.patch_grad", "gradient_filter.patch_grad_dilated"]
    names += [f"error_map_pruning.{name}" for name in passes_of(error_map_pruning)]
    names += [f"sparse_update.{name}" for name in passes_of(sparse_update)]
    names += ["conv2d.grad_w along N", "batch_norm.mean along N", "mse.mean_loss along N"]
    for name in names:
        assert f"simulated {name}\n" in made.stdout


def test_every_pass_compiles_to_ptx():
    """Needs a CUDA toolkit (NVVM and libdevice), but no GPU."""
    default = Path("/usr/local/cuda")  # where NVIDIA's installers put the toolkit
    toolkit = {"CUDA_HOME": str(default)} if default.exists() and "CUDA_HOME" not in os.environ else {}
    made = run("ptx", NUMBA_ENABLE_CUDASIM="0", **toolkit)
    missing = [w for w in ("libNVVM cannot be found", "Missing libdevice", "No module named") if w in made.stderr]
    if missing:
        pytest.skip(f"no CUDA toolkit to compile with: {missing[0]}")
    assert made.returncode == 0, made.stderr[-3000:]
    assert made.stdout.endswith("done\n")
    for name in ("relu.forward", "conv2d.grad_b along N", "average_slices"):
        assert f"compiled {name}\n" in made.stdout
