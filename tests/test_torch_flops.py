"""PyTorch's FLOP counter beside our counts: right for one group, G times too high for the dw of G groups."""

import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import pytest

from validation import torch_flops

needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


@pytest.fixture(scope="module")
def rows():
    return torch_flops.rows(12)


@needs_torch
def test_layers_of_one_group_agree(rows):
    plain = [r for r in rows if r["groups"] == 1]
    assert {r["part"] for r in plain} == {"y", "dx", "dw"} and len(plain) >= 15
    assert {r["name"].split()[0] for r in plain} == {"convolution", "linear"}
    assert all(r["ours"] == r["torch"] and r["explained"] for r in plain)


@needs_torch
def test_pytorch_ignores_groups_in_the_weight_gradient_alone(rows):
    grouped = [r for r in rows if r["groups"] and r["groups"] > 1]
    assert len(grouped) >= 6
    for r in grouped:
        assert r["torch"] == r["ours"] * (r["groups"] if r["part"] == "dw" else 1), r
        assert r["explained"]


@needs_torch
def test_whole_nets(rows):
    nets = {(r["name"].split(",")[0], r["part"]): r for r in rows if r["groups"] is None}
    for name in ("lenet5", "resnet18"):
        assert nets[name, "forward"]["ratio"] == nets[name, "backward"]["ratio"] == 1
    assert nets["mobilenet_v2", "forward"]["ratio"] == 1
    wrong = nets["mobilenet_v2", "backward"]
    assert wrong["ratio"] == pytest.approx(9.885, abs=5e-4)  # torch 2.13
    assert wrong["torch"] == wrong["as_torch"] and wrong["explained"]


@needs_torch
def test_a_wrong_count_is_not_explained(monkeypatch):
    true = torch_flops.nominal
    monkeypatch.setattr(torch_flops, "nominal", lambda *args: true(*args) + 2)
    assert not any(r["explained"] for r in torch_flops.linear(0))


def test_nominal_counts_padded_taps():
    sizes = {"N": 2, "C": 4, "K": 6, "R": 3, "S": 3, "P": 5, "Q": 7, "G": 2, "H": 5, "W": 7}
    assert torch_flops.nominal("conv2d", "forward", sizes) == 2 * 2 * 5 * 7 * 9 * 2 * 6


def test_without_pytorch_there_is_a_note(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", None)
    assert torch_flops.ask() == {
        "installed": False, "note": "PyTorch is not installed: its counter was not asked", "rows": [],
    }  # fmt: skip


def test_a_failed_process_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    failed = SimpleNamespace(returncode=1, stderr="Traceback\nImportError: no libtorch\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **keywords: failed)
    with pytest.raises(RuntimeError, match="-m validation.torch_flops 12 failed: ImportError: no libtorch"):
        torch_flops.ask()


def test_asking_does_not_import_torch():
    script = (
        "import sys; from validation import torch_flops; from gradledger import validate; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
