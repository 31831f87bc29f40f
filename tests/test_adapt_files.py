"""What `adapt` does with input, folders and disks that it cannot use, with signals, and with a loss that explodes."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gradledger import adapt, cli
from refimpl import models
from refimpl.storage import checkpoint, files

ROOT = Path(__file__).parent.parent
DIVERGED = "diverged.safetensors"


def arrays(samples=30, classes=3):
    """Maps and labels of a data set that can be used."""
    x = np.random.default_rng(0).normal(size=(samples, 12, 12, 1)).astype(np.float32)
    return {"x": x, "y": np.arange(samples) % classes}


def npz(tmp_path, **changed):
    np.savez(tmp_path / "own.npz", **(arrays() | changed))
    return tmp_path / "own.npz"


def saved_net(path, metadata=None, **changed):
    """The bundled net of person 1 as a file of its own."""
    checkpoint.save(path, models.watch_weights(1) | changed, {"model": "watch"} if metadata is None else metadata)
    return path


def cut(path, share=0.5):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    return path


# Options


@pytest.mark.parametrize(
    "args, message",
    [
        (("--method", "gradient-filter:pach=2"), "no setting of gradient-filter 'pach'; did you mean 'patch'?"),
        (("--method", "gradient-filter:align=center"), "no align of gradient-filter 'center'; did you mean 'centre'?"),
        (("--method", "gradient-filter:patch=two"), "patch of gradient-filter must be a whole number, got 'two'"),
        (("--method", "gradient-filter:patch"), "the setting 'patch' of gradient-filter must be patch=VALUE"),
        (("--method", "backprop:patch=2"), "backprop takes no settings, got 'patch=2'"),
        (("--threads", "0"), f"--threads must be from 1 to {numba.config.NUMBA_NUM_THREADS}, the threads of this"),
        (("--threads", "1000"), "the threads of this machine, got 1000"),
        (("--classes", "0"), "--classes must be at least 1, got 0"),
        (("--classes", "2"), "--classes 2 is too few: watch has 7 classes"),
        (("--seed", "-1"), "--seed must be from 0 to 9223372036854775807, got -1"),
        (("--seed", str(2**63)), "--seed must be from 0 to"),
        (("--lr", "nan"), "lr must be a positive number that float32 can hold, got nan"),
        (("--lr", "1e39"), "lr must be a positive number that float32 can hold, got 1e+39"),
        (("--momentum", "1.5"), "momentum must be"),
        (
            ("--backend", "fats"),
            "there is no --backend 'fats'; did you mean 'fast'? known: auto, fast",
        ),
        (("--size", "0x4"), "--size must be HxW in pixels, such as 128x128, got '0x4'"),
        (("--size", "4x4"), "watch has maps of 1x100, but 4x4 was asked for"),
    ],
)
def test_options(refused, args, message):
    refused(*args, message=message)


# Data


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"x": np.zeros((30, 12))}, "must be (N, H, W, C) or (N, H, W), but its shape is (30, 12)"),
        ({"x": np.zeros((29, 12, 12))}, "has 30 labels, but x has 29 samples"),
        ({"x": np.zeros((0, 12, 12))}, "is empty: its shape is (0, 12, 12)"),
        (
            {"y": np.zeros((30, 3), int)},
            "is (30, 3), but row 0 is not one-hot: labels must be (N,), or (N, K) with one 1 a",
        ),
        (
            {"y": np.arange(30) * 10**6},
            "has 1 sample of class 0; at least 2 are needed, one to train and one to test on",
        ),
        ({"y": np.arange(30) % 3 + 0.5}, "has the label 0.5 at index 0, but labels must be whole numbers"),
        ({"y": np.zeros(30, int)}, "holds one class only (0)"),
    ],
)
def test_arrays_that_do_not_fit(refused, tmp_path, changed, message):
    refused("--model", "resnet8", "--data", npz(tmp_path, **changed), message=message)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named_with_its_sample(refused, tmp_path, value):
    x = arrays()["x"]
    x[17, 3, 4, 0] = value
    refused("--model", "resnet8", "--data", npz(tmp_path, x=x), message=f"has {value:g} at index (17, 3, 4, 0)")


def test_more_labels_than_the_classes_that_were_asked_for(refused, tmp_path):
    refused(
        "--model", "resnet8", "--data", npz(tmp_path), "--classes", 2, message="--classes 2 is too few: own has 3",
    )  # fmt: skip


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_truncated_npz(refused, tmp_path, share):
    refused("--data", cut(npz(tmp_path), share), message="own.npz is no .npz file, or it is truncated")


def test_one_broken_image_is_named(refused, tmp_path):
    image = pytest.importorskip("PIL.Image")
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(3):
            pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), dtype=np.uint8)
            image.fromarray(pixels).save(tmp_path / "pets" / name / f"{i}.png")
    args = "--model", "resnet8", "--data", tmp_path / "pets"
    refused(*args, message="need a size, rows and columns, to which they are stretched, such as --size 128x128")
    cut(tmp_path / "pets" / "dog" / "1.png")
    refused(*args, "--size", "16x16", message="dog/1.png")


# Models


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
def test_a_truncated_model(refused, tmp_path, share):
    path = cut(saved_net(tmp_path / "net.safetensors"), share)
    refused("--model", path, message=f"damaged: it ends after {path.stat().st_size} bytes, too early")


def test_models_that_are_none(refused, tmp_path):
    path = tmp_path / "net.safetensors"
    refused("--model", path, message=f"cannot read the weights {path}: No such file or directory")
    path.mkdir()
    refused("--model", path, message=f"cannot read the weights {path}: Is a directory")
    path.rmdir()
    path.write_bytes(b"x" * 1000)
    refused("--model", path, message=f"the weights {path} are no safetensors file or are damaged")
    save_file({"w": np.zeros(3)}, path)
    refused("--model", path, message="holds no net that is known by the names of its arrays")
    saved_net(path, {"model": "wach"})
    refused("--model", path, message="holds weights of 'wach', which the command line cannot build (")


def test_models_whose_arrays_do_not_fit(refused, tmp_path):
    path = tmp_path / "net.safetensors"
    name, w = next(iter(models.watch_weights(1).items()))
    saved_net(path, **{name: w[..., :-1]})
    refused("--model", path, message=f"{name} of {path} has shape {w[..., :-1].shape}, but the model needs {w.shape}")
    saved_net(path, **{name: np.where(w == w.max(), np.nan, w)})
    refused("--model", path, message=f"{name} of {path} holds NaN or infinite values")


def test_a_model_that_cannot_be_opened(refused, tmp_path, monkeypatch):
    path = saved_net(tmp_path / "net.safetensors")

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(files, "open", denied, raising=False)
    refused("--model", path, message=f"cannot read the weights {path}: Permission denied")


# Folders and disks


def test_an_output_that_is_a_file(refused, tmp_path):
    (tmp_path / "out").write_text("mine")
    refused(message=f"the folder {tmp_path / 'out'} cannot be written (File exists): choose one with --output")
    below = tmp_path / "out" / "deeper"
    refused(output=below, message=f"the folder {below} cannot be written (Not a directory)")


def test_an_output_on_a_read_only_file_system(refused, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()

    def read_only(path, data):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "write_bytes", read_only)
    refused(message=f"the folder {tmp_path / 'out'} cannot be written (Read-only file system)")


def with_stdout(args, stdout):
    """The finished command; its output is buffered as it is for a user, so that some is left when it ends."""
    return subprocess.run(
        [sys.executable, "-m", "gradledger", *args], cwd=ROOT, stdout=stdout, stderr=subprocess.PIPE, text=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )  # fmt: skip


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full exists on Linux only")
@pytest.mark.parametrize("args", [["--version"], ["cost", "--json"]])  # little is written at the end, much at once
def test_a_full_disk_behind_stdout(args):
    with open("/dev/full", "w") as full:
        done = with_stdout(args, full)
    assert done.returncode == 2
    assert done.stderr == "gradledger: cannot use the standard output: No space left on device\n"


@pytest.mark.parametrize("args", [["--version"], ["cost", "--json"]])
def test_a_reader_that_has_read_enough(args):
    """A closed pipe behind stdout is no error."""
    reader, writer = os.pipe()
    os.close(reader)
    done = with_stdout(args, writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


SHORT = ["adapt", "--epochs", "1", "--output"]


@pytest.mark.parametrize("args", [["--version"], ["cost", "--json"], SHORT])
def test_a_closed_stdout(args, tmp_path):
    """`>&-`: what opens next must not take its place, and the work is done."""
    command = [sys.executable, "-m", "gradledger", *args, *([tmp_path / "out"] if args is SHORT else [])]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- 2>"$0"', tmp_path / "said", *command], cwd=ROOT, check=False
    )  # fmt: skip
    assert (done.returncode, (tmp_path / "said").read_text()) == (0, "")
    assert args is not SHORT or len(list((tmp_path / "out").iterdir())) == 3


def test_an_ascii_stdout(tmp_path):
    out = tmp_path / "läuft"
    done = subprocess.run(
        [sys.executable, "-m", "gradledger", *SHORT, out], cwd=ROOT, capture_output=True, check=False,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"l?uft/adapted.safetensors" in done.stdout and len(list(out.iterdir())) == 3


# The run itself


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0 and re.fullmatch(r"\d+\.\d+\.\d+\n|not installed\n", capsys.readouterr().out)


BEFORE = r"\(it was [\d.e+-]+ before\)"


@pytest.mark.parametrize(
    "lr, message",
    [
        (1e10, rf"the loss is inf at step 2 {BEFORE}, first in layer loss"),
        (1e12, rf"the loss is nan at step 2 {BEFORE}, first in layer fc"),
    ],
)
def test_an_exploding_loss_says_where_and_keeps_finite_weights(tmp_path, capsys, lr, message):
    model, out = saved_net(tmp_path / "net.safetensors", **models.watch_weights(1)), tmp_path / "out"
    with pytest.raises(SystemExit) as left:
        cli.main(
            [
                "adapt",
                "--recipe",
                "plain",
                "--model",
                str(model),
                "--lr",
                str(lr),
                "--epochs",
                "2",
                "--output",
                str(out),
            ]
        )
    said = capsys.readouterr().err
    assert left.value.code == 1 and said.count("\n") == 1
    kept = f"a lower lr may help; the weights of step 1 are kept; they are in {out / DIVERGED}"
    assert re.match(f"gradledger: {message}; {kept}\n", said)
    assert [p.name for p in out.iterdir()] == [DIVERGED]
    assert all(np.isfinite(a).all() for a in load_file(out / DIVERGED).values())


def test_weights_of_a_net_that_the_command_line_does_not_build(refused, tmp_path):
    path = tmp_path / "net.safetensors"
    checkpoint.save(path, {"w": np.zeros(1, np.float32)}, {"model": "my-net"})
    refused("--model", path, message=f"{path} holds weights of 'my-net', which the command line cannot")


def test_a_patch_beyond_the_map_is_one_patch(tmp_path):
    settings = adapt.AdaptSettings(epochs=1, method=["gradient-filter:patch=1000"])
    record = adapt.run(settings, tmp_path, False, lambda progress: None)
    assert record["predicted"]["macs"] == record["measured"]["macs"]
    assert np.isfinite(record["losses"]).all() and record["method"] == "gradient-filter:patch=1000,align=centre"
