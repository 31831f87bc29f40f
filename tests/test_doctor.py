"""`gradledger doctor`: what it finds, in states that it must tell."""

import os
from types import SimpleNamespace

import pytest

from gradledger import doctor, show
from refimpl.backends.cuda import trial
from refimpl.kernels import cuda, cuda_parts, kernel_cache


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(kernel_cache, "CACHE_DIR", tmp_path)
    for name, content in (("a", b"sound"), ("b", b"sound too")):
        (tmp_path / f"{name}.kernel").write_bytes(kernel_cache.header(content) + content)
    return tmp_path


def test_a_sound_cache(folder):
    assert doctor.cache() == doctor.Finding("kernel cache", "ok", f"2 kernels in {folder}")


def test_damaged_kernels_are_counted(folder):
    (folder / "b.kernel").write_bytes(b"")
    found = doctor.cache()
    assert (found.state, found.found) == ("warning", f"1 of 2 kernels in {folder} are damaged")
    assert found.advice == "they are compiled anew and replaced by the next run that needs them"


def test_a_run_of_doctor_counts_before_it_mends(folder, monkeypatch):
    (folder / "b.kernel").write_bytes(b"")
    layer = doctor.threading_layer
    monkeypatch.setattr(doctor, "threading_layer", lambda: (folder / "b.kernel").unlink() or layer())
    found = next(c for c in doctor.run(cuda=False)["checks"] if c["name"] == "kernel cache")
    assert found["found"] == f"1 of 2 kernels in {folder} are damaged"


def test_a_cache_that_is_not_used(monkeypatch):
    monkeypatch.setattr(kernel_cache, "CACHE_DIR", None)
    found = doctor.cache()
    assert (found.state, found.found) == ("warning", "not used")
    assert found.advice.endswith("set GRADLEDGER_CACHE to a folder of your own that can be written")


def test_a_cache_that_can_only_be_read(folder, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (folder, os.W_OK))
    found = doctor.cache()
    assert (found.state, found.found) == ("warning", f"2 kernels in {folder}, which cannot be written")


def test_a_full_disk(folder, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=1, f_frsize=4096))
    found = doctor.cache()
    assert (found.state, found.found) == ("warning", f"2 kernels in {folder}, the disk is full")


@pytest.mark.parametrize(
    "release, advice",
    [
        (
            "# R32 (release), REVISION: 7.4, BOARD: t210ref",
            "JetPack 4 (CUDA 10.2): no package compiles for it any more",
        ),
        (
            "# R35 (release), REVISION: 4.1, BOARD: t186ref",
            "JetPack 5 (CUDA 11.4, Python 3.8): install cuda-compat-12-2 and a Python from 3.10 on beside the "
            "system's, and export LD_LIBRARY_PATH=/usr/local/cuda-12.2/compat",
        ),
        ("# R36 (release), REVISION: 4.0", "docs/gpu.md says what each machine needs"),
        ("something else", "docs/gpu.md says what each machine needs"),
    ],
)
def test_a_jetson_is_told_what_its_jetpack_needs(release, advice, tmp_path):
    (tmp_path / "release").write_text(release)
    assert doctor.jetson(tmp_path / "release").startswith(advice)
    assert doctor.jetson(tmp_path / "none").startswith("docs/gpu.md")


def test_without_a_package_for_cuda_each_row_says_what_to_install(monkeypatch):
    """And nothing is tried."""

    def package():
        raise cuda.CudaError("no package compiles for CUDA here: pip install 'gradledger[cuda12]'")

    monkeypatch.setattr(cuda, "package", package)
    monkeypatch.setattr(cuda, "problem", lambda: "no package compiles for CUDA here")
    monkeypatch.setattr(cuda, "simulated", lambda: False)
    found = doctor.cuda_package()
    assert (found.state, found.found) == ("warning", "none") and found.advice.endswith("install 'gradledger[cuda12]'")
    rows = [c for c in doctor.run(cuda=True)["checks"] if c["name"].startswith("CUDA")]
    assert [(c["name"], c["state"]) for c in rows] == [
        ("CUDA", "warning"), ("CUDA package", "warning"), ("CUDA toolkit", "warning"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "package, install", [("numba_cuda", "gradledger[cuda12]"), ("numba_cuda_mlir", "numba-cuda-mlir[cu12]")]
)
def test_parts_of_the_toolkit_that_are_missing_are_named(package, install, monkeypatch):
    monkeypatch.setattr(cuda, "package", lambda: package)
    monkeypatch.setattr(cuda, "simulated", lambda: False)
    monkeypatch.setattr(cuda_parts, "missing", lambda: ["NVVM", "libdevice"])
    monkeypatch.setattr(cuda_parts, "bindings_major", lambda: 12)
    found = doctor.cuda_toolkit()
    assert (found.state, found.found) == ("warning", "NVVM, libdevice not found")
    assert found.advice == f"pip install '{install}'"


def test_why_sections_are_no_graphs_is_told(monkeypatch):
    monkeypatch.setattr(cuda, "problem", lambda: None)
    monkeypatch.setattr(cuda, "simulated", lambda: False)
    monkeypatch.setattr(trial, "run_trial", lambda: trial.GpuTrial(1.25, 5e-6, "CUDAError: not permitted"))
    kernels, graphs = doctor.cuda_work()
    assert (kernels.state, kernels.found) == ("ok", "compiled and run in 1.2 s, then in 5 µs, right")
    assert (graphs.state, graphs.found) == ("warning", "no: CUDAError: not permitted")


def test_a_gpu_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(cuda, "problem", lambda: "there is no driver here")
    found = doctor.gpu()
    assert (found.name, found.state, found.found) == ("CUDA", doctor.WARN, "there is no driver here")


def test_extras_in_brackets_are_printed_as_they_are(capsys):
    show.checks([{"name": "CUDA", "state": "warning", "found": "pip install 'a[b]'", "advice": "see [c]"}])
    printed = capsys.readouterr().out
    assert "'a[b]'" in printed and "see [c]" in printed
