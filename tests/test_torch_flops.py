"""PyTorch's FLOP counter beside our counts: right for one group, G times too high for the dw of G groups (2.13.0)."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from validation.instruments import torch_flops

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
    import torch

    holds, why = torch_flops.of_groups(rows, torch.__version__)
    assert holds, why  # a mended counter: the sentence says what to mend here
    grouped = [r for r in rows if r["groups"] and r["groups"] > 1]
    assert len(grouped) >= 6
    assert all(r["explained"] for r in grouped)
    assert all(r["torch"] == r["ours"] for r in grouped if r["part"] != "dw")


def grouped(ours: int, theirs: int) -> list[dict]:
    """The dw of a convolution of four groups."""
    return [torch_flops.row("convolution", "dw", 4, ours, 4 * ours, theirs)]


def test_a_torch_that_counts_groups_otherwise_is_told():
    assert torch_flops.of_groups(grouped(5, 20), "2.13.0+cpu") == (
        True, "torch 2.13.0+cpu counts the weight gradient of a convolution with G groups G times",
    )  # fmt: skip
    for theirs, how in ((5, "right"), (10, "in a third way")):
        assert torch_flops.of_groups(grouped(5, theirs), "2.14.0") == (
            False,
            f"torch 2.14.0 counts the weight gradients of grouped convolutions {how}: "
            "what docs/measurements/torch-flops.md says of torch 2.13.0 no longer holds, mend it",
        )


def test_the_page_names_the_version_of_its_statement():
    text = " ".join((Path(__file__).parents[1] / torch_flops.PAGE).read_text(encoding="utf-8").split())
    assert f"torch {torch_flops.STATED}" in text


@needs_torch
def test_whole_nets(rows):
    import torch

    nets = {(r["name"].split(",")[0], r["part"]): r for r in rows if r["groups"] is None}
    for name in ("lenet5", "resnet18"):
        assert nets[name, "forward"]["ratio"] == nets[name, "backward"]["ratio"] == 1
    assert nets["mobilenet_v2", "forward"]["ratio"] == 1
    wrong = nets["mobilenet_v2", "backward"]
    holds, why = torch_flops.of_groups(rows, torch.__version__)
    assert holds, why
    assert wrong["ratio"] == pytest.approx(9.885, abs=5e-4)
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
    with pytest.raises(RuntimeError, match="-m validation.instruments.torch_flops 12 failed: ImportError: no libtorch"):
        torch_flops.ask()


def test_asking_does_not_import_torch():
    script = (
        "import sys; from validation.instruments import torch_flops; from gradledger import validate\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
