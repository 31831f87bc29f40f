import json
import os
import subprocess
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from refimpl.backends.cuda import pooling
from refimpl.kernels import cuda
from refimpl.methods import error_map_pruning, sparse_update
from refimpl.methods.registry import known
from refimpl.ops import passes_of
from validation.instruments.cuda_code import UNROLLED
from validation.instruments.emulator.driver import compiler

HERE = Path(__file__).parent
SIMULATED, GPU = "simulated", "gpu"
PACKAGES = ("numba_cuda", "numba_cuda_mlir")
KINDS = (SIMULATED, *PACKAGES, GPU)


def run(mode, *more, **environment):
    """A script in a process of its own: whether CUDA is simulated is settled when numba is imported.

    more: another script than cuda_script.py, and what the mode takes.
    """
    script, *arguments = more if more and more[0].endswith(".py") else ("cuda_script.py", *more)
    path = os.pathsep.join([str(HERE), str(HERE.parent)])
    command = [sys.executable, str(HERE / script), mode, *arguments]
    env = os.environ | {"PYTHONPATH": path} | environment
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=1800, check=False)


def run_kind(kind, mode, *more):
    """A script in Numba's simulator, which runs kernels as Python, or what a package compiles on the stand-in.

    Where there is a GPU, on it too.
    """
    if kind == SIMULATED:
        made = run(mode, *more, NUMBA_ENABLE_CUDASIM="1")
    elif kind == GPU:
        if cuda.simulated() or cuda.problem():
            pytest.skip(cuda.problem() or "CUDA is simulated")
        made = run(mode, *more)
    else:
        if not compiler():
            pytest.skip("there is no C compiler, which makes the stand-in for the driver: install cc")
        environment = chosen(kind)
        if not linker():
            pytest.skip("nvJitLink is not installed, which links what is compiled: install gradledger[test]")
        made = run(mode, *more, "emulated", **environment)
    assert made.returncode == 0, made.stderr[-3000:]
    assert made.stdout.endswith("done\n")
    return made


@cache
def linker():
    """Is the library there that makes machine code of PTX?"""
    pathfinder = import_module("cuda.pathfinder")
    try:
        return pathfinder.load_nvidia_dynamic_lib("nvJitLink")
    except pathfinder.DynamicLibNotFoundError:
        return None


def chosen(package):
    """The environment in which this package compiles; the test is skipped where it is not installed."""
    if not find_spec(package):
        pytest.skip(f"{package.replace('_', '-')} is not installed: install gradledger[test]")
    return {"GRADLEDGER_CUDA_PACKAGE": package, "NUMBA_ENABLE_CUDASIM": "0"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_pass(kind):
    made = run_kind(kind, "passes")
    names = ["relu.forward", "gradient_filter.patch_grad", "gradient_filter.patch_grad_dilated"]
    names += [f"error_map_pruning.{name}" for name in passes_of(error_map_pruning)]
    names += [f"sparse_update.{name}" for name in passes_of(sparse_update)]
    names += ["conv2d.grad_w along N", "batch_norm.mean along N", "mse.mean_loss along N"]
    for name in names:
        assert f"ran {name}\n" in made.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_whole_steps_of_every_method(kind):
    made = run_kind(kind, "nets", "cuda_steps.py")
    told = {line.split(":")[0].rsplit(" ", 1)[0] for line in made.stdout.splitlines() if "launches" in line}
    nets = ("plain", "residual", "inverted")
    for name, method in known().items():
        if method.states.kind == "depth":
            wanted = {f"residual {name}"}
        elif method.states.kind == "step" and method().quantizes is not None:
            wanted = {f"whole {name}"}
        else:
            wanted = {f"{net} {name}" for net in nets}
        assert wanted <= told, f"{wanted - told} did not run"


@pytest.mark.parametrize("kind", KINDS)
def test_pooling(kind):
    made = run_kind(kind, "windows", "cuda_pooling.py")
    kernels = {name for line in made.stdout.splitlines() if line.startswith("pooling_") for name in line.split(", ")}
    assert kernels == {unrolled.__name__ for unrolled in UNROLLED if unrolled.__module__ == pooling.__name__}


@pytest.mark.parametrize("kind", KINDS)
def test_layers_in_words(kind):
    made = run_kind(kind, "words", "cuda_words.py")
    for part in (
        "in words, to the bit",
        "forward in words",
        "gradients in words",
        "whole numbers of 8",
        "whole in words",
    ):
        assert f"\n{part}" in f"\n{made.stdout}"


@pytest.mark.parametrize("kind", KINDS)
def test_rows(kind):
    made = run_kind(kind, "rows", "cuda_rows.py")
    assert "rows as by the reference kernels\nrows backprop: " in made.stdout and "\nrows forward: " in made.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands(kind, tmp_path):
    made = run_kind(kind, "commands", "cuda_runs.py", str(tmp_path))
    assert made.stdout.endswith("calibrated\nadapted\nfiltered\ndone\n")


@pytest.mark.parametrize("package", PACKAGES)
def test_tuned_kernels_execute_the_products_that_they_state(package):
    made = run_kind(package, "stated", "cuda_steps.py")
    assert "launches of 11 kernels as stated" in made.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_kernels_on_rows_execute_the_additions_that_they_state(package):
    made = run_kind(package, "stated", "cuda_rows.py")
    assert made.stdout.startswith("792 launches of kernels on rows as stated")


@pytest.mark.parametrize("package", PACKAGES)
def test_a_gpu_that_vanishes_or_has_no_memory_loses_nothing(package, tmp_path):
    made = run_kind(package, "faults", "cuda_runs.py", str(tmp_path))
    assert made.stdout.startswith("without memory\nvanishes after 0.3\nvanishes after 0.6\n")


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("mode", ["memory", "figures", "captures", "work"])
def test_what_goes_wrong_is_told_in_a_sentence(package, mode, tmp_path):
    """Too little memory, figures that are none, calls that no capture allows, and what the doctor tries."""
    made = run_kind(package, mode, "cuda_errors.py", str(tmp_path))
    assert f"{mode}\ndone\n" in made.stdout and "Traceback" not in made.stderr


# numba-cuda links by the driver where nvJitLink is missing; both look for libdevice themselves
@pytest.mark.parametrize(
    ("package", "part"),
    [
        ("numba_cuda", "NVVM"), ("numba_cuda", "NVRTC"), ("numba_cuda_mlir", "NVVM"), ("numba_cuda_mlir", "NVRTC"),
        ("numba_cuda_mlir", "nvJitLink"),
    ],
)  # fmt: skip
def test_a_part_of_the_toolkit_that_is_missing_is_named(package, part, tmp_path):
    made = run_kind(package, "lacking", "cuda_errors.py", str(tmp_path), part)
    assert f"lacking {part}\n" in made.stdout


def test_what_the_bench_times_waits_for_nothing_and_is_right():
    made = run_kind("numba_cuda", "benched", "cuda_bench.py")
    for part in (
        "steps",
        "around",
        "sections are replayed as graphs",
        "launches are made one by one: ValueError: no g",
    ):
        assert part in made.stdout
    assert made.stdout.endswith("product y\nproduct dx\nproduct dw\ndone\n")


@pytest.mark.parametrize("kind", ["numba_cuda", GPU])
def test_two_processes_adapt_to_the_same_bytes(kind, tmp_path):
    made = run_kind(kind, "twice", "cuda_acceptance.py", str(tmp_path))
    assert made.stdout == "twice the same\ndone\n"


@pytest.mark.parametrize("kind", ["numba_cuda", GPU])
def test_an_adapt_that_is_killed_amid_its_steps_ends_as_one_that_is_not(kind, tmp_path):
    made = run_kind(kind, "killed", "cuda_acceptance.py", str(tmp_path))
    assert made.stdout == "killed and resumed\ndone\n"


@pytest.mark.parametrize("kind", [*PACKAGES, GPU])
def test_twenty_steps_stay_beside_those_of_the_cpu(kind):
    made = run_kind(kind, "twenty", "cuda_acceptance.py")
    for net in ("lenet5", "resnet8", "watch"):
        assert f"{net}: losses" in made.stdout


def test_memory_of_the_gpu_is_as_predicted_to_the_byte():
    made = run_kind("numba_cuda", "memory", "cuda_acceptance.py")
    assert made.stdout.count("bytes held") == 9


@pytest.mark.parametrize("kind", [*PACKAGES, GPU])
def test_machine_code_from_the_disk_runs_as_it_did_when_it_was_linked(kind, tmp_path, monkeypatch):
    """A second process with the same cache folder compiles nothing, loads each kernel, and ends in the same bits."""
    monkeypatch.setenv("GRADLEDGER_CACHE", str(tmp_path))
    first, second = (run_kind(kind, "kept", "cuda_acceptance.py") for _ in range(2))
    made, again = (json.loads(process.stdout.splitlines()[0]) for process in (first, second))
    assert made["from the disk"] == again["compiled"] == 0 < made["compiled"] == again["from the disk"]
    assert made["weights"] == again["weights"] and not first.stderr + second.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_a_driver_of_an_older_cuda_is_told(package, tmp_path):
    run_kind(package, "too_old", "cuda_runs.py", str(tmp_path))


@pytest.mark.parametrize(("package", "share"), [("numba_cuda", "1"), ("numba_cuda_mlir", "8")])
def test_every_kernel_compiles_to_ptx_of_every_capability(package, share):
    """Needs a CUDA toolkit (NVVM and libdevice), but no GPU. Of the passes, the successor compiles each eighth."""
    made = run("ptx", share, **chosen(package))
    assert made.returncode == 0, made.stderr[-3000:]
    assert made.stdout.endswith("done\n")
    names = ["average_slices", "forward on 64x64", "grad_w on 128x16", "layer_norm_forward on 32 lanes"]
    names += ["depthwise_grad_w on 3x3, stride 1"]
    for name in [*names, "relu.forward", "conv2d.grad_b along N"] if share == "1" else names:
        assert f"compiled {name}\n" in made.stdout


@pytest.mark.parametrize("package", ["numba_cuda", "numba_cuda_mlir"])
def test_kernels_of_the_gpu_come_from_the_disk_where_nothing_they_reach_has_changed(tmp_path, package):
    """A process that finds them compiles none; another GPU, and a kernel whose helper changed, has its own entry."""
    here = {"GRADLEDGER_CACHE": str(tmp_path), **chosen(package)}

    def compiled(capability, *changed):
        made = run(capability, "cuda_cache_script.py", *changed, **here)
        assert made.returncode == 0, made.stderr[-3000:]
        assert not made.stderr
        return json.loads(made.stdout)

    first, again, other = compiled("8.7"), compiled("8.7"), compiled("9.0")
    assert len(first) == 3 and not any(kept for kept, _ in first.values())
    assert again == {name: [True, text] for name, (_, text) in first.items()}
    assert not any(kept for kept, _ in other.values()) and other["relu.forward"][1] != first["relu.forward"][1]
    changed = compiled("8.7", "changed")
    assert [name for name, (kept, _) in changed.items() if not kept] == ["gradient_filter.pool_x"]
    assert changed["gradient_filter.pool_x"][1] != first["gradient_filter.pool_x"][1]


def test_what_the_successor_compiles_otherwise_is_mended():
    """Lengths without a lowest bit are true, a half goes to the even number, what is no number differs from itself."""
    made = run("llvm", "cuda_llvm_script.py", **chosen("numba_cuda_mlir"))
    assert made.returncode == 0, made.stderr[-3000:]
    assert made.stdout.endswith("done\n")
